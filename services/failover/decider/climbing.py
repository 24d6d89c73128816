"""How a failover goes: started, rung by rung up the ladder, completed or failed. The entry `decide` of a guard.

Called by the runtime. Whatever is heard late, twice or of another failover changes nothing: one guard per command asks
whether it is about the rung that is being climbed now.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import ceil
from typing import TypeAlias, cast

from libs.refusal import Refused
from proto.base import Event
from proto.failover.commands import (
    AbandonFailover,
    AnswerInterruption,
    ExecuteFailover,
    ForgetMachineSettings,
    GiveUpRung,
    GuardCommand,
    NoteClaimed,
    NoteCpuStandby,
    NotePool,
    NoteReady,
    NoteRungFailed,
    NoteSnapshot,
    NoteVolume,
    ProtectNew,
    UpdateMachineSettings,
)
from proto.failover.events import (
    CloudStorageSucceeded,
    CpuStandbySucceeded,
    FailoverCompleted,
    FailoverFailed,
    FailoverStarted,
    GuardClosed,
    GuardEvent,
    InterruptionJoined,
    LadderPlanned,
    RegionalVolumeSucceeded,
    RungClaimed,
    RungFailed,
    RungSkipped,
    RungTried,
    WarmPoolSucceeded,
)
from proto.failover.words import RUNGS_OF, Attempt, Phase, Rung, Strategy, milliseconds_between
from services.failover.decider import ladder, notes, settings
from services.failover.decider.guard import USER_TEST, Guard, Run, evolve

Start: TypeAlias = ExecuteFailover | AnswerInterruption
_SUCCESS = {
    "warm_pool": WarmPoolSucceeded,
    "cpu_standby": CpuStandbySucceeded,
    "regional_volume": RegionalVolumeSucceeded,
    "cloud_storage": CloudStorageSucceeded,
}
_PHASE_OF: dict[Rung, str] = {
    "cpu_standby": "cpu_standby_failover",
    "warm_pool": "warm_pool_failover",
    "regional_volume": "regional_volume_failover",
    "cloud_storage": "snapshot_restore",
}
# The volume, shared on a host or of a region, is the workspace itself: nothing that was written is missing.
VOLUME_LOSS_S = 0


# A machine that is rented and filled takes longer than one that waits: 10 minutes to come up, 30 s per GB (contract 3).
_RUNG_TIMEOUT_S: dict[Rung, int] = {"cloud_storage": 3_600}


def decide(state: Guard, command: GuardCommand) -> Sequence[Event]:
    """What follows from a wish or from something heard. Raises Refused. The same command again gives nothing."""
    match command:
        case ExecuteFailover():
            return _execute(_owned(state, command.account_id), command)
        case UpdateMachineSettings():
            return settings.update_machine(_owned(state, command.account_id), command)
        case ForgetMachineSettings():
            return settings.forget_machine(_owned(state, command.account_id), command)
        case AnswerInterruption():
            return _answer(state, command)
        case NoteClaimed():
            return _note_claimed(state, command)
        case NoteRungFailed():
            return _note_rung_failed(state, command)
        case NoteReady():
            return _note_ready(state, command)
        case NotePool():
            return notes.pool(state, command)
        case ProtectNew():
            return notes.protect(state, command)
        case NoteCpuStandby():
            return notes.cpu_standby(state, command)
        case NoteSnapshot():
            return notes.snapshot(state, command)
        case NoteVolume():
            return notes.volume(state, command)
        case AbandonFailover():
            return _abandon(state, command)
        case GiveUpRung():
            return _give_up(state, command)
        case _:
            raise TypeError(f"{type(command).__name__} is not a wish for a guard")


def _owned(state: Guard, account_id: str) -> Guard:
    """To another account the instance does not exist."""
    if state.account_id not in ("", account_id):
        raise Refused("INSTANCE_NOT_FOUND", instance_id=state.instance_id)
    return state


# --- starting -----------------------------------------------------------------------------------------------------


def _execute(state: Guard, command: ExecuteFailover) -> Sequence[Event]:
    if command.failover_id in state.answered:
        return []  # also while the instance is on its way to another machine, by what was wished first
    if state.run is not None:
        raise Refused("FAILOVER_IN_PROGRESS", instance_id=command.instance_id, failover_id=state.run.failover_id)
    if not command.machine_id or command.instance_status not in ("ready", "interrupted"):
        advice = "wait until it is running or interrupted"
        about = {"instance_id": command.instance_id, "status": command.instance_status, "advice": advice}
        raise Refused("INVALID_STATE", **about)
    strategy = command.force_strategy or ladder.effective_strategy(state.settings, command.settings)
    if strategy == "disabled":
        raise Refused("FAILOVER_DISABLED", instance_id=command.instance_id)
    wait_s = state.wait_s(command.limits, command.now)
    if wait_s is not None:
        raise Refused("FAILOVER_LIMIT_REACHED", instance_id=command.instance_id, retry_after_s=wait_s)
    started = _started(command, strategy, reason=USER_TEST, test=command.test)
    return _climb(state, [started, _planned(state, command, strategy)], command.now)


def _answer(state: Guard, command: AnswerInterruption) -> Sequence[Event]:
    """Every loss gets an answer: a failover, or the fact that there is none and why."""
    if command.failover_id in state.answered:
        return []
    if state.run is not None:
        return _join(state, state.run, command)
    strategy = ladder.effective_strategy(state.settings, command.settings)
    started = _started(command, strategy, reason=command.reason, test=False)
    if strategy == "disabled":
        return _fail(state, [started], "disabled", command.now)
    if state.wait_s(command.limits, command.now) is not None:
        return _fail(state, [started], "limit_reached", command.now)
    return _climb(state, [started, _planned(state, command, strategy)], command.now)


def _join(state: Guard, run: Run, command: AnswerInterruption) -> Sequence[Event]:
    """The failover under way answers for this loss too. Lost is the machine it had set aside: on to the next rung.

    That happens when the customer's own start has promoted the standby: the rung's owner has nothing more to say.
    """
    joined = InterruptionJoined(
        failover_id=run.failover_id,
        instance_id=command.instance_id,
        joined_id=command.failover_id,
        machine_id=command.machine_id,
    )
    if run.rung is None or command.machine_id != run.claimed_id:
        return [joined]
    lost = RungFailed(
        failover_id=run.failover_id,
        instance_id=command.instance_id,
        rung=run.rung,
        reason="standby_lost",
        failed_at=command.now,
    )
    return _climb(state, [joined, lost], command.now)


def _started(command: Start, strategy: Strategy, *, reason: str, test: bool) -> FailoverStarted:
    return FailoverStarted(
        failover_id=command.failover_id,
        instance_id=command.instance_id,
        account_id=command.account_id,
        machine_id=command.machine_id,
        strategy=strategy,
        reason=reason,
        started_at=command.now,
        gpu=command.gpu,
        test=test,
        is_quiet=command.settings.is_quiet,
    )


def _planned(state: Guard, command: Start, strategy: Strategy) -> LadderPlanned:
    """A strategy that is named in the wish is meant, whatever is switched off."""
    is_named = isinstance(command, ExecuteFailover) and command.force_strategy is not None
    allowed = RUNGS_OF[strategy] if is_named else ladder.allowed_rungs(strategy, state.settings, command.settings)
    return LadderPlanned(
        failover_id=command.failover_id,
        instance_id=command.instance_id,
        ladder=ladder.order_of(state.settings),
        allowed=allowed,
        rung_timeout_s=command.settings.warm_pool.failover_timeout_seconds,
        volume_timeout_s=ladder.volume_settings(state.settings, command.settings).failover_timeout_seconds,
        limits=command.limits,
        planned_at=command.now,
        auto_recovery=command.settings.cpu_standby.auto_recovery,
        withheld=() if is_named else ladder.withheld_rungs(command.settings),
        no_fallback=ladder.is_fallback_off(strategy, state.settings, command.settings),
    )


# --- climbing -----------------------------------------------------------------------------------------------------


def _climb(state: Guard, events: Sequence[Event], now: datetime) -> Sequence[Event]:
    """After `events`: the next rung that may be tried, or the end. Every rung passed over is recorded."""
    said = list(events)
    state = _fold(state, said)
    run = _running(state)
    settled = {attempt.rung for attempt in run.attempts}
    for rung in run.ladder:
        if rung in settled:
            continue
        why = ladder.objection(rung, run.allowed, state, now, withheld=run.withheld, no_fallback=run.no_fallback)
        if not why:
            return [*said, _try(state, run, rung, now)]
        skipped = RungSkipped(
            failover_id=run.failover_id, instance_id=state.instance_id, rung=rung, reason=why, skipped_at=now
        )
        said.append(skipped)
        state = evolve(state, skipped)
    return [*said, _failed(state, "every_rung_failed", now)]


def _try(state: Guard, run: Run, rung: Rung, now: datetime) -> RungTried:
    return RungTried(
        failover_id=run.failover_id,
        instance_id=state.instance_id,
        account_id=state.account_id,
        rung=rung,
        machine_id=run.lost_id or run.machine_id,
        tried_at=now,
        give_up_at=now + timedelta(seconds=_timeout_s(run, rung)),
    )


def _timeout_s(run: Run, rung: Rung) -> int:
    return run.volume_timeout_s if rung == "regional_volume" else _RUNG_TIMEOUT_S.get(rung, run.rung_timeout_s)


def _fail(state: Guard, events: Sequence[Event], error: str, now: datetime) -> Sequence[Event]:
    return [*events, _failed(_fold(state, events), error, now)]


def _failed(state: Guard, error: str, now: datetime) -> FailoverFailed:
    run = _running(state)
    return FailoverFailed(
        failover_id=run.failover_id,
        instance_id=state.instance_id,
        account_id=state.account_id,
        reason=run.reason,
        original_machine_id=run.machine_id,
        error=error,
        total_ms=milliseconds_between(run.started_at, now),
        attempts=run.attempts,
        failed_at=now,
        gpu=run.gpu,
        test=run.test,
        is_quiet=run.is_quiet,
    )


def _note_claimed(state: Guard, command: NoteClaimed) -> Sequence[Event]:
    run = _climbing(state, command.failover_id, command.rung)
    if run is None or run.claimed_id:
        return []
    return [
        RungClaimed(
            failover_id=run.failover_id,
            instance_id=state.instance_id,
            rung=command.rung,
            machine_id=command.machine_id,
            claimed_at=command.now,
        )
    ]


def _note_rung_failed(state: Guard, command: NoteRungFailed) -> Sequence[Event]:
    if _climbing(state, command.failover_id, command.rung) is None:
        return []
    about = {"failover_id": command.failover_id, "instance_id": state.instance_id, "reason": command.reason}
    rung, now = command.rung, command.now
    if command.was_tried:
        return _climb(state, [RungFailed(**about, rung=rung, failed_at=now)], now)
    return _climb(state, [RungSkipped(**about, rung=rung, skipped_at=now)], now)


def _give_up(state: Guard, command: GiveUpRung) -> Sequence[Event]:
    run = _climbing(state, command.failover_id, command.rung)
    if run is None or command.now < command.due_at:
        return []
    failed = RungFailed(
        failover_id=run.failover_id,
        instance_id=state.instance_id,
        rung=command.rung,
        reason="timeout",
        failed_at=command.now,
    )
    return _climb(state, [failed], command.now)


def _note_ready(state: Guard, command: NoteReady) -> Sequence[Event]:
    """The instance is ready on a machine: on the one that was set aside, or the customer was faster."""
    run = state.run
    if run is None or command.machine_id == run.machine_id:
        return []
    rung = run.rung
    if rung not in _SUCCESS or command.machine_id != run.claimed_id:
        is_superseded = not _is_before(run, command.now)
        return [_failed(state, "superseded", command.now)] if is_superseded else []
    tried_at, claimed_at = run.tried_at or run.started_at, run.claimed_at or command.now
    succeeded = _SUCCESS[rung](
        failover_id=run.failover_id,
        instance_id=state.instance_id,
        account_id=state.account_id,
        machine_id=command.machine_id,
        took_ms=milliseconds_between(tried_at, command.now),
        test=run.test,
        is_quiet=run.is_quiet,
    )
    completed = FailoverCompleted(
        failover_id=run.failover_id,
        instance_id=state.instance_id,
        account_id=state.account_id,
        strategy=rung,
        reason=run.reason,
        original_machine_id=run.machine_id,
        machine_id=command.machine_id,
        generation=command.generation,
        total_ms=milliseconds_between(run.started_at, command.now),
        data_loss_window_s=_data_loss_window_s(run, command),
        phases=(
            Phase(f"{rung}_check", tried_at, claimed_at, rung=rung),
            Phase(_PHASE_OF[rung], claimed_at, command.now, rung=rung),
        ),
        attempts=(*run.attempts, Attempt(rung, "succeeded", tried_at, command.now)),
        completed_at=command.now,
        gpu=run.gpu,
        test=run.test,
        is_quiet=run.is_quiet,
        on_cpu=command.on_cpu,
        auto_recovery=command.on_cpu and run.auto_recovery,
    )
    return [succeeded, completed]


def _is_before(run: Run, heard_at: datetime) -> bool:
    """Heard again after a crash: what was said before this failover began is not about it."""
    return heard_at < run.started_at


def _data_loss_window_s(run: Run, command: NoteReady) -> int:
    """What was written after the files' instant and before the loss is missing: at most so many seconds."""
    if command.restored_at is None:
        return VOLUME_LOSS_S
    return max(0, ceil(((run.lost_at or run.started_at) - command.restored_at).total_seconds()))


def _abandon(state: Guard, command: AbandonFailover) -> Sequence[Event]:
    """A guard that nothing was ever said about stays silent."""
    events: list[Event] = []
    if state.run is not None and not _is_before(state.run, command.now):
        events.append(_failed(state, command.error, command.now))
    if command.deleted and state.instance_id and not state.closed:
        events.append(GuardClosed(instance_id=state.instance_id, account_id=state.account_id))
    return events


def _climbing(state: Guard, failover_id: str, rung: Rung) -> Run | None:
    """The failover under way, if that is what is meant and it is on this rung."""
    run = state.run
    return run if run is not None and run.failover_id == failover_id and run.rung == rung else None


def _running(state: Guard) -> Run:
    assert state.run is not None, "no failover is under way"
    return state.run


def _fold(state: Guard, events: Sequence[Event]) -> Guard:
    for event in events:
        state = evolve(state, cast("GuardEvent", event))  # made here, so of this aggregate
    return state
