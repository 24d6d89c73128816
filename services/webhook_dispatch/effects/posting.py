"""One POST to a receiver, and what came of it. Nothing a receiver does can hang us, fill our memory or lead us away.

Used by the dispatcher, by resends and by the test of an endpoint. Owns the HTTP client: connections kept open per
receiver, no cookies, no proxies from the environment, no redirects, answers read up to a cap and never unpacked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import cache

import aiohttp
from msgspec import Struct

from libs.clock import Clock
from libs.sealed_urls import HIDDEN
from services.webhook_dispatch.effects.fence import Fence, NotAllowed

ATTEMPT_TIMEOUT_S = 15.0  # Standard Webhooks: 15 to 30 s
CONNECT_TIMEOUT_S = 5.0
RESPONSE_READ_BYTES_MAX = 16 * 1024  # beyond it the connection is closed instead of read to the end
RESPONSE_KEPT_CHARS_MAX = 1_000  # contract dumont 8
HEADER_BYTES_MAX = 8_190
NAMES_KEPT_S = 10  # an address looked up is used this long
IDLE_CONNECTIONS_S = 15.0
STATUS_OK_MIN, STATUS_OK_MAX = 200, 299
STATUS_GONE = 410
SLOW_DOWN = frozenset({429, 503})


class Answer(Struct, frozen=True):
    """`error` is empty when the receiver answered at all. `retry_after_s`: it asked for so long a pause."""

    took_ms: int
    status_code: int = 0
    error: str = ""
    response: str = ""
    retry_after_s: int = 0
    is_final: bool = False

    @property
    def is_delivered(self) -> bool:
        return STATUS_OK_MIN <= self.status_code <= STATUS_OK_MAX

    @property
    def is_gone(self) -> bool:
        return self.status_code == STATUS_GONE


class Poster:
    """The HTTP client. Make it inside the running loop; close it."""

    def __init__(self, fence: Fence, clock: Clock) -> None:
        self.fence = fence
        self._clock = clock
        connector = aiohttp.TCPConnector(
            limit=0,  # the dispatcher bounds what is in flight
            socket_factory=fence.socket_factory(),
            ttl_dns_cache=NAMES_KEPT_S,
            keepalive_timeout=IDLE_CONNECTIONS_S,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
        )

    async def close(self) -> None:
        await self._session.close()

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        timeout_s: float = ATTEMPT_TIMEOUT_S,
        hide: Sequence[str] = (),
    ) -> Answer:
        """Never raises for anything the receiver or the network does. `hide`: what an answer may repeat of the URL."""
        started_s = self._clock.monotonic_s()
        try:
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False, timeout=_timeout(timeout_s)
            ) as response:
                text = await _read(response, hide)
                return Answer(
                    took_ms=self._since_ms(started_s),
                    status_code=response.status,
                    response=text,
                    retry_after_s=self._retry_after_s(response),
                )
        except TimeoutError:
            return Answer(self._since_ms(started_s), error=f"no answer within {timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            is_fenced = _is_fenced(error)
            words = "the address is not on the public internet" if is_fenced else _words(error)
            return Answer(self._since_ms(started_s), error=words, is_final=is_fenced)

    def _since_ms(self, started_s: float) -> int:
        return round((self._clock.monotonic_s() - started_s) * 1000)

    def _retry_after_s(self, response: aiohttp.ClientResponse) -> int:
        """Seconds or a date; anything else counts for nothing."""
        if response.status not in SLOW_DOWN:
            return 0
        said = response.headers.get("Retry-After", "").strip()
        if said.isascii() and said.isdigit():
            return int(said[:9])
        try:
            return max(0, round((parsedate_to_datetime(said) - self._clock.now()).total_seconds()))
        except (ValueError, TypeError):
            return 0


@cache
def _timeout(total_s: float) -> aiohttp.ClientTimeout:
    """There are two or three different ones."""
    return aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_TIMEOUT_S)


async def _read(response: aiohttp.ClientResponse, hide: Sequence[str]) -> str:
    """The first characters of the answer. An answer that goes on and on loses its connection."""
    raw = b""
    while len(raw) < RESPONSE_READ_BYTES_MAX:
        part = await response.content.read(RESPONSE_READ_BYTES_MAX - len(raw))
        raw += part
        if not part or response.content.at_eof():
            break
    else:
        response.close()
    text = raw[: RESPONSE_KEPT_CHARS_MAX * 4].decode("utf-8", errors="replace")
    for credential in hide:
        text = text.replace(credential, HIDDEN)
    return text.replace("\0", "")[:RESPONSE_KEPT_CHARS_MAX]


def _is_fenced(error: BaseException) -> bool:
    inner = getattr(error, "os_error", None) or error.__cause__
    return isinstance(error, NotAllowed) or (inner is not None and inner is not error and _is_fenced(inner))


def _words(error: BaseException) -> str:
    """What went wrong, for the owner of the endpoint. Names kinds only: texts of the network say where we run."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "the host name cannot be found"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return "the TLS certificate or handshake was refused"
        case aiohttp.ClientConnectorError():
            return "the connection was refused"
        case aiohttp.ServerDisconnectedError() | ConnectionError():
            return "the connection was closed before an answer came"
        case aiohttp.InvalidURL() | ValueError():
            return "the URL cannot be used"
        case asyncio.IncompleteReadError() | aiohttp.ClientPayloadError():
            return "the answer broke off"
        case _:
            return f"the request failed ({type(error).__name__})"
