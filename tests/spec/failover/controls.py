"""The known values of the failover service's specs, taken from seed 000's examples, and wishes about them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from proto.failover.commands import (
    AbandonFailover,
    AnswerInterruption,
    ExecuteFailover,
    GiveUpRung,
    NoteClaimed,
    NotePool,
    NoteReady,
    NoteRungFailed,
    NoteSnapshot,
)
from proto.failover.words import PoolSeen

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
INSTANCE_ID = "inst_abc123"
ACCOUNT = "acct_7"
PRIMARY, STANDBY = "mach_1", "mach_2"
FAILOVER = "fo_1"
READY_POOL = PoolSeen("ready", STANDBY, "host-12345", "hot", reason="")

LOST = AnswerInterruption(
    now=NOW,
    instance_id=INSTANCE_ID,
    account_id=ACCOUNT,
    failover_id=FAILOVER,
    machine_id=PRIMARY,
    reason="spot_preemption",
    gpu="RTX 4090",
)
EXECUTE = ExecuteFailover(
    now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, failover_id=FAILOVER, machine_id=PRIMARY, test=True
)
POOL_READY = NotePool(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, pool=READY_POOL)
SNAPSHOT = NoteSnapshot(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT)
CLAIMED = NoteClaimed(
    now=NOW + timedelta(milliseconds=10),
    instance_id=INSTANCE_ID,
    failover_id=FAILOVER,
    rung="warm_pool",
    machine_id=STANDBY,
)
READY = NoteReady(now=NOW + timedelta(milliseconds=35), instance_id=INSTANCE_ID, machine_id=STANDBY, generation=2)
NOT_AVAILABLE = NoteRungFailed(
    now=NOW,
    instance_id=INSTANCE_ID,
    failover_id=FAILOVER,
    rung="warm_pool",
    reason="standby_not_ready",
    was_tried=False,
)
PROMOTION_FAILED = NoteRungFailed(
    now=NOW,
    instance_id=INSTANCE_ID,
    failover_id=FAILOVER,
    rung="warm_pool",
    reason="offer_unavailable",
    was_tried=True,
)
GIVE_UP = GiveUpRung(
    now=NOW + timedelta(seconds=150),
    instance_id=INSTANCE_ID,
    failover_id=FAILOVER,
    rung="warm_pool",
    due_at=NOW + timedelta(seconds=150),
)
STOPPED = AbandonFailover(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, error="instance_stopped")
DELETED = AbandonFailover(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, error="instance_deleted", deleted=True)


def seconds(count: float) -> datetime:
    """That many seconds after NOW."""
    return NOW + timedelta(seconds=count)
