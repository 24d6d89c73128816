"""Wishes the billing service accepts on `cmd.billing.<tag>`.

The first group comes from the gateway, the second from what is heard of others and from own effects, the third from
deadlines. Prices and starting credit are filled in by the owner's intake, because deciders are pure.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from proto.base import Command
from proto.billing.words import AlertSettings, Line, PaymentMethod


class AccountCommand(Command, frozen=True, kw_only=True):
    service: ClassVar[str] = "billing"
    aggregate: ClassVar[str] = "account"
    account_id: str

    @property
    def aggregate_id(self) -> str:
        return self.account_id


class OpenAccount(AccountCommand, tag="open_account", frozen=True, kw_only=True):
    """Idempotent. `welcome_usd_micros` is filled by the owner from its settings."""

    welcome_usd_micros: int = 0


class PlaceHold(AccountCommand, tag="hold", frozen=True, kw_only=True):
    """Set money aside for an instance that is to run: 10 minutes of it. Refused when there is not enough.

    The price is not known before an offer is taken, so it is the caller's limit, else the last one of this instance,
    else the reference price of the GPU; the owner fills in `usd_micros` and, for a new account, its welcome credit.
    """

    instance_id: str
    gpu: str = ""
    gpu_count: int = 1
    price_usd_micros_per_hour_max: int = 0
    usd_micros: int = 0
    welcome_usd_micros: int = 0


class ReleaseHold(AccountCommand, tag="release_hold", frozen=True, kw_only=True):
    """The instance will not run. Without a hold nothing happens."""

    instance_id: str
    reason: str = "not_created"


class SetAlerts(AccountCommand, tag="set_alerts", frozen=True, kw_only=True):
    alerts: AlertSettings


class AdjustLedger(AccountCommand, tag="adjust", frozen=True, kw_only=True):
    """An operator's correction: positive gives, negative takes. `adjustment_id` makes it happen once."""

    adjustment_id: str
    usd_micros: int
    reason: str
    instance_id: str = ""


# --- what was heard -----------------------------------------------------------------------------------------------


class NoteRate(AccountCommand, tag="note_rate", frozen=True, kw_only=True):
    """From `at` on this meter runs at this rate; 0: it does not. Order and repetition do not matter."""

    meter_id: str
    instance_id: str
    line: Line
    at: datetime
    rate_usd_micros_per_hour: int = 0
    machine_id: str = ""
    label: str = ""
    volume_gb: int = 0  # of a volume; its rate is filled in by the owner
    stored_gb: int = 0  # of files in object storage; likewise


class NoteEnd(AccountCommand, tag="note_end", frozen=True, kw_only=True):
    """The instance is being deleted: all its meters end at `at`, those included that are heard of later."""

    instance_id: str
    at: datetime


class AddCredits(AccountCommand, tag="add_credits", frozen=True, kw_only=True):
    """A payment was settled."""

    credit_id: str
    usd_micros: int
    method: PaymentMethod = "manual"
    reference: str = ""


class NoteTopUpDeclined(AccountCommand, tag="note_top_up_declined", frozen=True, kw_only=True):
    payment_id: str


# --- time ---------------------------------------------------------------------------------------------------------


class Tick(AccountCommand, tag="tick", frozen=True, kw_only=True):
    """Charge what has run until `now`. An early, late or repeated tick is harmless."""


class ExpireHold(AccountCommand, tag="expire_hold", frozen=True, kw_only=True):
    instance_id: str


class ExpireCredits(AccountCommand, tag="expire_credits", frozen=True, kw_only=True):
    grant_id: str


# --- payment ------------------------------------------------------------------------------------------------------


class PaymentCommand(Command, frozen=True, kw_only=True):
    service: ClassVar[str] = "billing"
    aggregate: ClassVar[str] = "payment"
    payment_id: str

    @property
    def aggregate_id(self) -> str:
        return self.payment_id


class RequestPayment(PaymentCommand, tag="request_payment", frozen=True, kw_only=True):
    """Pay. `payment_id` is derived from account and reference, so a repeat meets its first attempt."""

    account_id: str
    usd_micros: int
    method: PaymentMethod
    reference: str


class ReportPaid(PaymentCommand, tag="report_paid", frozen=True, kw_only=True):
    pass


class ReportDeclined(PaymentCommand, tag="report_declined", frozen=True, kw_only=True):
    reason: str


# --- machine ------------------------------------------------------------------------------------------------------


class MachineCommand(Command, frozen=True, kw_only=True):
    service: ClassVar[str] = "billing"
    aggregate: ClassVar[str] = "machine"
    machine_id: str

    @property
    def aggregate_id(self) -> str:
        return self.machine_id


class NoteProviderCharge(MachineCommand, tag="note_provider_charge", frozen=True, kw_only=True):
    account_id: str
    instance_id: str
    provider: str
    charge_id: str
    since: datetime
    until: datetime
    usd_micros: int


class ReconcileMachine(MachineCommand, tag="reconcile_machine", frozen=True, kw_only=True):
    """Compare. `ours_usd_micros` is filled in by the owner from its own ledger rows."""

    account_id: str
    provider: str
    ours_usd_micros: int
    rate_usd_micros_per_hour: int = 0  # the highest it ran at: a charge may be a minute of it too high


AnyCommand = (
    OpenAccount
    | PlaceHold
    | ReleaseHold
    | SetAlerts
    | AdjustLedger
    | NoteRate
    | NoteEnd
    | AddCredits
    | NoteTopUpDeclined
    | Tick
    | ExpireHold
    | ExpireCredits
    | RequestPayment
    | ReportPaid
    | ReportDeclined
    | NoteProviderCharge
    | ReconcileMachine
)
