"""Dumont: snapshots of an instance, for its owner; and what agents need to take one and to fill a machine from one.

Agents prove themselves with their machine's token. They are given signed URLs, never a key of the storage.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from libs.refusal import Refused
from proto.base import Command
from proto.instance.commands import (
    ReportFailed,
    ReportRestored,
    ReportSnapshot,
    ReportSnapshotFailed,
    ReportSync,
    RequestSnapshot,
)
from proto.instance.copy_queries import ListSnapshots, SignedUrls, SignStorage, SnapshotList, SnapshotView, StoredPart
from services.gateway.auth import AGENT, identify_agent
from services.gateway.call import Answer, Call
from services.gateway.dialects import milliseconds_or_none
from services.gateway.dialects.dumont import DIALECT, ok
from services.gateway.dialects.dumont.instances import NoBody
from services.gateway.routing import Route

PARTS_MAX = 100  # signed at once; a larger pack is signed bit by bit
PACKS_MAX = 64  # what one snapshot may refer to; the agent stores anew before it comes to that

Id = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]
Count = Annotated[int, Meta(ge=0, le=2**53)]


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    pack_id: Id
    number: Annotated[int, Meta(ge=0, le=99_999_999)]


class StorageBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`manifest`: also the URL of the snapshot's manifest, first in the answer."""

    instance_id: Id
    snapshot_id: Id
    method: Literal["GET", "PUT"]
    manifest: bool = False
    parts: Annotated[list[Part], Meta(max_length=PARTS_MAX)] = []


class ReportBody(Struct, frozen=True, kw_only=True):
    """What became of a snapshot or of filling a machine. `code` and `detail` when it failed."""

    instance_id: Id
    kind: Literal["snapshot", "snapshot_failed", "restored", "restore_failed", "synced"]
    source: Id  # the snapshot; of a sync, the standby it went to
    cycle: Count = 0
    is_last: bool = False
    ok: bool = True
    captured_at: datetime | None = None
    files: Count = 0
    bytes: Count = 0
    stored_bytes: Count = 0
    took_ms: Count = 0
    packs: Annotated[list[Id], Meta(max_length=PACKS_MAX)] = []
    is_point_in_time: bool = True
    code: Annotated[str, Meta(max_length=100)] = ""
    detail: Annotated[str, Meta(max_length=500)] = ""


class DumontSnapshot(Struct, frozen=True, kw_only=True):
    snapshot_id: str
    instance_id: str
    status: str
    reason: str
    requested_at: str | None
    captured_at: str | None
    completed_at: str | None
    files: int | None
    size_bytes: int | None
    stored_bytes: int | None
    duration_ms: int | None
    is_point_in_time: bool | None
    error: str | None


class DumontSnapshotRequested(Struct, frozen=True, kw_only=True):
    snapshot_id: str
    instance_id: str
    status: str


class DumontSignedUrls(Struct, frozen=True):
    urls: list[str]
    expires_in: int


class DumontReported(Struct, frozen=True):
    received: bool


async def take_snapshot(call: Call) -> Answer:
    """202: the agent hears of it with its next heartbeat."""
    instance_id = call.path["id"]
    snapshot_id = call.derived_id("snap", instance_id)
    await call.command(
        RequestSnapshot(
            now=call.now,
            instance_id=instance_id,
            snapshot_id=snapshot_id,
            account_id=call.account_id,
            reason="user_request",
        )
    )
    return ok(DumontSnapshotRequested(snapshot_id=snapshot_id, instance_id=instance_id, status="requested"), status=202)


async def list_snapshots(call: Call) -> Answer:
    found: SnapshotList = await call.ask(ListSnapshots(account_id=call.account_id, instance_id=call.path["id"]))
    return ok([_snapshot(view) for view in found.items])


async def sign_storage(call: Call) -> Answer:
    body: StorageBody = call.body
    identity = identify_agent(call.gateway, call.credential, body.instance_id)
    signed: SignedUrls = await call.ask(
        SignStorage(
            machine_id=identity.machine_id,
            instance_id=body.instance_id,
            generation=identity.generation,
            method=body.method,
            snapshot_id=body.snapshot_id,
            manifest=body.manifest,
            parts=tuple(StoredPart(part.pack_id, part.number) for part in body.parts),
        )
    )
    return ok(DumontSignedUrls(list(signed.urls), signed.valid_s))


async def report(call: Call) -> Answer:
    body: ReportBody = call.body
    identity = identify_agent(call.gateway, call.credential, body.instance_id)
    await call.command(_command(call, body, identity.machine_id, identity.generation))
    return ok(DumontReported(received=True))


def _command(call: Call, body: ReportBody, machine_id: str, generation: int) -> Command:
    now, instance_id = call.now, body.instance_id
    match body.kind:
        case "snapshot":
            return ReportSnapshot(
                now=now,
                instance_id=instance_id,
                machine_id=machine_id,
                generation=generation,
                snapshot_id=body.source,
                captured_at=_captured_at(body),
                files=body.files,
                bytes=body.bytes,
                stored_bytes=body.stored_bytes,
                packs=tuple(body.packs),
                took_ms=body.took_ms,
                is_point_in_time=body.is_point_in_time,
            )
        case "snapshot_failed":
            return ReportSnapshotFailed(
                now=now,
                instance_id=instance_id,
                machine_id=machine_id,
                snapshot_id=body.source,
                code=body.code or "failed",
                detail=body.detail,
            )
        case "synced":
            return _synced(call, body, machine_id)
        case "restored":
            return ReportRestored(
                now=now,
                instance_id=instance_id,
                machine_id=machine_id,
                source=body.source,
                captured_at=_captured_at(body),
                files=body.files,
                bytes=body.bytes,
                took_ms=body.took_ms,
            )
        case "restore_failed":
            return ReportFailed(
                now=now,
                instance_id=instance_id,
                machine_id=machine_id,
                stage="loading",
                code="RESTORE_FAILED",
                reason=body.detail or body.code,
            )


def _synced(call: Call, body: ReportBody, machine_id: str) -> ReportSync:
    return ReportSync(
        now=call.now,
        instance_id=body.instance_id,
        machine_id=machine_id,
        standby_machine_id=body.source,
        cycle=body.cycle,
        ok=body.ok,
        took_ms=body.took_ms,
        files=body.files,
        bytes=body.bytes,
        captured_at=_captured_at(body) if body.ok else None,
        error=body.detail,
        is_last=body.is_last,
    )


def _captured_at(body: ReportBody) -> datetime:
    if body.captured_at is None or body.captured_at.tzinfo is None:
        raise Refused("VALIDATION_ERROR", field="captured_at", reason="captured_at must be an RFC 3339 instant")
    return body.captured_at


def _snapshot(view: SnapshotView) -> DumontSnapshot:
    return DumontSnapshot(
        snapshot_id=view.snapshot_id,
        instance_id=view.instance_id,
        status=view.status,
        reason=view.reason,
        requested_at=milliseconds_or_none(view.requested_at),
        captured_at=milliseconds_or_none(view.captured_at),
        completed_at=milliseconds_or_none(view.completed_at),
        files=view.files,
        size_bytes=view.bytes,
        stored_bytes=view.stored_bytes,
        duration_ms=view.took_ms,
        is_point_in_time=view.is_point_in_time,
        error=view.error or None,
    )


ROUTES = (
    Route("POST", "/api/v1/instances/{id}/snapshots", DIALECT, "instances:write", "write", take_snapshot,
          "Copy the workspace to storage", statuses=(202,), body=NoBody, reply=DumontSnapshotRequested),
    Route("GET", "/api/v1/instances/{id}/snapshots", DIALECT, "instances:read", "read", list_snapshots,
          "List an instance's snapshots, newest first", reply=list[DumontSnapshot]),
    Route("POST", "/api/v1/agent/storage", DIALECT, AGENT, "agent", sign_storage,
          "Get URLs for objects of a snapshot (agent token)", body=StorageBody, reply=DumontSignedUrls),
    Route("POST", "/api/v1/agent/reports", DIALECT, AGENT, "agent", report,
          "Report a snapshot or a filled machine (agent token)", body=ReportBody, reply=DumontReported),
)  # fmt: skip
