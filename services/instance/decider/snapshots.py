"""Snapshots of the primary's workspace: asked for, reported, given up, and forgotten when there are too many.

Called by `wishes.decide`. Only the machine that carries the instance may complete one, so a late machine of an old
generation cannot overwrite what its successor will be filled from.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeAlias, assert_never

from libs.refusal import Refused
from proto.base import Event
from proto.instance.commands import GiveUpSnapshot, ReportSnapshot, ReportSnapshotFailed, RequestSnapshot
from proto.instance.events import SnapshotCompleted, SnapshotFailed, SnapshotRequested, SnapshotsExpired
from services.instance.decider.instance import HIBERNATION, Instance
from services.instance.decider.vault import Vault

SnapshotCommand: TypeAlias = RequestSnapshot | ReportSnapshot | ReportSnapshotFailed | GiveUpSnapshot
KEPT_MAX = 10  # contract dumont 6: the original keeps the last ten
# Contract dumont 3: 60 s and 30 s per GB; and up to two heartbeats of 30 s until the agent hears of it.
PATIENCE, PATIENCE_PER_GB = timedelta(seconds=120), timedelta(seconds=30)
GIGABYTE = 1_000_000_000
SCHEDULED = "scheduled"  # gives way to any other
DETAIL_CHARS_MAX = 500


def decide(state: Instance, command: SnapshotCommand) -> Sequence[Event]:
    match command:
        case RequestSnapshot():
            return _request(state, command)
        case ReportSnapshot():
            return _completed(state, command)
        case ReportSnapshotFailed():
            return _failed(state, command)
        case GiveUpSnapshot():
            return _give_up(state, command)
        case _:
            assert_never(command)


def _request(state: Instance, command: RequestSnapshot) -> Sequence[Event]:
    vault = state.vault
    if vault.knows(command.snapshot_id):
        return []
    primary = state.primary
    if not command.has_storage:
        return _declined(state, command, "NOT_CONFIGURED", "storage is not configured", feature="storage")
    if state.status not in ("ready", "hibernating") or primary is None:
        advice = "wait until it is ready"
        return _declined(state, command, "INVALID_STATE", advice, advice=advice)
    ended: list[Event] = []
    pending = vault.pending
    if pending is not None:
        is_stale = pending.machine_id != primary.machine_id
        if not is_stale and not _gives_way(pending.reason, command.reason):
            taken = pending.snapshot_id
            return _declined(state, command, "SNAPSHOT_IN_PROGRESS", taken, snapshot_id=taken)
        ended = [_end(state, pending.snapshot_id, pending.reason, "superseded", command.snapshot_id)]
    requested = SnapshotRequested(
        instance_id=state.instance_id,
        account_id=state.account_id,
        snapshot_id=command.snapshot_id,
        machine_id=primary.machine_id,
        generation=primary.generation,
        reason=command.reason,
        requested_at=command.now,
        give_up_at=_give_up_at(state, command.now),
        base_id=vault.latest.snapshot_id if vault.latest else "",
    )
    return [*ended, requested]


def _gives_way(pending: str, wished: str) -> bool:
    """A copy that a hibernation had begun when it was called off gives way to that of the next one."""
    return pending == SCHEDULED != wished or pending == wished == HIBERNATION


def _declined(state: Instance, command: RequestSnapshot, code: str, why: str, **facts: str) -> Sequence[Event]:
    """To a customer a refusal with these facts; to ourselves the end of the wish."""
    if command.account_id:
        raise Refused(code, instance_id=state.instance_id, status=state.status, **facts)
    return [_end(state, command.snapshot_id, command.reason, code.lower(), why)]


def _give_up_at(state: Instance, now: datetime) -> datetime:
    """A first snapshot may be as large as the disk."""
    latest = state.vault.latest
    gigabytes = state.spec.disk_gb if latest is None else 1 + latest.bytes // GIGABYTE
    return now + PATIENCE + gigabytes * PATIENCE_PER_GB


def _completed(state: Instance, command: ReportSnapshot) -> Sequence[Event]:
    vault, machine = state.vault, state.primary
    if command.snapshot_id in vault.answered:
        return []
    if machine is None or machine.machine_id != command.machine_id:  # a machine is primary once: its id says enough
        raise Refused("MACHINE_FENCED", instance_id=state.instance_id, generation=state.generation)
    pending = vault.pending
    if pending is None or pending.snapshot_id != command.snapshot_id or pending.machine_id != command.machine_id:
        raise Refused("SNAPSHOT_NOT_FOUND", instance_id=state.instance_id, snapshot_id=command.snapshot_id)
    completed = SnapshotCompleted(
        instance_id=state.instance_id,
        account_id=state.account_id,
        snapshot_id=command.snapshot_id,
        machine_id=command.machine_id,
        generation=machine.generation,
        reason=pending.reason,
        captured_at=min(command.captured_at, command.now),
        completed_at=command.now,
        files=command.files,
        bytes=command.bytes,
        stored_bytes=command.stored_bytes,
        took_ms=command.took_ms,
        packs=command.packs,
        is_point_in_time=command.is_point_in_time,
    )
    return [completed, *_expired(vault, completed)]


def _expired(vault: Vault, newest: SnapshotCompleted) -> Sequence[Event]:
    """The oldest go; a pack stays as long as a kept snapshot needs it."""
    excess = len(vault.kept) + 1 - KEPT_MAX
    if excess <= 0:
        return []
    gone, kept = vault.kept[:excess], vault.kept[excess:]
    needed = {pack for each in kept for pack in each.packs} | set(newest.packs)
    packs = tuple(dict.fromkeys(pack for each in gone for pack in each.packs if pack not in needed))
    ids = tuple(each.snapshot_id for each in gone)
    return [SnapshotsExpired(instance_id=newest.instance_id, snapshot_ids=ids, packs=packs)]


def _failed(state: Instance, command: ReportSnapshotFailed) -> Sequence[Event]:
    pending = state.vault.pending
    is_meant = pending is not None and pending.snapshot_id == command.snapshot_id
    if pending is None or not is_meant or pending.machine_id != command.machine_id:
        return []
    return [_end(state, pending.snapshot_id, pending.reason, command.code, command.detail)]


def _give_up(state: Instance, command: GiveUpSnapshot) -> Sequence[Event]:
    pending = state.vault.pending
    if pending is None or pending.snapshot_id != command.snapshot_id or command.now < pending.give_up_at:
        return []
    return [_end(state, pending.snapshot_id, pending.reason, "timeout", "the agent did not report in time")]


def _end(state: Instance, snapshot_id: str, reason: str, code: str, detail: str) -> SnapshotFailed:
    return SnapshotFailed(
        instance_id=state.instance_id,
        account_id=state.account_id,
        snapshot_id=snapshot_id,
        reason=reason,
        code=code,
        detail=detail[:DETAIL_CHARS_MAX],
    )
