"""Hibernation: an instance that nobody uses is announced, copied to storage, and gives its machine back.

Called by `wishes.decide` and, when something else ends it, by `lifecycle`. Rule: contract dumont 5. Nothing is given
back before a copy has been checked in storage and another copy after it found nothing to add: what was written
while the first one was made is in the second. A machine whose files never stand still is in use and stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeAlias

from libs.ids import derive_id
from libs.refusal import Refused
from proto.base import Event
from proto.instance.commands import (
    AbandonHibernation,
    HibernateInstance,
    ReportBusy,
    ReportIdle,
    ReportSnapshotChecked,
    RequestSnapshot,
)
from proto.instance.events import (
    HibernationCancelled,
    HibernationScheduled,
    InstanceHibernated,
    InstanceHibernating,
    InstanceWaking,
    VolumeReleaseRequested,
)
from services.instance.decider import cpu_standby, requests, snapshots, standby, volume
from services.instance.decider.instance import HIBERNATION, Instance
from services.instance.decider.machine_state import Machine

HibernationCommand: TypeAlias = ReportIdle | ReportBusy | HibernateInstance | ReportSnapshotChecked | AbandonHibernation
# Copies until one has nothing to add; the first is the long one, and four times in a row something was being written.
COPIES_MAX = 4
RETRY_MINUTES = 15
DETAIL_CHARS_MAX = 500


def decide(state: Instance, command: HibernationCommand) -> Sequence[Event]:
    match command:
        case ReportIdle():
            return _idle(state, command)
        case ReportBusy():
            return _busy(state, command)
        case HibernateInstance():
            return _wish(state, command)
        case ReportSnapshotChecked():
            return _checked(state, command)
        case AbandonHibernation():
            return _abandon(state, command)


def _idle(state: Instance, command: ReportIdle) -> Sequence[Event]:
    """Seen idle, by a fresh heartbeat: announce, or do what was announced."""
    primary, sleep = state.primary, state.sleep
    if state.status != "ready" or primary is None or primary.machine_id != command.machine_id:
        return []
    if sleep.will_at is None:
        return _announce(state, primary, command)
    if command.now < sleep.will_at:
        return []
    return begin(state, primary, command.now, idle_since=sleep.idle_since or command.idle_since, reason="idle")


def _announce(state: Instance, primary: Machine, command: ReportIdle) -> Sequence[Event]:
    idle_since = _idle_since(state, command.idle_since)
    will_at = max(
        idle_since + timedelta(seconds=command.idle_s),
        command.now + timedelta(seconds=command.notice_s),
        state.keep_alive_until or command.now,
    )
    is_early = command.now < will_at - timedelta(seconds=command.notice_s)
    if is_early or (state.sleep.not_before is not None and command.now < state.sleep.not_before):
        return []
    return [
        HibernationScheduled(
            instance_id=state.instance_id,
            account_id=state.account_id,
            name=state.name,
            gpu=state.gpu,
            machine_id=primary.machine_id,
            idle_since=idle_since,
            will_hibernate_at=will_at,
        )
    ]


def _idle_since(state: Instance, seen_idle_since: datetime) -> datetime:
    """From the last use that anybody knows of; what was before it became ready does not count."""
    return max(at for at in (seen_idle_since, state.ready_at, state.last_used_at) if at is not None)


def begin(state: Instance, primary: Machine, now: datetime, *, idle_since: datetime, reason: str) -> Sequence[Event]:
    """Nothing while another copy is being made that somebody asked for: it will be tried again."""
    copy = _copy(state, now)
    if copy is None:
        return []
    snapshot_id, requested = copy
    hibernating = InstanceHibernating(
        instance_id=state.instance_id,
        account_id=state.account_id,
        name=state.name,
        gpu=state.gpu,
        machine_id=primary.machine_id,
        snapshot_id=snapshot_id,
        idle_since=idle_since,
        price_usd_micros_per_hour=primary.offer.price_usd_micros_per_hour if primary.offer else 0,
        wished=reason != "idle",
        reason=reason,
    )
    return [hibernating, *requested]


def _copy(state: Instance, now: datetime) -> tuple[str, Sequence[Event]] | None:
    """The next copy to make, under an id that no earlier attempt has had."""
    pending = state.vault.pending
    if pending is not None and pending.reason not in (snapshots.SCHEDULED, HIBERNATION):
        return None
    snapshot_id = derive_id("snap", state.instance_id, HIBERNATION, str(state.sleep.copies_ever + 1))
    wish = RequestSnapshot(
        now=now, instance_id=state.instance_id, snapshot_id=snapshot_id, reason=HIBERNATION, has_storage=True
    )
    return snapshot_id, snapshots.decide(state, wish)


def _wish(state: Instance, command: HibernateInstance) -> Sequence[Event]:
    if state.status in ("hibernating", "hibernated"):
        return []
    if not command.has_storage:
        raise Refused("NOT_CONFIGURED", feature="storage")
    primary = state.primary
    if state.status != "ready" or primary is None:
        advice = "wait until it is ready"
        raise Refused("INVALID_STATE", instance_id=state.instance_id, status=state.status, advice=advice)
    begun = begin(state, primary, command.now, idle_since=command.now, reason="user_request")
    if not begun:
        pending = state.vault.pending.snapshot_id if state.vault.pending else ""
        raise Refused("SNAPSHOT_IN_PROGRESS", instance_id=state.instance_id, snapshot_id=pending)
    return begun


def _checked(state: Instance, command: ReportSnapshotChecked) -> Sequence[Event]:
    """A copy is in storage and whole, or not. Two copies in a row without a difference: the machine may go."""
    sleep, primary = state.sleep, state.primary
    if state.status != "hibernating" or sleep.snapshot_id != command.snapshot_id or primary is None:
        return []
    if not command.is_whole:
        return cancel(state, "snapshot_failed", command.now, detail=command.detail)
    if sleep.copies > 1 and not command.has_added:
        return _release(state, primary, command)
    if sleep.copies >= COPIES_MAX:
        return cancel(state, "never_still", command.now, detail=f"{sleep.copies} copies each found changed files")
    copy = _copy(state, command.now)
    return [] if copy is None else copy[1]


def _release(state: Instance, primary: Machine, command: ReportSnapshotChecked) -> Sequence[Event]:
    sleep = state.sleep
    idle_since = sleep.idle_since or command.now
    hibernated = InstanceHibernated(
        instance_id=state.instance_id,
        account_id=state.account_id,
        name=state.name,
        gpu=state.gpu,
        snapshot_id=command.snapshot_id,
        idle_seconds=max(0, int((command.now - idle_since).total_seconds())),
        price_usd_micros_per_hour=sleep.price_usd_micros_per_hour,
        hibernated_at=command.now,
        reason=sleep.reason,
        bytes=state.vault.latest.bytes if state.vault.latest else 0,
        volume_id=state.volume.volume_id if state.volume else "",
        on_cpu=standby.is_on_cpu(state, primary),
    )
    events: list[Event] = [hibernated, *standby.give_back_all(state, "hibernated")]
    events += cpu_standby.give_back(state, "hibernated")
    events.append(requests.destroy(state, primary))
    if state.volume is not None:  # the files are in storage; what a machine rented later has is another volume
        if state.volume.region:
            events.append(volume.given_up(state, state.volume, "hibernated"))
        events.append(VolumeReleaseRequested(instance_id=state.instance_id, machine_ids=state.shared_from))
    return events


def _busy(state: Instance, command: ReportBusy) -> Sequence[Event]:
    """No longer seen idle. What a customer wished goes on."""
    primary = state.primary
    if primary is None or primary.machine_id != command.machine_id or state.sleep.wished:
        return []
    return cancel(state, command.reason, command.now)


def _abandon(state: Instance, command: AbandonHibernation) -> Sequence[Event]:
    if state.sleep.snapshot_id != command.snapshot_id:
        return []
    return cancel(state, "snapshot_failed", command.now, detail=command.detail)


def cancel(state: Instance, reason: str, now: datetime, *, detail: str = "") -> Sequence[HibernationCancelled]:
    """Call off what was announced or begun; nothing when nothing was."""
    if state.status != "hibernating" and (state.status != "ready" or state.sleep.will_at is None):
        return []
    # A copy that failed would fail again at once; everything else is answered by being idle anew.
    pause = timedelta(minutes=RETRY_MINUTES) if reason in ("snapshot_failed", "never_still") else timedelta()
    return [
        HibernationCancelled(
            instance_id=state.instance_id,
            account_id=state.account_id,
            name=state.name,
            gpu=state.gpu,
            reason=reason,
            not_before=now + pause,
            detail=detail[:DETAIL_CHARS_MAX],
        )
    ]


def wake(state: Instance, now: datetime) -> Sequence[Event]:
    """What a start says first when the instance is hibernated."""
    if state.status != "hibernated":
        return []
    return [
        InstanceWaking(
            instance_id=state.instance_id,
            account_id=state.account_id,
            name=state.name,
            gpu=state.gpu,
            snapshot_id=state.sleep.snapshot_id,
            waking_at=now,
        )
    ]
