"""What a customer may choose: the account's defaults (an aggregate) and an instance's settings (its guard's).

Called by the runtime and by `climbing`. A change is a merge patch: what is absent stays; the same patch again gives
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from msgspec import UNSET, Struct
from msgspec.structs import fields, replace

from libs.refusal import Refused
from proto.base import Event
from proto.failover.commands import ForgetMachineSettings, UpdateMachineSettings, UpdateSettings
from proto.failover.events import (
    CareChanged,
    MachineSettingsUpdated,
    PoolsChanged,
    PoolSwitched,
    SettingsEvent,
    SettingsUpdated,
    VolumeWanted,
)
from proto.failover.words import GlobalSettings, MachineSettings, RegionalVolumeSettings
from services.failover.decider import ladder
from services.failover.decider.guard import Guard

DEFAULTS = GlobalSettings()
NO_SUCH_CHANNEL = "only webhook is sent here; send that, and make one with POST /api/v1/webhooks"
S = TypeVar("S", bound=Struct)
V = TypeVar("V")


def decide(state: GlobalSettings, command: UpdateSettings) -> Sequence[Event]:
    channels = command.patch.notify_channels
    if channels is not UNSET and set(channels) - {"webhook"}:
        raise Refused("VALIDATION_ERROR", field="notify_channels", reason=NO_SUCH_CHANNEL)
    changed = merged(state, command.patch)
    if changed == state:
        return []
    updated = SettingsUpdated(account_id=command.account_id, settings=changed)
    return [updated, *_pools_changed(state, changed, command), *_care_changed(state, changed, command.account_id)]


def _pools_changed(old: GlobalSettings, new: GlobalSettings, command: UpdateSettings) -> Sequence[Event]:
    """What the pools that are there are to be told: only what was changed, so that what was wished for one stays."""
    before, after = old.warm_pool, new.warm_pool
    is_switched = after.enabled != before.enabled
    said = PoolsChanged(
        account_id=command.account_id,
        is_enabled=_if_new(after.enabled, before.enabled),
        mode=_if_new(after.standby_mode, before.standby_mode),
        volume_gb=_if_new(after.volume_size_gb, before.volume_size_gb),
        auto_reprovision=_if_new(after.auto_reprovision_standby, before.auto_reprovision_standby),
        own_choice=command.own_choice if is_switched else (),
    )
    return [] if said == PoolsChanged(account_id=command.account_id) else [said]


def _care_changed(old: GlobalSettings, new: GlobalSettings, account_id: str) -> Sequence[Event]:
    said = _care(new, account_id)
    return [] if said == _care(old, account_id) else [said]


def _care(settings: GlobalSettings, account_id: str) -> CareChanged:
    """The shorter of the two intervals: there is one machine to look at."""
    pool, cpu, default = settings.warm_pool, settings.cpu_standby, DEFAULTS
    check_s = min(pool.health_check_interval_seconds, cpu.health_check_interval_seconds)
    has_default_s = check_s == default.warm_pool.health_check_interval_seconds
    has_default_misses = cpu.failover_threshold == default.cpu_standby.failover_threshold
    has_default_names = pool.preferred_gpu_names == default.warm_pool.preferred_gpu_names
    return CareChanged(
        account_id=account_id,
        health_check_s=0 if has_default_s else check_s,
        heartbeat_misses_max=0 if has_default_misses else cpu.failover_threshold,
        gpu_names=None if has_default_names else pool.preferred_gpu_names,
    )


def _if_new(after: V, before: V) -> V | None:
    return after if after != before else None


def evolve(state: GlobalSettings, event: SettingsEvent) -> GlobalSettings:
    return event.settings if isinstance(event, SettingsUpdated) else state


def update_machine(state: Guard, command: UpdateMachineSettings) -> Sequence[Event]:
    patch = command.patch
    if patch.strategy is None:
        patch = replace(patch, strategy=MachineSettings().strategy)
    order = patch.strategy_order
    if order is not UNSET and len(set(order)) != len(order):
        raise Refused("VALIDATION_ERROR", field="strategy_order", reason="names a rung twice")
    changed = merged(state.settings, replace(patch, regional_volume=UNSET))
    if patch.regional_volume is not UNSET:
        block = state.settings.regional_volume or command.settings.regional_volume
        changed = replace(changed, regional_volume=merged(block, patch.regional_volume))
    return _machine_event(state, command, changed)


def forget_machine(state: Guard, command: ForgetMachineSettings) -> Sequence[Event]:
    return _machine_event(state, command, MachineSettings())


def _machine_event(
    state: Guard, command: UpdateMachineSettings | ForgetMachineSettings, changed: MachineSettings
) -> Sequence[Event]:
    if state.closed:
        raise Refused("INSTANCE_NOT_FOUND", instance_id=command.instance_id)
    if changed == state.settings:
        return []
    updated = MachineSettingsUpdated(instance_id=command.instance_id, account_id=command.account_id, settings=changed)
    events: list[Event] = [updated]
    wanted = ladder.volume_wanted(changed, command.settings)
    if wanted != ladder.volume_wanted(state.settings, command.settings):
        events.append(volume_wanted(command.instance_id, command.account_id, wanted))
    is_off = ladder.is_switched_off("warm_pool", changed, command.settings)
    if is_off != ladder.is_switched_off("warm_pool", state.settings, command.settings):
        about = {"instance_id": command.instance_id, "account_id": command.account_id}
        events.append(PoolSwitched(**about, is_enabled=not is_off))
    return events


def volume_wanted(instance_id: str, account_id: str, wanted: RegionalVolumeSettings | None) -> VolumeWanted:
    if wanted is None:
        return VolumeWanted(instance_id=instance_id, account_id=account_id)
    return VolumeWanted(
        instance_id=instance_id,
        account_id=account_id,
        size_gb=wanted.volume_size_gb,
        mount_path=wanted.mount_path,
        preferred_regions=wanted.preferred_regions,
    )


def merged(old: S, patch: Struct) -> S:
    """`old` with what the patch says, block by block."""
    changes: dict[str, Any] = {}
    for field in fields(patch):
        value = getattr(patch, field.name)
        if value is not UNSET:
            changes[field.name] = merged(getattr(old, field.name), value) if isinstance(value, Struct) else value
    return replace(old, **changes)
