"""What the platform says while an act is on: public events as they happen, each with its distance from the loss.

Used by `acts`. Asks `GET /events` and waits there, as any customer's program could.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from msgspec import Struct

from services.cli.demo.stage import Stage

WAIT_S = 1
PAGE = 100
# What the fact says beside its name, in the order in which a person wants to know it.
TOLD = ("reason", "strategy", "rung", "status", "took_ms", "total_ms", "data_loss_window_s", "files", "bytes", "error")


class Moment(Struct, frozen=True):
    """One event. `who` is the service that said it; `after_ms` counts from when the machine was taken."""

    after_ms: int
    who: str
    event: str
    facts: str
    failover_id: str = ""


class Timeline:
    """Follows the account's events from now on."""

    def __init__(self, stage: Stage, show: Callable[[Moment], None]) -> None:
        self._stage = stage
        self._show = show
        self._zero_s, self._instance_id = 0.0, ""
        self._heard = asyncio.Condition()
        self.moments: list[Moment] = []

    def begin(self, zero_s: float, instance_id: str) -> None:
        """From here on, what is said of this instance: a new act."""
        self._zero_s, self._instance_id = zero_s, instance_id
        self.moments = []

    def rest(self) -> None:
        """Between two acts nothing is shown."""
        self._zero_s = 0.0

    async def follow(self, ready: asyncio.Event) -> None:
        """For ever; cancelled at the end of the show."""
        after = "now"
        page = await self._stage.ask("GET", "/events", after=after, limit=PAGE)
        ready.set()
        while True:
            page = await self._stage.ask("GET", "/events", after=page["next_after"], limit=PAGE, wait_s=WAIT_S)
            async with self._heard:
                for event in page["events"]:
                    self._note(event)
                self._heard.notify_all()

    def _note(self, event: dict[str, Any]) -> None:
        at_s = datetime.fromisoformat(event["timestamp"]).timestamp()
        facts: dict[str, Any] = event.get("data") or {}
        if at_s < self._zero_s or not self._zero_s or facts.get("instance_id") != self._instance_id:
            return
        told = ", ".join(f"{name} {facts[name]}" for name in TOLD if facts.get(name) not in (None, ""))
        who = event["type"].split(".")[0]
        after_ms = round((at_s - self._zero_s) * 1000)
        moment = Moment(after_ms, who, event["type"], told, facts.get("failover_id") or "")
        self.moments.append(moment)
        self._show(moment)

    async def until(self, *events: str, timeout_s: float) -> Moment | None:
        """The first of these events in this act; None when none comes."""
        try:
            async with asyncio.timeout(timeout_s), self._heard:
                await self._heard.wait_for(lambda: self.first(*events) is not None)
        except TimeoutError:
            return None
        return self.first(*events)

    def first(self, *events: str) -> Moment | None:
        return next((moment for moment in self.moments if moment.event in events), None)
