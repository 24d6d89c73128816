"""Creates ask for an account's protection once a second, and a change through this gateway counts at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

from libs.spec.hand_clock import HandClock
from proto.failover.queries import NewMachineProtection
from proto.failover.words import RegionalVolumeSettings
from services.gateway.gateway import PROTECTION_AGE_S_MAX, PROTECTIONS_MAX, Protections

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NONE = NewMachineProtection(None)
VOLUME = NewMachineProtection(RegionalVolumeSettings())


@dataclass
class Owner:
    """The failover service, as far as it is asked; `gate` holds its answer back."""

    says: NewMachineProtection = NONE
    asked: int = 0
    gate: asyncio.Event | None = field(default=None)

    async def ask(self) -> NewMachineProtection:
        self.asked += 1
        said = self.says
        if self.gate is not None:
            await self.gate.wait()
        return said


async def test_an_answer_serves_for_a_second() -> None:
    clock, owner = HandClock(NOON), Owner()
    known = Protections(clock)
    assert [await known.of("acct_1", owner.ask) for _ in range(3)] == [NONE] * 3
    assert owner.asked == 1
    await known.of("acct_2", owner.ask)
    assert owner.asked == 2
    owner.says = VOLUME
    clock.wait(seconds=PROTECTION_AGE_S_MAX)
    assert await known.of("acct_1", owner.ask) == VOLUME


async def test_a_change_through_this_gateway_counts_at_once() -> None:
    owner, known = Owner(), Protections(HandClock(NOON))
    await known.of("acct_1", owner.ask)
    owner.says = VOLUME
    known.forget("acct_1")
    assert await known.of("acct_1", owner.ask) == VOLUME


async def test_an_answer_that_a_change_has_overtaken_is_not_kept() -> None:
    owner, known = Owner(gate=asyncio.Event()), Protections(HandClock(NOON))
    before = asyncio.create_task(known.of("acct_1", owner.ask))
    while not owner.asked:
        await asyncio.sleep(0)
    owner.says = VOLUME
    known.forget("acct_1")
    assert owner.gate is not None
    owner.gate.set()
    await before
    assert await known.of("acct_1", owner.ask) == VOLUME


async def test_the_account_asked_for_longest_ago_is_forgotten_first() -> None:
    owner, known = Owner(), Protections(HandClock(NOON))
    for number in range(PROTECTIONS_MAX + 1):
        await known.of(f"acct_{number}", owner.ask)
    asked = owner.asked
    await known.of("acct_1", owner.ask)
    assert owner.asked == asked
    await known.of("acct_0", owner.ask)
    assert owner.asked == asked + 1
