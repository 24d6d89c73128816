"""Private facts about what customers said of an instance that runs.

Part of the `instance` aggregate (see `events`, whose union has them).
"""

from __future__ import annotations

from datetime import datetime

from proto.base import Event


class InstanceWishHeeded(Event, tag="instance.wish_heeded", kw_only=True, frozen=True):
    """Said by older releases of a wish that was done. Since docs/adr/0021 the commit itself says so, for every wish."""

    instance_id: str
    request_id: str


class InstanceUsed(Event, tag="instance.used", kw_only=True, frozen=True):
    """The customer says the instance is in use: moves the auto-stop deadline."""

    instance_id: str
    used_at: datetime
    auto_stop_at: datetime | None = None


class InstanceKeptAlive(Event, tag="instance.kept_alive", kw_only=True, frozen=True):
    """No hibernation or auto-stop before `until`."""

    instance_id: str
    until: datetime
    auto_stop_at: datetime | None = None
