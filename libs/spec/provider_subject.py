"""One provider adapter under test, and what every check of `provider_contract` and `provider_volumes` does with it.

Knows the port's verbs and words only through the `Subject`, because libs import no service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from libs.ids import SystemIds

SETTLE_TIMEOUT_S = 20.0
LOOK_PAUSE_S = 0.02
# Polling is bounded by the deadline, so looks are bounded too.
LOOKS_MAX = int(SETTLE_TIMEOUT_S / LOOK_PAUSE_S)


@dataclass(frozen=True)
class Subject:
    """One adapter under test and the levers of its cloud. `Any` stands for the port's own types."""

    provider: Any
    other: Any  # another platform's adapter for the same account
    order: Callable[[str, Any], Any]  # label, offer -> a good order
    bad_order: Callable[[str, Any], Any]  # one that no host would carry out
    offer_gone: type[Exception]
    order_rejected: type[Exception]
    lose_next_answer: Callable[[], Awaitable[None]] | None = None  # the next create happens, its answer does not come
    interrupt: Callable[[str], Awaitable[None]] | None = None  # the cloud takes a machine away
    write_file: Callable[[Any, str], Awaitable[None]] | None = None  # machine, text
    read_file: Callable[[Any], Awaitable[str]] | None = None


def fresh_label() -> str:
    return SystemIds().fresh("mach")


async def an_order(subject: Subject) -> Any:
    offers = await subject.provider.offers()
    return subject.order(fresh_label(), next(offer for offer in offers if offer.kind == "gpu"))


async def create(subject: Subject) -> Any:
    return await subject.provider.create(await an_order(subject))


async def running_pair(subject: Subject) -> tuple[Any, Any]:
    """A running machine, and an order for another one on its host."""
    offers = [offer for offer in await subject.provider.offers() if offer.kind == "gpu"]
    big = next(offer for offer in offers if offer.gpu_count > 1)
    single = next(offer for offer in offers if offer.host_id == big.host_id and offer.gpu_count == 1)
    created = await subject.provider.create(subject.order(fresh_label(), single))
    return await until(subject, created.provider_machine_id, "running"), subject.order(fresh_label(), single)


async def orders_on_two_hosts_of_a_region(subject: Subject) -> tuple[Any, Any]:
    offers = [offer for offer in await subject.provider.offers() if offer.kind == "gpu"]
    for one in offers:
        for other in offers:
            if one.region == other.region and one.host_id != other.host_id:
                return subject.order(fresh_label(), one), subject.order(fresh_label(), other)
    raise AssertionError("no region has GPUs on two hosts")


async def volume_ids(subject: Subject) -> set[str]:
    return {volume.volume_id for volume in await subject.provider.volumes()}


def renamed(offer: Any) -> Any:
    return type(offer)(
        **{name: getattr(offer, name) for name in offer.__struct_fields__} | {"offer_id": "nowhere.1.spot"}
    )


async def until(subject: Subject, provider_machine_id: str, *statuses: str) -> Any:
    """The machine, once it has one of `statuses`."""
    machine: Any = None
    for _ in range(LOOKS_MAX):
        machine = await subject.provider.get(provider_machine_id)
        if machine.status in statuses:
            return machine
        await asyncio.sleep(LOOK_PAUSE_S)
    raise AssertionError(f"{provider_machine_id} is {machine.status}, not {statuses}: {machine.detail}")


async def until_found(subject: Subject, label: str, provider: Any = None) -> Any:
    for _ in range(LOOKS_MAX):
        machine = await (provider or subject.provider).find(label)
        if machine is not None:
            return machine
        await asyncio.sleep(LOOK_PAUSE_S)
    raise AssertionError(f"{label} is never listed")
