"""The bytes: what each seed's receiver reads, and that JavaScript would write the same ones."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from proto.webhook_dispatch.payload import BODY_BYTES_MAX, payload

AT = datetime(2024, 1, 15, 10, 33, 45, tzinfo=UTC)
ENDPOINTS = [
    {"port": 22, "host": "127.0.0.1", "public_port": 40022},
    {"port": 8888, "host": "127.0.0.1", "public_port": 48888, "protocol": "http"},
]
ABOUT = {"instance_id": "inst_abc123", "account_id": "acct_1", "name": "my-gpu-instance", "gpu": "RTX 4090"}


def told(event_type: str, **fields: Any) -> dict[str, Any]:
    return json.loads(payload(event_type, "cmt_1.0", AT, {**ABOUT, **fields}, correlation="corr_1"))


def test_ready_is_the_superset_that_every_seed_reads() -> None:
    connection = {
        "ssh": "ssh root@127.0.0.1 -p 40022", "jupyter": "http://127.0.0.1:48888", "webTerminal": None,
    }  # fmt: skip
    assert told("instance.ready", endpoints=ENDPOINTS, machine_id="mach_1", generation=1, region="CN-HK-01") == {
        "id": "cmt_1.0",
        "type": "instance.ready",
        "event": "instance.ready",
        "instanceId": "inst_abc123",
        "novitaInstanceId": "mach_1",
        "status": "ready",
        "timestamp": "2024-01-15T10:33:45.000Z",
        "data": {
            "id": "inst_abc123",
            "instance_id": "inst_abc123",
            "name": "my-gpu-instance",
            "status": "ready",
            "gpu": "RTX 4090",
            "region": "CN-HK-01",
            "portMappings": [
                {"port": 22, "endpoint": "ssh://127.0.0.1:40022", "type": "ssh"},
                {"port": 8888, "endpoint": "http://127.0.0.1:48888", "type": "jupyter"},
            ],
            "connectionDetails": connection,
            "machine_id": "mach_1",
            "generation": 1,
        },
        "instance": {"id": "inst_abc123", "name": "my-gpu-instance", "connectionDetails": connection},
        "correlationId": "corr_1",
    }


def test_failed_carries_an_error_object_as_seed_001_shows() -> None:
    failed = told("instance.failed", code="STARTUP_TIMEOUT", detail="Instance failed to start within 10 minutes")
    assert failed["status"] == "failed"
    assert failed["error"] == failed["data"]["error"] == {
        "code": "STARTUP_TIMEOUT", "message": "Instance failed to start within 10 minutes",
    }  # fmt: skip


def test_an_interruption_reads_as_seed_000_shows() -> None:
    interrupted = told("instance.interrupted", reason="spot_preemption", machine_id="mach_1")
    assert interrupted["event"] == "instance.interrupted"
    seen = {name: interrupted["data"][name] for name in ("instance_id", "gpu", "reason")}
    assert seen == {"instance_id": "inst_abc123", "gpu": "RTX 4090", "reason": "spot_preemption"}


def test_a_migration_reads_as_seed_001_shows() -> None:
    facts = {"endpoints": ENDPOINTS, "machine_id": "mach_2", "from_machine_id": "mach_1", "took_ms": 45000}
    migrated = told("instance.migrated", reason="spot_preemption", **facts)
    assert migrated["migration"] == {
        "reason": "spot_reclaim", "triggeredBy": "automatic_migration", "migrationTime": 45000,
    }  # fmt: skip
    assert migrated["originalInstanceId"] == migrated["instanceId"] == "inst_abc123"
    assert migrated["status"] == "running"
    assert migrated["instance"]["connectionDetails"]["ssh"] == "ssh root@127.0.0.1 -p 40022"
    assert told("instance.migrated", reason="user_test", **facts)["migration"]["reason"] == "user_test"


def test_a_fact_of_another_kind_is_told_whole_but_for_what_is_the_platforms_own() -> None:
    low = {"account_id": "acct_1", "balance_usd_micros": 5_000_000, "spec": {"env": {"KEY": "hush"}}, "hours": 2.0}
    body = json.loads(payload("balance.low", "cmt_2.0", AT, low))
    assert body["data"] == {"balance_usd_micros": 5_000_000, "hours": 2}


def test_what_the_customer_gave_in_confidence_is_not_told() -> None:
    body = payload("instance.created", "cmt_1.0", AT, {**ABOUT, "spec": {"env": {"KEY": "hush"}}, "webhook_url": "u"})
    assert b"hush" not in body and b"webhook_url" not in body


def test_a_body_never_outgrows_what_receivers_take() -> None:
    body = payload("failover.failed", "cmt_1.0", AT, {"instance_id": "inst_1", "tried": ["x" * 100] * 2_000})
    assert len(body) <= BODY_BYTES_MAX
    assert json.loads(body)["data"] == {"id": "inst_1", "truncated": True}


NASTY: dict[str, Any] = {
    "integral": 1.0, "negative_zero": -0.0, "huge": 1e25, "small": 1e-7, "tiny": 5e-324, "third": 1 / 3, "big": 2**63,
    "safe": 2**53, "10": "ten", "2": "two", "nested": {"7": [1.0, {"0": 2.50}]},
    "text": "ação \u2028 \x07 \x7f 😀 </b>",
    "quote": '"\\/', "none": None, "yes": True, "e": 1.5e300, "sixteen": 1e16,
}  # fmt: skip


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")
def test_javascript_writes_the_same_bytes() -> None:
    body = payload("balance.low", "cmt_1.0", AT, NASTY)
    script = (
        "let b=[];process.stdin.on('data',d=>b.push(d)).on('end',()=>"
        "process.stdout.write(JSON.stringify(JSON.parse(Buffer.concat(b).toString()))))"
    )
    again = subprocess.run(["node", "-e", script], input=body, capture_output=True, check=True, timeout=20).stdout
    assert again == body


def test_python_writes_nothing_that_javascript_would_write_otherwise() -> None:
    data = msgspec.json.decode(payload("balance.low", "cmt_1.0", AT, NASTY))["data"]
    assert not any(isinstance(value, float) and value.is_integer() for value in data.values())
    assert not any(name.isdigit() for name in [*data, *data["nested"]])
