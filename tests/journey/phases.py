"""Kill -9 at every phase boundary of every way through a loss; it must end exactly once, as an undisturbed one does.

`test_phases.py` runs a few rounds, `just phases` all of them. A round takes the instance's machine away (or wishes
another one) and, at the moment a witness hears the fact of a boundary on PUB, kills the victim: a service, nats-server,
postgres, or the agents inside the machines. Then it is compared with a round in which nobody was killed: what was said,
fact by fact; the customer's files by checksum; how often the start command ran; the machines and volumes at the cloud.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.journey.chaos import runs
from tests.journey.patient import STARTED, Boundary, Patient, looks
from tests.journey.platform import Platform, platform, wipe
from tests.journey.processes import complaints_about_bugs, complaints_about_leftovers
from tests.journey.storm import two_primaries
from tests.journey.ways import WAYS, Way
from tests.journey.witness import Fact, Witness, witness

VICTIMS = ("failover", "warmpool", "instance", "agent", "nats", "postgres")
# Told of every 20th copy, so it depends on how long a round takes.
UNCOUNTED = {"standby.sync_completed"}
# What a fact says beside its name that must be as in an undisturbed round: no ids, no instants.
WORDS = ("strategy", "rung", "reason", "error", "on_cpu", "auto_recovery", "attempt", "mode", "role")
AROUND = {
    "DUMONT_SANDBOX_OPTIONS": json.dumps(
        {"boot_delay_ms": {"min": 0, "max": 0}, "outside_demand_ppm": 0, "gpus": 2_000}
    ),
    "DUMONT_FAILOVER_SPACING_S": "0",
    "DUMONT_SNAPSHOT_INTERVAL_S": "0",  # a snapshot in time would be told in one round and not in another
    "DUMONT_FAILOVERS_PER_DAY_MAX": "1000",
    "DUMONT_HEARTBEAT_S": "1",
    "DUMONT_HEARTBEAT_MISSES_MAX": "120",  # a silence of those who were killed is no news here
}
Say = Callable[[str], None]


class Round(NamedTuple):
    """Whom to kill, how long after which boundary of which way."""

    way: str
    boundary: Boundary
    victim: str
    late_s: float = 0.0


class Ward:
    """One instance, and how an undisturbed round of its way went."""

    def __init__(self, up: Platform, heard: Witness, way: Way) -> None:
        self.up, self.way, self.patient = up, way, Patient(up, heard)
        self.usual: Counter[str] = Counter()
        self._lines: list[str] = []
        self._counted = 0  # facts; what comes later belongs to the next round

    async def admit(self) -> list[str]:
        """Protected, and lost once for comparison."""
        await self.way.admit(self.patient)
        self._lines = await self._started(1)
        self._counted = len(self.patient.heard.facts)
        self.usual = await self._round(lambda _: None)
        return await self._complaints()

    async def disturbed(self, disturbance: Round) -> list[str]:
        """What a round with this kill did otherwise than an undisturbed one."""
        _, boundary, victim, late_s = disturbance
        killed: list[int] = []

        def kill() -> None:
            for pid in self._pids(victim):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

        def at_boundary(fact: Fact) -> None:
            if (fact.name, fact.instance_id) != (boundary.name, self.patient.instance_id):
                return
            if len(self.patient.named(boundary.name)) == boundary.nth:
                if late_s:
                    asyncio.get_running_loop().call_later(late_s, kill)
                else:
                    kill()

        await self._is_back(victim)
        told = await self._round(at_boundary)
        async for _ in looks():
            if killed or not late_s:
                break
        found = [] if killed else ["nobody was killed"]
        if told != self.usual:
            found.append(f"too much {dict(told - self.usual)}, missing {dict(self.usual - told)}")
        return [*found, *await self._complaints()]

    async def discharge(self) -> list[str]:
        """Deleted, it leaves nothing behind."""
        await self.patient.granted("DELETE", f"/instances/{self.patient.instance_id}")
        await self.patient.fact("instance.deleted")
        return await self._at_the_cloud(0, 0)

    async def _round(self, heard: Callable[[Fact], None]) -> Counter[str]:
        """What was said of it in a round."""
        patient = self.patient
        patient.heard_before = self._counted
        failover_seq = await patient.heard.log.last_seq("EVT_FAILOVER")
        patient.heard.heard = heard
        await self.way.strike(patient)
        await self.way.over(patient, failover_seq)
        await patient.until_running()
        patient.heard.heard = lambda _: None
        self._counted = len(patient.heard.facts)
        return Counter(gist(fact) for fact in patient.facts() if fact.name not in UNCOUNTED)

    async def _is_back(self, victim: str) -> None:
        """Whoever was killed before, by another round, can be killed again."""
        async for _ in looks():
            if any(runs(pid) for pid in self._pids(victim)):
                return
        raise AssertionError(f"{victim} is not back")

    def _pids(self, victim: str) -> list[int]:
        return self.patient.agents() if victim == "agent" else [self.up.status_pids()[victim]]

    async def _complaints(self) -> list[str]:
        """About what the customer and the cloud have now."""
        before, starts = self._lines, self.way.starts
        self._lines = await self._started(len(before) + starts)
        found = [*await self._at_the_cloud(self.way.machines, self.way.volumes), *await self.patient.spoilt()]
        if self._lines[: len(before)] != before or len(self._lines) != len(before) + starts:
            found.append(f"lines of start commands, {starts} new ones expected: {before} became {self._lines}")
        return [*found, *(f"in {log}: {words}" for log, words in self.patient.bugs_of_agents())]

    async def _started(self, count: int) -> list[str]:
        """The lines that start commands wrote, once there are so many."""
        path, lines = await self.patient.workspace() / STARTED, list[str]()
        async for _ in looks():
            lines = path.read_text().splitlines() if path.is_file() else []
            if len(lines) >= count:
                break
        return lines

    async def _at_the_cloud(self, machines: int, volumes: int) -> list[str]:
        """It has so many running machines and volumes, and no process of another one; an orphan takes some seconds."""
        what = ""
        async for _ in looks():
            listed = (await self.patient.cloud("GET", "/v1/machines"))["machines"]
            running = {one["machine_id"] for one in listed if one["status"] == "running"}
            kept = (await self.patient.cloud("GET", "/v1/volumes"))["volumes"]
            leading = self.patient.leaders()
            if (len(listed), len(running), len(leading), len(kept)) == (machines, machines, machines, volumes):
                return []
            what = f"{listed}, {kept}, processes {leading}"
        return [f"{machines} machines and {volumes} volumes expected: {what}"]


def gist(fact: Fact) -> str:
    """What of a fact is the same in every round: no ids, no instants."""
    words = [f"{word}={fact.body[word]}" for word in WORDS if word in fact.body]
    if fact.name in ("failover.completed", "failover.failed"):
        words += [f"{one['rung']}:{one['outcome']}:{one.get('reason', '')}" for one in fact.body["attempts"]]
    return " ".join((fact.name, *words))


async def _rounds(up: Platform, rounds: Sequence[Round], say: Say) -> list[str]:
    found: list[str] = []
    async with witness(up.nats_url) as heard:
        for way in WAYS:
            mine = [each for each in rounds if each.way == way.name]
            if mine:
                found += await _on_one(Ward(up, heard, way), mine, say)
        return [*found, *await two_primaries(heard)]


async def _on_one(ward: Ward, rounds: Sequence[Round], say: Say) -> list[str]:
    """All rounds of one way, on one instance."""
    found = [f"{ward.way.name}, undisturbed: {complaint}" for complaint in await ward.admit()]
    say(f"{ward.way.name}, undisturbed: {dict(ward.usual)}")
    for each in rounds:
        began_s = time.monotonic()
        what = f"{each.way:15} {each.victim:9} killed {each.late_s * 1000:4.0f} ms after {each.boundary!s:27}"
        try:
            complaints = await ward.disturbed(each)
        except AssertionError as failure:
            say(f"{what}: {failure}")
            with suppress(AssertionError):  # what it leaves is no fault of the next
                await ward.discharge()
            return [*found, f"{what}: {failure}"]
        found += [f"{what}: {complaint}" for complaint in complaints]
        say(f"{what} {time.monotonic() - began_s:5.1f} s {complaints or ''}")
    return [*found, *(f"{ward.way.name}, deleted: {complaint}" for complaint in await ward.discharge())]


def run(data_dir: Path, rounds: Sequence[Round], say: Say = print) -> list[str]:
    """Complaints of these rounds, on a platform of their own."""
    with platform(data_dir, environment=AROUND) as up:
        return asyncio.run(_rounds(up, rounds, say))


def every_round(ways: Sequence[str], victims: Sequence[str], late_ms: int, seed: int) -> list[Round]:
    """`late_ms`: each kill comes up to so long after its boundary, at random."""
    chance = random.Random(seed)
    return [
        Round(way.name, boundary, victim, chance.uniform(0, late_ms) / 1_000)
        for way in WAYS
        if way.name in ways
        for boundary in way.boundaries
        for victim in victims
        if victim != "agent" or boundary.name not in way.without_agents
    ]


def _chosen() -> list[Round]:
    options = argparse.ArgumentParser(prog="just phases", description=__doc__)
    names = [way.name for way in WAYS]
    options.add_argument("--way", choices=names, action="append", help="all")
    options.add_argument("--victim", choices=VICTIMS, action="append", help="all")
    options.add_argument("--late-ms", type=int, default=0, help="kill up to so long after each boundary, at random")
    options.add_argument("--seed", type=int, default=1, help="of that chance")
    chosen = options.parse_args()
    return every_round(chosen.way or names, chosen.victim or VICTIMS, chosen.late_ms, chosen.seed)


def main() -> int:
    rounds = _chosen()
    folder = Path(tempfile.mkdtemp(prefix="dumont-phases-"))
    began_s = time.monotonic()
    found = run(folder / "data", rounds)
    found += [*complaints_about_leftovers(folder / "data"), *complaints_about_bugs(folder / "data")]
    for complaint in found:
        print("COMPLAINT", complaint, file=sys.stderr)
    print(f"{len(rounds)} rounds in {time.monotonic() - began_s:.0f} s")
    if found:
        print(f"everything is kept in {folder}")
        return 1
    wipe(folder / "data")
    folder.rmdir()
    print("every loss ended once, as undisturbed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
