"""A machine is taken at a random instant while all its files change: what does its CPU standby have?

`just prefix` does it at full size (2,000 files, 20 MB), each round with an instance of its own; `test_cpu_standby.py`
does a small one. The writer replaces numbered files in turn and notes each number outside the machine before it begins
with it, so what the standby has can be judged against everything that was ever written: it must be a prefix of that, no
older than one sync interval, and no more may be missing than the failover reports.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncssh

from services.agent.manifest import unpack
from services.agent.syncing import MANIFEST_SUFFIX
from tests.journey.platform import BRISK, Platform, eventually, machines_directory, platform, wipe
from tests.journey.test_failover import call, over, running_instance, until

COPIES_FIRST = 3  # the first are of everything; the pace is that of the later ones
WAIT_MAX_S = 60.0
LOOK_PAUSE_S = 0.02
AROUND = {**BRISK, "DUMONT_FAILOVERS_PER_DAY_MAX": "1000"}
WRITER = """
import itertools, os, time
log = open(LOG, "a")
for number in itertools.count(1):
    path = "data/file-%d.txt" % (number % FILES)
    at = time.time()
    log.write("%d %r\\n" % (number, at))
    log.flush()
    with open(path + ".new", "w") as out:
        out.write("%d %r\\n" % (number, at) * LINES)
    os.rename(path + ".new", path)
    time.sleep(0.002)
"""


@dataclass(frozen=True)
class Load:
    """So many files of so many equal lines, about 25 bytes each."""

    files: int
    lines: int


FULL = Load(files=2_000, lines=421)  # 20 MB


@dataclass(frozen=True)
class Outcome:
    """`age_s`: of the newest file that the standby has, when the machine was taken. `lost_s`: from the first write that
    it has not to the last one there was. `window_s` is what the failover reported. `oldest_s`: the most that a copy
    aged before the next one was there, while we watched."""

    files: int
    bytes: int
    age_s: float
    oldest_s: float
    window_s: int
    lost_s: float
    noticed_s: float

    def complaints(self, interval_s: int) -> list[str]:
        found = [
            f"the copy was {age_s:.2f} s old, the interval is {interval_s} s"
            for age_s in (self.age_s, self.oldest_s)
            if age_s > interval_s
        ]
        if self.lost_s > self.window_s:
            found.append(f"{self.lost_s:.2f} s are missing, {self.window_s} s were told")
        if self.window_s > self.age_s + self.noticed_s + 2:  # rounded up to a whole second; clocks of one machine
            found.append(
                f"{self.window_s} s were told, {self.age_s:.2f} s and {self.noticed_s:.2f} s to notice are true"
            )
        return found


def in_sync(up: Platform, instance_id: str, interval_s: int) -> Any:
    call(up, "POST", "/standby/configure", {"sync_interval": interval_s, "auto_recovery": False})
    call(up, "POST", f"/standby/provision/{instance_id}", {})
    path = f"/standby/associations/{instance_id}"
    found = until(up, path, lambda seen: seen["state"] == "ready", "a CPU standby in sync")
    until(up, f"/failover/readiness/{instance_id}", lambda seen: seen["overall_ready"], "readiness")
    return found


def write_for_ever(up: Platform, instance: Any, load: Load, log: str = "/dev/null") -> None:
    """Start the writer inside the machine and leave it running."""
    writer = f"FILES, LINES, LOG = {load.files}, {load.lines}, {log!r}\n{WRITER}"

    async def start() -> None:
        key = up.data_dir / "sandbox" / "keys" / "id_ed25519"
        where = {"username": "root", "client_keys": [str(key)], "known_hosts": None}
        async with asyncssh.connect(instance["ssh_host"], instance["ssh_port"], **where) as connection:
            await connection.run("mkdir -p data && cat > writer.py", input=writer, check=True)
            await connection.run("nohup setsid python3 writer.py > /dev/null 2>&1 < /dev/null & sleep 0.1", check=True)

    asyncio.run(start())


def home(up: Platform, provider_machine_id: str) -> Path:
    return machines_directory(up.data_dir) / provider_machine_id


def judge(folder: Path, load: Load) -> tuple[int, float]:
    """The newest number in `folder` and when it was written. Every file must be as it was when that was written."""
    numbers: dict[int, tuple[int, float]] = {}
    for path in folder.glob("file-*.txt"):
        lines = path.read_text().splitlines()
        assert len(set(lines)) == 1, f"{path} is torn"
        assert len(lines) == load.lines, f"{path} is cut off"
        number, at = lines[0].split()
        numbers[int(path.stem.removeprefix("file-"))] = (int(number), float(at))
    newest, at = max(numbers.values())
    first = max(1, newest - load.files + 1)
    expected = {number % load.files: number for number in range(first, newest + 1)}
    wrong = [slot for slot, number in expected.items() if numbers.get(slot, (0, 0.0))[0] != number]
    assert not wrong, f"files {wrong[:5]} are of another instant than number {newest}"
    return newest, at


def round_of(up: Platform, log: Path, interval_s: int, wait_s: float) -> Outcome:
    """One instance, written to without a pause, taken `wait_s` after its standby is in pace. AssertionError: torn."""
    before = running_instance(up)
    instance_id = before["id"]
    write_for_ever(up, before, FULL, str(log))
    written = home(up, before["provider_instance_id"]) / "workspace" / "data"
    eventually(lambda: len(list(written.glob("file-*.txt"))) >= FULL.files, timeout_s=WAIT_MAX_S, what="all files")
    in_sync(up, instance_id, interval_s)
    path = f"/standby/associations/{instance_id}"
    give_up_s = WAIT_MAX_S + COPIES_FIRST * interval_s
    eventually(lambda: call(up, "GET", path)["sync_count"] >= COPIES_FIRST, timeout_s=give_up_s, what="copies")
    oldest_s = watch(up, instance_id, wait_s)
    taken_at = time.time()
    machine = before["provider_instance_id"]
    up.cloud("POST", f"/v1/machines/{machine}/interrupt", {"reason": "spot_preemption"})
    done = over(up, instance_id, 1)
    assert (done["success"], done["strategy_succeeded"]) == (True, "cpu_standby"), done
    after = until(up, f"/instances/{instance_id}", lambda seen: seen["status"] == "running", "the instance to run")
    folder = home(up, after["provider_instance_id"]) / "workspace" / "data"
    outcome = _outcome(folder, log, taken_at, done, oldest_s)
    call(up, "DELETE", f"/instances/{instance_id}")
    return outcome


def watch(up: Platform, instance_id: str, wait_s: float) -> float:
    """The oldest that the standby's newest whole copy ever was in this time: each may be what a takeover finds."""
    machines = up.cloud("GET", f"/v1/machines?label={up.label_of(standby_of(up, instance_id))}")["machines"]
    inbox = home(up, machines[0]["machine_id"]) / ".dumont" / "inbox"
    give_up_s, newest, oldest_s = time.monotonic() + wait_s, ("", 0.0), 0.0
    while time.monotonic() < give_up_s:
        now = time.time()
        if newest[0]:
            oldest_s = max(oldest_s, now - newest[1])
        with contextlib.suppress(FileNotFoundError):  # tidied away between the two
            path = max(inbox.glob("*/*" + MANIFEST_SUFFIX), default=None, key=lambda each: each.name)
            if path is not None and path.name > newest[0]:
                newest = path.name, unpack(path.read_bytes()).captured_at.timestamp()
        time.sleep(LOOK_PAUSE_S)
    return oldest_s


def standby_of(up: Platform, instance_id: str) -> str:
    return call(up, "GET", f"/standby/associations/{instance_id}")["cpu_standby"]["name"]


def _outcome(folder: Path, log: Path, taken_at: float, done: Any, oldest_s: float) -> Outcome:
    newest, at = judge(folder, FULL)
    told = [line.split() for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    all_written = {int(number): float(instant) for number, instant in told}
    last_at = max(all_written.values())
    files = [path for path in folder.iterdir() if path.suffix == ".txt"]
    return Outcome(
        len(files),
        sum(path.stat().st_size for path in files),
        age_s=max(taken_at, last_at) - at,
        oldest_s=oldest_s,
        window_s=done["data_loss_window_s"],
        lost_s=last_at - all_written[newest + 1] if newest + 1 in all_written else 0.0,
        noticed_s=datetime.fromisoformat(done["started_at"]).timestamp() - taken_at,
    )


def _rounds(up: Platform, folder: Path, options: Any, say: Callable[[str], None]) -> list[str]:
    chance, found, interval_s = random.Random(options.seed), list[str](), options.interval_s
    for number in range(1, options.rounds + 1):
        wait_s = chance.uniform(2 * interval_s, 4 * interval_s)
        log = folder / f"written-{number}"
        log.touch()
        log.chmod(0o666)
        try:
            one = round_of(up, log, interval_s, wait_s)
        except AssertionError as failure:
            found.append(f"round {number}: {failure}")
            continue
        say(
            f"round {number}: {one.files} files, {one.bytes / 1e6:.1f} MB, copy {one.age_s:5.2f} s old "
            f"(before that at most {one.oldest_s:.2f} s), reported window {one.window_s} s, "
            f"truly lost {one.lost_s:.2f} s, noticed after {one.noticed_s:.2f} s"
        )
        found += [f"round {number}: {complaint}" for complaint in one.complaints(interval_s)]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="just prefix", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--interval-s", type=int, default=5)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="dumont-prefix-"))
    folder.chmod(0o711)  # the writer, who is nobody in particular, opens its log in there
    with platform(folder / "data", environment=AROUND) as up:
        found = _rounds(up, folder, options, print)
    for complaint in found:
        print("COMPLAINT", complaint, file=sys.stderr)
    if found:
        print(f"everything is kept in {folder}")
        return 1
    wipe(folder / "data")
    for log in folder.iterdir():
        log.unlink()
    folder.rmdir()
    print("every copy was of one instant, no older than one interval, and the reported windows were true")
    return 0


if __name__ == "__main__":
    sys.exit(main())
