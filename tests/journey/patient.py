"""One instance that loses its machine again and again, and what its customer and its cloud can see of it.

Used by `ways` (what is done to it) and `phases` (who is killed meanwhile). Waits for facts and answers; judges nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from libs.refusal import Transient
from tests.journey.platform import Platform, machines_directory, unique
from tests.journey.processes import TRACEBACK, last_words, machine_processes
from tests.journey.witness import Fact, Witness

LOOK_PAUSE_S = 0.05
LOOKS_MAX = 1_200  # a minute and more; looks are counted, not seconds, in which a loaded machine may do nothing
SERVER_ERROR = 500
FILES, FILE_BYTES = 20, 20_000
STARTED = "started.txt"  # a line for each machine that ran the start command
START_COMMAND = f"date +%s.%N >> {STARTED}"


class Boundary(NamedTuple):
    """Where one phase ends: a public fact, the `nth` of that name in a round."""

    name: str
    nth: int = 1

    def __str__(self) -> str:
        return self.name if self.nth == 1 else f"{self.name} {self.nth}"


class Patient:
    """`heard_before`: so many facts belong to rounds that are over."""

    def __init__(self, up: Platform, heard: Witness) -> None:
        self.up, self.heard = up, heard
        self.instance_id = ""
        self.heard_before = 0
        self.sums: dict[str, str] = {}

    # --- what its customer does ---------------------------------------------------------------------------------------

    async def admit(self, **wishes: Any) -> None:
        """A running instance with some files."""
        self.heard_before = len(self.heard.facts)
        made = await self.granted("POST", "/instances", {"gpu": "RTX 4090", "skip_standby": True, **wishes})
        self.instance_id = made["id"]
        await self.fact("instance.ready")
        await self.until_running()
        chance = random.Random(self.instance_id)
        for number in range(FILES):
            await self.write(f"file-{number}.bin", chance.randbytes(FILE_BYTES))

    async def write(self, name: str, content: bytes) -> None:
        (await self.workspace() / name).write_bytes(content)
        self.sums[name] = hashlib.sha256(content).hexdigest()

    async def granted(self, method: str, path: str, body: Any = None) -> Any:
        answer = await asyncio.to_thread(self.up.request, method, f"/api/v1{path}", body, key=True)
        assert answer.json["success"], answer.text
        return answer.json["data"]

    async def until(self, path: str, holds: Callable[[Any], bool], what: str) -> Any:
        """The data of an answer. What was killed may still be coming back, so that an answer is late or a refusal."""
        last = ""
        async for _ in looks():
            with suppress(OSError):
                answer = await asyncio.to_thread(self.up.request, "GET", f"/api/v1{path}", key=True)
                last = answer.text
                if answer.status == 200 and holds(answer.json["data"]):
                    return answer.json["data"]
        raise AssertionError(f"{path} is not {what} after {LOOKS_MAX} looks: {last}")

    async def until_running(self) -> Any:
        """Its customer sees it run, on the machine that was said to be ready last."""
        machine = await self.machine()
        is_seen = lambda seen: (seen["status"], seen["provider_instance_id"]) == ("running", machine)  # noqa: E731
        return await self.until(f"/instances/{self.instance_id}", is_seen, f"running on {machine}")

    async def acknowledged(self, path: str, body: Any) -> Any:
        """As a careful client does: asked again with the same key until there is an answer."""
        headers, last = {"Idempotency-Key": unique("round")}, ""
        async for _ in looks():
            with suppress(OSError):
                request = partial(self.up.request, "POST", f"/api/v1{path}", body, headers=headers, key=True)
                answer = await asyncio.to_thread(request)
                last = answer.text
                if answer.status < SERVER_ERROR:
                    assert answer.json["success"], last
                    return answer.json["data"]
        raise AssertionError(f"{path} was not acknowledged after {LOOKS_MAX} tries: {last}")

    # --- what was said ------------------------------------------------------------------------------------------------

    def facts(self) -> Sequence[Fact]:
        """About it, in this round."""
        return [fact for fact in self.heard.facts[self.heard_before :] if fact.instance_id == self.instance_id]

    async def fact(self, name: str, nth: int = 1) -> Fact:
        """The nth fact of that name in this round."""
        async for _ in looks():
            if len(found := self.named(name)) >= nth:
                return found[nth - 1]
        said = [fact.name for fact in self.facts()]
        raise AssertionError(f"{Boundary(name, nth)} was not said after {LOOKS_MAX} looks, but {said}")

    def named(self, name: str) -> list[Fact]:
        return [fact for fact in self.facts() if fact.name == name]

    async def noted(self, kind: str, words: bytes, after_seq: int) -> None:
        """The failover service has written this about it into its own log."""
        subject = f"evt.failover.{kind}.{self.instance_id}"
        async for _ in looks():
            with suppress(Transient):
                noted = await self.heard.log.read("EVT_FAILOVER", subject, after_seq=after_seq)
                if any(words in one.data for one in noted):
                    return
        raise AssertionError(f"{words!r} was not noted of {self.instance_id} after {LOOKS_MAX} looks")

    # --- what its cloud has -------------------------------------------------------------------------------------------

    async def cloud(self, method: str, path: str, body: Any = None) -> Any:
        return await asyncio.to_thread(self.up.cloud, method, path, body)

    async def machine(self) -> str:
        """The cloud's id of the machine that was said to be ready last."""
        ready = [fact for fact in self.heard.facts
                 if (fact.name, fact.instance_id) == ("instance.ready", self.instance_id)]  # fmt: skip
        return await self.machine_named(ready[-1].body["machine_id"])

    async def machine_named(self, machine_id: str) -> str:
        found = await self.cloud("GET", f"/v1/machines?label={self.up.label_of(machine_id)}")
        return found["machines"][0]["machine_id"]

    async def lose(self) -> None:
        machine = await self.machine()
        await self.cloud("POST", f"/v1/machines/{machine}/interrupt", {"reason": "spot_preemption"})

    def folder(self, machine: str) -> Path:
        return machines_directory(self.up.data_dir) / machine

    async def workspace(self) -> Path:
        return self.folder(await self.machine()) / "workspace"

    async def spoilt(self) -> list[str]:
        """Files that are not on its machine as they were written."""
        workspace, found = await self.workspace(), list[str]()
        for name, checksum in self.sums.items():
            path = workspace / name
            if not path.is_file():
                found.append(f"{path} is not there")
            elif hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
                found.append(f"{path} is another than was written")
        return found

    def bugs_of_agents(self) -> list[tuple[Path, str]]:
        """Who is killed leaves no last words; an agent that ended by itself left a traceback in its machine's log."""
        logs = machines_directory(self.up.data_dir).glob("*/.dumont/machine.log")
        return [(log, last_words(log)) for log in logs if TRACEBACK in log.read_bytes()]

    def agents(self) -> list[int]:
        """In all machines that run now."""
        return self._processes("dumont-agent")

    def leaders(self) -> list[int]:
        """The first process of each machine that runs now, whether a cloud knows it or not."""
        return self._processes("dumont-machine")

    def _processes(self, name: str) -> list[int]:
        found = machine_processes(self.up.data_dir)
        return [pid for pids in found.values() for pid in pids if _name(pid) == name]


async def looks() -> AsyncIterator[int]:
    """As many as one waits for; a pause after each."""
    for number in range(LOOKS_MAX):
        yield number
        await asyncio.sleep(LOOK_PAUSE_S)


def _name(pid: int) -> str:
    """What a process calls itself."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
