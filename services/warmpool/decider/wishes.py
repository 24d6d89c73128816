"""What the customer wants of a pool: that there is one, that it changes, that it ends. Used by `protecting`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from msgspec.structs import replace

from libs.refusal import Refused
from proto.base import Event
from proto.warmpool.commands import AdjustPool, DisablePool, ProvisionPool
from proto.warmpool.events import PoolAdjusted, PoolRequested, PrimarySeen
from services.warmpool.decider.pool import SUSPENDED, Pool, evolve
from services.warmpool.decider.standby import degraded, freed, release, want

# Why a pool ended, or is without a standby, that its customer's settings no longer fit.
SWITCHED_OFF = "switched_off"
MODE_CHANGED = "mode_changed"
# By then the cloud has taken the old standby's GPU back, so that a host with two GPUs can carry the next one.
REPLACE_AFTER_S = 10


def provision(state: Pool, command: ProvisionPool) -> Sequence[Event]:
    if state.status != "disabled":
        there = (state.host_id, state.mode, state.volume_gb, state.auto_reprovision)
        host_id = command.wanted_host_id or state.host_id
        if not command.is_new or (host_id, command.mode, command.volume_gb, command.auto_reprovision) == there:
            return _find_primary(state, command)
        raise Refused("WARMPOOL_EXISTS", instance_id=command.instance_id, status=state.status)
    if state.closed:
        raise Refused("INSTANCE_NOT_FOUND", instance_id=command.instance_id)
    _refuse_bad_host(command)
    requested = PoolRequested(
        instance_id=command.instance_id,
        account_id=command.account_id,
        mode=command.mode,
        volume_gb=command.volume_gb,
        auto_reprovision=command.auto_reprovision,
        host_id=command.host_id,
        primary_machine_id=command.machine_id,
        requested_at=command.now,
    )
    return [requested, want(evolve(state, requested))] if command.host_id else [requested]


def _find_primary(state: Pool, command: ProvisionPool) -> Sequence[Event]:
    """Asked for again: a pool that waits for a primary takes the one that the caller sees. The instance may have said
    `ready` just before the pool was there to hear it."""
    if state.status != "searching" or state.primary_machine_id or not command.host_id:
        return []
    seen = PrimarySeen(
        instance_id=state.instance_id, machine_id=command.machine_id, host_id=command.host_id, seen_at=command.now
    )
    return [seen, want(evolve(state, seen))]


def _refuse_bad_host(command: ProvisionPool) -> None:
    """The host that the caller named must be the one the instance runs on: its files are there."""
    wanted = command.wanted_host_id
    if not wanted:
        return
    if command.host_gpus_free is None and wanted != command.host_id:
        raise Refused("HOST_NOT_FOUND", host_id=wanted)
    if wanted != command.host_id:
        advice = "leave the host out: the standby must be on the host that the instance runs on"
        about = {"instance_id": command.instance_id, "status": "elsewhere", "host_id": command.host_id}
        raise Refused("INVALID_STATE", **about, advice=advice)
    if not command.host_gpus_free:
        raise Refused("HOST_INSUFFICIENT_GPUS", host_id=wanted)


def disable(state: Pool, command: DisablePool) -> Sequence[Event]:
    if state.status == "disabled":
        return []
    if state.status == "failover" and not command.forced:
        raise Refused("FAILOVER_IN_PROGRESS", instance_id=state.instance_id, failover_id=state.claimed_by)
    return freed(state, command.reason)


def adjust(state: Pool, command: AdjustPool) -> Sequence[Event]:
    """The settings that the pool follows have changed. A claimed standby is left alone: the next one is as wished, and
    a pool that is no longer wanted ends when the failover does. Said before the pool was asked for: nothing."""
    if state.status == "disabled" or (state.adjusted_at is not None and command.now <= state.adjusted_at):
        return []
    is_enabled = state.is_wanted if command.is_enabled is None else command.is_enabled
    auto_reprovision = state.auto_reprovision if command.auto_reprovision is None else command.auto_reprovision
    adjusted = PoolAdjusted(
        instance_id=state.instance_id,
        account_id=state.account_id,
        is_enabled=is_enabled,
        mode=command.mode or state.mode,
        volume_gb=command.volume_gb or state.volume_gb,
        auto_reprovision=auto_reprovision,
        said_at=command.now,
    )
    after = evolve(state, adjusted)
    if replace(after, adjusted_at=state.adjusted_at) == state:
        return []
    if state.status == "failover":
        return [adjusted]
    if not is_enabled:
        return freed(state, SWITCHED_OFF)
    if after.mode != state.mode and state.standby_machine_id:
        replaced = degraded(after, MODE_CHANGED, retry_at=command.now + timedelta(seconds=REPLACE_AFTER_S))
        return [adjusted, *release(after, MODE_CHANGED), replaced]
    return [adjusted, want(after)] if auto_reprovision and _is_stuck(after) else [adjusted]


def _is_stuck(state: Pool) -> bool:
    """Nothing but a wish will bring a standby: none was to replace the last one."""
    return state.status == "degraded" and state.retry_at is None and state.reason not in SUSPENDED
