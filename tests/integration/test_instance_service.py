"""The instance service end to end: wish, cloud, probe, rows, answers. The cloud is scripted; the database is real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from libs.refusal import Refused
from proto.instance.commands import DeleteInstance, KeepAlive, MarkUsed, StartInstance, StopInstance
from proto.instance.host_commands import Blacklist
from proto.instance.queries import (
    AgentAnswer,
    AgentList,
    AgentReport,
    BlacklistCheck,
    BlacklistEntry,
    CheckBlacklist,
    GetInstance,
    GetStats,
    HistorySummary,
    InstanceList,
    InstanceStats,
    InstanceView,
    ListAgents,
    ListBlacklist,
    ListInstances,
    ListOffers,
    OfferList,
    SummarizeHistory,
)
from proto.instance.words import HealthCheck, Port
from services.instance.providers import ProviderMachine
from tests.integration.instance_world import ACCOUNT, SPEC, InstanceWorld, ScriptedCloud, an_offer, instance_world


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[InstanceWorld]:
    async with instance_world(database_url, ScriptedCloud()) as made:
        yield made


def about(world: InstanceWorld, instance_id: str) -> dict[str, Any]:
    return {"now": world.clock.now(), "instance_id": instance_id, "account_id": ACCOUNT}


async def test_an_instance_becomes_ready_stops_starts_and_is_deleted(world: InstanceWorld) -> None:
    instance_id = await world.create()
    ready = await world.until_status(instance_id, "ready")
    assert (ready.gpu, ready.region, ready.host_id) == ("RTX_4090", "CN-HK-01", "host_1")
    assert ready.price_usd_micros_per_hour == 300_001
    assert [endpoint.public_port for endpoint in ready.endpoints] == [world.cloud.port]
    await world.ask(StopInstance(**about(world, instance_id)))
    await world.until_status(instance_id, "stopped")
    await world.ask(StartInstance(**about(world, instance_id), machine_id="mach_unused"))
    again = await world.until_status(instance_id, "ready")
    assert [machine.status for machine in again.machines] == ["healthy"]
    await world.ask(DeleteInstance(**about(world, instance_id)))
    await world.until_status(instance_id, "deleted")
    assert not world.cloud.listed
    assert world.cloud.rented == 1


async def test_a_machine_whose_answer_was_lost_is_adopted_and_not_doubled(world: InstanceWorld) -> None:
    world.cloud.lose_answers = 1
    await world.until_status(await world.create(), "ready")
    assert world.cloud.rented == 1


async def test_an_offer_that_is_gone_is_passed_over_and_a_stale_market_is_looked_at_again(world: InstanceWorld) -> None:
    world.cloud.taken = {"offer_1", "offer_2"}
    world.cloud.market = [an_offer(1), an_offer(2)]
    instance_id = await world.create()
    assert (await world.until_status(instance_id, "failed")).failure_code == "OFFER_UNAVAILABLE"
    world.cloud.market = [an_offer(1), an_offer(3)]
    ready = await world.until_status(await world.create(), "ready")
    assert ready.host_id == "host_3"


async def test_a_cloud_that_is_away_for_a_moment_is_asked_again(world: InstanceWorld) -> None:
    world.cloud.refuse_connections = 3
    await world.until_status(await world.create(), "ready")


async def test_an_unknown_gpu_is_refused_and_a_sold_out_one_too(world: InstanceWorld) -> None:
    with pytest.raises(Refused, match="PRODUCT_NOT_FOUND"):
        await world.create(spec=replace(SPEC, gpu="Voodoo 2"))
    with pytest.raises(Refused, match="NO_AVAILABLE_PRODUCTS"):
        await world.create(spec=replace(SPEC, price_usd_micros_per_hour_max=1))
    with pytest.raises(Refused, match="OFFER_UNAVAILABLE"):
        await world.create(offer_id="offer_99")


async def test_a_port_that_answers_late_is_waited_for(world: InstanceWorld) -> None:
    world.answers[:] = [503, 503, 302]
    await world.until_status(await world.create(), "ready")


async def test_a_port_that_answers_with_a_client_error_fails_the_instance_and_gives_the_machine_back(
    world: InstanceWorld,
) -> None:
    world.answers[:] = [404]
    instance_id = await world.create()
    assert (await world.until_status(instance_id, "failed")).failure_code == "HEALTH_CHECK_FAILED"

    async def given_back() -> bool:
        return (await world.get(instance_id)).machines[0].status == "destroyed"

    await world.until(given_back)
    assert not world.cloud.listed


async def test_a_client_error_on_one_port_fails_the_instance_at_once_though_another_may_still_answer(
    world: InstanceWorld,
) -> None:
    world.answers[:] = [404, 503]
    two = replace(SPEC, ports=(Port(8888, "http"), Port(8889, "http")))
    patient = HealthCheck(retry_delay_ms=10, wait_max_ms=600_000)
    instance_id = await world.create(spec=two, health_check=patient)
    assert (await world.until_status(instance_id, "failed")).failure_code == "HEALTH_CHECK_FAILED"


async def test_a_target_port_that_is_not_exposed_fails_the_instance(world: InstanceWorld) -> None:
    instance_id = await world.create(health_check=HealthCheck(target_port=9999))
    assert (await world.until_status(instance_id, "failed")).failure_code == "HEALTH_CHECK_FAILED"


@pytest.mark.parametrize("is_hinted", [True, False])
async def test_a_preempted_machine_interrupts_its_instance_which_can_start_on_another(
    world: InstanceWorld, is_hinted: bool
) -> None:
    instance_id = await world.create()
    ready = await world.until_status(instance_id, "ready")
    world.cloud.becomes(ready.provider_machine_id, "exited", interruption="spot_preemption")
    if is_hinted:
        world.cloud.hints.put_nowait(ready.provider_machine_id)
    assert (await world.until_status(instance_id, "interrupted")).status_reason == "spot_preemption"
    await world.ask(StartInstance(**about(world, instance_id), machine_id=world.ids.fresh("mach")))
    again = await world.until_status(instance_id, "ready")
    assert again.generation == 2
    assert again.provider_machine_id != ready.provider_machine_id


async def test_a_machine_that_vanishes_is_noticed_by_the_poll(world: InstanceWorld) -> None:
    instance_id = await world.create()
    ready = await world.until_status(instance_id, "ready")
    world.cloud.listed.pop(ready.provider_machine_id)
    await world.until_status(instance_id, "interrupted")


async def test_a_machine_that_is_once_not_found_is_looked_at_again_and_not_given_up(world: InstanceWorld) -> None:
    instance_id = await world.create()
    ready = await world.until_status(instance_id, "ready")
    world.cloud.misses, world.cloud.looks = 1, 0
    world.cloud.hints.put_nowait(ready.provider_machine_id)

    async def looked_again() -> bool:
        return world.cloud.looks >= 2

    await world.until(looked_again)
    other = await world.create()
    await world.until_status(other, "ready")
    assert (await world.get(instance_id)).machines == ready.machines


async def test_a_machine_nobody_owns_is_reported_and_a_strangers_machine_is_left_alone(world: InstanceWorld) -> None:
    world.cloud.listed["cloud_o"] = ProviderMachine("cloud_o", "mach_nobody", "running")
    world.cloud.listed["cloud_s"] = ProviderMachine("cloud_s", "", "running")  # whatever it is called there

    async def orphan_gone() -> bool:
        return await world.pool.fetchval("select status from orphans") == "gone"

    await world.until(orphan_gone)
    assert set(world.cloud.listed) == {"cloud_s"}


async def test_an_idle_instance_is_stopped_and_counted(world: InstanceWorld) -> None:
    instance_id = await world.create(auto_stop_minutes=20)
    await world.until_status(instance_id, "ready")
    # The deadline is data: bring it forward, and the decider still says no because its own time is not over.
    await world.pool.execute("update deadlines set due_at = now() where name = 'auto_stop'")
    await world.ask(MarkUsed(**about(world, instance_id), used_at=world.clock.now()))
    await world.ask(KeepAlive(**about(world, instance_id), minutes=30))
    view = await world.get(instance_id)
    assert view.status == "ready"
    assert view.keep_alive_until is not None and view.last_used_at is not None
    due_at = await world.pool.fetchval("select due_at from deadlines where name = 'auto_stop'")
    assert due_at == view.keep_alive_until


async def test_deadlines_are_withdrawn_when_they_have_no_meaning_any_more(world: InstanceWorld) -> None:
    instance_id = await world.create(auto_stop_minutes=20)
    await world.until_status(instance_id, "ready")
    assert await world.pool.fetchval("select array_agg(name) from deadlines") == ["auto_stop"]
    await world.ask(StopInstance(**about(world, instance_id)))
    await world.until_status(instance_id, "stopped")
    assert await world.pool.fetchval("select count(*) from deadlines") == 0


async def test_many_gets_at_once_share_statements_and_each_gets_its_own(world: InstanceWorld) -> None:
    ids = [await world.create(f"name-{number}", spec=replace(SPEC, ports=())) for number in range(5)]
    views = await asyncio.gather(*(world.get(ids[number % 5]) for number in range(100)))
    assert [view.instance_id for view in views] == [ids[number % 5] for number in range(100)]
    with pytest.raises(Refused, match="INSTANCE_NOT_FOUND"):
        await world.get("inst_unknown")
    with pytest.raises(Refused, match="INSTANCE_NOT_FOUND"):
        await world.ask(GetInstance(instance_id=ids[0], account_id="acct_other"), InstanceView)


async def test_lists_are_filtered_and_paged_newest_first_with_their_total(world: InstanceWorld) -> None:
    ids = [await world.create(f"name-{number}") for number in range(3)]
    for instance_id in ids:
        await world.until_status(instance_id, "ready")

    async def listed(**filters: Any) -> tuple[list[str], int]:
        answer: InstanceList = await world.ask(ListInstances(account_id=ACCOUNT, **filters), InstanceList)
        return [view.instance_id for view in answer.items], answer.total

    assert await listed() == (ids[::-1], 3)
    assert await listed(limit=1, offset=1) == ([ids[1]], 3)
    assert await listed(offset=9) == ([], 3)
    assert await listed(name="name-0") == ([ids[0]], 1)
    assert await listed(statuses=("failed",)) == ([], 0)
    stats: InstanceStats = await world.ask(GetStats(), InstanceStats)
    assert stats.by_status == {"ready": 3}


async def test_offers_carry_their_hosts_history_and_hide_blocked_hosts(world: InstanceWorld) -> None:
    await world.until_status(await world.create(), "ready")
    block = Blacklist(
        now=world.clock.now(), provider="scripted", host_id="host_2", account_id=ACCOUNT, reason="slow disk"
    )
    await world.ask(block)

    async def offered(**filters: Any) -> OfferList:
        return await world.ask(ListOffers(account_id=ACCOUNT, **filters), OfferList)

    async def recorded() -> bool:
        return (await offered()).items[0].attempts_total == 1

    await world.until(recorded)
    first, second = (await offered(include_blacklisted=True, gpu="rtx-4090", region="ASIA")).items
    assert (first.success_ppm, first.reliability_status, first.is_blacklisted) == (1_000_000, "unknown", False)
    assert (second.success_ppm, second.is_blacklisted, second.blacklist_reason) == (None, True, "slow disk")
    assert (await offered()).total == 1
    assert (await offered(gpu="H100")).items == []
    check = CheckBlacklist(account_id=ACCOUNT, provider="scripted", host_id="host_2")
    assert (await world.ask(check, BlacklistCheck)).entry.is_active
    assert (await world.ask(replace(check, account_id="acct_other"), BlacklistCheck)).entry is None
    assert len(await world.ask(ListBlacklist(account_id=ACCOUNT), list[BlacklistEntry])) == 1
    summary: HistorySummary = await world.ask(SummarizeHistory(), HistorySummary)
    assert (summary.attempts_total, summary.successes, summary.failures) == (1, 1, 0)


async def test_an_agent_of_the_current_machine_goes_on_and_of_an_old_one_shuts_down(world: InstanceWorld) -> None:
    instance_id = await world.create()
    ready = await world.until_status(instance_id, "ready")
    report = AgentReport(
        machine_id=ready.machines[0].machine_id,
        instance_id=instance_id,
        generation=1,
        received_at=world.clock.now(),
        status="idle",
        gpu_utilization_percent=0.5,
        ssh_sessions=0,
    )
    assert (await world.ask(report, AgentAnswer)).action == "none"
    later = replace(report, received_at=report.received_at + timedelta(seconds=30))
    assert (await world.ask(later, AgentAnswer)).next_heartbeat_s == 30
    agents: AgentList = await world.ask(ListAgents(account_id=ACCOUNT), AgentList)
    assert agents.items[0].idle_since == report.received_at
    await world.ask(replace(later, gpu_utilization_percent=None), AgentAnswer)
    agents = await world.ask(ListAgents(account_id=ACCOUNT), AgentList)
    assert agents.items[0].idle_since is None, "an unknown load is not idleness"
    world.cloud.listed.pop(ready.provider_machine_id)
    await world.until_status(instance_id, "interrupted")
    await world.ask(StartInstance(**about(world, instance_id), machine_id=world.ids.fresh("mach")))
    await world.until_status(instance_id, "ready")
    late = replace(report, received_at=world.clock.now() + timedelta(hours=1), message="I am back")
    answer: AgentAnswer = await world.ask(late, AgentAnswer)
    assert (answer.action, answer.message) == ("shutdown", "generation 2 carries the instance now")
    remembered = await world.pool.fetchval("select last_seen_at from agents where machine_id = $1", report.machine_id)
    assert remembered == later.received_at, "what a late machine says is not remembered"
