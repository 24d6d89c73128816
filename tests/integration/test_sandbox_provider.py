"""The sandbox adapter keeps the provider contract, on real machines and on virtual ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from libs.refusal import OutcomeUnknown, Transient
from libs.spec.provider_contract import PROVIDER_CONTRACT
from libs.spec.provider_subject import Subject
from proto.instance.words import MachineSpec, Offer, Port
from services.instance.providers import MachineOrder, OfferGone, OrderRejected, ProviderMachine
from services.instance.providers import sandbox as adapter
from services.instance.providers.sandbox import SandboxProvider
from tests.integration.sandbox_daemon import KEY, Daemon


def order(label: str, offer: Offer, image: str = "pytorch/pytorch:latest") -> MachineOrder:
    spec = MachineSpec(gpu=offer.gpu, image=image, ports=(Port(8888), Port(22, "tcp")))
    return MachineOrder(label, offer, spec, {})


@pytest.fixture(params=["virtual", "process"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    daemon = Daemon(tmp_path, virtual=request.param == "virtual")
    await daemon.start()
    provider = SandboxProvider(daemon.url, KEY, platform="p1")
    other = SandboxProvider(daemon.url, KEY, platform="p2")
    yield subject_of(daemon, provider, other, has_files=request.param == "process")
    await provider.close()
    await other.close()
    await daemon.close()


def subject_of(daemon: Daemon, provider: SandboxProvider, other: SandboxProvider, *, has_files: bool) -> Subject:
    def connect(machine: ProviderMachine) -> Any:
        port = next(endpoint.public_port for endpoint in machine.endpoints if endpoint.port == 22)
        key = str(daemon.root / "keys" / "id_ed25519")
        return asyncssh.connect("127.0.0.1", port, username="root", client_keys=[key], known_hosts=None)

    async def write(machine: ProviderMachine, text: str) -> None:
        async with connect(machine) as connection:
            await connection.run(f"printf %s {text} > kept", check=True)

    async def read(machine: ProviderMachine) -> str:
        async with connect(machine) as connection:
            return str((await connection.run("cat kept", check=True)).stdout)

    async def lose_next_answer() -> None:
        await daemon.call("POST", "/v1/faults", {"creates_timing_out": 1})

    async def interrupt(machine_id: str) -> None:
        await daemon.call("POST", f"/v1/machines/{machine_id}/interrupt", {})

    return Subject(
        provider=provider,
        other=other,
        order=order,
        bad_order=lambda label, offer: order(label, offer, image="missing/image"),
        offer_gone=OfferGone,
        order_rejected=OrderRejected,
        lose_next_answer=lose_next_answer,
        interrupt=interrupt,
        write_file=write if has_files else None,
        read_file=read if has_files else None,
    )


@pytest.mark.parametrize("check", PROVIDER_CONTRACT, ids=lambda check: check.__name__)
async def test_provider_contract(
    check: Callable[[Subject], Awaitable[None]], subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "CREATE_TIMEOUT_S", 1.0)
    await check(subject)


@pytest.fixture
async def virtual(tmp_path: Path) -> AsyncIterator[tuple[Daemon, SandboxProvider]]:
    daemon = Daemon(tmp_path, virtual=True, charge_delay_s=0)
    await daemon.start()
    provider = SandboxProvider(daemon.url, KEY, platform="p1")
    yield daemon, provider
    await provider.close()
    await daemon.close()


async def test_what_is_given_back_is_charged_a_volume_under_the_machine_that_it_was_made_for(
    virtual: tuple[Daemon, SandboxProvider],
) -> None:
    _, provider = virtual
    offer = min(await provider.offers(), key=lambda one: one.price_usd_micros_per_hour)  # a minute is below a cent
    machine = await provider.create(order("mach_1", offer))
    volume_id = await provider.make_volume(name="mach_1", region=offer.region, size_gb=50)
    assert await provider.charges(after=0) == [], "while it is there, it is charged by the day"
    await provider.destroy_volume(volume_id)
    await provider.destroy(machine.provider_machine_id)
    charged = [(one.label, one.volume_id, one.usd_micros) for one in await provider.charges(after=0)]
    assert charged == [("mach_1", volume_id, 10_000), ("mach_1", "", 10_000)]


@pytest.mark.parametrize("fault", ["creates_failing", "requests_limited"])
async def test_a_refused_create_is_transient_and_created_nothing(
    virtual: tuple[Daemon, SandboxProvider], fault: str
) -> None:
    daemon, provider = virtual
    offer = (await provider.offers())[0]
    await daemon.call("POST", "/v1/faults", {fault: 1})
    with pytest.raises(Transient) as refused:
        await provider.create(order("mach_1", offer))
    assert not isinstance(refused.value, OutcomeUnknown)
    assert await provider.find("mach_1") is None


async def test_no_connection_means_surely_not_created(virtual: tuple[Daemon, SandboxProvider]) -> None:
    daemon, provider = virtual
    offer = (await provider.offers())[0]
    await daemon.stop()
    with pytest.raises(Transient) as refused:
        await provider.create(order("mach_1", offer))
    assert not isinstance(refused.value, OutcomeUnknown)


async def test_a_listing_that_lags_does_not_show_a_new_machine_yet(virtual: tuple[Daemon, SandboxProvider]) -> None:
    daemon, provider = virtual
    await daemon.call("POST", "/v1/faults", {"list_lag_ms": 3_600_000})
    created = await provider.create(order("mach_1", (await provider.offers())[0]))
    assert await provider.find("mach_1") is None
    assert list(await provider.machines()) == []
    assert (await provider.get(created.provider_machine_id)).status == "running"


async def test_a_sold_out_gpu_is_not_offered_and_cannot_be_rented(virtual: tuple[Daemon, SandboxProvider]) -> None:
    daemon, provider = virtual
    offer = next(offer for offer in await provider.offers() if offer.gpu == "RTX 4090")
    await daemon.call("POST", "/v1/faults", {"sold_out": ["RTX 4090"]})
    assert not any(offer.gpu == "RTX 4090" for offer in await provider.offers())
    with pytest.raises(OfferGone):
        await provider.create(order("mach_1", offer))


async def test_signals_go_on_after_the_cloud_was_killed(virtual: tuple[Daemon, SandboxProvider]) -> None:
    daemon, provider = virtual
    offer = (await provider.offers())[0]
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def listen() -> None:
        async for news in provider.signals():
            heard.put_nowait(news.provider_machine_id)

    listening = asyncio.create_task(listen())
    made: list[str] = []
    while heard.empty():  # connected once something was heard
        made.append((await provider.create(order(f"mach_{len(made)}", offer))).provider_machine_id)
    await daemon.kill()
    await daemon.start()
    await provider.destroy(made[0])  # most likely before the listener is back: it hears it all the same
    async with asyncio.timeout(30):
        while await heard.get() != made[0] or (await provider.get(made[0])).status != "gone":
            pass
    listening.cancel()


def test_an_order_and_the_provider_do_not_show_secrets() -> None:
    offer = Offer("o", "sandbox", "h", "RTX 4090", 1)
    secret_order = MachineOrder("mach_1", offer, MachineSpec("RTX 4090", "image"), {"TOKEN": "hush"})
    assert "hush" not in repr(secret_order)


async def test_a_long_list_comes_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "LIST_PAGE", 2)
    daemon = Daemon(tmp_path, virtual=True)
    await daemon.start()
    provider = SandboxProvider(daemon.url, KEY, platform="p1")
    try:
        offer = (await provider.offers())[0]
        labels = [f"mach_{number}" for number in range(5)]
        for label in labels:
            await provider.create(order(label, offer))
        listed = await provider.machines()
        assert [machine.label for machine in listed] == labels
        pages = [
            await daemon.call("GET", f"/v1/machines?limit=3&after={after}")
            for after in ("", listed[2].provider_machine_id)
        ]
        assert [len(page["machines"]) for _, page in pages] == [3, 2]
        assert [page["next"] for _, page in pages] == [listed[2].provider_machine_id, ""]
        for limit in ("0", "x", "10001"):
            assert (await daemon.call("GET", f"/v1/machines?limit={limit}"))[0] == 400
        monkeypatch.setattr(adapter, "LIST_PAGES_MAX", 2)
        with pytest.raises(Transient):
            await provider.machines()
    finally:
        await provider.close()
        await daemon.close()
