"""A burst of creates at the virtual sandbox: hundreds of machines are decided on one listing, and rented when the hosts
that it shows first are long full."""

from __future__ import annotations

import asyncio
from pathlib import Path

from msgspec.structs import replace

from libs.runtime.hands import PATIENT_JOBS_MAX
from proto.instance.queries import InstanceList, ListInstances
from services.instance.providers import MachineOrder, OfferGone, ProviderMachine
from services.instance.providers.sandbox import SandboxProvider
from tests.integration.instance_world import ACCOUNT, SPEC, ScriptedCloud, instance_world
from tests.integration.sandbox_daemon import KEY, Daemon

MACHINES = 300
# The cheapest hosts of this market have 96, 96, 24 and 96 GPUs, so three fill up. On demand: those prices stand still.
MARKET = {"virtual": True, "gpus": 32_000, "outside_demand_ppm": 0}
FILLED = 3
WISH = replace(SPEC, billing="on_demand")


class CountingProvider(SandboxProvider):
    """The adapter, with a count of what the cloud refuses."""

    refusals = 0

    async def create(self, order: MachineOrder) -> ProviderMachine:
        try:
            return await super().create(order)
        except OfferGone:
            self.refusals += 1
            raise


async def test_machines_of_a_burst_are_not_ordered_at_hosts_that_are_known_to_be_full(
    database_url: str, tmp_path: Path
) -> None:
    daemon = Daemon(tmp_path, **MARKET)
    try:
        await daemon.start()
        provider = CountingProvider(daemon.url, KEY, platform="burst")
        async with instance_world(database_url, ScriptedCloud(), provider=provider) as world:
            await asyncio.gather(*(world.create(f"burst-{number}", spec=WISH) for number in range(MACHINES)))

            async def all_ready() -> bool:
                question = ListInstances(account_id=ACCOUNT, statuses=("ready",))
                return (await world.ask(question, InstanceList)).total == MACHINES

            await world.until(all_ready)
        await provider.close()
        _, listed = await daemon.call("GET", "/v1/machines")
    finally:
        await daemon.close()
    assert len({machine["host_id"] for machine in listed["machines"]}) == FILLED + 1
    # A host that is full refuses those that are at it in that moment, and nobody who comes later.
    assert provider.refusals <= FILLED * PATIENT_JOBS_MAX < MACHINES
