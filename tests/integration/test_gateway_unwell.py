"""What the gateway answers while a part of the platform is away, behind or silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from libs.refusal import Transient
from services.gateway.call import COMMAND_ATTEMPT_S
from tests.integration.gateway_world import DUMONT, NOVITA, GatewayWorld, running_gateway


@pytest_asyncio.fixture
async def world() -> AsyncIterator[GatewayWorld]:
    async with running_gateway() as found:
        yield found


async def test_an_absent_owner_is_503_with_retry_after(world: GatewayWorld) -> None:
    await world.owner_bus.close()
    for method, path, more in (
        ("GET", "/api/v1/instances/inst_1", {}),
        ("POST", "/api/v1/instances", {"json": DUMONT}),
        ("GET", "/api/instances", {}),
        ("POST", "/api/instances/inst_1/stop", {}),
    ):
        refused = await world.call(method, path, **more)
        assert (refused.status, refused.code) == (503, "SERVICE_UNAVAILABLE")
        assert int(refused.headers["Retry-After"]) >= 1
    ready = await world.call("GET", "/readyz")
    assert (ready.status, ready.json["ready"]) == (503, False)
    assert (await world.call("GET", "/livez")).status == 200


async def test_an_unwell_owner_is_503(world: GatewayWorld) -> None:
    world.owner.raises = Transient("the database is away")
    for method, path, more in (("GET", "/api/v1/instances", {}), ("POST", "/api/instances", {"json": NOVITA})):
        refused = await world.call(method, path, **more)
        assert (refused.status, refused.code) == (503, "SERVICE_UNAVAILABLE")


async def test_what_a_wish_is_made_of_is_503_while_the_rows_are_behind(world: GatewayWorld) -> None:
    """A failover or a pool that names a machine which has been replaced meanwhile would help nobody."""
    instance_id = (await world.call("POST", "/api/v1/instances", json=DUMONT)).json["data"]["id"]
    world.owner.is_behind = True
    for path, more in (
        ("/failover/execute", {"json": {"machine_id": instance_id}}),
        (f"/failover/test/{instance_id}?dry_run=false", {}),
        ("/warmpool/provision", {"json": {"machine_id": instance_id}}),
        (f"/warmpool/enable/{instance_id}", {}),
    ):
        refused = await world.call("POST", f"/api/v1{path}", **more)
        assert (refused.status, refused.code) == (503, "SERVICE_UNAVAILABLE"), path
        assert int(refused.headers["Retry-After"]) >= 1
    assert (await world.call("POST", f"/api/v1/failover/test/{instance_id}")).status == 200  # a dry run only tells
    world.owner.is_behind = False
    current = await world.call("POST", "/api/v1/failover/execute", json={"machine_id": instance_id})
    assert (current.status, current.code) == (409, "INVALID_STATE")  # it has no machine yet


async def test_a_command_whose_answer_is_lost_is_sent_again_once(world: GatewayWorld) -> None:
    world.owner.stays_silent_for = 1
    async with asyncio.timeout(COMMAND_ATTEMPT_S + 3):
        created = await world.call("POST", "/api/instances", json=NOVITA)
    assert created.status == 201
    assert len(world.owner.views) == 1


async def test_a_command_that_is_never_answered_is_504_and_says_where_to_look(world: GatewayWorld) -> None:
    world.owner.is_silent = True
    refused = await world.call("POST", "/api/instances", json=NOVITA)
    assert (refused.status, refused.code) == (504, "OUTCOME_UNKNOWN")
    assert refused.json["error"]["details"]["instance_id"].startswith("inst_")
    world.owner.is_silent = False
