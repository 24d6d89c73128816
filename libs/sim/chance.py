"""Luck: how often what goes wrong, and the seeded generators that decide each time.

Called by every other module of `libs.sim` and by scenarios. Owns all randomness of a run. Each user has its own
generator, named, so that one more draw in one place does not change the luck of all others.
"""

from __future__ import annotations

from random import Random

from msgspec import Struct


class Faults(Struct, frozen=True, kw_only=True):
    """Shares (0..1) of calls that meet a fault, and how slow the world is. Times in virtual seconds.

    The defaults make roughly every tenth call go wrong somehow: a run of a few hundred calls then meets every kind,
    and still gets somewhere.
    """

    delay_s_max: float = 0.05
    delay_share: float = 0.4
    append_contended: float = 0.03
    append_lost: float = 0.02  # never stored, no answer
    append_late: float = 0.02  # no answer, stored some time later
    append_ack_lost: float = 0.04  # stored, no answer
    unknown_after_s: float = 1.0  # how long the log waits for an answer
    read_fails: float = 0.02
    batch_split: float = 0.3  # a follower gets a batch in two pieces, the second late
    store_fails: float = 0.02  # nothing done
    store_ack_lost: float = 0.01  # done, but the connection broke before the answer
    lease_lost: float = 0.1  # share of leases that end by a lost connection
    lease_lost_after_s_max: float = 60.0
    request_lost: float = 0.04
    reply_lost: float = 0.04
    request_doubled: float = 0.05
    crash_every_s: float = 25.0  # mean time between two kills of a process; 0: never
    down_s_max: float = 12.0  # longer than the dedup window of `libs.sim.log`


CALM = Faults(
    delay_s_max=0.002, delay_share=0.1, append_contended=0, append_lost=0, append_late=0, append_ack_lost=0,
    read_fails=0, batch_split=0, store_fails=0, store_ack_lost=0, lease_lost=0, request_lost=0, reply_lost=0,
    request_doubled=0, crash_every_s=0,
)  # fmt: skip


class Chance:
    """The luck of one run. `calm()` ends all faults, so that the run can come to rest."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self.seed = seed
        self.faults = faults

    def generator(self, name: str) -> Random:
        """The generator of one user; the same seed and name always give the same draws."""
        return Random(f"{self.seed}/{name}")  # noqa: S311 - reproducible on purpose

    def calm(self) -> None:
        self.faults = CALM


class Draws:
    """One user's generator with the questions that ports ask."""

    __slots__ = ("_random", "chance")

    def __init__(self, chance: Chance, name: str) -> None:
        self.chance = chance
        self._random = chance.generator(name).random

    @property
    def faults(self) -> Faults:
        return self.chance.faults

    def happens(self, share: float) -> bool:
        return share > 0 and self._random() < share

    def up_to(self, seconds: float) -> float:
        return self._random() * seconds

    def delay_s(self) -> float:
        """How long this step takes; most take no time at all."""
        faults = self.chance.faults
        draw = self._random()
        return draw / faults.delay_share * faults.delay_s_max if draw < faults.delay_share else 0.0
