"""Facts of the billing service.

Aggregates: `account` (the double-entry ledger of one customer), `payment` (one top-up, by reference) and `machine`
(what a provider charged for one machine, against our own ledger). Every fact with money in it is one transaction that
sums to zero: `services/billing/decider/postings.py` says over which accounts.
"""

from __future__ import annotations

from datetime import datetime

from proto.base import Event
from proto.billing.ledger import Ledger, Transaction
from proto.billing.words import (
    AlertSettings,
    Burn,
    Currency,
    DriftKind,
    GrantKind,
    Line,
    LowReason,
    PaymentMethod,
    Segment,
    UsageLine,
)

# --- account: public ----------------------------------------------------------------------------------------------


class BalanceLow(Event, tag="balance.low", kw_only=True, frozen=True):
    """The balance fell below the threshold, or lasts for less than a day (seed 000). Said once per crossing."""

    public = True
    account_id: str
    reason: LowReason
    balance_usd_micros: int
    threshold_usd_micros: int
    hourly_cost_usd_micros: int
    runway_s: int | None = None


class BalanceExhausted(Event, tag="balance.exhausted", kw_only=True, frozen=True):
    """What is left covers what runs for minutes only. At `grace_until` it is stopped, unless credits come."""

    public = True
    account_id: str
    reason: str
    balance_usd_micros: int
    hourly_cost_usd_micros: int
    runway_s: int
    grace_until: datetime
    next_tick_at: datetime | None = None  # ours: the account is looked at again then


class BalanceSuspended(Event, tag="balance.suspended", kw_only=True, frozen=True):
    """Grace is over: these instances are to be hibernated, or else stopped. Their files are kept, and so is what was
    stored before, until `storage_kept_until` at least (none: for ever) without being paid for."""

    public = True
    account_id: str
    reason: str
    balance_usd_micros: int
    instance_ids: tuple[str, ...]
    next_tick_at: datetime | None = None
    storage_kept_until: datetime | None = None


class BalanceStorageExpiring(Event, tag="balance.storage_expiring", kw_only=True, frozen=True):
    """The files of these instances have been kept unpaid for long; at `kept_until` they go, unless credits come."""

    public = True
    account_id: str
    reason: str
    instance_ids: tuple[str, ...]
    kept_until: datetime


class BalanceStorageExpired(Event, tag="balance.storage_expired", kw_only=True, frozen=True):
    """The files of these instances are kept no longer: the instances are deleted where nothing of them runs."""

    public = True
    account_id: str
    reason: str
    instance_ids: tuple[str, ...]


class BalanceRestored(Event, tag="balance.restored", kw_only=True, frozen=True):
    """What runs is covered again; what was stopped may be started."""

    public = True
    account_id: str
    reason: str
    balance_usd_micros: int


# --- account: private ---------------------------------------------------------------------------------------------


class LedgerOpened(Event, tag="ledger.opened", kw_only=True, frozen=True):
    account_id: str
    currency: Currency
    opened_at: datetime


class AlertsSet(Event, tag="ledger.alerts_set", kw_only=True, frozen=True):
    account_id: str
    alerts: AlertSettings


class CreditsAdded(Transaction, tag="credits.added", kw_only=True, frozen=True):
    """Money came in. `credit_id` is the payment's id; the bonus is a grant of its own, `bonus_id`. Debts are paid first
    (`repaid`)."""

    account_id: str
    credit_id: str
    added_at: datetime
    usd_micros: int
    bonus_usd_micros: int = 0
    bonus_expires_at: datetime | None = None
    repaid_usd_micros: int = 0
    method: PaymentMethod = "manual"
    reference: str = ""


class CreditsGranted(Transaction, tag="credits.granted", kw_only=True, frozen=True):
    """Credit that nobody paid for, and why."""

    account_id: str
    credit_id: str
    granted_at: datetime
    usd_micros: int
    reason: str
    kind: GrantKind = "bonus"
    expires_at: datetime | None = None
    repaid_usd_micros: int = 0


class CreditsExpired(Transaction, tag="credits.expired", kw_only=True, frozen=True):
    account_id: str
    grant_id: str
    expired_at: datetime
    usd_micros: int


class LedgerAdjusted(Transaction, tag="ledger.adjusted", kw_only=True, frozen=True):
    """An operator's correction, in words; negative takes away. Entries are never edited."""

    account_id: str
    adjustment_id: str
    adjusted_at: datetime
    usd_micros: int
    reason: str
    burns: tuple[Burn, ...]
    instance_id: str = ""


class HoldPlaced(Event, tag="hold.placed", kw_only=True, frozen=True):
    account_id: str
    instance_id: str
    usd_micros: int
    expires_at: datetime


class HoldReleased(Event, tag="hold.released", kw_only=True, frozen=True):
    account_id: str
    instance_id: str
    reason: str


class MeterChanged(Transaction, tag="meter.changed", kw_only=True, frozen=True):
    """From `at` on a meter runs at another rate, or (`is_end`) never again; and what that adds to the bill.

    `usd_micros` (negative: a correction) is this transaction. Of it, `adjustment_usd_micros` concerns days that are
    closed; `day_seconds` and `day_usd_micros` are what the meter comes to on `day`, up to `meter_until` (not before the
    account's `charged_until`). `segments`: closed stretches as they are now. `since`: when the running one began.
    """

    account_id: str
    meter_id: str
    instance_id: str
    line: Line
    at: datetime
    rate_usd_micros_per_hour: int
    machine_id: str = ""
    label: str = ""
    is_end: bool = False
    usd_micros: int = 0
    adjustment_usd_micros: int = 0
    day: str
    day_seconds: int = 0
    day_usd_micros: int = 0
    meter_until: datetime
    charged_until: datetime
    since: datetime | None = None
    segments: tuple[Segment, ...] = ()
    burns: tuple[Burn, ...] = ()
    next_tick_at: datetime | None = None


class InstanceEnded(Event, tag="meter.instance_ended", kw_only=True, frozen=True):
    """Nothing of this instance is metered after `at`, even if it is heard of later."""

    account_id: str
    instance_id: str
    at: datetime


class UsageCharged(Transaction, tag="usage.charged", kw_only=True, frozen=True):
    """One tick: every running meter charged from `since` to `until`, a line each. `revenue`: the lines' sums by kind.

    `is_day_end`: `until` is midnight UTC, and `day_lines` say what each running meter came to on that day. Before
    midnight they tell only of meters that changed or ended within this tick.
    """

    account_id: str
    since: datetime
    until: datetime
    lines: tuple[UsageLine, ...]
    revenue: dict[Line, int]
    burns: tuple[Burn, ...]
    is_day_end: bool = False
    day_lines: tuple[UsageLine, ...] = ()
    next_tick_at: datetime | None = None


class AlertRearmed(Event, tag="balance.alert_rearmed", kw_only=True, frozen=True):
    """The balance is above the threshold again, so that falling below it is news."""

    account_id: str
    reason: LowReason


class TopUpWanted(Event, tag="balance.top_up_wanted", kw_only=True, frozen=True):
    """The account refills itself: a payment of this amount is asked for under `payment_id`."""

    account_id: str
    payment_id: str
    usd_micros: int
    wanted_at: datetime | None = None


class TopUpFailed(Event, tag="balance.top_up_failed", kw_only=True, frozen=True):
    """The payment was declined, or (`reason` daily_maximum, no `payment_id`) not asked for, because enough was asked
    for that day. The next try is not before `again_at`."""

    account_id: str
    payment_id: str
    again_at: datetime
    reason: str = "declined"


class TickPlanned(Event, tag="ledger.tick_planned", kw_only=True, frozen=True):
    """The account is charged again then: it was to be left alone for long, because it was empty, and no longer is."""

    account_id: str
    next_tick_at: datetime


class BroughtForward(Event, tag="ledger.brought_forward", kw_only=True, frozen=True):
    """The whole account as it stands, so that older facts need not be read to go on.

    `packed`: of a large account, the ledger as JSON, deflated, in base64; then `ledger` is empty but for its id.
    """

    ledger: Ledger
    packed: str = ""


AccountEvent = (
    LedgerOpened
    | AlertsSet
    | CreditsAdded
    | CreditsGranted
    | CreditsExpired
    | LedgerAdjusted
    | HoldPlaced
    | HoldReleased
    | MeterChanged
    | InstanceEnded
    | UsageCharged
    | AlertRearmed
    | TopUpWanted
    | TopUpFailed
    | TickPlanned
    | BroughtForward
    | BalanceLow
    | BalanceExhausted
    | BalanceSuspended
    | BalanceStorageExpiring
    | BalanceStorageExpired
    | BalanceRestored
)


# --- payment ------------------------------------------------------------------------------------------------------


class PaymentRequested(Event, tag="payment.requested", kw_only=True, frozen=True):
    """Somebody wants to pay. `request_hash` tells a repeat from another payment under the same reference."""

    payment_id: str
    account_id: str
    usd_micros: int
    method: PaymentMethod
    reference: str
    requested_at: datetime


class PaymentSettled(Event, tag="payment.settled", kw_only=True, frozen=True):
    payment_id: str
    account_id: str
    usd_micros: int
    method: PaymentMethod
    reference: str
    settled_at: datetime


class PaymentDeclined(Event, tag="payment.declined", kw_only=True, frozen=True):
    payment_id: str
    account_id: str
    method: PaymentMethod
    reason: str
    declined_at: datetime


PaymentEvent = PaymentRequested | PaymentSettled | PaymentDeclined


# --- machine ------------------------------------------------------------------------------------------------------


class ProviderChargeNoted(Event, tag="reconciliation.charge_noted", kw_only=True, frozen=True):
    """The provider charged us for this machine; `charge_id` is the provider's own, so a repeat counts once."""

    account_id: str
    machine_id: str
    instance_id: str
    provider: str
    charge_id: str
    since: datetime
    until: datetime
    usd_micros: int


class MachineReconciled(Event, tag="reconciliation.machine_reconciled", kw_only=True, frozen=True):
    """What we charged for a machine against what its provider charged us, when both are complete or have changed."""

    account_id: str
    machine_id: str
    provider: str
    kind: DriftKind
    ours_usd_micros: int
    theirs_usd_micros: int
    reconciled_at: datetime


MachineEvent = ProviderChargeNoted | MachineReconciled
AnyEvent = AccountEvent | PaymentEvent | MachineEvent
