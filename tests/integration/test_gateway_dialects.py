"""Both dialects, end to end over HTTP: what seeds 000, 001, 002 and 004 show is what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from libs.tokens import mint_agent_token
from proto.instance.commands import CreateInstance, MarkUsed, StartInstance
from proto.instance.queries import AgentReport, ListInstances, ListOffers
from tests.integration.gateway_world import DUMONT, NOVITA, OTHER_KEY, SECRET, GatewayWorld, running_gateway


@pytest_asyncio.fixture
async def world() -> AsyncIterator[GatewayWorld]:
    async with running_gateway() as found:
        yield found


async def a_novita_instance(world: GatewayWorld, **more: Any) -> str:
    created = await world.call("POST", "/api/instances", key=None, json={**NOVITA, **more})
    assert created.status == 201, created.raw
    return created.json["instanceId"]


# --- Novita ---------------------------------------------------------------------------------------------------------


async def test_create_answers_as_seed_001_and_asks_for_what_the_template_says(world: GatewayWorld) -> None:
    created = await world.call("POST", "/api/instances", key=None, json={**NOVITA, "surprise": {"a": 1}})

    assert created.status == 201
    assert created.json["status"] == "creating"
    assert created.json["message"] == "Instance creation initiated"
    assert created.json["estimatedReadyTime"].endswith("Z")
    assert created.headers["X-Dumont-Position"] == "EVT_INSTANCE:1"
    (wish,) = world.asked(CreateInstance)
    assert (wish.spec.gpu, wish.spec.gpu_count, wish.spec.disk_gb, wish.spec.region) == (
        "RTX 4090 24GB", 1, 60, "CN-HK-01",
    )  # fmt: skip
    assert [port.port for port in wish.spec.ports] == [8888, 22, 7681]
    assert wish.auto_stop_minutes == 20
    assert wish.account_id == "acct_default"


async def test_a_ready_instance_has_connection_details(world: GatewayWorld) -> None:
    instance_id = await a_novita_instance(world)
    before = await world.call("GET", f"/api/instances/{instance_id}", key=None)
    assert (before.json["status"], before.json["connectionDetails"], before.json["readyAt"]) == ("creating", None, None)

    world.owner.becomes(instance_id, "ready")
    read = (await world.call("GET", f"/api/instances/{instance_id}", key=None)).json

    assert read["status"] == "ready"
    assert read["connectionDetails"] == {
        "ssh": "ssh root@127.0.0.1 -p 40022",
        "jupyter": "http://127.0.0.1:48888",
        "webTerminal": "http://127.0.0.1:47681",
    }
    assert read["portMappings"][0] == {"port": 22, "endpoint": "ssh://127.0.0.1:40022", "type": "ssh"}
    assert read["portMappings"][1]["type"] == "jupyter"
    assert read["readyAt"].endswith("Z")


async def test_the_basic_status_model_folds_ready_into_running(world: GatewayWorld) -> None:
    instance_id = await a_novita_instance(world)
    world.owner.becomes(instance_id, "ready")

    read = await world.call("GET", f"/api/instances/{instance_id}?statusModel=basic", key=None)
    listed = await world.call("GET", "/api/instances?status=running&statusModel=basic", key=None)

    assert read.json["status"] == "running"
    assert [one["id"] for one in listed.json["instances"]] == [instance_id]
    assert world.asked(ListInstances)[-1].statuses == ("running", "health_checking", "ready")


async def test_lists_are_paged_newest_first(world: GatewayWorld) -> None:
    ids = [await a_novita_instance(world, name=f"worker-{number}") for number in (1, 2, 3)]

    listed = (await world.call("GET", "/api/instances?limit=2&offset=1", key=None)).json

    assert [one["id"] for one in listed["instances"]] == [ids[1], ids[0]]
    assert (listed["total"], listed["limit"], listed["offset"]) == (3, 2, 1)


async def test_stop_and_start_by_id_and_by_name_accept_empty_json_bodies(world: GatewayWorld) -> None:
    instance_id = await a_novita_instance(world)
    world.owner.becomes(instance_id, "ready")
    json_type = {"Content-Type": "application/json"}

    stopped = await world.call("POST", f"/api/instances/{instance_id}/stop", key=None, headers=json_type, data=b"")
    assert (stopped.status, stopped.json["status"]) == (200, "stopping")
    assert stopped.json["operationId"].startswith("op_")
    world.owner.becomes(instance_id, "stopped")
    started = await world.call("POST", "/api/instances/start", key=None, json={"instanceName": NOVITA["name"]})
    assert (started.status, started.json["status"], started.json["instanceId"]) == (202, "starting", instance_id)
    again = await world.call("POST", "/api/instances/stop", key=None, json={"instanceName": NOVITA["name"]})
    assert again.status == 200


async def test_start_takes_the_health_check_of_the_caller(world: GatewayWorld) -> None:
    instance_id = await a_novita_instance(world)
    world.owner.becomes(instance_id, "stopped")

    config = {"healthCheckConfig": {"timeoutMs": 5000, "retryAttempts": 1}, "targetPort": 8888}
    started = await world.call("POST", f"/api/instances/{instance_id}/start", key=None, json=config)

    assert started.status == 202
    check = world.asked(StartInstance)[-1].health_check
    assert (check.timeout_ms, check.retries_max, check.target_port) == (5000, 1, 8888)


async def test_one_name_for_several_live_instances_is_ambiguous(world: GatewayWorld) -> None:
    ids = {await a_novita_instance(world), await a_novita_instance(world)}

    refused = await world.call("POST", "/api/instances/stop", key=None, json={"instanceName": NOVITA["name"]})

    assert (refused.status, refused.code) == (409, "INSTANCE_NAME_AMBIGUOUS")
    assert set(refused.json["error"]["details"]["instance_ids"]) == ids


async def test_last_used_is_now_or_what_is_said_and_never_goes_back(world: GatewayWorld) -> None:
    instance_id = await a_novita_instance(world)
    path, earlier = f"/api/instances/{instance_id}/last-used", {"lastUsedAt": "2026-01-02T03:04:05.000Z"}

    said = await world.call("PUT", path, key=None, json=earlier)
    marked = await world.call("PUT", path, key=None, headers={"Content-Type": "application/json"}, data=b"")
    again = await world.call("PUT", path, key=None, json=earlier)

    assert (said.status, marked.status, again.status) == (200, 200, 200)
    assert said.json["lastUsedAt"] == "2026-01-02T03:04:05.000Z"
    assert world.asked(MarkUsed)[1].used_at == world.asked(MarkUsed)[1].now
    assert again.json["lastUsedAt"] == marked.json["lastUsedAt"]
    assert (await world.call("GET", path.removesuffix("/last-used"), key=None)).json["lastUsedAt"] == marked.json[
        "lastUsedAt"
    ]


async def test_delete_is_carried_out(world: GatewayWorld) -> None:
    instance_id = await a_novita_instance(world)
    deleted = await world.call("DELETE", f"/api/instances/{instance_id}", key=None)
    assert (deleted.status, deleted.json["status"]) == (200, "terminated")


async def test_health_suits_the_clients_of_all_seeds(world: GatewayWorld) -> None:
    async def healthy() -> Any:
        while True:
            answered = await world.call("GET", "/health", key=None)
            if answered.status == 200:
                return answered.json

    health = await healthy()

    assert health["status"] == "healthy"
    assert set(health["services"].values()) == {"up"}
    assert isinstance(health["performance"]["errorRate"], int | float)
    assert isinstance(health["uptime"], int | float)
    assert {"usedMB", "totalMB"} <= set(health["system"]["memory"])
    assert health["dependencies"] == {"novitaApi": "healthy", "cache": "healthy"}
    assert health["migrationService"]["enabled"] is False


async def test_numbers_of_metrics_cache_and_auto_stop(world: GatewayWorld) -> None:
    metrics = (await world.call("GET", "/api/metrics", key=None)).json
    assert metrics["instances"] == {"total": 3, "creating": 1, "running": 2, "failed": 0}
    assert metrics["jobs"] == {"pending": 1, "processing": 2, "completed": 3, "failed": 0}
    assert set(metrics["system"]["memoryUsage"]) == {"used", "total", "percentage"}
    cache = (await world.call("GET", "/api/cache/stats", key=None)).json
    assert cache["summary"]["totalCaches"] == len(cache["cacheManager"]["cacheNames"])
    assert {"metrics", "entries"} <= set(cache["cacheManager"]["stats"]["apiKeys"])
    stats = (await world.call("GET", "/api/instances/auto-stop/stats", key=None)).json
    assert (stats["schedulerRunning"], stats["checkIntervalMinutes"], stats["defaultInactivityThresholdMinutes"]) == (
        True, 5, 20,
    )  # fmt: skip


# --- Dumont ---------------------------------------------------------------------------------------------------------


async def test_create_read_and_list_in_the_envelope_of_seed_000(world: GatewayWorld) -> None:
    created = await world.call("POST", "/api/v1/instances", json=DUMONT)
    assert created.status == 201
    assert created.json["success"] is True
    instance_id = created.json["data"]["id"]
    assert created.json["data"]["status"] == "creating"
    assert created.json["data"]["estimated_ready_at"]
    world.owner.becomes(instance_id, "ready")

    read = (await world.call("GET", f"/api/v1/instances/{instance_id}")).json["data"]
    listed = (await world.call("GET", "/api/v1/instances?status=running")).json

    seed = {"id": instance_id, "gpu": "RTX 4090", "status": "running", "ip": "127.0.0.1", "ssh_port": 40022}
    assert seed.items() <= read.items()
    assert read["cost_per_hour"] == 0.38
    assert listed["data"] == [read]
    assert listed["meta"] == {"total": 1, "limit": 50, "offset": 0}


async def test_start_stop_and_their_aliases_answer_202_until_done(world: GatewayWorld) -> None:
    instance_id = (await world.call("POST", "/api/v1/instances", json=DUMONT)).json["data"]["id"]
    world.owner.becomes(instance_id, "ready")
    for verb, status in (("stop", "stopping"), ("pause", "stopping")):
        stopped = await world.call("POST", f"/api/v1/instances/{instance_id}/{verb}")
        assert (stopped.status, stopped.json["data"]["status"]) == (202, status)
    world.owner.becomes(instance_id, "stopped")
    for verb in ("start", "resume"):
        assert (await world.call("POST", f"/api/v1/instances/{instance_id}/{verb}")).status == 202
    world.owner.becomes(instance_id, "ready")
    assert (await world.call("POST", f"/api/v1/instances/{instance_id}/start?wait=5")).status == 200


async def test_a_create_that_waits_answers_when_the_machine_is_ready(world: GatewayWorld) -> None:
    begun = asyncio.create_task(world.call("POST", "/api/v1/instances?wait=30", json=DUMONT))
    async with asyncio.timeout(30):
        while not (listed := (await world.call("GET", "/api/v1/instances")).json["data"]):
            await asyncio.sleep(0.01)
    assert not begun.done()
    world.owner.becomes(listed[0]["id"], "ready")
    created = await begun
    assert (created.status, created.json["data"]["status"]) == (201, "running")


async def test_three_doors_to_one_market(world: GatewayWorld) -> None:
    offers = (await world.call("GET", "/api/v1/offers")).json
    same = (await world.call("GET", "/api/v1/instances/offers?include_blacklisted=true")).json
    of_gpu = (await world.call("GET", "/api/v1/offers/rtx_4090")).json
    unknown = await world.call("GET", "/api/v1/offers/RTX%209999")

    assert offers["data"] == same["data"]
    assert [offer["gpu_name"] for offer in of_gpu["data"]] == ["RTX 4090"]
    assert (unknown.status, unknown.json["data"]) == (200, [])
    seed = {"gpu_name": "RTX 4090", "dph_total": 0.25, "machine_id": "12345", "is_blacklisted": False,
            "success_rate": 0.85, "total_attempts": 20, "reliability_status": "good"}  # fmt: skip
    assert seed.items() <= offers["data"][0].items()
    assert world.asked(ListOffers)[1].include_blacklisted


async def test_heartbeats_of_both_payloads_and_only_with_the_right_token(world: GatewayWorld) -> None:
    token = mint_agent_token(SECRET, machine_id="mach_1", instance_id="inst_1", generation=2)
    shell = {
        "agent": "dumont", "version": "1.2", "instance_id": "vast_inst_1", "status": "idle", "uptime": 12.5,
        "gpu_metrics": {"utilization": 40, "gpu_utilizations": [30, 50], "gpu_memory_used": [1, 1],
                        "gpu_memory_total": [4, 4], "gpu_names": ["RTX 4090"]},
        "timestamp": "2026-11-22T10:00:00Z",
    }  # fmt: skip
    documented = {"instance_id": "inst_1", "hostname": "h", "agent_version": "2", "process_count": 9, "active_users": 1,
                  "gpu_metrics": {"utilization_percent": 7, "memory_used_mb": 1, "memory_total_mb": 2,
                                  "temperature_celsius": 50}, "last_activity": "2026-11-22T10:00:00Z"}  # fmt: skip

    first = await world.call("POST", "/api/v1/agent/status", key=token, json=shell)
    second = await world.call("POST", "/api/v1/agent/status", key=token, json=documented)
    foreign = await world.call("POST", "/api/v1/agent/status", key=token, json={**documented, "instance_id": "inst_2"})

    assert first.status == second.status == 200
    assert first.json["data"]["action"] == "none"
    assert first.json["data"]["next_heartbeat_in"] == 30
    reports = world.asked(AgentReport)
    assert [(r.machine_id, r.generation, r.gpu_utilization_percent) for r in reports] == [
        ("mach_1", 2, 40.0), ("mach_1", 2, 7.0),
    ]  # fmt: skip
    assert reports[0].memory_used_percent == 25.0
    assert (foreign.status, foreign.code) == (401, "UNAUTHENTICATED")


async def test_agents_and_keep_alive(world: GatewayWorld) -> None:
    instance_id = (await world.call("POST", "/api/v1/instances", json=DUMONT)).json["data"]["id"]
    agents = (await world.call("GET", "/api/v1/agent/instances")).json["data"]
    kept = await world.call("POST", f"/api/v1/agent/instances/{instance_id}/keep-alive?minutes=45")
    both = await world.call("POST", f"/api/v1/agent/instances/{instance_id}/keep-alive?minutes=45", json={"minutes": 4})

    assert (agents[0]["gpu_utilization"], agents[0]["memory_used_percent"]) == (3.5, None)
    assert kept.json["data"]["hibernation_postponed_until"] == kept.json["data"]["new_hibernate_at"]
    assert (both.status, both.code) == (400, "VALIDATION_ERROR")


async def test_machine_history(world: GatewayWorld) -> None:
    base = "/api/v1/machines/history"
    entry = {"provider": "sandbox", "machine_id": "12345", "reason": "slow disk"}
    added = await world.call("POST", f"{base}/blacklist", json=entry)
    again = await world.call("POST", f"{base}/blacklist", json={**entry, "duration_hours": 24})
    listed = await world.call("GET", f"{base}/blacklist")
    checked = await world.call("GET", f"{base}/blacklist/check/sandbox/12345")
    removed = await world.call("DELETE", f"{base}/blacklist/sandbox/12345")
    gone = await world.call("DELETE", f"{base}/blacklist/sandbox/12345")
    summary = await world.call("GET", f"{base}/summary?hours=48")

    assert (added.status, again.status) == (201, 200)
    assert listed.json["data"][0]["blacklist_type"] == "temporary"
    assert checked.json["data"]["is_blacklisted"] is True
    assert removed.status == 200
    assert (gone.status, gone.code) == (404, "BLACKLIST_ENTRY_NOT_FOUND")
    assert summary.json["data"]["success_rate"] == 0.8


async def test_another_accounts_instance_does_not_exist(world: GatewayWorld) -> None:
    instance_id = (await world.call("POST", "/api/v1/instances", json=DUMONT)).json["data"]["id"]
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/start"), ("POST", "/stop")):
        refused = await world.call(method, f"/api/v1/instances/{instance_id}{path}", key=OTHER_KEY)
        assert (refused.status, refused.code) == (404, "INSTANCE_NOT_FOUND")
    assert (await world.call("GET", "/api/v1/instances", key=OTHER_KEY)).json["data"] == []


async def test_a_secret_that_is_refused_is_not_told_again(world: GatewayWorld) -> None:
    body = {"name": "n", "url": "https://example.com/", "events": ["*"], "secret": "with blanks in it"}
    refused = await world.call("POST", "/api/v1/webhooks", json=body)
    assert (refused.status, refused.json["error"]["details"]["field"]) == (400, "secret")
    assert b"with blanks" not in refused.raw


SENTENCES: list[tuple[str, str, dict[str, Any] | None]] = [
    ("POST", "/agent/instances/{id}/keep-alive", None),
    ("POST", "/warmpool/provision", {"machine_id": "{id}"}),
    ("POST", "/warmpool/enable/{id}", None),
    ("POST", "/warmpool/disable/{id}", None),
    ("POST", "/standby/configure", {"enabled": False}),
    ("POST", "/standby/configure", {"enabled": True}),
    ("POST", "/standby/provision/{id}", None),
    ("POST", "/standby/recover/{id}", None),
    ("DELETE", "/standby/associations/{id}", None),
    ("POST", "/failover/test/{id}", None),
]


async def test_sentences_of_a_success_follow_the_callers_language_too(world: GatewayWorld) -> None:
    instance_id = (await world.call("POST", "/api/v1/instances", json=DUMONT)).json["data"]["id"]
    world.owner.becomes(instance_id, "ready")
    for method, path, body in SENTENCES:
        sent = (
            {"json": {name: instance_id if value == "{id}" else value for name, value in body.items()}} if body else {}
        )
        said: list[str] = []
        for accept in ("en", "pt-BR", ""):
            told = await world.call(
                method, "/api/v1" + path.replace("{id}", instance_id), headers={"Accept-Language": accept}, **sent
            )
            assert told.status < 300, (path, told.raw)
            said.append(told.json["data"]["message"])
        english, portuguese, default = said
        assert english != portuguese == default, path
