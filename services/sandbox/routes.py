"""The cloud's HTTP API: a table of paths, one small function each. Documented in README.md.

Built by `__main__`. Owns what is true of every request: the key, the pace limit, the body limit and the form of errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Awaitable, Callable
from itertools import islice
from random import Random
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from libs.clock import SystemClock
from services.sandbox.bills import machine_item
from services.sandbox.cloud import Cloud
from services.sandbox.homes import NoFreeUser
from services.sandbox.orders import Refusal
from services.sandbox.wire import CreateBody, FaultBody, GpusBody, InterruptBody, Problem, ShareBody, VolumeBody

BODY_BYTES_MAX = 128 * 1024
# How long a create that "times out" keeps its caller hanging: longer than any client waits.
LISTED_MAX = 10_000  # machines in one answer: a few megabytes
HANG_S = 120.0
NEWS_SILENCE_MAX_S = 10.0  # a comment line this often, so that listeners notice a dead connection
STATUS = {
    "machine_unknown": 404,
    "volume_unknown": 404,
    "offer_gone": 409,
    "machine_lost": 409,
    "volume_in_use": 409,
    "bad_request": 400,
    "bad_image": 422,
    "bad_ports": 422,
    "bad_ssh_key": 422,
    "volume_elsewhere": 422,
    "quota": 422,
    "unavailable": 503,
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")


class Api:
    """The handlers. `stopping` ends what would otherwise outlast the daemon: streams and hanging answers."""

    def __init__(self, cloud: Cloud, key: str, stopping: asyncio.Event) -> None:
        self._cloud = cloud
        self._authorization = f"Bearer {key}".encode()
        self._stopping = stopping
        self._luck = Random(cloud.options.seed + 1)  # noqa: S311 - decides which requests fail, not a secret
        self._second = 0
        self._requests_this_second = 0

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard], client_max_size=BODY_BYTES_MAX)
        machine = "/v1/machines/{id}"
        application.add_routes(
            [
                web.get("/v1/health", self.health),
                web.get("/v1/offers", self.offers),
                web.post("/v1/machines", self.create),
                web.get("/v1/machines", self.list_machines),
                web.get(machine, self.get),
                web.delete(machine, self.destroy),
                web.post(machine + "/start", self.start),
                web.post(machine + "/stop", self.stop),
                web.post(machine + "/interrupt", self.interrupt),
                web.post(machine + "/share", self.share),
                web.post(machine + "/gpus", self.show_gpus),
                web.get("/v1/events", self.events),
                web.get("/v1/volumes", self.list_volumes),
                web.post("/v1/volumes", self.create_volume),
                web.delete("/v1/volumes/{id}", self.destroy_volume),
                web.get("/v1/charges", self.charges),
                web.get("/v1/faults", self.faults),
                web.post("/v1/faults", self.arm),
            ]
        )
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), self._authorization):
            return _answer(Problem("unauthorized", "give the key as Authorization: Bearer"), 401)
        is_admin = request.path in ("/v1/faults", "/v1/health")
        if not is_admin and (self._cloud.faults.request_limited() or self._is_too_fast()):
            return web.Response(status=429, text="Too many requests")
        try:
            return await handler(request)
        except Refusal as refusal:
            return _answer(Problem(refusal.code, refusal.detail), STATUS[refusal.code])
        except NoFreeUser as error:
            return _answer(Problem("quota", str(error)), STATUS["quota"])

    def _is_too_fast(self) -> bool:
        limit = self._cloud.options.requests_per_s_max
        if limit == 0:
            return False
        second = int(SystemClock().monotonic_s())
        if second != self._second:
            self._second, self._requests_this_second = second, 0
        self._requests_this_second += 1
        return self._requests_this_second > limit

    async def health(self, _request: web.Request) -> web.Response:
        cloud = self._cloud
        return _answer(
            {
                "status": "healthy",
                "mode": "virtual" if cloud.options.virtual else "process",
                "machines": cloud.counts(),
                "gpus_rentable": cloud.market.rentable(),
            }
        )

    async def offers(self, request: web.Request) -> web.Response:
        wanted = {name: request.query[name] for name in ("gpu", "region", "billing", "kind") if name in request.query}
        offers = self._cloud.offers()
        if wanted:
            offers = [offer for offer in offers if all(getattr(offer, name) == value for name, value in wanted.items())]
        return _answer({"offers": offers})

    async def charges(self, request: web.Request) -> web.Response:
        after = request.query.get("after", "0")
        if not after.isdecimal() or len(after) > 12:
            raise Refusal("bad_request", "after must be the number of a charge")
        now = _now()
        machines, volumes = self._cloud.list(), self._cloud.volumes
        self._cloud.bills.note_time([*map(machine_item, machines), *volumes.items()], now)
        return _answer({"charges": self._cloud.bills.published(int(after), now)})

    async def create(self, request: web.Request) -> web.Response:
        body = await _body(request, CreateBody)
        if self._cloud.faults.create_fails(self._luck):
            raise Refusal("unavailable", "the market is busy; nothing was created")
        record, is_new = await self._cloud.create(body)
        if is_new and self._cloud.faults.create_times_out(self._luck):
            await self._hang()
            return _answer(Problem("timeout", "the market did not answer in time"), 504)
        return _answer(self._cloud.view(record), 201 if is_new else 200)

    async def list_machines(self, request: web.Request) -> web.Response:
        """`next`: what to ask for next as `after`; empty at the end."""
        limit = request.query.get("limit", str(LISTED_MAX))
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= LISTED_MAX):
            raise Refusal("bad_request", f"limit is a number between 1 and {LISTED_MAX}")
        records = self._cloud.list(request.query.get("label", ""), request.query.get("after", ""))
        page = list(islice(records, int(limit) + 1))
        more = page[int(limit) - 1].machine_id if len(page) > int(limit) else ""
        return _answer({"machines": [self._cloud.view(record) for record in page[: int(limit)]], "next": more})

    async def get(self, request: web.Request) -> web.Response:
        return _answer(self._cloud.view(self._cloud.get(request.match_info["id"])))

    async def start(self, request: web.Request) -> web.Response:
        return _answer(self._cloud.view(await self._cloud.start(request.match_info["id"])), 202)

    async def stop(self, request: web.Request) -> web.Response:
        return _answer(self._cloud.view(await self._cloud.stop(request.match_info["id"])), 202)

    async def destroy(self, request: web.Request) -> web.Response:
        await self._cloud.destroy(request.match_info["id"])
        return web.Response(status=204)

    async def interrupt(self, request: web.Request) -> web.Response:
        body = await _body(request, InterruptBody)
        await self._cloud.interrupt(request.match_info["id"], body.reason)
        return web.Response(status=204)

    async def share(self, request: web.Request) -> web.Response:
        body = await _body(request, ShareBody)
        volume = await self._cloud.share(request.match_info["id"], body)
        return _answer(self._cloud.volumes.view(volume), 201)

    async def show_gpus(self, request: web.Request) -> web.Response:
        self._cloud.show_gpus(request.match_info["id"], (await _body(request, GpusBody)).utilizations)
        return web.Response(status=204)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events, resumed by Last-Event-ID (or `?after=`)."""
        seq = self._cloud.news.resume_at(request.headers.get("Last-Event-ID", "") or request.query.get("after", ""))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        with contextlib.suppress(ConnectionError):  # the listener has gone; it comes back with the last id it has
            await response.prepare(request)
            await self._tell(response, seq)
        return response

    async def _tell(self, response: web.StreamResponse, seq: int) -> None:
        """Everything after `seq`, as it happens, until the daemon stops. Raises ConnectionError."""
        news = self._cloud.news
        await response.write(b": listening\n\n")
        while not self._stopping.is_set():
            heard = news.after(seq)
            if heard:
                seq = heard[-1].seq
                await response.write(
                    b"".join(
                        b"id: %b-%d\ndata: %b\n\n" % (n.epoch.encode(), n.seq, msgspec.json.encode(n)) for n in heard
                    )
                )
                continue
            if not await news.wait(seq, NEWS_SILENCE_MAX_S):
                await response.write(b": still here\n\n")

    async def list_volumes(self, _request: web.Request) -> web.Response:
        return _answer({"volumes": self._cloud.volumes.all()})

    async def create_volume(self, request: web.Request) -> web.Response:
        body = await _body(request, VolumeBody)
        hosts = self._cloud.market.hosts
        if bool(body.host_id) == bool(body.region):
            raise Refusal("bad_request", "give exactly one of host_id and region")
        if body.host_id and body.host_id not in hosts:
            raise Refusal("volume_elsewhere", f"there is no host {body.host_id}")
        if body.region and not any(host.region == body.region for host in hosts.values()):
            raise Refusal("volume_elsewhere", f"there is no region {body.region}")
        return _answer(self._cloud.volumes.view(self._cloud.volumes.create(body, _now())), 201)

    async def destroy_volume(self, request: web.Request) -> web.Response:
        volume_id = request.match_info["id"]
        if self._cloud.volumes.in_use(volume_id):
            raise Refusal("volume_in_use", f"{volume_id} is attached to a machine")
        self._cloud.volumes.destroy(volume_id, _now())
        return web.Response(status=204)

    async def faults(self, _request: web.Request) -> web.Response:
        return _answer(self._cloud.faults.armed)

    async def arm(self, request: web.Request) -> web.Response:
        armed = self._cloud.faults.arm(await _body(request, FaultBody))
        self._cloud.market.sold_out = set(armed.sold_out or ())
        return _answer(armed)

    async def _hang(self) -> None:
        try:
            async with asyncio.timeout(HANG_S):
                await self._stopping.wait()
        except TimeoutError:
            return


def _now() -> float:
    return SystemClock().now().timestamp()


async def _body(request: web.Request, form: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=form)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise Refusal("bad_request", str(error)) from error


def _answer(content: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), status=status, content_type="application/json")
