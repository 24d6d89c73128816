"""Dumont: /failover and /failovers. Execute, test, readiness, status, strategies, history (contract dumont 3).

`{machine_id}` of seed 000 is our instance id.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from proto.failover.commands import ExecuteFailover
from proto.failover.queries import (
    LIST_LIMIT_MAX,
    FailoverList,
    FailoverView,
    GetFailover,
    GetReadiness,
    ListFailovers,
    Readiness,
)
from proto.failover.words import FailoverStatus, Strategy
from proto.instance.copy_queries import CpuStandbyList, CpuStandbyView, ListCpuStandbys
from proto.instance.queries import GetInstance, InstanceView, MachineView
from proto.warmpool.queries import GetPool, PoolView
from services.gateway.call import Answer, Call
from services.gateway.dialects.dumont import DIALECT, LIST_LIMIT_DEFAULT, ok, page
from services.gateway.dialects.dumont.failover_object import (
    DumontFailover,
    DumontReadiness,
    DumontReport,
    DumontStatus,
    DumontTest,
    failover,
    plan_message,
    readiness,
    report,
    status,
    test_result,
)
from services.gateway.dialects.dumont.failover_strategies import STRATEGIES, DumontStrategies
from services.gateway.dialects.dumont.instances import NoBody
from services.gateway.dialects.dumont.standby_readiness import with_cpu_standby
from services.gateway.routing import Route

WAIT_S_MAX = 150  # a rung's own time and a little more
WAIT_POLL_S = 0.05
WAY_IN_S_MAX = 2.0  # rows of two services are milliseconds apart
Id = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]
Hint = Annotated[str, Meta(max_length=500)]


class ExecuteBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`gpu_instance_id`, `ssh_host` and `ssh_port` are the original's: the platform knows them itself."""

    machine_id: Id
    gpu_instance_id: Hint | int | None = None
    ssh_host: Hint | None = None
    ssh_port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    workspace_path: Hint = "/workspace"
    force_strategy: Strategy | None = None
    is_async: bool = msgspec.field(default=True, name="async")
    wait: bool = False


class ExecuteQuery(Struct, frozen=True, forbid_unknown_fields=True):
    wait: bool = False


class TestQuery(Struct, frozen=True, forbid_unknown_fields=True):
    __test__ = False

    dry_run: bool = True
    strategy: Strategy | None = None
    gpu_instance_id: Hint = ""
    ssh_host: Hint = ""
    ssh_port: Annotated[int, Meta(ge=1, le=65535)] | None = None


class FailoversQuery(Struct, frozen=True, forbid_unknown_fields=True):
    machine_id: Annotated[str, Meta(max_length=128)] = ""
    status: FailoverStatus | None = None
    limit: Annotated[int, Meta(ge=1, le=LIST_LIMIT_MAX)] = LIST_LIMIT_DEFAULT
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0


async def execute(call: Call) -> Answer:
    """202 with the failover under way, or with `wait` 200 when it is over; a failed one says `success: false`."""
    body: ExecuteBody = call.body
    must_wait = body.wait or call.query.wait or not body.is_async
    failover_id = await _start(call, body.machine_id, body.force_strategy, is_test=False)
    view = await _wait(call, failover_id, WAIT_S_MAX if must_wait else 0)
    return ok(failover(view, await _instance_after(call, view)), 200 if must_wait else 202)


async def _start(call: Call, instance_id: str, strategy: Strategy | None, *, is_test: bool) -> str:
    instance = await call.ask_current(GetInstance(instance_id=instance_id, account_id=call.account_id))
    machine = primary_of(instance)
    failover_id = call.derived_id("fo", instance_id)
    wish = ExecuteFailover(
        now=call.now,
        instance_id=instance_id,
        account_id=call.account_id,
        failover_id=failover_id,
        machine_id="" if machine is None else machine.machine_id,
        instance_status=instance.status,
        gpu=instance.gpu,
        force_strategy=strategy,
        test=is_test,
    )
    await call.command(wish)
    return failover_id


def primary_of(instance: InstanceView) -> MachineView | None:
    """The machine that carries the instance, or carried it last."""
    mine = (machine for machine in instance.machines if machine.role == "primary")
    return next((machine for machine in mine if machine.generation == instance.generation), None)


async def _wait(call: Call, failover_id: str, within_s: float) -> FailoverView:
    clock = call.gateway.clock
    until_s = clock.monotonic_s() + within_s
    while True:
        view: FailoverView = await call.ask(GetFailover(failover_id=failover_id, account_id=call.account_id))
        if view.status != "in_progress" or clock.monotonic_s() >= until_s:
            return view
        await clock.sleep(WAIT_POLL_S)


async def _instance_after(call: Call, view: FailoverView) -> InstanceView:
    """Where it is reached now: the instance's owner may hear a moment after the failover's that the way in is new."""
    clock = call.gateway.clock
    until_s = clock.monotonic_s() + WAY_IN_S_MAX
    while True:
        instance = await _instance(call, view.instance_id)
        carrier = primary_of(instance)
        is_told = instance.status == "ready" and carrier is not None and carrier.machine_id == view.machine_id
        if view.status != "succeeded" or is_told or clock.monotonic_s() >= until_s:
            return instance
        await clock.sleep(WAIT_POLL_S)


async def get_readiness(call: Call) -> Answer:
    instance = await _instance(call, call.path["machine_id"])
    cpu = await _cpu_standby(call, instance.instance_id)
    found = await _readiness(call, instance.instance_id, cpu)
    return ok(readiness(found, await _pool(call, instance.instance_id), cpu, instance, call.now))


async def get_status(call: Call) -> Answer:
    instance = await _instance(call, call.path["machine_id"])
    instance_id = instance.instance_id
    recent: FailoverList = await call.ask(ListFailovers(account_id=call.account_id, instance_id=instance_id, limit=2))
    cpu = await _cpu_standby(call, instance_id)
    found = await _readiness(call, instance_id, cpu)
    shown = [failover(view, instance) for view in recent.items]
    return ok(status(found, await _pool(call, instance_id), cpu, instance, recent=shown, now=call.now))


async def test(call: Call) -> Answer:
    """A dry run touches nothing: it tells the ladder as it would be climbed. The real one is a failover."""
    query: TestQuery = call.query
    instance = await _instance(call, call.path["machine_id"])
    if query.dry_run:
        cpu = await _cpu_standby(call, instance.instance_id)
        found = await _readiness(call, instance.instance_id, cpu, query.strategy)
        pool = await _pool(call, instance.instance_id)
        return ok(
            DumontTest(
                dry_run=True,
                would_succeed=found.is_ready,
                readiness=readiness(found, pool, cpu, instance, call.now),
                message=plan_message(found, call.say),
            )
        )
    failover_id = await _start(call, instance.instance_id, query.strategy, is_test=True)
    view = await _wait(call, failover_id, WAIT_S_MAX)
    return ok(test_result(view, await _instance_after(call, view)))


async def strategies(_call: Call) -> Answer:
    return ok(DumontStrategies(STRATEGIES))


async def list_failovers(call: Call) -> Answer:
    query: FailoversQuery = call.query
    found = await _list(call, query)
    items = [failover(view, None) for view in found.items]
    return page(items, total=found.total, limit=query.limit, offset=query.offset)


async def get_report(call: Call) -> Answer:
    """Numbers over all failovers that match, with the last ten."""
    query: FailoversQuery = call.query
    return ok(report(await _list(call, msgspec.structs.replace(query, limit=10, offset=0))))


async def get_failover(call: Call) -> Answer:
    view: FailoverView = await call.ask(GetFailover(failover_id=call.path["id"], account_id=call.account_id))
    return ok(failover(view, await _instance(call, view.instance_id)))


async def _list(call: Call, query: FailoversQuery) -> FailoverList:
    return await call.ask(
        ListFailovers(
            account_id=call.account_id,
            instance_id=query.machine_id,
            status=query.status,
            limit=query.limit,
            offset=query.offset,
        )
    )


async def _instance(call: Call, instance_id: str) -> InstanceView:
    return await call.ask(GetInstance(instance_id=instance_id, account_id=call.account_id))


async def _readiness(
    call: Call, instance_id: str, cpu: CpuStandbyView | None, strategy: Strategy | None = None
) -> Readiness:
    found = await call.ask(GetReadiness(instance_id=instance_id, account_id=call.account_id, strategy=strategy))
    return with_cpu_standby(found, cpu, call.now)


async def _cpu_standby(call: Call, instance_id: str) -> CpuStandbyView | None:
    found: CpuStandbyList = await call.ask(ListCpuStandbys(account_id=call.account_id, instance_id=instance_id))
    return found.items[0] if found.items else None


async def _pool(call: Call, instance_id: str) -> PoolView:
    return await call.ask(GetPool(instance_id=instance_id, account_id=call.account_id))


ROUTES = (
    Route("POST", "/api/v1/failover/execute", DIALECT, "failover:execute", "write", execute, "Fail over now",
          body=ExecuteBody, query=ExecuteQuery, reply=DumontFailover, statuses=(202, 200)),
    Route("GET", "/api/v1/failover/readiness/{machine_id}", DIALECT, "failover:read", "read", get_readiness,
          "Would a failover succeed now?", reply=DumontReadiness),
    Route("GET", "/api/v1/failover/status/{machine_id}", DIALECT, "failover:read", "read", get_status,
          "Protection of a machine, its current and last failover", reply=DumontStatus),
    Route("POST", "/api/v1/failover/test/{machine_id}", DIALECT, "failover:execute", "write", test,
          "Try a failover (dry run unless dry_run=false)", body=NoBody, query=TestQuery, reply=DumontTest),
    Route("GET", "/api/v1/failover/strategies", DIALECT, "failover:read", "read", strategies, "List strategies",
          reply=DumontStrategies),
    Route("GET", "/api/v1/failover/report", DIALECT, "failover:read", "read", get_report, "Success rate and MTTR",
          query=FailoversQuery, reply=DumontReport),
    Route("GET", "/api/v1/failovers", DIALECT, "failover:read", "read", list_failovers, "List failovers",
          query=FailoversQuery, reply=list[DumontFailover], has_meta=True),
    Route("GET", "/api/v1/failovers/{id}", DIALECT, "failover:read", "read", get_failover, "Read a failover",
          reply=DumontFailover),
)  # fmt: skip
