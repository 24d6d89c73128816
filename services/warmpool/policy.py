"""What makes a pool want something: failovers that need its standby, and what the instance says about machines,
and what the customer changes in the settings.

Called by the runtime for what other services say. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from proto.base import Command, Heard
from proto.failover.events import FailoverFailed, PoolsChanged, PoolSwitched, RungTried
from proto.instance.events import (
    InstanceCreated,
    InstanceDeleting,
    InstanceFailed,
    InstanceHibernated,
    InstanceReady,
    InstanceStopping,
    PromotionFailed,
    StandbyFailed,
    StandbyReady,
)
from proto.instance.words import Protection
from proto.warmpool.commands import (
    AdjustPool,
    ChangePools,
    ClaimStandby,
    DisablePool,
    EndClaim,
    NotePrimary,
    NotePromotionFailed,
    NoteStandbyFailed,
    NoteStandbyReady,
    ProvisionPool,
    SuspendPool,
)
from proto.warmpool.events import PoolsTold

HEARS = (
    "pub.*.failover.rung_tried",
    "pub.*.failover.failed",
    "pub.*.failover.pool_switched",
    "pub.*.failover.pools_changed",
    "pub.*.instance.created",
    "pub.*.instance.ready",
    "pub.*.instance.stopping",
    "pub.*.instance.failed",
    "pub.*.instance.hibernated",
    "pub.*.instance.deleting",
    "pub.*.instance.standby_ready",
    "pub.*.instance.standby_failed",
    "pub.*.instance.promotion_failed",
)
HEARS_EVENTS = (
    RungTried
    | FailoverFailed
    | PoolSwitched
    | PoolsChanged
    | InstanceCreated
    | InstanceReady
    | InstanceStopping
    | InstanceFailed
    | InstanceHibernated
    | InstanceDeleting
    | StandbyReady
    | StandbyFailed
    | PromotionFailed
)


def react(heard: Heard) -> Iterator[Command]:
    """Own commands that follow from one event."""
    match heard.event:
        case RungTried(rung="warm_pool") as event:
            yield ClaimStandby(
                now=heard.at,
                instance_id=event.instance_id,
                account_id=event.account_id,
                failover_id=event.failover_id,
                replaces=event.machine_id,
                give_up_at=event.give_up_at,
            )
        case FailoverFailed() as event:
            yield EndClaim(
                now=heard.at, instance_id=event.instance_id, failover_id=event.failover_id, reason=event.error
            )
        case InstanceCreated(protection=Protection(pool_mode="hot" | "stopped" as mode) as wanted) as event:
            yield ProvisionPool(
                now=heard.at,
                request_id=heard.event_id,
                instance_id=event.instance_id,
                account_id=event.account_id,
                mode=mode,
                volume_gb=wanted.pool_volume_gb,
                auto_reprovision=wanted.pool_auto_reprovision,
            )
        case InstanceReady() as event:
            yield NotePrimary(
                now=heard.at, instance_id=event.instance_id, machine_id=event.machine_id, host_id=event.host_id
            )
        case InstanceStopping() as event:
            yield SuspendPool(now=heard.at, instance_id=event.instance_id, reason="instance_stopped")
        case InstanceHibernated() as event:
            yield SuspendPool(now=heard.at, instance_id=event.instance_id, reason="instance_hibernated")
        case InstanceFailed() as event:
            yield SuspendPool(now=heard.at, instance_id=event.instance_id, reason="instance_failed")
        case InstanceDeleting() as event:
            yield DisablePool(
                now=heard.at,
                instance_id=event.instance_id,
                account_id=event.account_id,
                reason="instance_deleted",
                forced=True,
            )
        case _:
            yield from _react_to_standby(heard)
            yield from _react_to_settings(heard)


def _react_to_standby(heard: Heard) -> Iterator[Command]:
    match heard.event:
        case StandbyReady() as event:
            yield NoteStandbyReady(
                now=heard.at,
                instance_id=event.instance_id,
                machine_id=event.machine_id,
                host_id=event.host_id,
                volume_id=event.volume_id,
            )
        case StandbyFailed() as event:
            yield NoteStandbyFailed(
                now=heard.at,
                instance_id=event.instance_id,
                machine_id=event.machine_id,
                reason=event.reason,
                detail=event.detail,
            )
        case PromotionFailed() as event:
            yield NotePromotionFailed(
                now=heard.at,
                instance_id=event.instance_id,
                failover_id=event.failover_id,
                machine_id=event.machine_id,
                reason=event.reason,
            )
        case _:
            return


def _react_to_settings(heard: Heard) -> Iterator[Command]:
    match heard.event:
        case PoolSwitched() as event:
            yield AdjustPool(
                now=heard.at, instance_id=event.instance_id, account_id=event.account_id, is_enabled=event.is_enabled
            )
        case PoolsChanged() as event:
            yield ChangePools(
                now=heard.at,
                account_id=event.account_id,
                is_enabled=event.is_enabled,
                mode=event.mode,
                volume_gb=event.volume_gb,
                auto_reprovision=event.auto_reprovision,
                own_choice=event.own_choice,
            )
        case PoolsTold() as event:
            chooses = frozenset(event.own_choice)
            for instance_id in event.instance_ids:
                yield AdjustPool(
                    now=event.said_at,
                    instance_id=instance_id,
                    account_id=event.account_id,
                    is_enabled=None if instance_id in chooses else event.is_enabled,
                    mode=event.mode,
                    volume_gb=event.volume_gb,
                    auto_reprovision=event.auto_reprovision,
                )
        case _:
            return
