"""The cloud does one thing and says another: no machine is doubled, lost or left behind."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import nats
from nats.js.errors import NotFoundError

from services.instance.providers.labels import label_of
from tests.journey.platform import Platform, eventually, unique

ADOPTED_MAX_S = 60.0  # a create is given up after 10 s, then looked for
ORPHAN_MAX_S = 30.0


def labels_of(up: Platform, machine_id: str) -> list[str]:
    """Cloud machines with the same label as this one."""
    label = next(machine["label"] for machine in up.machines() if machine["machine_id"] == machine_id)
    return [machine["machine_id"] for machine in up.machines() if machine["label"] == label]


def test_a_machine_made_by_a_create_that_timed_out_is_adopted_and_not_doubled(up: Platform) -> None:
    before = {machine["machine_id"] for machine in up.machines()}
    up.cloud("POST", "/v1/faults", {"creates_timing_out": 1})
    ready = up.wait_for_status(up.create(), "ready", timeout_s=ADOPTED_MAX_S)
    assert "creates_timing_out" not in {name for name, left in up.cloud("GET", "/v1/faults").items() if left}
    new = {machine["machine_id"] for machine in up.machines()} - before
    assert new == {ready["novitaInstanceId"]}


def test_a_create_that_failed_at_the_cloud_is_tried_again(up: Platform) -> None:
    up.cloud("POST", "/v1/faults", {"creates_failing": 2})
    ready = up.wait_for_status(up.create(), "ready", timeout_s=ADOPTED_MAX_S)
    assert labels_of(up, ready["novitaInstanceId"]) == [ready["novitaInstanceId"]]


def test_a_machine_unknown_to_the_log_is_reported_and_destroyed_after_its_grace(up: Platform) -> None:
    orphan = stray_machine(up, up.label_of(unique("stray")))
    eventually(
        lambda: set(orphan_events(up, orphan)) >= {"machine.orphan_found"}, timeout_s=ORPHAN_MAX_S, what="orphan_found"
    )
    eventually(
        lambda: orphan not in {machine["machine_id"] for machine in up.machines()},
        timeout_s=ORPHAN_MAX_S,
        what="the orphan to be destroyed",
    )
    eventually(
        lambda: (
            orphan_events(up, orphan)
            == ["machine.orphan_found", "machine.orphan_destroy_requested", "machine.orphan_destroyed"]
        ),
        timeout_s=ORPHAN_MAX_S,
        what="the orphan's end to be recorded",
        seen=lambda: orphan_events(up, orphan),
    )


def test_a_strangers_and_another_platforms_machine_in_the_same_account_are_left_alone(up: Platform) -> None:
    strangers = {stray_machine(up, label) for label in (unique("notebook"), label_of("p0", unique("mach")))}
    orphan = stray_machine(up, up.label_of(unique("stray")))
    eventually(
        lambda: orphan not in {machine["machine_id"] for machine in up.machines()},
        timeout_s=ORPHAN_MAX_S,
        what="the census to have come round",
    )
    assert strangers <= {machine["machine_id"] for machine in up.machines()}
    for stranger in strangers:
        assert orphan_events(up, stranger) == []
        up.cloud("DELETE", f"/v1/machines/{stranger}")


def stray_machine(up: Platform, label: str) -> str:
    """A machine that the platform did not order, made with its own key."""
    offer = up.cloud("GET", "/v1/offers")["offers"][0]
    order = {"label": label, "offer_id": offer["offer_id"], "image": "pytorch/pytorch"}
    return up.cloud("POST", "/v1/machines", order)["machine_id"]


def orphan_events(up: Platform, machine_id: str) -> list[str]:
    """What the log says about an orphan, in order."""
    told = asyncio.run(stored_events(up.nats_url, "EVT_INSTANCE", "evt.instance.orphan.*"))
    return [event["type"] for event in told if event["provider_machine_id"] == machine_id]


async def stored_events(nats_url: str, stream: str, subject: str) -> list[Any]:
    client = await nats.connect(nats_url, allow_reconnect=False)
    found: list[Any] = []
    seq = 0
    try:
        while True:
            stored = await client.jetstream().get_msg(stream, seq=seq + 1, subject=subject, next=True)
            seq = stored.seq or 0
            found += json.loads(stored.data or b"")["events"]
    except NotFoundError:
        return found
    finally:
        await client.close()
