"""What every provider adapter must do: `PROVIDER_CONTRACT` lists checks, each run against every cloud we can reach.

Called by tests/integration/test_sandbox_provider.py, and by any other adapter's tests. Knows the port's verbs and words
only through the `Subject`, because libs import no service; what a cloud cannot be made to do (`None` in the Subject) is
not checked there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from libs.ids import SystemIds
from libs.refusal import OutcomeUnknown, Transient

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


async def offers_are_sorted_by_price_and_name_their_provider(subject: Subject) -> None:
    offers = await subject.provider.offers()
    prices = [offer.price_usd_micros_per_hour for offer in offers]
    assert prices == sorted(prices)
    assert prices
    assert {offer.provider for offer in offers} == {subject.provider.name}


async def a_created_machine_comes_up_with_endpoints(subject: Subject) -> None:
    created = await _create(subject)
    machine = await _until(subject, created.provider_machine_id, "running")
    assert machine.endpoints
    assert machine.host_id
    for endpoint in machine.endpoints:
        _, writer = await asyncio.open_connection(endpoint.host, endpoint.public_port)
        writer.close()
        await writer.wait_closed()


async def a_label_finds_its_machine_and_no_other(subject: Subject) -> None:
    created = await _create(subject)
    found = await _until_found(subject, created.label)
    assert found.provider_machine_id == created.provider_machine_id
    assert await subject.provider.find(created.label + "x") is None


async def platforms_of_one_account_do_not_take_each_others_machines_for_theirs(subject: Subject) -> None:
    order = await _order(subject)
    ours = await subject.provider.create(order)
    assert ours.label == order.label
    theirs = await subject.other.create(order)
    assert theirs.provider_machine_id != ours.provider_machine_id, "the same label of two platforms is two machines"
    for provider, own, foreign in ((subject.provider, ours, theirs), (subject.other, theirs, ours)):
        await _until_found(subject, order.label, provider)
        labels = {machine.provider_machine_id: machine.label for machine in await provider.machines()}
        assert labels[own.provider_machine_id] == order.label
        assert not labels.get(foreign.provider_machine_id)
        assert not (await provider.get(foreign.provider_machine_id)).label
        found = await provider.find(order.label)
        assert found is not None
        assert found.provider_machine_id == own.provider_machine_id


async def creating_twice_with_one_label_gives_one_machine(subject: Subject) -> None:
    order = await _order(subject)
    created: list[Any] = await asyncio.gather(*(subject.provider.create(order) for _ in range(2)))
    created.append(await subject.provider.create(order))
    assert len({machine.provider_machine_id for machine in created}) == 1
    await _until_found(subject, order.label)
    listed = [machine for machine in await subject.provider.machines() if machine.label == order.label]
    assert len(listed) == 1


async def a_create_without_answer_is_unknown_and_found_by_its_label(subject: Subject) -> None:
    if subject.lose_next_answer is None:
        return
    order = await _order(subject)
    await subject.lose_next_answer()
    try:
        await subject.provider.create(order)
    except OutcomeUnknown:
        found = await _until_found(subject, order.label)
    else:
        raise AssertionError("a lost answer must be OutcomeUnknown")
    again = await subject.provider.create(order)
    assert again.provider_machine_id == found.provider_machine_id


async def an_offer_that_is_not_there_is_gone(subject: Subject) -> None:
    offers = await subject.provider.offers()
    order = subject.order(_label(), _renamed(offers[0]))
    try:
        await subject.provider.create(order)
    except subject.offer_gone:
        assert await subject.provider.find(order.label) is None
    else:
        raise AssertionError("an unknown offer must be gone")


async def an_order_no_host_would_carry_out_is_rejected(subject: Subject) -> None:
    order = subject.bad_order(_label(), (await subject.provider.offers())[0])
    try:
        await subject.provider.create(order)
    except subject.order_rejected:
        assert await subject.provider.find(order.label) is None
    else:
        raise AssertionError("a bad order must be rejected")


async def stopping_and_starting_keep_the_files(subject: Subject) -> None:
    created = await _create(subject)
    machine = await _until(subject, created.provider_machine_id, "running")
    if subject.write_file is not None:
        await subject.write_file(machine, "precious")
    for _ in range(2):  # stopping what is stopped is fine
        await subject.provider.stop(machine.provider_machine_id)
    await _until(subject, machine.provider_machine_id, "stopped")
    for _ in range(2):
        await subject.provider.start(machine.provider_machine_id)
    machine = await _until(subject, machine.provider_machine_id, "running")
    assert machine.endpoints
    if subject.read_file is not None:
        assert await subject.read_file(machine) == "precious"


async def destroying_twice_succeeds_and_the_machine_is_gone(subject: Subject) -> None:
    created = await _create(subject)
    for _ in range(2):
        await subject.provider.destroy(created.provider_machine_id)
    await _until(subject, created.provider_machine_id, "gone")
    assert await subject.provider.find(created.label) is None


async def stopping_what_is_gone_succeeds_and_starting_it_says_so(subject: Subject) -> None:
    created = await _create(subject)
    await subject.provider.destroy(created.provider_machine_id)
    await subject.provider.stop(created.provider_machine_id)
    try:
        await subject.provider.start(created.provider_machine_id)
    except subject.offer_gone:
        return
    raise AssertionError("a machine that is gone cannot be started")


async def a_machine_that_was_taken_away_is_down_with_a_reason(subject: Subject) -> None:
    if subject.interrupt is None:
        return
    created = await _create(subject)
    await _until(subject, created.provider_machine_id, "running")
    await subject.interrupt(created.provider_machine_id)
    machine = await _until(subject, created.provider_machine_id, "exited", "gone")
    if machine.status == "exited":
        assert machine.interruption == "spot_preemption"
    await subject.provider.destroy(created.provider_machine_id)


async def a_machine_listed_once_is_listed_until_destroyed(subject: Subject) -> None:
    labels = {(await _create(subject)).label for _ in range(3)}
    for label in labels:
        await _until_found(subject, label)
    assert labels <= {machine.label for machine in await subject.provider.machines()}


async def news_of_a_machine_are_signalled(subject: Subject) -> None:
    if not subject.provider.capabilities.push_signals:
        return
    heard: set[str] = set()
    arrived = asyncio.Event()

    async def listen() -> None:
        async for news in subject.provider.signals():
            heard.add(news.provider_machine_id)
            arrived.set()

    listening = asyncio.ensure_future(listen())
    try:
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            # A listener hears what happens after it is connected; the first news tell that it is.
            wanted: set[str] = set()
            while not wanted & heard:
                wanted.add((await _create(subject)).provider_machine_id)
                await asyncio.sleep(LOOK_PAUSE_S)
            machine_id = (wanted & heard).pop()
            heard.clear()
            await subject.provider.destroy(machine_id)
            while machine_id not in heard:
                arrived.clear()
                await arrived.wait()
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def a_shared_workspace_outlives_the_machine_it_was_made_in(subject: Subject) -> None:
    if not subject.provider.capabilities.shared_volume:
        return
    first, order = await _running_pair(subject)
    if subject.write_file is not None:
        await subject.write_file(first, "before")
    volume_id = await subject.provider.share_workspace(first.provider_machine_id, name=first.label, size_gb=10)
    again = await subject.provider.share_workspace(first.provider_machine_id, name="another", size_gb=10)
    assert again == volume_id, "a machine that has a volume keeps it"
    if subject.write_file is not None:
        await subject.write_file(first, "after")
    second = await subject.provider.create(replace(order, volume_id=volume_id))
    second = await _until(subject, second.provider_machine_id, "running")
    assert second.volume_id == volume_id
    await subject.provider.destroy(first.provider_machine_id)
    await _until(subject, first.provider_machine_id, "gone")
    if subject.write_file is not None and subject.read_file is not None:
        assert await subject.read_file(second) == "after"
        await subject.write_file(second, "onward")
        assert await subject.read_file(second) == "onward"
    await subject.provider.destroy(second.provider_machine_id)
    await _until(subject, second.provider_machine_id, "gone")
    for _ in range(2):  # giving back what is gone is fine
        await subject.provider.destroy_volume(volume_id)
    assert volume_id not in await _volume_ids(subject)


async def a_volume_in_use_is_not_given_back(subject: Subject) -> None:
    if not subject.provider.capabilities.shared_volume:
        return
    machine = await _create(subject)
    await _until(subject, machine.provider_machine_id, "running")
    volume_id = await subject.provider.share_workspace(machine.provider_machine_id, name=machine.label, size_gb=10)
    try:
        await subject.provider.destroy_volume(volume_id)
    except Transient:
        await subject.provider.destroy(machine.provider_machine_id)
        await _until(subject, machine.provider_machine_id, "gone")
        await subject.provider.destroy_volume(volume_id)
        return
    raise AssertionError("a volume that a machine has must not be given back")


async def the_workspace_of_a_machine_that_is_gone_cannot_be_shared(subject: Subject) -> None:
    if not subject.provider.capabilities.shared_volume:
        return
    machine = await _create(subject)
    await subject.provider.destroy(machine.provider_machine_id)
    try:
        await subject.provider.share_workspace(machine.provider_machine_id, name=machine.label, size_gb=10)
    except subject.offer_gone:
        return
    raise AssertionError("a machine that is gone has nothing to share")


async def a_volume_of_a_region_is_made_once_and_listed_by_its_name(subject: Subject) -> None:
    if not subject.provider.capabilities.regional_volumes:
        return
    name, offer = _label(), (await subject.provider.offers())[0]
    made = [await subject.provider.make_volume(name=name, region=offer.region, size_gb=10) for _ in range(2)]
    assert made[0] == made[1]
    (listed,) = [volume for volume in await subject.provider.volumes() if volume.name == name]
    assert (listed.volume_id, listed.region, listed.host_id) == (made[0], offer.region, "")
    for _ in range(2):
        await subject.provider.destroy_volume(made[0])
    assert made[0] not in await _volume_ids(subject)


async def a_volume_of_no_region_is_rejected(subject: Subject) -> None:
    if not subject.provider.capabilities.regional_volumes:
        return
    try:
        await subject.provider.make_volume(name=_label(), region="nowhere", size_gb=10)
    except subject.order_rejected:
        return
    raise AssertionError("there is no such region")


async def a_volume_of_a_region_outlives_a_preemption_and_is_had_by_one_machine_at_a_time(subject: Subject) -> None:
    if not subject.provider.capabilities.regional_volumes or subject.interrupt is None:
        return
    first_order, second_order = await _orders_on_two_hosts_of_a_region(subject)
    region = first_order.offer.region
    volume_id = await subject.provider.make_volume(name=first_order.label, region=region, size_gb=10)
    first_order = replace(first_order, volume_id=volume_id, mount_path="/data")
    created = await subject.provider.create(first_order)
    first = await _until(subject, created.provider_machine_id, "running")
    assert (first.volume_id, (await subject.provider.find(first.label)).volume_id) == (volume_id, volume_id)
    if subject.write_file is not None:
        await subject.write_file(first, "precious")
    second_order = replace(second_order, volume_id=volume_id, mount_path="/data")
    await _expect_transient(subject.provider.create(second_order), "a volume that another machine has")
    await _expect_transient(subject.provider.destroy_volume(volume_id), "a volume in use")
    await subject.interrupt(first.provider_machine_id)
    await subject.provider.destroy(first.provider_machine_id)
    await _until(subject, first.provider_machine_id, "gone")
    created = await subject.provider.create(second_order)
    second = await _until(subject, created.provider_machine_id, "running")
    assert second.host_id != first.host_id
    if subject.read_file is not None and subject.write_file is not None:
        assert await subject.read_file(second) == "precious"
        await subject.write_file(second, "onward")
        assert await subject.read_file(second) == "onward"
    await subject.provider.destroy(second.provider_machine_id)
    await _until(subject, second.provider_machine_id, "gone")
    await subject.provider.destroy_volume(volume_id)


async def _expect_transient(call: Awaitable[object], what: str) -> None:
    try:
        await call
    except Transient:
        return
    raise AssertionError(f"{what} must be Transient")


PROVIDER_CONTRACT: Sequence[Callable[[Subject], Awaitable[None]]] = (
    offers_are_sorted_by_price_and_name_their_provider,
    a_created_machine_comes_up_with_endpoints,
    a_label_finds_its_machine_and_no_other,
    platforms_of_one_account_do_not_take_each_others_machines_for_theirs,
    creating_twice_with_one_label_gives_one_machine,
    a_create_without_answer_is_unknown_and_found_by_its_label,
    an_offer_that_is_not_there_is_gone,
    an_order_no_host_would_carry_out_is_rejected,
    stopping_and_starting_keep_the_files,
    destroying_twice_succeeds_and_the_machine_is_gone,
    stopping_what_is_gone_succeeds_and_starting_it_says_so,
    a_machine_that_was_taken_away_is_down_with_a_reason,
    a_machine_listed_once_is_listed_until_destroyed,
    news_of_a_machine_are_signalled,
    a_shared_workspace_outlives_the_machine_it_was_made_in,
    a_volume_in_use_is_not_given_back,
    the_workspace_of_a_machine_that_is_gone_cannot_be_shared,
    a_volume_of_a_region_is_made_once_and_listed_by_its_name,
    a_volume_of_no_region_is_rejected,
    a_volume_of_a_region_outlives_a_preemption_and_is_had_by_one_machine_at_a_time,
)


def _label() -> str:
    return SystemIds().fresh("mach")


async def _order(subject: Subject) -> Any:
    offers = await subject.provider.offers()
    return subject.order(_label(), next(offer for offer in offers if offer.kind == "gpu"))


async def _create(subject: Subject) -> Any:
    return await subject.provider.create(await _order(subject))


async def _running_pair(subject: Subject) -> tuple[Any, Any]:
    """A running machine, and an order for another one on its host."""
    offers = [offer for offer in await subject.provider.offers() if offer.kind == "gpu"]
    big = next(offer for offer in offers if offer.gpu_count > 1)
    single = next(offer for offer in offers if offer.host_id == big.host_id and offer.gpu_count == 1)
    created = await subject.provider.create(subject.order(_label(), single))
    return await _until(subject, created.provider_machine_id, "running"), subject.order(_label(), single)


async def _orders_on_two_hosts_of_a_region(subject: Subject) -> tuple[Any, Any]:
    offers = [offer for offer in await subject.provider.offers() if offer.kind == "gpu"]
    for one in offers:
        for other in offers:
            if one.region == other.region and one.host_id != other.host_id:
                return subject.order(_label(), one), subject.order(_label(), other)
    raise AssertionError("no region has GPUs on two hosts")


async def _volume_ids(subject: Subject) -> set[str]:
    return {volume.volume_id for volume in await subject.provider.volumes()}


def _renamed(offer: Any) -> Any:
    return type(offer)(
        **{name: getattr(offer, name) for name in offer.__struct_fields__} | {"offer_id": "nowhere.1.spot"}
    )


async def _until(subject: Subject, provider_machine_id: str, *statuses: str) -> Any:
    """The machine, once it has one of `statuses`."""
    machine: Any = None
    for _ in range(LOOKS_MAX):
        machine = await subject.provider.get(provider_machine_id)
        if machine.status in statuses:
            return machine
        await asyncio.sleep(LOOK_PAUSE_S)
    raise AssertionError(f"{provider_machine_id} is {machine.status}, not {statuses}: {machine.detail}")


async def _until_found(subject: Subject, label: str, provider: Any = None) -> Any:
    for _ in range(LOOKS_MAX):
        machine = await (provider or subject.provider).find(label)
        if machine is not None:
            return machine
        await asyncio.sleep(LOOK_PAUSE_S)
    raise AssertionError(f"{label} is never listed")
