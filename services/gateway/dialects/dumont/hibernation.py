"""Dumont: /hibernation, and an instance hibernated on request (seed 000, Hibernation; contract dumont 5)."""

from __future__ import annotations

from msgspec import Struct

from proto.instance.commands import HibernateInstance
from proto.instance.hibernation_queries import GetHibernationStats, HibernationStats
from services.gateway.call import Answer, Call
from services.gateway.dialects import usd
from services.gateway.dialects.dumont import DIALECT, ok
from services.gateway.dialects.dumont.instance_object import DumontInstance
from services.gateway.dialects.dumont.instances import NoBody, WaitQuery, settled
from services.gateway.routing import Route

SECONDS_PER_HOUR = 3600
HOUR_PLACES = 4  # a third of a second


class DumontSaved(Struct, frozen=True, kw_only=True):
    instance_id: str
    hibernations: int
    hours_saved: float
    savings: float


class DumontHibernationStats(Struct, frozen=True, kw_only=True):
    """Hours without a machine, at the price it had before. Money in USD."""

    total_hibernations: int
    total_hours_saved: float
    total_savings: float
    machines: list[DumontSaved]


async def stats(call: Call) -> Answer:
    found: HibernationStats = await call.ask(GetHibernationStats(account_id=call.account_id))
    return ok(
        DumontHibernationStats(
            total_hibernations=found.total,
            total_hours_saved=_hours(found.saved_s),
            total_savings=usd(found.saved_usd_micros),
            machines=[
                DumontSaved(
                    instance_id=one.instance_id,
                    hibernations=one.hibernations,
                    hours_saved=_hours(one.saved_s),
                    savings=usd(one.saved_usd_micros),
                )
                for one in found.instances
            ],
        )
    )


async def hibernate(call: Call) -> Answer:
    wish_id = call.wish_id("hibernate")
    await call.command(
        HibernateInstance(now=call.now, instance_id=call.path["id"], account_id=call.account_id, request_id=wish_id)
    )
    return await settled(call, ("hibernated", "ready", "interrupted"), done=("hibernated",))


def _hours(seconds: int) -> float:
    return round(seconds / SECONDS_PER_HOUR, HOUR_PLACES)


ROUTES = (
    Route("GET", "/api/v1/hibernation/stats", DIALECT, "instances:read", "read", stats,
          "What hibernation has saved", reply=DumontHibernationStats),
    Route("POST", "/api/v1/instances/{id}/hibernate", DIALECT, "instances:write", "write", hibernate,
          "Hibernate a machine now", body=NoBody, query=WaitQuery, reply=DumontInstance, statuses=(202, 200)),
)  # fmt: skip
