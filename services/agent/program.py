"""The agent's life: measure, tell the gateway, do what it answers, sleep, again. It never gives up.

`run(environment)` is its entry point, for `python -m services.agent` and for whatever builds a machine's image. Returns
an exit status: RESTART asks whoever started it to start it again. Owns `agent_status.json` in the machine's directory.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from libs import config
from libs.bodies import read_at_most
from libs.clock import Clock, SystemClock
from services.agent.answers import ANSWER_BYTES_MAX, Answer, read_answer
from services.agent.metrics import Meter
from services.agent.settings import VERSION, AgentSettings, gateway_of, token_of
from services.agent.transfer import Transfer
from services.agent.work import Work

STATUS_PATH = "/api/v1/agent/status"
STATUS_FILE = "agent_status.json"
RESTART = 3
CONNECTIONS_MAX = 4  # a heartbeat never waits for a snapshot's questions
CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 5.0, 15.0
# The gateway is away: the first try again is soon, later ones at most this far apart, so that a thousand agents neither
# trample a gateway that comes back nor leave it blind for long.
RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0
JITTER = 0.1  # of every pause, both ways: agents started together drift apart
HTTP_OK_FIRST, HTTP_OK_LAST = 200, 299


def run(environment: Mapping[str, str]) -> int:
    """Live until told otherwise. Returns the exit status."""
    settings = config.read(AgentSettings, environment)
    return asyncio.run(_live(settings, token_of(settings), SystemClock()))


async def _live(settings: AgentSettings, token: str, clock: Clock) -> int:
    meter = Meter(settings, now_s=clock.now().timestamp(), monotonic_s=clock.monotonic_s())
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, force_close=False)
    headers = {"Authorization": f"Bearer {token}", "User-Agent": f"dumont-agent/{VERSION}"}
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session,
        aiohttp.ClientSession() as storage,
        asyncio.TaskGroup() as group,
    ):
        work = Work(settings, Transfer(settings, clock, session, storage), clock, group)
        work.begin()
        agent = _Agent(settings, clock, meter, session, work)
        status = None
        while status is None:
            answer = await agent.beat()
            status = agent.carry_out(answer)
            if status is None:
                await clock.sleep(agent.pause_s(answer))
        work.end()
    return status


class _Agent:
    """What the agent remembers between heartbeats."""

    def __init__(
        self, settings: AgentSettings, clock: Clock, meter: Meter, session: aiohttp.ClientSession, work: Work
    ) -> None:
        self._settings = settings
        self._work = work
        self._clock = clock
        self._meter = meter
        self._session = session
        self._status = "starting"
        self._message = ""
        self._failures = 0
        self._last_ok_at: str | None = None
        self._last_error = ""
        # Made here and not with the module: machines are forked from one parent and must not fall silent in step.
        self._chance = random.Random()  # noqa: S311 - spreads load, keeps no secret

    async def beat(self) -> Answer | None:
        """Say one heartbeat; None when the gateway did not take it."""
        payload = self._payload()
        try:
            url = gateway_of(self._settings) + STATUS_PATH
            async with self._session.post(url, data=msgspec.json.encode(payload), headers=_JSON) as response:
                body = await read_at_most(response, ANSWER_BYTES_MAX)
                self._last_error = "" if HTTP_OK_FIRST <= response.status <= HTTP_OK_LAST else f"http {response.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._last_error, body = type(error).__name__, b""
        if self._last_error:
            self._failures += 1
            self._write_status()
            return None
        self._failures = 0
        self._last_ok_at = payload["timestamp"]
        self._status, self._message = "syncing" if self._work.is_busy else "idle", self._work.message
        self._write_status()
        return read_answer(body)

    def carry_out(self, answer: Answer | None) -> int | None:
        """Do what was asked; an exit status when that ends this agent."""
        if answer is None:
            return None
        if answer.unknown:
            self._message = "unknown: " + ", ".join(answer.unknown)
        if "prepare_hibernate" in answer.deeds:
            # The disk is about to be copied: everything written so far must be on it.
            os.sync()
            self._status, self._message = "syncing", "ready to hibernate"
        self._work.order(answer.snapshot)
        self._work.receive(answer.receive)  # first: what has handed over is held still until it is ended
        self._work.sync(answer.sync)
        if answer.carries:
            self._work.run_start_command()
        if "shutdown" in answer.deeds:
            self._message = "shutting down"
            self._write_status()
            os.killpg(os.getpgrp(), signal.SIGTERM)
            return 0
        return RESTART if "restart" in answer.deeds else None

    def pause_s(self, answer: Answer | None) -> float:
        """How long to be silent now."""
        if answer is None:
            pause_s = min(RETRY_MIN_S * 2 ** min(self._failures - 1, 10), RETRY_MAX_S)
        else:
            pause_s = answer.next_heartbeat_in_s or self._settings.agent_interval_s
        return pause_s * self._chance.uniform(1 - JITTER, 1 + JITTER)

    def _payload(self) -> dict[str, Any]:
        now = self._clock.now()
        facts = self._meter.measure(now_s=now.timestamp(), monotonic_s=self._clock.monotonic_s())
        facts["last_activity"] = _instant(facts.pop("last_activity_s"))
        return {
            "agent": "dumont-agent",
            "version": VERSION,
            "agent_version": VERSION,
            "instance_id": self._settings.instance_id,
            "status": self._status,
            "message": self._message,
            "timestamp": _instant(now.timestamp()),
            "received": self._work.received,
            **facts,
        }

    def _write_status(self) -> None:
        """Leave a note for whoever looks into the machine. Losing it is harmless, so is failing to write it."""
        path = Path(self._settings.agent_dir, STATUS_FILE)
        new = path.with_suffix(".new")
        note = {
            "agent_version": VERSION,
            "pid": os.getpid(),
            "status": self._status,
            "message": self._message,
            "last_ok_at": self._last_ok_at,
            "failures": self._failures,
            "last_error": self._last_error,
        }
        try:
            new.write_bytes(msgspec.json.encode(note))
            new.replace(path)
        except OSError as error:
            self._message = f"status file: {error.strerror}"


_JSON = {"Content-Type": "application/json"}


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
