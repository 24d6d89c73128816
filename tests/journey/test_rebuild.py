"""`./dumont rebuild instance`: the same rows out of the log, while reads go on."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

from libs.postgres import open_database, table_hashes
from tests.journey.platform import Platform, eventually

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 30.0
WAITING_SQL = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like 'delete from instance%'"


def hashes(up: Platform) -> dict[str, str]:
    """Of every table of the instance service."""

    async def read() -> dict[str, str]:
        database = await open_database(up.postgres_url, service="instance")
        try:
            return await table_hashes(database, "instance")
        finally:
            await database.close()

    return asyncio.run(read())


class Reader(threading.Thread):
    """Asks for one instance as fast as it is answered, until told to stop."""

    def __init__(self, up: Platform, instance_id: str) -> None:
        super().__init__(daemon=True)
        self.up, self.path = up, f"/api/instances/{instance_id}"
        self.answers: Counter[int] = Counter()
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.is_set():
            self.answers[self.up.request("GET", self.path).status] += 1


def traffic(up: Platform) -> str:
    """Every kind of row: instances ready, stopped, interrupted and deleted; machines, hosts, deadlines."""
    kept, stopped, lost, deleted = (up.create_ready()["id"] for _ in range(4))
    assert up.request("POST", f"/api/instances/{stopped}/stop").status == 200
    up.verb("sandbox", "interrupt", lost)
    assert up.request("DELETE", f"/api/v1/instances/{deleted}?wait=20", key=True).status == 200
    up.wait_for_status(stopped, "stopped")
    up.wait_for_status(lost, "exited")
    return kept


def test_a_rebuild_gives_the_same_rows_and_reads_are_answered_throughout(up: Platform) -> None:
    reader = Reader(up, traffic(up))
    before = quiet_hashes(up)
    reader.start()
    done = json.loads(up.verb("rebuild", "instance", "--compare", "--json"))
    reader.enough.set()
    reader.join()
    assert done["rows"] > 0
    assert done["hashes"] == {"before": before, "after": before}
    assert quiet_hashes(up) == before
    assert set(reader.answers) == {200}, reader.answers


async def test_a_rebuild_that_is_interrupted_leaves_what_is_read(up: Platform) -> None:
    database = await open_database(up.postgres_url, service="instance")
    async with database.transaction() as held:  # the rebuild waits here before it has begun anything
        await held.execute("lock table instance_live.projections in share mode")
        verb = [sys.executable, "-m", "services.cli", "rebuild", "instance", "--data-dir", str(up.data_dir)]
        stopped = await asyncio.create_subprocess_exec(*verb, cwd=ROOT, stderr=asyncio.subprocess.PIPE)
        async with asyncio.timeout(DEADLINE_S):
            while not await database.fetch(WAITING_SQL):
                await asyncio.sleep(0.02)
            stopped.send_signal(signal.SIGINT)
            _, said = await stopped.communicate()
    await database.close()
    assert stopped.returncode == 130
    assert b"the old tables stay" in said
    up.create_ready()


def test_what_is_written_after_a_rebuild_is_read(up: Platform) -> None:
    up.verb("rebuild", "instance", "--json")
    up.create_ready()


def quiet_hashes(up: Platform) -> dict[str, str]:
    """The hashes once nothing is on its way any more: two looks agree."""
    looks: list[dict[str, str]] = [{}]

    def is_quiet() -> bool:
        looks.append(hashes(up))
        return looks[-1] == looks[-2]

    eventually(is_quiet, timeout_s=20, what="the tables to be quiet", seen=lambda: looks[-2:])
    return looks[-1]
