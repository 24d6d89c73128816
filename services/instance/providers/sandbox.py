"""Provider adapter for the sandbox cloud (services/sandbox/README.md describes its API; we meet it over HTTP only).

Made by the instance service's composition root with the cloud's address and key. Passes libs/spec/provider_contract.py.

Which error means what, for `create`: no connection, 429 and 503 -> Transient (surely not created); 409 -> OfferGone,
but Transient while another machine has the volume;
other 4xx -> OrderRejected; anything after the order may have arrived (timeout, reset, 5xx, unreadable answer) ->
OutcomeUnknown.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from libs.bodies import read_at_most
from libs.refusal import OutcomeUnknown, Transient
from proto.instance.words import SSH_PORT, Endpoint, InterruptionReason, Offer
from services.instance.providers import (
    Capabilities,
    MachineOrder,
    News,
    OfferGone,
    OrderRejected,
    ProviderCharge,
    ProviderMachine,
    ProviderStatus,
    ProviderVolume,
)
from services.instance.providers.labels import label_of, machine_in

NAME = "sandbox"
CONNECT_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 5.0  # offers, get, list: a few milliseconds on an idle host
CREATE_TIMEOUT_S = 10.0
CHANGE_TIMEOUT_S = 20.0  # a destroy returns when the machine's processes are gone
LIST_LAG_S = 1.0  # the cloud's own default is none; faults may raise it
CONNECTIONS_MAX = 128
ANSWER_BYTES_MAX = 16 * 1024 * 1024  # of a page, or of a market
LIST_PAGE = 500  # machines; 10 ms of work for either side
LIST_PAGES_MAX = 1_000
# The cloud sends a comment every 10 s, so a longer silence is a dead connection.
SIGNAL_SILENCE_MAX_S = 30.0
SIGNAL_LINE_BYTES_MAX = 64 * 1024
SIGNAL_RETRY_MIN_S, SIGNAL_RETRY_MAX_S = 0.1, 10.0
T = TypeVar("T")


class _Offers(Struct, frozen=True):
    offers: list[dict[str, Any]]


class _Machine(Struct, frozen=True):
    machine_id: str
    label: str
    status: ProviderStatus
    offer_id: str = ""
    host_id: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    interruption: InterruptionReason | None = None
    detail: str = ""
    volume_id: str = ""
    ssh_key_path: str = ""


class _Machines(Struct, frozen=True):
    machines: list[_Machine]
    next: str = ""


class _Charge(Struct, frozen=True):
    number: int
    charge_id: str
    machine_id: str
    label: str
    since: float
    until: float
    usd_micros: int
    is_volume: bool = False


class _Charges(Struct, frozen=True):
    charges: list[_Charge]


class _Volume(Struct, frozen=True):
    volume_id: str
    name: str
    region: str = ""
    host_id: str = ""


class _Volumes(Struct, frozen=True):
    volumes: list[_Volume]


class _News(Struct, frozen=True):
    machine_id: str
    status: ProviderStatus | None = None


class _Problem(Struct, frozen=True):
    code: str = ""
    detail: str = ""


class _Answer(Struct, frozen=True):
    status: int
    body: bytes

    @property
    def problem(self) -> _Problem:
        try:
            return msgspec.json.decode(self.body, type=_Problem)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return _Problem(f"http_{self.status}", self.body[:200].decode(errors="replace"))


class SandboxProvider:
    """One sandbox cloud. Make and close it inside the event loop that uses it."""

    name = NAME

    def __init__(self, url: str, key: str, *, platform: str, list_lag_s: float = LIST_LAG_S) -> None:
        """`platform`: whose machines these are (`labels.platform_id`)."""
        self.capabilities = Capabilities(
            spot=True,
            regional_volumes=True,
            shared_volume=True,
            stopped_keeps_gpu=False,
            push_signals=True,
            idempotent_create=True,
            list_lag_s=list_lag_s,
        )
        self._url = url.rstrip("/")
        self._platform = platform
        self._chance = random.Random()  # noqa: S311 - spreads load, keeps no secret
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
            headers={"Authorization": f"Bearer {key}"},
        )
        self._last_news = ""

    def __repr__(self) -> str:
        return f"SandboxProvider({self._url!r})"

    async def offers(self) -> Sequence[Offer]:
        answer = await self._call("GET", "/v1/offers")
        listed = _decode(answer, _Offers).offers
        # The cloud's offers have the fields of ours; what a newer cloud adds is ignored.
        return [msgspec.convert({"provider": NAME, **offer}, Offer) for offer in listed]

    async def create(self, order: MachineOrder) -> ProviderMachine:
        spec = order.spec
        keys = [line.strip() for line in spec.ssh_public_key.splitlines() if line.strip()]
        body = {
            "label": label_of(self._platform, order.label),
            "offer_id": order.offer.offer_id,
            "image": spec.image,
            "price_usd_micros_per_hour_max": spec.price_usd_micros_per_hour_max,
            "disk_gb": spec.disk_gb,
            "ports": [{"port": port.port, "protocol": port.protocol} for port in spec.ports],
            "env": spec.env,
            "agent_env": order.environment,
            "start_command": spec.start_command,
            "ssh_public_keys": keys,
            "inbox_public_keys": order.inbox_public_keys,
            "volume_id": order.volume_id,
            "mount_path": order.mount_path,
        }
        try:
            answer = await self._send("POST", "/v1/machines", body, timeout_s=CREATE_TIMEOUT_S)
        except _MaybeDone as error:
            raise OutcomeUnknown(f"create {order.label}: {error}") from error
        return self._shown(_created(order, answer))

    async def find(self, label: str) -> ProviderMachine | None:
        answer = await self._call("GET", "/v1/machines", label=label_of(self._platform, label))
        found = [self._shown(machine) for machine in _decode(answer, _Machines).machines]
        return next((machine for machine in found if machine.label == label), None)

    async def get(self, provider_machine_id: str) -> ProviderMachine:
        answer = await self._call("GET", f"/v1/machines/{provider_machine_id}", missing_is_fine=True)
        if answer.status == 404:
            return ProviderMachine(provider_machine_id, "", "gone")
        return self._shown(_decode(answer, _Machine))

    async def machines(self) -> Sequence[ProviderMachine]:
        found: list[ProviderMachine] = []
        after = ""
        for _ in range(LIST_PAGES_MAX):  # in pages, so that commands are answered between them
            answer = await self._call("GET", f"/v1/machines?limit={LIST_PAGE}&after={after}")
            page = _decode(answer, _Machines)
            found += map(self._shown, page.machines)
            after = page.next
            if not after:
                return found
        raise Transient(f"the cloud lists more than {LIST_PAGES_MAX * LIST_PAGE} machines")

    async def charges(self, *, after: int) -> Sequence[ProviderCharge]:
        """See `TellsCharges`."""
        answer = await self._call("GET", f"/v1/charges?after={after}")
        return [
            ProviderCharge(
                number=charge.number,
                charge_id=charge.charge_id,
                label=machine_in(self._platform, charge.label),
                volume_id=charge.machine_id if charge.is_volume else "",
                since=datetime.fromtimestamp(charge.since, UTC),
                until=datetime.fromtimestamp(charge.until, UTC),
                usd_micros=charge.usd_micros,
            )
            for charge in _decode(answer, _Charges).charges
        ]

    async def start(self, provider_machine_id: str) -> None:
        """Raises OfferGone when the GPU was rented to somebody else or the machine itself is lost."""
        path = f"/v1/machines/{provider_machine_id}/start"
        answer = await self._call("POST", path, timeout_s=CHANGE_TIMEOUT_S, missing_is_fine=True, conflict_is_fine=True)
        if answer.status in (404, 409):
            raise OfferGone(answer.problem.detail)

    async def stop(self, provider_machine_id: str) -> None:
        path = f"/v1/machines/{provider_machine_id}/stop"
        await self._call("POST", path, timeout_s=CHANGE_TIMEOUT_S, missing_is_fine=True)

    async def destroy(self, provider_machine_id: str) -> None:
        path = f"/v1/machines/{provider_machine_id}"
        await self._call("DELETE", path, timeout_s=CHANGE_TIMEOUT_S, missing_is_fine=True)

    async def share_workspace(self, provider_machine_id: str, *, name: str, size_gb: int) -> str:
        """Idempotent by the machine."""
        answer = await self._call(
            "POST",
            f"/v1/machines/{provider_machine_id}/share",
            body={"name": label_of(self._platform, name), "size_gb": size_gb},
            timeout_s=CHANGE_TIMEOUT_S,
            missing_is_fine=True,
            conflict_is_fine=True,
        )
        if answer.status in (404, 409):
            raise OfferGone(answer.problem.detail)
        return _decode(answer, _Volume).volume_id

    async def make_volume(self, *, name: str, region: str, size_gb: int) -> str:
        """Idempotent by name and region."""
        body = {"name": label_of(self._platform, name), "region": region, "size_gb": size_gb}
        answer = await self._call("POST", "/v1/volumes", body=body, rejection_is_fine=True)
        if answer.status == 422:
            raise OrderRejected(answer.problem.code, answer.problem.detail)
        return _decode(answer, _Volume).volume_id

    async def volumes(self) -> Sequence[ProviderVolume]:
        listed = _decode(await self._call("GET", "/v1/volumes"), _Volumes).volumes
        named = ((one, machine_in(self._platform, one.name)) for one in listed)
        return [ProviderVolume(one.volume_id, name, one.region, one.host_id) for one, name in named if name]

    async def destroy_volume(self, volume_id: str) -> None:
        """A volume that is still attached is a 409, and so Transient."""
        await self._call("DELETE", f"/v1/volumes/{volume_id}", missing_is_fine=True)

    async def signals(self) -> AsyncIterator[News]:
        """News, for ever. After a break it goes on where it was, as far as the cloud remembers."""
        failures = 0
        while True:
            try:
                async for news in self._listen():
                    failures = 0
                    yield news
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
                failures += 1
            pause_s = min(SIGNAL_RETRY_MIN_S * 2 ** min(failures, 10), SIGNAL_RETRY_MAX_S)
            await asyncio.sleep(pause_s * self._chance.uniform(0.5, 1.0))

    async def close(self) -> None:
        await self._session.close()

    def _shown(self, machine: _Machine) -> ProviderMachine:
        """In the port's words. Another platform's machine on the same account has no label of ours."""
        return ProviderMachine(
            provider_machine_id=machine.machine_id,
            label=machine_in(self._platform, machine.label),
            status=machine.status,
            offer_id=machine.offer_id,
            host_id=machine.host_id,
            endpoints=tuple(_with_key(endpoint, machine.ssh_key_path) for endpoint in machine.endpoints),
            interruption=machine.interruption,
            detail=machine.detail,
            volume_id=machine.volume_id,
        )

    async def _listen(self) -> AsyncIterator[News]:
        """One connection's worth of news (server-sent events)."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SIGNAL_SILENCE_MAX_S)
        headers = {"Last-Event-ID": self._last_news} if self._last_news else {}
        async with self._session.get(
            self._url + "/v1/events", headers=headers, timeout=timeout, read_bufsize=SIGNAL_LINE_BYTES_MAX
        ) as response:
            response.raise_for_status()
            news_id = ""
            async for line in response.content:
                field, _, value = line.rstrip(b"\r\n").partition(b": ")
                if field == b"id":
                    news_id = value.decode()
                elif field == b"data":
                    told = msgspec.json.decode(value, type=_News)
                    yield News(told.machine_id, told.status)
                    self._last_news = news_id  # only now: whoever stops listening in between hears it again

    async def _call(
        self,
        method: str,
        path: str,
        *,
        label: str = "",
        body: Any = None,
        timeout_s: float = READ_TIMEOUT_S,
        missing_is_fine: bool = False,
        conflict_is_fine: bool = False,
        rejection_is_fine: bool = False,
    ) -> _Answer:
        """An idempotent call. Raises Transient for everything but the answers that are declared fine."""
        try:
            answer = await self._send(method, path, body, label=label, timeout_s=timeout_s)
        except _MaybeDone as error:
            raise Transient(f"{method} {path}: {error}") from error
        fine = answer.status < 300 or (missing_is_fine and answer.status == 404)
        fine = fine or (rejection_is_fine and answer.status == 422)
        if fine or (conflict_is_fine and answer.status == 409):
            return answer
        raise Transient(f"{method} {path}: {answer.status} {answer.problem.code}")

    async def _send(self, method: str, path: str, body: Any, *, label: str = "", timeout_s: float) -> _Answer:
        """Raises Transient when the request surely did not arrive, _MaybeDone when it may have."""
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        data = None if body is None else msgspec.json.encode(body)
        params = {"label": label} if label else None
        try:
            async with self._session.request(
                method, self._url + path, data=data, params=params, timeout=timeout
            ) as response:
                content = await read_at_most(response, ANSWER_BYTES_MAX + 1)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Transient(f"{method} {path}: cannot reach the sandbox cloud ({type(error).__name__})") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _MaybeDone(type(error).__name__) from error
        if len(content) > ANSWER_BYTES_MAX:
            raise _MaybeDone("the answer is too large")
        return _Answer(response.status, content)


class _MaybeDone(Exception):
    """The request may have arrived, and no answer came."""


def _created(order: MachineOrder, answer: _Answer) -> _Machine:
    problem = answer.problem if answer.status >= 300 else _Problem()
    said = f"create {order.label}: {answer.status} {problem.code}"
    match answer.status:
        case 200 | 201:
            try:
                return msgspec.json.decode(answer.body, type=_Machine)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise OutcomeUnknown(f"create {order.label}: the answer cannot be read") from error
        case 409 if problem.code == "volume_in_use":
            raise Transient(said)
        case 409:
            raise OfferGone(problem.detail)
        case 401 | 403 | 429 | 503:
            raise Transient(said)  # refused before anything was done; a wrong key is for the operator to mend
        case status if 400 <= status < 500:
            raise OrderRejected(problem.code, problem.detail)
        case _:
            raise OutcomeUnknown(said)


def _with_key(endpoint: Endpoint, key_path: str) -> Endpoint:
    """Who ordered no key of their own logs in with the sandbox's, which lies on this very host."""
    is_keyed = endpoint.port == SSH_PORT and key_path
    return msgspec.structs.replace(endpoint, identity_file=key_path) if is_keyed else endpoint


def _decode(answer: _Answer, form: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.body, type=form)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Transient(f"the sandbox cloud's answer cannot be read: {error}") from error
