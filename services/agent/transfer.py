"""Moves manifests and parts between the machine and the storage, with URLs that the gateway signs for this machine.

Used by `snapshotting` and `restoring`. The agent's token goes to the gateway only, never to the storage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from libs.bodies import read_at_most
from libs.clock import Clock
from services.agent.settings import AgentSettings, gateway_of

STORAGE_PATH, REPORTS_PATH = "/api/v1/agent/storage", "/api/v1/agent/reports"
TRIES_MAX = 6
PAUSE_FIRST_S = 0.5
TRANSFER_TIMEOUT_S = 900.0  # as long as a signed URL is good
ASK_TIMEOUT_S = 30.0
ANSWER_BYTES_MAX = 1024 * 1024
UNHEARD = "storage_unreachable"  # no answer at all: what was said may have been heard
FINAL = frozenset(range(400, 500)) - {408, 425, 429}  # answers of the gateway that another try would not change

Method: TypeAlias = Literal["GET", "PUT"]
T = TypeVar("T")


class TransferFailed(Exception):
    """It did not work for as long as we tried. `code` is one word."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Part(Struct, frozen=True):
    pack_id: str
    number: int


class _Urls(Struct, frozen=True):
    urls: list[str]


class _UrlsEnvelope(Struct, frozen=True):
    data: _Urls


class _Error(Struct, frozen=True):
    code: str = ""
    message: str = ""


class _ErrorEnvelope(Struct, frozen=True):
    error: _Error = _Error()


class _Unwell(Exception):
    """Worth another try."""


class Transfer:
    """`gateway` carries the agent's token, `storage` carries nothing."""

    def __init__(
        self, settings: AgentSettings, clock: Clock, gateway: aiohttp.ClientSession, storage: aiohttp.ClientSession
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._gateway = gateway
        self._storage = storage

    async def put_part(self, snapshot_id: str, number: int, path: Path) -> None:
        await self._put(snapshot_id, await asyncio.to_thread(path.read_bytes), Part(snapshot_id, number))

    async def put_manifest(self, snapshot_id: str, body: bytes) -> None:
        await self._put(snapshot_id, body, None)

    async def get_part(self, snapshot_id: str, part: Part) -> bytes:
        return await self._get(snapshot_id, part)

    async def get_manifest(self, snapshot_id: str) -> bytes:
        return await self._get(snapshot_id, None)

    async def report(self, facts: dict[str, Any]) -> None:
        """Tell the gateway what became of it. Raises TransferFailed when it refuses."""
        await self._again(lambda: self._ask(REPORTS_PATH, facts))

    async def _put(self, snapshot_id: str, body: bytes, part: Part | None) -> None:
        async def once() -> None:
            url = await self._url("PUT", snapshot_id, part)
            async with self._storage.put(url, data=body, timeout=_transfer_timeout()) as answer:
                _expect(answer.status)

        await self._again(once)

    async def _get(self, snapshot_id: str, part: Part | None) -> bytes:
        async def once() -> bytes:
            url = await self._url("GET", snapshot_id, part)
            async with self._storage.get(url, timeout=_transfer_timeout()) as answer:
                _expect(answer.status)
                return await answer.read()

        return await self._again(once)

    async def _url(self, method: Method, snapshot_id: str, part: Part | None) -> URL:
        wish: dict[str, Any] = {"snapshot_id": snapshot_id, "method": method, "manifest": part is None}
        parts: Sequence[Part] = [] if part is None else [part]
        body = await self._ask(STORAGE_PATH, wish | {"parts": parts})
        try:
            return URL(msgspec.json.decode(body, type=_UrlsEnvelope).data.urls[0], encoded=True)
        except (msgspec.DecodeError, IndexError) as error:
            raise _Unwell(f"the gateway's answer: {error}") from error

    async def _ask(self, path: str, facts: dict[str, Any]) -> bytes:
        url = gateway_of(self._settings) + path
        body = msgspec.json.encode({"instance_id": self._settings.instance_id, **facts})
        headers = {"Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
        async with self._gateway.post(url, data=body, headers=headers, timeout=timeout) as answer:
            said = await read_at_most(answer, ANSWER_BYTES_MAX)
            if answer.status in FINAL:
                raise TransferFailed(*_refusal(said, answer.status))
            _expect(answer.status)
            return said

    async def _again(self, once: Callable[[], Awaitable[T]]) -> T:
        """Try, with growing pauses. Raises TransferFailed."""
        for attempt in range(TRIES_MAX):
            try:
                return await once()
            except (aiohttp.ClientError, TimeoutError, OSError, _Unwell) as error:
                cause = f"{type(error).__name__}: {error}"[:200] if isinstance(error, _Unwell) else type(error).__name__
            if attempt + 1 < TRIES_MAX:
                await self._clock.sleep(PAUSE_FIRST_S * 2**attempt)
        raise TransferFailed(UNHEARD, cause)  # pyright: ignore[reportPossiblyUnboundVariable]


def _expect(status: int) -> None:
    """Signed URLs expire, so even a refusal of the storage is worth another try with a fresh one."""
    if not 200 <= status < 300:
        raise _Unwell(f"http {status}")


def _refusal(said: bytes, status: int) -> tuple[str, str]:
    try:
        error = msgspec.json.decode(said, type=_ErrorEnvelope).error
    except msgspec.DecodeError:
        error = _Error()
    return (error.code or f"http_{status}").lower(), error.message


def _transfer_timeout() -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=TRANSFER_TIMEOUT_S)
