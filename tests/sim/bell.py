"""A small service for the simulator's own tests: a bell is pressed, the hand rings it outside, a deadline mutes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from libs.refusal import OutcomeUnknown, Refused
from libs.runtime.service import Aggregate, Effect, Job, Row, Service, deadline, no_deadline
from libs.sim.life import Life
from proto.base import Command, Event, Heard

MUTE_AFTER = timedelta(seconds=20)


class Pressed(Event, tag="bell.pressed", frozen=True, kw_only=True):
    public = True
    bell_id: str
    account_id: str
    press: int
    pressed_at: datetime


class Rung(Event, tag="bell.rung", frozen=True, kw_only=True):
    bell_id: str
    press: int


class Muted(Event, tag="bell.muted", frozen=True, kw_only=True):
    public = True
    bell_id: str
    account_id: str


class BellCommand(Command, frozen=True, kw_only=True):
    service: ClassVar[str] = "bell"
    aggregate: ClassVar[str] = "bell"
    bell_id: str

    @property
    def aggregate_id(self) -> str:
        return self.bell_id


class Press(BellCommand, tag="press", frozen=True, kw_only=True):
    press: int


class ReportRung(BellCommand, tag="report_rung", frozen=True, kw_only=True):
    press: int


class Mute(BellCommand, tag="mute", frozen=True, kw_only=True):
    pass


class Bell(Struct, frozen=True):
    presses: tuple[int, ...] = ()
    rung: tuple[int, ...] = ()
    pressed_at: datetime | None = None
    muted: bool = False


def decide(state: Bell, command: Press | ReportRung | Mute) -> Sequence[Event]:
    bell_id = command.bell_id
    match command:
        case Press():
            if command.press in state.presses:
                return []
            if state.muted:
                raise Refused("BELL_IS_MUTE")
            return [Pressed(bell_id=bell_id, account_id="acct_1", press=command.press, pressed_at=command.now)]
        case ReportRung():
            return [] if command.press in state.rung else [Rung(bell_id=bell_id, press=command.press)]
        case Mute():
            if state.muted or state.pressed_at is None or command.now < state.pressed_at + MUTE_AFTER:
                return []
            return [Muted(bell_id=bell_id, account_id="acct_1")]


def evolve(state: Bell, event: Pressed | Rung | Muted) -> Bell:
    match event:
        case Pressed():
            return msgspec.structs.replace(state, presses=(*state.presses, event.press), pressed_at=event.pressed_at)
        case Rung():
            return msgspec.structs.replace(state, rung=(*state.rung, event.press))
        case Muted():
            return msgspec.structs.replace(state, muted=True)


def project(heard: Heard) -> Iterable[Row]:
    event = heard.event
    match event:
        case Pressed():
            mute = msgspec.json.encode({"type": "mute", "bell_id": event.bell_id}).decode()
            yield Row("bells", {"bell_id": event.bell_id}, {"last_press": event.press})
            yield deadline(event.bell_id, "mute", event.pressed_at + MUTE_AFTER, mute)
        case Rung():
            yield Row("rings", {"bell_id": event.bell_id, "press": event.press}, {})
        case Muted():
            yield Row("bells", {"bell_id": event.bell_id}, {"muted": True})
            yield no_deadline(event.bell_id, "mute")
        case _:
            pass


class Tower:
    """The outside: rings once per key, sometimes without saying so."""

    def __init__(self) -> None:
        self.rings: dict[str, int] = {}

    async def ring(self, life: Life, key: str) -> None:
        await life.step()
        self.rings.setdefault(key, 0)
        self.rings[key] += 1
        if life.draws.happens(life.draws.faults.append_ack_lost):
            raise OutcomeUnknown(key)


async def ring(job: Job, world: tuple[Tower, Life]) -> Sequence[Command]:
    tower, life = world
    event: Any = job.heard.event
    await tower.ring(life, f"{event.bell_id}/{event.press}")
    return [ReportRung(bell_id=event.bell_id, press=event.press, now=job.heard.at)]


BELL = Service(
    name="bell",
    aggregates=[Aggregate("bell", Bell(), decide, evolve, Pressed | Rung | Muted)],
    commands=Press | ReportRung | Mute,
    react=lambda _: (),
    project=project,
    schema_sql="",
    effects={Pressed: Effect(run=ring)},
)
