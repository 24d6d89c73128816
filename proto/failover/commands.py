"""Wishes the failover service accepts on `cmd.failover.<tag>`.

The first group comes from the gateway, the second from what is heard of others, the third from deadlines. `settings`
and `limits` are filled by the owner (effects) before they are decided, because deciders are pure.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from proto.base import Command
from proto.failover.words import GlobalPatch, GlobalSettings, Limits, MachinePatch, PoolSeen, Rung, Strategy


class GuardCommand(Command, frozen=True, kw_only=True):
    service: ClassVar[str] = "failover"
    aggregate: ClassVar[str] = "guard"
    instance_id: str

    @property
    def aggregate_id(self) -> str:
        return self.instance_id


class ExecuteFailover(GuardCommand, tag="execute", frozen=True, kw_only=True):
    """Somebody wants the instance on another machine now. Refused when it may not; the working machine is given up
    only when its replacement has been set aside. `instance_status`: as the customer sees it."""

    account_id: str
    failover_id: str
    machine_id: str
    instance_status: str = "ready"
    gpu: str = ""
    force_strategy: Strategy | None = None
    test: bool = False
    settings: GlobalSettings = GlobalSettings()
    limits: Limits = Limits()


class UpdateMachineSettings(GuardCommand, tag="update_machine_settings", frozen=True, kw_only=True):
    account_id: str
    patch: MachinePatch
    settings: GlobalSettings = GlobalSettings()


class ForgetMachineSettings(GuardCommand, tag="forget_machine_settings", frozen=True, kw_only=True):
    """Back to the account's defaults."""

    account_id: str
    settings: GlobalSettings = GlobalSettings()


# --- what was heard -----------------------------------------------------------------------------------------------


class AnswerInterruption(GuardCommand, tag="answer_interruption", frozen=True, kw_only=True):
    """A machine was lost: start a failover. `now` is the instant of the loss. Never refused: the answer is a fact."""

    account_id: str
    failover_id: str
    machine_id: str
    reason: str
    gpu: str = ""
    settings: GlobalSettings = GlobalSettings()
    limits: Limits = Limits()


class ProtectNew(GuardCommand, tag="protect_new", frozen=True, kw_only=True):
    """An instance was created: it gets a CPU standby if its account has them made by themselves."""

    account_id: str
    settings: GlobalSettings = GlobalSettings()


class NoteClaimed(GuardCommand, tag="note_claimed", frozen=True, kw_only=True):
    failover_id: str
    rung: Rung
    machine_id: str


class NoteRungFailed(GuardCommand, tag="note_rung_failed", frozen=True, kw_only=True):
    """`was_tried`: it began and failed; otherwise its owner had nothing to offer."""

    failover_id: str
    rung: Rung
    reason: str
    was_tried: bool


class NoteReady(GuardCommand, tag="note_ready", frozen=True, kw_only=True):
    machine_id: str
    generation: int
    on_cpu: bool = False
    restored_at: datetime | None = None  # its files are of this instant; None: they never left it


class NoteCpuStandby(GuardCommand, tag="note_cpu_standby", frozen=True, kw_only=True):
    """A CPU standby has had a whole copy, or (`is_lost`) is no more."""

    account_id: str
    machine_id: str
    is_lost: bool = False


class NoteSnapshot(GuardCommand, tag="note_snapshot", frozen=True, kw_only=True):
    """There is a snapshot that a new machine can be filled from."""

    account_id: str


class NoteVolume(GuardCommand, tag="note_volume", frozen=True, kw_only=True):
    """The workspace is on a volume of the region, or (`is_given_up`) no longer on this one."""

    account_id: str
    volume_id: str
    is_given_up: bool = False


class NotePool(GuardCommand, tag="note_pool", frozen=True, kw_only=True):
    account_id: str
    pool: PoolSeen


class AbandonFailover(GuardCommand, tag="abandon", frozen=True, kw_only=True):
    """The customer no longer wants the instance to run. `deleted`: never again."""

    account_id: str
    error: str
    deleted: bool = False


# --- time ---------------------------------------------------------------------------------------------------------


class GiveUpRung(GuardCommand, tag="give_up_rung", frozen=True, kw_only=True):
    """The rung's owner has not answered in time."""

    failover_id: str
    rung: Rung
    due_at: datetime


class UpdateSettings(Command, tag="update_settings", frozen=True, kw_only=True):
    service: ClassVar[str] = "failover"
    aggregate: ClassVar[str] = "settings"
    account_id: str
    patch: GlobalPatch
    own_choice: tuple[str, ...] = ()  # instances that decide themselves whether they have a warm pool, and have one on

    @property
    def aggregate_id(self) -> str:
        return self.account_id


AnyCommand = (
    ExecuteFailover
    | UpdateMachineSettings
    | ForgetMachineSettings
    | ProtectNew
    | AnswerInterruption
    | NoteClaimed
    | NoteRungFailed
    | NoteReady
    | NotePool
    | NoteSnapshot
    | NoteVolume
    | NoteCpuStandby
    | AbandonFailover
    | GiveUpRung
    | UpdateSettings
)
