"""What hibernation has saved: asked on `qry.instance.hibernation_stats`."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from proto.base import Query


class SavedByInstance(Struct, frozen=True):
    """What one instance did not cost while it was hibernated, at the price of the machine it had before."""

    instance_id: str
    hibernations: int
    saved_s: int
    saved_usd_micros: int


class HibernationStats(Struct, frozen=True):
    total: int
    saved_s: int
    saved_usd_micros: int
    instances: list[SavedByInstance]


class GetHibernationStats(Query, tag="hibernation_stats", frozen=True, kw_only=True):
    service: ClassVar[str] = "instance"
    reply: ClassVar[object] = HibernationStats
    account_id: str
