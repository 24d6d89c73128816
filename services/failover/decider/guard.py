"""What is remembered of one instance: its settings, its pool, how often it failed over, and the failover under way.

Used by `climbing`, `ladder` and (through the runtime) the queries. One stream per instance, so "one failover at a time"
and "at most five a day" are rules over one state. Failovers that are over are forgotten here, except for their ids
and instants; the projection keeps their history.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from math import ceil
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from proto.failover.events import (
    CloudStorageSucceeded,
    CpuStandbyNoted,
    CpuStandbySucceeded,
    CpuStandbyWanted,
    FailoverCompleted,
    FailoverFailed,
    FailoverStarted,
    GuardClosed,
    GuardEvent,
    InterruptionJoined,
    LadderPlanned,
    MachineSettingsUpdated,
    PoolNoted,
    PoolSwitched,
    RegionalVolumeSucceeded,
    RungClaimed,
    RungFailed,
    RungSkipped,
    RungTried,
    SnapshotNoted,
    VolumeNoted,
    VolumeWanted,
    WarmPoolSucceeded,
)
from proto.failover.words import Attempt, Limits, MachineSettings, PoolSeen, Rung, Strategy

DAY = timedelta(hours=24)
# A repeat of an interruption comes within a redelivery, and five failovers are a day's worth.
ANSWERED_REMEMBERED_MAX = 64
USER_TEST = "user_test"  # the reason of a failover that somebody wished


class Breaker(Struct, frozen=True):
    """Failures of one rung in a row, and until when it is spared."""

    rung: Rung
    failures: int
    failed_at: datetime


class Run(Struct, frozen=True):
    """The failover under way. `rung` None: no rung is being climbed (only within a commit)."""

    failover_id: str
    machine_id: str
    strategy: Strategy
    reason: str
    started_at: datetime
    gpu: str
    test: bool
    is_quiet: bool = False
    ladder: tuple[Rung, ...] = ()
    allowed: tuple[Rung, ...] = ()
    rung_timeout_s: int = 0
    auto_recovery: bool = True
    volume_timeout_s: int = 0
    withheld: tuple[Rung, ...] = ()
    no_fallback: bool = False
    attempts: tuple[Attempt, ...] = ()
    rung: Rung | None = None
    tried_at: datetime | None = None
    give_up_at: datetime | None = None
    lost_at: datetime | None = None  # when an earlier failover after the same loss began; that one failed
    lost_id: str = ""  # a machine lost since, which stood in for `machine_id`
    claimed_id: str = ""
    claimed_at: datetime | None = None


class Guard(Struct, frozen=True):
    """`answered`: failovers that have begun or were joined, newest last. `started`: instants within a day or so."""

    instance_id: str = ""
    account_id: str = ""
    settings: MachineSettings = MachineSettings()
    pool: PoolSeen = PoolSeen()
    has_snapshot: bool = False
    cpu_machine_id: str = ""  # the CPU standby with a whole copy
    cpu_taken_at: datetime | None = None  # when one took over last: copies of before then are of a primary
    volume_id: str = ""  # the volume of the region that has the workspace
    is_cpu_wanted: bool = False  # said when the instance was created
    run: Run | None = None
    unanswered: tuple[str, datetime] | None = None  # the machine of a loss that nothing helped against, and its instant
    answered: tuple[str, ...] = ()
    started: tuple[datetime, ...] = ()
    breakers: tuple[Breaker, ...] = ()
    limits: Limits = Limits()
    closed: bool = False

    def started_since(self, now: datetime) -> tuple[datetime, ...]:
        """Failovers of the last 24 hours."""
        return tuple(at for at in self.started if now - at < DAY)

    def wait_s(self, limits: Limits, now: datetime) -> int | None:
        """Seconds until the next failover is allowed; None: now."""
        recent = self.started_since(now)
        free_at: list[datetime] = []
        if recent:
            free_at.append(recent[-1] + timedelta(seconds=limits.spacing_s))
        if len(recent) >= limits.failovers_per_day_max:
            free_at.append(recent[-limits.failovers_per_day_max] + DAY)
        wait_s = max((ceil((at - now).total_seconds()) for at in free_at), default=0)
        return wait_s if wait_s > 0 else None

    def is_breaker_open(self, rung: Rung, now: datetime) -> bool:
        """After several failures in a row a rung is spared for a while; one try later closes or opens it again."""
        breaker = next((b for b in self.breakers if b.rung == rung), None)
        if breaker is None or breaker.failures < self.limits.breaker_failures_max:
            return False
        return now - breaker.failed_at < timedelta(seconds=self.limits.breaker_open_s)


UNTOUCHED = Guard()


def evolve(state: Guard, event: GuardEvent) -> Guard:
    """Fold one fact. Never refuses: what is in the log has happened."""
    match event:
        case FailoverStarted():
            return _started(state, event)
        case LadderPlanned():
            return _planned(state, event)
        case RungTried() | RungSkipped() | RungClaimed() | RungFailed():
            return _climbed(state, event)
        case WarmPoolSucceeded():
            return replace(state, breakers=_closed(state.breakers, "warm_pool"))
        case CpuStandbySucceeded():
            return replace(state, breakers=_closed(state.breakers, "cpu_standby"), cpu_machine_id="")
        case CpuStandbyWanted():
            about = {"instance_id": event.instance_id, "account_id": event.account_id}
            return replace(state, **about, is_cpu_wanted=True)
        case CpuStandbyNoted():
            about = {"instance_id": event.instance_id, "account_id": event.account_id}
            return replace(state, **about, cpu_machine_id=event.machine_id)
        case CloudStorageSucceeded():
            return replace(state, breakers=_closed(state.breakers, "cloud_storage"))
        case RegionalVolumeSucceeded():
            return replace(state, breakers=_closed(state.breakers, "regional_volume"))
        case VolumeNoted():
            about = {"instance_id": event.instance_id, "account_id": event.account_id}
            return replace(state, **about, volume_id=event.volume_id)
        case VolumeWanted() | PoolSwitched():
            return state
        case SnapshotNoted():
            return replace(state, instance_id=event.instance_id, account_id=event.account_id, has_snapshot=True)
        case FailoverCompleted():
            taken_at = event.completed_at if event.on_cpu else state.cpu_taken_at
            return replace(state, run=None, unanswered=None, cpu_taken_at=taken_at)
        case FailoverFailed():
            return _gave_up(state)
        case InterruptionJoined():
            run = state.run and replace(state.run, lost_id=event.machine_id)
            return replace(state, run=run, answered=_remember(state.answered, event.joined_id))
        case PoolNoted():
            return replace(state, instance_id=event.instance_id, account_id=event.account_id, pool=event.pool)
        case MachineSettingsUpdated():
            return replace(state, instance_id=event.instance_id, account_id=event.account_id, settings=event.settings)
        case GuardClosed():
            return replace(state, closed=True)
        case _:
            assert_never(event)


def _started(state: Guard, event: FailoverStarted) -> Guard:
    before = state.unanswered
    run = Run(
        failover_id=event.failover_id,
        machine_id=event.machine_id,
        strategy=event.strategy,
        reason=event.reason,
        started_at=event.started_at,
        gpu=event.gpu,
        test=event.test,
        lost_at=before[1] if before is not None and before[0] == event.machine_id else None,
        is_quiet=event.is_quiet,
    )
    return replace(
        state,
        instance_id=event.instance_id,
        account_id=event.account_id,
        run=run,
        answered=_remember(state.answered, event.failover_id),
    )


def _gave_up(state: Guard) -> Guard:
    """The next failover for the same machine is about the same loss. A machine given up by a wish may be at work."""
    run = state.run
    if run is None or run.reason == USER_TEST:
        return replace(state, run=None)
    return replace(state, run=None, unanswered=(run.machine_id, run.lost_at or run.started_at))


def _planned(state: Guard, event: LadderPlanned) -> Guard:
    assert state.run is not None, "a ladder without a failover"
    run = replace(
        state.run,
        ladder=event.ladder,
        allowed=event.allowed,
        rung_timeout_s=event.rung_timeout_s,
        auto_recovery=event.auto_recovery,
        volume_timeout_s=event.volume_timeout_s,
        withheld=event.withheld,
        no_fallback=event.no_fallback,
    )
    return replace(state, run=run, limits=event.limits)


def _climbed(state: Guard, event: RungTried | RungSkipped | RungClaimed | RungFailed) -> Guard:
    run = state.run
    assert run is not None, f"{type(event).__name__} without a failover"
    match event:
        case RungTried():
            is_first = run.tried_at is None
            run = replace(run, rung=event.rung, tried_at=event.tried_at, give_up_at=event.give_up_at)
            # Only a failover that climbs counts: one that had no rung to try must not keep the next from being tried.
            started = (*state.started_since(event.tried_at), event.tried_at) if is_first else state.started
            return replace(state, run=run, started=started)
        case RungClaimed():
            run = replace(run, claimed_id=event.machine_id, claimed_at=event.claimed_at)
        case RungSkipped():
            passed = Attempt(event.rung, "skipped", event.skipped_at, event.skipped_at, event.reason)
            run = replace(run, attempts=(*run.attempts, passed), rung=None)
        case RungFailed():
            ended = Attempt(event.rung, "failed", run.tried_at or event.failed_at, event.failed_at, event.reason)
            run = replace(run, attempts=(*run.attempts, ended), rung=None, claimed_id="", claimed_at=None)
            return replace(state, run=run, breakers=_counted(state.breakers, event))
        case _:
            assert_never(event)
    return replace(state, run=run)


def _counted(breakers: tuple[Breaker, ...], event: RungFailed) -> tuple[Breaker, ...]:
    before = next((breaker.failures for breaker in breakers if breaker.rung == event.rung), 0)
    return (*_closed(breakers, event.rung), Breaker(event.rung, before + 1, event.failed_at))


def _closed(breakers: tuple[Breaker, ...], rung: Rung) -> tuple[Breaker, ...]:
    return tuple(breaker for breaker in breakers if breaker.rung != rung)


def _remember(answered: tuple[str, ...], failover_id: str) -> tuple[str, ...]:
    return (*answered, failover_id)[-ANSWERED_REMEMBERED_MAX:]
