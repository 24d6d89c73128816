"""What happens to every request, once and in one place: route, identify, read, validate, handle, encode, log, count.

Called by aiohttp's low-level server (no middlewares, no second router). Owns the wire: header names, limits of bodies,
error envelopes, security headers. Handlers and dialects never see aiohttp.
"""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct
from multidict import CIMultiDict

from libs.refusal import OutcomeUnknown, Refused, Transient
from libs.telemetry import start_span
from proto.advice import advice_in
from proto.base import Position
from proto.codes import CODES, Language, retry_and_advice, text
from services.gateway.auth import AGENT, ANYONE, credential, identify, require_scope
from services.gateway.call import RETRY_AFTER_S, Answer, Call, Caller
from services.gateway.dialects import Dialect, Failure
from services.gateway.feed.stream import Live, streamed
from services.gateway.gateway import Gateway
from services.gateway.languages import NAMES, language_of, spoken
from services.gateway.limits.charging import client_address
from services.gateway.limits.limiter import Charge
from services.gateway.routes import NO_DIALECT, ROUTES, dialect_of
from services.gateway.routing import Route, Router, allowed, read_path, route_of
from services.gateway.validation import read_body, read_query, refuse

BODY_BYTES_MAX = 10 * 1024 * 1024  # contract novita A1
LAST_EVENT_ID_CHARS_MAX = 200
BODY_READ_S_MAX = 30.0  # 10 MB at 350 kB/s; slower senders hold a connection for nothing

_ID_IN = re.compile(r"[A-Za-z0-9._-]{1,128}")  # seed 004 sends ids with a dot
_KEY_IN = re.compile(r"[\x21-\x7e]{1,255}")
_JSON_TYPE = re.compile(r"|\s*[\w.-]+/([\w.-]+\+)?json\s*(;.*)?", re.IGNORECASE)  # or none at all
_WHOLE_URL = re.compile(r"https?://[^/?]*", re.IGNORECASE)
_POSITION_IN = re.compile(r"([A-Z_]{1,40}):([0-9]{1,18})")

_COMMON_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "X-Request-ID, X-Correlation-ID, X-Dumont-Position, X-Dumont-Stale, Retry-After, "
    "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Idempotent-Replayed, Location",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Server": "dumont",  # not which programs of which version
    "Cache-Control": "no-store",
}
_PREFLIGHT_HEADERS = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-API-Key, "
    "X-Correlation-ID, X-Dumont-Position, X-Request-ID, traceparent",
    "Access-Control-Max-Age": "86400",
}
# Facts that an error tells elsewhere than under its details.
_OWN_PLACE = ("retry_after_s", "advice")
_JSON = "application/json; charset=utf-8"
_BASE = CIMultiDict(_COMMON_HEADERS)
_encode = msgspec.json.Encoder().encode


class _Incoming:
    """What is known of a request before its route is."""

    __slots__ = ("correlation_id", "dialect", "request_id", "route", "started_s")

    def __init__(self, request: web.BaseRequest, gateway: Gateway) -> None:
        self.started_s = gateway.clock.monotonic_s()
        headers = request.headers
        self.request_id = _id(headers.get("X-Request-ID"), gateway, "req")
        self.correlation_id = _id(headers.get("X-Correlation-ID"), gateway, "corr")
        self.dialect: Dialect = NO_DIALECT
        self.route: Route | None = None

    def headers(self) -> CIMultiDict[str]:
        """Of every answer to it."""
        headers = _BASE.copy()
        headers["X-Request-ID"] = self.request_id
        headers["X-Correlation-ID"] = self.correlation_id
        return headers


class Pipeline:
    """Callable for `aiohttp.web.Server`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._router = Router(ROUTES)
        bodies = {route.body for route in ROUTES if route.body is not None}
        self._decoders: dict[type[Struct], Any] = {body: msgspec.json.Decoder(body) for body in bodies}

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        incoming = _Incoming(request, self._gateway)
        self._gateway.vitals.in_flight.add(1)
        headers = incoming.headers()
        body: bytes | Live | None
        try:
            status, body = await self._answer(request, incoming, headers)
        except Refused as refused:
            status, body = self._refusal(request, incoming, headers, await self._charged(request, headers, refused))
        except Transient as unwell:
            code = "OUTCOME_UNKNOWN" if isinstance(unwell, OutcomeUnknown) else "SERVICE_UNAVAILABLE"
            refused = Refused(code, retry_after_s=RETRY_AFTER_S)
            self._gateway.logger.warning("http.unwell", request_id=incoming.request_id, cause=repr(unwell))
            status, body = self._refusal(request, incoming, headers, refused)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as bug:  # the edge of the process: the caller gets an answer, the operator the traceback
            self._gateway.logger.error("http.bug", error=bug, request_id=incoming.request_id)  # noqa: TRY400 - not stdlib
            status, body = self._refusal(request, incoming, headers, Refused("INTERNAL_ERROR"))
        finally:
            self._gateway.vitals.in_flight.add(-1)
        self._account(request, incoming, status)
        if isinstance(body, Live):
            return await streamed(request, body, status, headers)
        return web.Response(body=body, status=status, headers=headers)

    def unanswered(self, request: web.BaseRequest, refused: Refused, error: BaseException | None) -> web.Response:
        """For what never came to `__call__` (bytes that are no request) or escaped it (a bug)."""
        incoming = _Incoming(request, self._gateway)
        if refused.code == "INTERNAL_ERROR":
            self._gateway.logger.error("http.bug", error=error, request_id=incoming.request_id)
        headers = incoming.headers()
        status, body = self._refusal(request, incoming, headers, refused)
        self._account(request, incoming, status)
        return web.Response(body=body, status=status, headers=headers)

    async def _answer(
        self, request: web.BaseRequest, incoming: _Incoming, headers: CIMultiDict[str]
    ) -> tuple[int, bytes | Live | None]:
        path, _, query = _target(request.raw_path).partition("?")
        incoming.dialect = dialect_of(path)
        if request.method == "OPTIONS":
            return await self._preflight(request, path, headers)
        route, values = route_of(self._router, request.method, path)
        incoming.route, incoming.dialect = route, route.dialect
        parent = request.headers.get("traceparent")
        with start_span("http.request", parent, {"route": route.path, "method": route.method}) as span:
            call = await self._call(request, incoming, (route, values, query), span.traceparent, headers)
            answer = await route.handle(call)
            span.set("status", answer.status)
        incoming.started_s += answer.waited_s
        return self._success(call, answer, headers)

    async def _call(
        self,
        request: web.BaseRequest,
        incoming: _Incoming,
        target: tuple[Route, list[str], str],
        trace: str,
        answered: CIMultiDict[str],
    ) -> Call:
        route, values, query = target
        gateway, headers = self._gateway, request.headers
        now = gateway.clock.now()
        secret = credential(headers.get("Authorization", ""), headers.get("X-API-Key", ""))
        caller = identify(gateway, route, secret, now)
        if gateway.limits.is_on:
            await gateway.limits.spend(self._charges(request, route, caller, secret), answered)
        require_scope(caller, route)
        raw = await _read(request) if request.body_exists else b""
        body = read_body(raw, self._decoders[route.body], route.body) if route.body is not None else None
        return Call(
            gateway=gateway,
            caller=caller,
            now=now,
            request_id=incoming.request_id,
            correlation_id=incoming.correlation_id,
            trace=trace,
            path=read_path(route, values),
            query=read_query(query, route.query) if route.query is not None else None,
            body=body,
            raw_body=raw,
            credential=secret,
            idempotency_key=_idempotency_key(headers.get("Idempotency-Key")),
            last_event_id=headers.get("Last-Event-ID", "")[:LAST_EVENT_ID_CHARS_MAX],
            min_position=_position(headers.get("X-Dumont-Position")),
            language=language_of(headers.get("Accept-Language", ""), route.dialect.language),
        )

    def _charges(self, request: web.BaseRequest, route: Route, caller: Caller, secret: str) -> tuple[Charge, ...]:
        """See services/gateway/limits/charging.py."""
        limits = self._gateway.limits
        if route.limits == "unlimited" or route.scope == ANYONE:
            return (limits.of_address("open", self._address(request)),)
        if route.scope == AGENT:
            return (limits.of_agent(secret),) if secret else (limits.of_address("open", self._address(request)),)
        account, per_address = limits.of_account(route.dialect.name, caller.account_id, caller.plan)
        if per_address and route.dialect.limits_addresses:
            return (account, limits.of_address(route.limits, self._address(request)))
        return (account,)

    async def _charged(self, request: web.BaseRequest, headers: CIMultiDict[str], refused: Refused) -> Refused:
        """Every answer says where the caller stands: a wrong credential counts against the address, and so does what
        was refused before anybody could be charged."""
        limits = self._gateway.limits
        given = request.headers.get("Authorization", "") or request.headers.get("X-API-Key", "")
        is_login = refused.code == "UNAUTHENTICATED" and bool(given)
        if not limits.is_on or ("X-RateLimit-Limit" in headers and not is_login):
            return refused
        charge = limits.of_address("failed_login" if is_login else "open", self._address(request))
        try:
            await limits.spend((charge,), headers)
        except Refused as too_many:
            return too_many
        return refused

    def _address(self, request: web.BaseRequest) -> str:
        return client_address(request, proxies=self._gateway.settings.trusted_proxies)

    def _success(self, call: Call, answer: Answer, headers: CIMultiDict[str]) -> tuple[int, bytes | Live | None]:
        if answer.headers:
            headers.update(answer.headers)
        if call.position is not None:
            headers["X-Dumont-Position"] = f"{call.position.stream}:{call.position.seq}"
        if call.stale:
            headers["X-Dumont-Stale"] = "true"
        if call.replayed:
            headers["Idempotent-Replayed"] = "true"
        if isinstance(answer.body, bytes | Live):
            return answer.status, answer.body
        headers["Content-Type"] = _JSON
        return answer.status, _encode(answer.body)

    async def _preflight(
        self, request: web.BaseRequest, path: str, headers: CIMultiDict[str]
    ) -> tuple[int, bytes | None]:
        methods, _ = self._router.methods(path)
        if not methods:
            raise Refused("NOT_FOUND", method="OPTIONS", path=path[:200])
        if self._gateway.limits.is_on:
            await self._gateway.limits.spend(
                (self._gateway.limits.of_address("open", self._address(request)),), headers
            )
        headers.update(_PREFLIGHT_HEADERS)
        headers["Allow"] = allowed(methods)
        return 204, None

    def _refusal(
        self, request: web.BaseRequest, incoming: _Incoming, headers: CIMultiDict[str], refused: Refused
    ) -> tuple[int, bytes]:
        language = language_of(request.headers.get("Accept-Language", ""), incoming.dialect.language)
        failure = self._failure(incoming, refused, language)
        headers["Content-Language"] = NAMES[language]
        headers["Vary"] = "Accept-Language"
        if failure.retry_after_s is not None:
            headers["Retry-After"] = str(failure.retry_after_s)
        if refused.code == "METHOD_NOT_ALLOWED":
            headers["Allow"] = refused.facts["allow"]
        if refused.code == "UNAUTHENTICATED":
            headers["WWW-Authenticate"] = 'Bearer realm="dumont"'
        headers["Content-Type"] = _JSON
        return failure.status, _encode(incoming.dialect.failure(failure))

    def _failure(self, incoming: _Incoming, refused: Refused, language: Language) -> Failure:
        code = refused.code
        if code not in CODES:
            self._gateway.logger.error("http.unknown_code", code=code, request_id=incoming.request_id)
            code = "INTERNAL_ERROR"
        dialect = incoming.dialect
        shown = dialect.renames.get(code, code)
        if incoming.route is not None:
            shown = incoming.route.renames.get(code, shown)
        known = CODES.get(shown, CODES[code])
        facts = spoken(refused.facts, language)
        retry, advice = retry_and_advice(shown if shown in CODES else code, refused.facts)
        return Failure(
            code=shown,
            status=known.status,
            message=text(shown if shown in CODES else code, facts, language),
            facts={name: value for name, value in facts.items() if name not in _OWN_PLACE and value not in ("", None)},
            retry=retry,
            retry_after_s=_retry_after(known.status, refused),
            advice=advice_in(language, advice),
            at=self._gateway.clock.now(),
            request_id=incoming.request_id,
            correlation_id=incoming.correlation_id,
        )

    def _account(self, request: web.BaseRequest, incoming: _Incoming, status: int) -> None:
        """One line and three numbers per request."""
        seconds = self._gateway.clock.monotonic_s() - incoming.started_s
        route = incoming.route.path if incoming.route is not None else "unknown"
        method = request.method if incoming.route is not None else "other"
        self._gateway.vitals.count((incoming.dialect.name, method, route), status, seconds)
        self._gateway.logger.info(
            "http.request",
            method=request.method,
            route=route,
            status=status,
            took_ms=round(seconds * 1000, 3),
            request_id=incoming.request_id,
            correlation_id=incoming.correlation_id,
        )


def _target(raw: str) -> str:
    """Of a request; proxies may send the whole URL (RFC 9112, 3.2.2)."""
    if raw.startswith("/"):
        return raw
    whole = _WHOLE_URL.match(raw)
    return raw if whole is None else raw[whole.end() :] or "/"


def _id(given: str | None, gateway: Gateway, prefix: str) -> str:
    """The caller's id when it is one; anything else (log forgery, header splitting) is replaced."""
    if given is not None and _ID_IN.fullmatch(given):
        return given
    return gateway.ids.fresh(prefix)


def _idempotency_key(given: str | None) -> str:
    """An empty one is a mistake: its sender believes that a repeat is safe."""
    if given is None:
        return ""
    if not _KEY_IN.fullmatch(given):
        refuse("Idempotency-Key", "Idempotency-Key must be 1 to 255 printable ASCII characters", given)
    return given


def _position(given: str | None) -> Position | None:
    if given is None:
        return None
    found = _POSITION_IN.fullmatch(given)
    if found is None:
        refuse("X-Dumont-Position", "X-Dumont-Position must be what an earlier answer carried", given)
    return Position(found[1], int(found[2]))


def _retry_after(status: int, refused: Refused) -> int | None:
    given = refused.facts.get("retry_after_s")
    if isinstance(given, int | float):
        return max(1, math.ceil(given))
    return RETRY_AFTER_S if status in (429, 503) else None


async def _read(request: web.BaseRequest) -> bytes:
    """The whole body, or PAYLOAD_TOO_LARGE before more than the limit is held."""
    too_large = Refused("PAYLOAD_TOO_LARGE", limit_mb=BODY_BYTES_MAX // (1024 * 1024))
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise too_large
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # curl waits a second for it
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_READ_S_MAX):
            while chunk := await request.content.readany():
                size += len(chunk)
                if size > BODY_BYTES_MAX:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError:
        raise Refused("REQUEST_TIMEOUT") from None
    except web.RequestPayloadError:  # no gzip though it says so, or a chunk that is none
        refuse("body", "Body must be what its Content-Encoding and Transfer-Encoding say")
    if size and not _JSON_TYPE.fullmatch(request.headers.get("Content-Type", "")):
        raise Refused("UNSUPPORTED_MEDIA_TYPE")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
