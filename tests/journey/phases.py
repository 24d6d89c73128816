"""Kill -9 at every phase boundary of a failover; it must end exactly once, with the result of an undisturbed one.

`test_phases.py` runs one round per victim, `just phases` all of them. A round takes the primary's machine away and, at
the moment a witness hears the phase's fact on PUB, kills the victim: a service, nats-server, postgres, or the agents
inside the machines. What was said about the instance until its next standby was there is then compared, fact
by fact, with a round in which nobody was killed; and the customer's file must be on the new machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from libs.refusal import Transient
from tests.journey.platform import Platform, machines_directory, platform, wipe
from tests.journey.storm import two_primaries
from tests.journey.witness import Fact, Witness, witness

PHASES = (
    "instance.interrupted",
    "failover.rung_tried",
    "warmpool.claimed",
    "instance.recovering",
    "instance.ready",
    "failover.completed",
)
VICTIMS = ("failover", "warmpool", "instance", "agent", "nats", "postgres")
ROUND_MAX_S = 60.0
NOTE, WORK = "notes.txt", "three days of work"
AROUND = {
    "DUMONT_SANDBOX_OPTIONS": json.dumps(
        {"boot_delay_ms": {"min": 0, "max": 0}, "outside_demand_ppm": 0, "gpus": 2_000}
    ),
    "DUMONT_FAILOVER_SPACING_S": "0",
    "DUMONT_SNAPSHOT_INTERVAL_S": "0",  # a snapshot in time would be told in one round and not in another
    "DUMONT_FAILOVERS_PER_DAY_MAX": "1000",
}


class Patient:
    """One instance with a hot standby, failed over again and again."""

    def __init__(self, up: Platform, heard: Witness) -> None:
        self.up, self.heard = up, heard
        self.instance_id = ""
        self.usual: Counter[str] = Counter()

    async def admit(self) -> None:
        made = await self._granted("POST", "/instances", {"gpu": "RTX 4090"})
        self.instance_id = made["id"]
        await self.heard.fact("instance.ready", self.instance_id, timeout_s=ROUND_MAX_S)
        await self._until("running")
        (self._workspace(await self._machine()) / NOTE).write_text(WORK)
        await self._granted("POST", "/warmpool/provision", {"machine_id": self.instance_id, "mode": "hot"})
        await self._protected(0)
        self.usual = Counter(await self.round("", ""))

    async def round(self, phase: str, victim: str) -> list[str]:
        """One failover; the names of all facts about the instance, until it is protected again. Empty: no kill."""
        since = len(self.heard.facts)
        failover_seq = await self.heard.log.last_seq("EVT_FAILOVER")
        self.heard.heard = self._killer(phase, self._pids(victim)) if victim else lambda _: None
        machine = await self._machine()
        body = {"reason": "spot_preemption"}
        await asyncio.to_thread(self.up.cloud, "POST", f"/v1/machines/{machine}/interrupt", body)
        await self._said("failover.completed", since)
        await self._protected(failover_seq)
        await self._said("warmpool.provisioned", since)
        await self._until("running")
        return [fact.name for fact in self.heard.facts[since:] if fact.instance_id == self.instance_id]

    async def complaints(self, phase: str, victim: str) -> list[str]:
        """What a round with this kill did otherwise than an undisturbed one."""
        told = Counter(await self.round(phase, victim))
        what = f"{victim} killed at {phase}"
        found = []
        if told != self.usual:
            found.append(f"{what}: too much {dict(told - self.usual)}, missing {dict(self.usual - told)}")
        note = self._workspace(await self._machine()) / NOTE
        if not note.is_file() or note.read_text() != WORK:
            found.append(f"{what}: the customer's file is not on {note}")
        return found

    def _killer(self, phase: str, pids: Sequence[int]) -> Callable[[Fact], None]:
        def kill(fact: Fact) -> None:
            if (fact.name, fact.instance_id) == (phase, self.instance_id):
                self.heard.heard = lambda _: None
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

        return kill

    def _pids(self, victim: str) -> list[int]:
        if victim != "agent":
            return [self.up.status_pids()[victim]]
        notes = machines_directory(self.up.data_dir).glob("*/.dumont/agent_status.json")
        return [json.loads(note.read_text())["pid"] for note in notes]

    def _workspace(self, machine: str) -> Path:
        return machines_directory(self.up.data_dir) / machine / "workspace"

    async def _machine(self) -> str:
        """The cloud's id of the machine that was said to be ready last."""
        ready = [fact.body["machine_id"] for fact in self.heard.facts
                 if (fact.name, fact.instance_id) == ("instance.ready", self.instance_id)]  # fmt: skip
        found = await asyncio.to_thread(self.up.cloud, "GET", f"/v1/machines?label={self.up.label_of(ready[-1])}")
        return found["machines"][0]["machine_id"]

    async def _said(self, name: str, since: int) -> None:
        await self.heard.fact(name, self.instance_id, since=since, timeout_s=ROUND_MAX_S)

    async def _protected(self, after_seq: int) -> None:
        """The failover service has noted a ready standby in its log."""
        subject = f"evt.failover.guard.{self.instance_id}"
        give_up_s = time.monotonic() + ROUND_MAX_S
        while time.monotonic() < give_up_s:
            with suppress(Transient):
                noted = await self.heard.log.read("EVT_FAILOVER", subject, after_seq=after_seq)
                if any(b'"readiness":"ready"' in one.data for one in noted):
                    return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{self.instance_id} has no standby after {ROUND_MAX_S} s")

    async def _granted(self, method: str, path: str, body: Any) -> Any:
        answer = await asyncio.to_thread(self.up.request, method, f"/api/v1{path}", body, key=True)
        assert answer.json["success"], answer.text
        return answer.json["data"]

    async def _until(self, status: str) -> None:
        """What was killed may still be coming back, so that an answer is late or a refusal."""
        give_up_s, last = time.monotonic() + ROUND_MAX_S, ""
        while time.monotonic() < give_up_s:
            with suppress(OSError):
                path = f"/api/v1/instances/{self.instance_id}"
                answer = await asyncio.to_thread(self.up.request, "GET", path, key=True)
                last = answer.text
                if answer.status == 200 and answer.json["data"]["status"] == status:
                    return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{self.instance_id} is not {status} after {ROUND_MAX_S} s: {last}")


@asynccontextmanager
async def patient(up: Platform) -> AsyncIterator[Patient]:
    """Admitted, protected, and failed over once for comparison."""
    async with witness(up.nats_url) as heard:
        admitted = Patient(up, heard)
        await admitted.admit()
        yield admitted


async def _rounds(up: Platform, rounds: Sequence[tuple[str, str]], say: Callable[[str], None]) -> list[str]:
    found: list[str] = []
    async with patient(up) as one:
        say(f"undisturbed: {dict(one.usual)}")
        for phase, victim in rounds:
            began_s = time.monotonic()
            try:
                found += await one.complaints(phase, victim)
            except AssertionError as failure:
                return [*found, f"{victim} killed at {phase}: {failure}"]
            say(f"{victim:9} killed at {phase:21} {time.monotonic() - began_s:5.1f} s")
        found += await two_primaries(one.heard)
    return found


def run(data_dir: Path, rounds: Sequence[tuple[str, str]], say: Callable[[str], None] = print) -> list[str]:
    """Complaints of these rounds, on a platform of their own."""
    with platform(data_dir, environment=AROUND) as up:
        return asyncio.run(_rounds(up, rounds, say))


def main() -> int:
    options = argparse.ArgumentParser(prog="just phases", description=__doc__)
    options.add_argument("--victim", choices=VICTIMS, action="append")
    victims = options.parse_args().victim or VICTIMS
    folder = Path(tempfile.mkdtemp(prefix="dumont-phases-"))
    found = run(folder / "data", [(phase, victim) for phase in PHASES for victim in victims])
    for complaint in found:
        print("COMPLAINT", complaint, file=sys.stderr)
    if found:
        print(f"everything is kept in {folder}")
        return 1
    wipe(folder / "data")
    folder.rmdir()
    print("every failover ended once, as undisturbed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
