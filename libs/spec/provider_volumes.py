"""What a provider adapter must do about volumes, of a host and of a region. Checks of `PROVIDER_CONTRACT`."""

from __future__ import annotations

from collections.abc import Awaitable

from msgspec.structs import replace

from libs.refusal import Transient
from libs.spec.provider_subject import (
    Subject,
    create,
    fresh_label,
    orders_on_two_hosts_of_a_region,
    running_pair,
    until,
    volume_ids,
)


async def a_shared_workspace_outlives_the_machine_it_was_made_in(subject: Subject) -> None:
    if not subject.provider.capabilities.shared_volume:
        return
    first, order = await running_pair(subject)
    if subject.write_file is not None:
        await subject.write_file(first, "before")
    volume_id = await subject.provider.share_workspace(first.provider_machine_id, name=first.label, size_gb=10)
    again = await subject.provider.share_workspace(first.provider_machine_id, name="another", size_gb=10)
    assert again == volume_id, "a machine that has a volume keeps it"
    if subject.write_file is not None:
        await subject.write_file(first, "after")
    second = await subject.provider.create(replace(order, volume_id=volume_id))
    second = await until(subject, second.provider_machine_id, "running")
    assert second.volume_id == volume_id
    await subject.provider.destroy(first.provider_machine_id)
    await until(subject, first.provider_machine_id, "gone")
    if subject.write_file is not None and subject.read_file is not None:
        assert await subject.read_file(second) == "after"
        await subject.write_file(second, "onward")
        assert await subject.read_file(second) == "onward"
    await subject.provider.destroy(second.provider_machine_id)
    await until(subject, second.provider_machine_id, "gone")
    for _ in range(2):  # giving back what is gone is fine
        await subject.provider.destroy_volume(volume_id)
    assert volume_id not in await volume_ids(subject)


async def a_volume_in_use_is_not_given_back(subject: Subject) -> None:
    if not subject.provider.capabilities.shared_volume:
        return
    machine = await create(subject)
    await until(subject, machine.provider_machine_id, "running")
    volume_id = await subject.provider.share_workspace(machine.provider_machine_id, name=machine.label, size_gb=10)
    try:
        await subject.provider.destroy_volume(volume_id)
    except Transient:
        await subject.provider.destroy(machine.provider_machine_id)
        await until(subject, machine.provider_machine_id, "gone")
        await subject.provider.destroy_volume(volume_id)
        return
    raise AssertionError("a volume that a machine has must not be given back")


async def the_workspace_of_a_machine_that_is_gone_cannot_be_shared(subject: Subject) -> None:
    if not subject.provider.capabilities.shared_volume:
        return
    machine = await create(subject)
    await subject.provider.destroy(machine.provider_machine_id)
    try:
        await subject.provider.share_workspace(machine.provider_machine_id, name=machine.label, size_gb=10)
    except subject.offer_gone:
        return
    raise AssertionError("a machine that is gone has nothing to share")


async def a_volume_of_a_region_is_made_once_and_listed_by_its_name(subject: Subject) -> None:
    if not subject.provider.capabilities.regional_volumes:
        return
    name, offer = fresh_label(), (await subject.provider.offers())[0]
    made = [await subject.provider.make_volume(name=name, region=offer.region, size_gb=10) for _ in range(2)]
    assert made[0] == made[1]
    (listed,) = [volume for volume in await subject.provider.volumes() if volume.name == name]
    assert (listed.volume_id, listed.region, listed.host_id) == (made[0], offer.region, "")
    for _ in range(2):
        await subject.provider.destroy_volume(made[0])
    assert made[0] not in await volume_ids(subject)


async def a_volume_of_no_region_is_rejected(subject: Subject) -> None:
    if not subject.provider.capabilities.regional_volumes:
        return
    try:
        await subject.provider.make_volume(name=fresh_label(), region="nowhere", size_gb=10)
    except subject.order_rejected:
        return
    raise AssertionError("there is no such region")


async def a_volume_of_a_region_outlives_a_preemption_and_is_had_by_one_machine_at_a_time(subject: Subject) -> None:
    if not subject.provider.capabilities.regional_volumes or subject.interrupt is None:
        return
    first_order, second_order = await orders_on_two_hosts_of_a_region(subject)
    region = first_order.offer.region
    volume_id = await subject.provider.make_volume(name=first_order.label, region=region, size_gb=10)
    first_order = replace(first_order, volume_id=volume_id, mount_path="/data")
    created = await subject.provider.create(first_order)
    first = await until(subject, created.provider_machine_id, "running")
    assert (first.volume_id, (await subject.provider.find(first.label)).volume_id) == (volume_id, volume_id)
    if subject.write_file is not None:
        await subject.write_file(first, "precious")
    second_order = replace(second_order, volume_id=volume_id, mount_path="/data")
    await _expect_transient(subject.provider.create(second_order), "a volume that another machine has")
    await _expect_transient(subject.provider.destroy_volume(volume_id), "a volume in use")
    await subject.interrupt(first.provider_machine_id)
    await subject.provider.destroy(first.provider_machine_id)
    await until(subject, first.provider_machine_id, "gone")
    created = await subject.provider.create(second_order)
    second = await until(subject, created.provider_machine_id, "running")
    assert second.host_id != first.host_id
    if subject.read_file is not None and subject.write_file is not None:
        assert await subject.read_file(second) == "precious"
        await subject.write_file(second, "onward")
        assert await subject.read_file(second) == "onward"
    await subject.provider.destroy(second.provider_machine_id)
    await until(subject, second.provider_machine_id, "gone")
    await subject.provider.destroy_volume(volume_id)


async def _expect_transient(call: Awaitable[object], what: str) -> None:
    try:
        await call
    except Transient:
        return
    raise AssertionError(f"{what} must be Transient")
