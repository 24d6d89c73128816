"""What every provider adapter must do: `PROVIDER_CONTRACT` lists checks, each run against every cloud we can reach.

Called by tests/integration/test_sandbox_provider.py, and by any other adapter's tests. Knows the port's verbs and words
only through the `Subject`, because libs import no service; what a cloud cannot be made to do (`None` in the Subject) is
not checked there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from libs.refusal import OutcomeUnknown
from libs.spec import provider_volumes as volumes
from libs.spec.provider_subject import (
    LOOK_PAUSE_S,
    SETTLE_TIMEOUT_S,
    Subject,
    an_order,
    create,
    fresh_label,
    renamed,
    until,
    until_found,
)


async def offers_are_sorted_by_price_and_name_their_provider(subject: Subject) -> None:
    offers = await subject.provider.offers()
    prices = [offer.price_usd_micros_per_hour for offer in offers]
    assert prices == sorted(prices)
    assert prices
    assert {offer.provider for offer in offers} == {subject.provider.name}


async def a_created_machine_comes_up_with_endpoints(subject: Subject) -> None:
    created = await create(subject)
    machine = await until(subject, created.provider_machine_id, "running")
    assert machine.endpoints
    assert machine.host_id
    for endpoint in machine.endpoints:
        _, writer = await asyncio.open_connection(endpoint.host, endpoint.public_port)
        writer.close()
        await writer.wait_closed()


async def a_label_finds_its_machine_and_no_other(subject: Subject) -> None:
    created = await create(subject)
    found = await until_found(subject, created.label)
    assert found.provider_machine_id == created.provider_machine_id
    assert await subject.provider.find(created.label + "x") is None


async def platforms_of_one_account_do_not_take_each_others_machines_for_theirs(subject: Subject) -> None:
    order = await an_order(subject)
    ours = await subject.provider.create(order)
    assert ours.label == order.label
    theirs = await subject.other.create(order)
    assert theirs.provider_machine_id != ours.provider_machine_id, "the same label of two platforms is two machines"
    for provider, own, foreign in ((subject.provider, ours, theirs), (subject.other, theirs, ours)):
        await until_found(subject, order.label, provider)
        labels = {machine.provider_machine_id: machine.label for machine in await provider.machines()}
        assert labels[own.provider_machine_id] == order.label
        assert not labels.get(foreign.provider_machine_id)
        assert not (await provider.get(foreign.provider_machine_id)).label
        found = await provider.find(order.label)
        assert found is not None
        assert found.provider_machine_id == own.provider_machine_id


async def creating_twice_with_one_label_gives_one_machine(subject: Subject) -> None:
    order = await an_order(subject)
    created: list[Any] = await asyncio.gather(*(subject.provider.create(order) for _ in range(2)))
    created.append(await subject.provider.create(order))
    assert len({machine.provider_machine_id for machine in created}) == 1
    await until_found(subject, order.label)
    listed = [machine for machine in await subject.provider.machines() if machine.label == order.label]
    assert len(listed) == 1


async def a_create_without_answer_is_unknown_and_found_by_its_label(subject: Subject) -> None:
    if subject.lose_next_answer is None:
        return
    order = await an_order(subject)
    await subject.lose_next_answer()
    try:
        await subject.provider.create(order)
    except OutcomeUnknown:
        found = await until_found(subject, order.label)
    else:
        raise AssertionError("a lost answer must be OutcomeUnknown")
    again = await subject.provider.create(order)
    assert again.provider_machine_id == found.provider_machine_id


async def an_offer_that_is_not_there_is_gone(subject: Subject) -> None:
    offers = await subject.provider.offers()
    order = subject.order(fresh_label(), renamed(offers[0]))
    try:
        await subject.provider.create(order)
    except subject.offer_gone:
        assert await subject.provider.find(order.label) is None
    else:
        raise AssertionError("an unknown offer must be gone")


async def an_order_no_host_would_carry_out_is_rejected(subject: Subject) -> None:
    order = subject.bad_order(fresh_label(), (await subject.provider.offers())[0])
    try:
        await subject.provider.create(order)
    except subject.order_rejected:
        assert await subject.provider.find(order.label) is None
    else:
        raise AssertionError("a bad order must be rejected")


async def stopping_and_starting_keep_the_files(subject: Subject) -> None:
    created = await create(subject)
    machine = await until(subject, created.provider_machine_id, "running")
    if subject.write_file is not None:
        await subject.write_file(machine, "precious")
    for _ in range(2):  # stopping what is stopped is fine
        await subject.provider.stop(machine.provider_machine_id)
    await until(subject, machine.provider_machine_id, "stopped")
    for _ in range(2):
        await subject.provider.start(machine.provider_machine_id)
    machine = await until(subject, machine.provider_machine_id, "running")
    assert machine.endpoints
    if subject.read_file is not None:
        assert await subject.read_file(machine) == "precious"


async def destroying_twice_succeeds_and_the_machine_is_gone(subject: Subject) -> None:
    created = await create(subject)
    for _ in range(2):
        await subject.provider.destroy(created.provider_machine_id)
    await until(subject, created.provider_machine_id, "gone")
    assert await subject.provider.find(created.label) is None


async def stopping_what_is_gone_succeeds_and_starting_it_says_so(subject: Subject) -> None:
    created = await create(subject)
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
    created = await create(subject)
    await until(subject, created.provider_machine_id, "running")
    await subject.interrupt(created.provider_machine_id)
    machine = await until(subject, created.provider_machine_id, "exited", "gone")
    if machine.status == "exited":
        assert machine.interruption == "spot_preemption"
    await subject.provider.destroy(created.provider_machine_id)


async def a_machine_listed_once_is_listed_until_destroyed(subject: Subject) -> None:
    labels = {(await create(subject)).label for _ in range(3)}
    for label in labels:
        await until_found(subject, label)
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
                wanted.add((await create(subject)).provider_machine_id)
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
    volumes.a_shared_workspace_outlives_the_machine_it_was_made_in,
    volumes.a_volume_in_use_is_not_given_back,
    volumes.the_workspace_of_a_machine_that_is_gone_cannot_be_shared,
    volumes.a_volume_of_a_region_is_made_once_and_listed_by_its_name,
    volumes.a_volume_of_no_region_is_rejected,
    volumes.a_volume_of_a_region_outlives_a_preemption_and_is_had_by_one_machine_at_a_time,
)
