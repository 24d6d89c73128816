"""What a customer is told of a public event: one JSON object that every seed's receiver can read (contract novita A5,
seed 000). The same bytes for a webhook, the list of events and the stream of events.

Called by webhook dispatch and by the gateway. Pure. The bytes are part of the contract: seed 004's Express receiver
verifies the signature over `JSON.stringify(req.body)`, so they must equal what JavaScript would write. Hence no
integral float, no integer beyond 2^53, no key that looks like an array index (JavaScript moves those to the front).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

import msgspec

from proto.codes import CODES, text
from proto.instance.words import JUPYTER_PORT, SSH_PORT, WEB_TERMINAL_PORT, ssh_command

BODY_BYTES_MAX = 64 * 1024  # Express refuses 100 kB; Standard Webhooks advises 20 kB
INTEGER_MAX = 2**53
# What a receiver branches on (seeds 002, 004). `started` is seed 000's word for an instance one can work with.
STATUSES = {"created": "creating", "started": "running", "migrated": "running"}
# Of a fact about an instance, what is told besides the fields every one has.
INSTANCE_EXTRAS = (
    "machine_id",
    "from_machine_id",
    "generation",
    "reason",
    "detail",
    "ready_at",
    "auto_stop_at",
    "on_cpu",
)
# Of any other fact everything is told but what is the platform's own business or a secret.
KEPT_BACK = frozenset({
    "type", "account_id", "webhook_url", "request_hash", "spec", "env", "sealed_secret", "health_check", "dialect",
    "packs", "next_tick_at", "v", "is_quiet",
})  # fmt: skip
# Seed 001's word for why an instance was moved.
MIGRATION_REASONS = {"spot_preemption": "spot_reclaim"}
PORT_TYPES = {JUPYTER_PORT: "jupyter", SSH_PORT: "ssh"}

_encode = msgspec.json.Encoder().encode


def payload(event_type: str, event_id: str, at: datetime, fields: Mapping[str, Any], *, correlation: str = "") -> bytes:
    """What is sent for one fact; `fields` is its wire form. The same facts always give the same bytes."""
    told: dict[str, Any] = {"id": event_id, "type": event_type, "event": event_type}
    domain, _, what = event_type.partition(".")
    if domain == "instance":
        told |= _of_instance(what, at, fields)
    else:
        told["timestamp"] = milliseconds(at)
        told["data"] = {name: value for name, value in fields.items() if name not in KEPT_BACK}
    if correlation:
        told["correlationId"] = correlation
    body = _encode(_plain(told))
    if len(body) > BODY_BYTES_MAX:
        body = _encode(_plain({**told, "data": {"id": fields.get("instance_id", ""), "truncated": True}}))
    return body


def _of_instance(what: str, at: datetime, fields: Mapping[str, Any]) -> dict[str, Any]:
    instance_id, name = fields.get("instance_id", ""), fields.get("name", "")
    status = STATUSES.get(what, what)
    data: dict[str, Any] = {"id": instance_id, "instance_id": instance_id, "name": name, "status": status}
    data["gpu"] = fields.get("gpu", "")
    if region := fields.get("region"):
        data["region"] = region
    endpoints = cast("list[Mapping[str, Any]] | None", fields.get("endpoints"))
    instance: dict[str, Any] = {"id": instance_id, "name": name}
    if endpoints is not None or status == "ready":
        connection = _connection(endpoints or [])
        data["portMappings"] = [_port(endpoint) for endpoint in endpoints or []]
        data["connectionDetails"] = instance["connectionDetails"] = connection
    data |= {name: fields[name] for name in INSTANCE_EXTRAS if fields.get(name) is not None}
    told = {
        "instanceId": instance_id,
        "novitaInstanceId": fields.get("machine_id") or instance_id,
        "status": status,
        "timestamp": milliseconds(at),
        "data": data,
        "instance": instance,
    }
    if code := fields.get("code"):
        told["error"] = data["error"] = {"code": code, "message": _message(code, fields.get("detail", ""))}
    if what == "migrated":
        # An instance keeps its id when it moves: the seeds' receivers find it by either.
        told["originalInstanceId"] = instance_id
        told["migration"] = {
            "reason": MIGRATION_REASONS.get(fields["reason"], fields["reason"]),
            "triggeredBy": "automatic_migration",
            "migrationTime": fields["took_ms"],
        }
    return told


def _message(code: str, detail: str) -> str:
    if detail or code not in CODES:
        return detail or code
    return text(code, {})


def _port(endpoint: Mapping[str, Any]) -> dict[str, Any]:
    port = endpoint["port"]
    kind = PORT_TYPES.get(port) or endpoint.get("protocol", "tcp")
    scheme = {"ssh": "ssh", "tcp": "tcp"}.get(kind, "http")
    return {"port": port, "endpoint": f"{scheme}://{endpoint['host']}:{endpoint['public_port']}", "type": kind}


def _connection(endpoints: list[Mapping[str, Any]]) -> dict[str, str | None]:
    """The three ways in that the seeds name; one that the machine does not have is null."""
    at = {endpoint["port"]: endpoint for endpoint in endpoints}
    ssh = at.get(SSH_PORT)
    return {
        "ssh": ssh_command(ssh["host"], ssh["public_port"], ssh.get("identity_file", "")) if ssh else None,
        "jupyter": _url(at.get(JUPYTER_PORT)),
        "webTerminal": _url(at.get(WEB_TERMINAL_PORT)),
    }


def _url(endpoint: Mapping[str, Any] | None) -> str | None:
    return f"http://{endpoint['host']}:{endpoint['public_port']}" if endpoint else None


def milliseconds(at: datetime) -> str:
    """RFC 3339 UTC with three digits and Z, as every seed prints it."""
    return at.isoformat(timespec="milliseconds")[:23] + "Z"


def _plain(value: Any) -> Any:
    """The value as JavaScript would write it after reading it."""
    kind = type(cast("object", value))
    if kind is str or kind is bool or value is None:
        return value
    if kind is dict:
        return {_key(name): _plain(inner) for name, inner in cast("dict[str, Any]", value).items()}
    if kind is list:
        return [_plain(inner) for inner in cast("list[Any]", value)]
    if kind is float:
        return _plain(int(value)) if value.is_integer() else value
    return value if abs(value) <= INTEGER_MAX else str(value)


def _key(name: str) -> str:
    return f"_{name}" if name.isdigit() and name.isascii() else name
