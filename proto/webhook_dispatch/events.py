"""Facts of webhook dispatch.

Aggregates: `endpoint` (a URL and how it fares), `mailbox` (outcomes, many to a commit) and `account` (its default
secret). Secrets are sealed (libs.sealing) before they come here. What other parts of an account may want to hear of an
endpoint is public.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from proto.base import Event
from proto.webhook_dispatch.words import Attempt, Delivery, DeliveryStatus, DisableReason, EndpointKind

# --- endpoint -----------------------------------------------------------------------------------------------------


class EndpointCreated(Event, tag="webhook.created", kw_only=True, frozen=True):
    """An endpoint wants to hear. `instance_id`: only of this one, because its creator gave the URL with it."""

    endpoint_id: str
    account_id: str
    name: str
    url: str
    events: tuple[str, ...]
    sealed_secret: str = ""
    kind: EndpointKind = "account"
    instance_id: str = ""
    rate_limit_per_s: int = 0  # 0: as fast as it answers
    is_enabled: bool = True
    request_hash: str = ""  # of the request that carried the Idempotency-Key


class EndpointChanged(Event, tag="webhook.changed", kw_only=True, frozen=True):
    """The endpoint as it is from now on. The secret changes only when `sealed_secret` is given."""

    endpoint_id: str
    account_id: str
    name: str
    url: str
    events: tuple[str, ...]
    rate_limit_per_s: int = 0
    sealed_secret: str = ""


class SecretRotated(Event, tag="webhook.secret_rotated", kw_only=True, frozen=True):
    """The new secret signs from now on; the old one signs beside it until `old_until`."""

    endpoint_id: str
    account_id: str
    sealed_secret: str
    sealed_old_secret: str
    old_until: datetime


class EndpointPaused(Event, tag="webhook.paused", kw_only=True, frozen=True):
    """Facts are kept and not sent."""

    endpoint_id: str
    account_id: str


class EndpointResumed(Event, tag="webhook.resumed", kw_only=True, frozen=True):
    """What was kept is sent, in order."""

    endpoint_id: str
    account_id: str


class EndpointEnabled(Event, tag="webhook.enabled", kw_only=True, frozen=True):
    """Facts are taken on again from now on."""

    endpoint_id: str
    account_id: str


class EndpointFailing(Event, tag="webhook.failing", kw_only=True, frozen=True):
    """No delivery has succeeded `since` then. Unless one does, the endpoint is disabled at `disable_at`."""

    public = True
    endpoint_id: str
    account_id: str
    name: str
    since: datetime
    disable_at: datetime
    last_error: str = ""


class EndpointRecovered(Event, tag="webhook.recovered", kw_only=True, frozen=True):
    """A delivery succeeded after all."""

    public = True
    endpoint_id: str
    account_id: str
    name: str


class EndpointDisabled(Event, tag="webhook.disabled", kw_only=True, frozen=True):
    """Facts are no longer taken on; `gone`: the receiver answered 410; `failing`: for days nothing arrived."""

    public = True
    endpoint_id: str
    account_id: str
    name: str
    reason: DisableReason


class EndpointDeleted(Event, tag="webhook.deleted", kw_only=True, frozen=True):
    endpoint_id: str
    account_id: str
    reason: str = "user_request"


class ResendRequested(Event, tag="webhook.resend_requested", kw_only=True, frozen=True):
    """The customer wants one delivery sent once more, now, whatever became of it."""

    endpoint_id: str
    account_id: str
    delivery_id: str
    request_id: str


class RecoveryRequested(Event, tag="webhook.recovery_requested", kw_only=True, frozen=True):
    """The customer wants everything since then that did not arrive, in order."""

    endpoint_id: str
    account_id: str
    since: datetime
    request_id: str


# --- mailbox ------------------------------------------------------------------------------------------------------


class Recorded(Struct, frozen=True, omit_defaults=True, gc=False):
    """What became of one delivery. `delivery` is given the first time only; `tries` counts since it was last begun."""

    delivery_id: str
    status: DeliveryStatus
    attempts: int
    tries: int
    delivery: Delivery | None = None
    attempt: Attempt | None = None
    next_at: datetime | None = None
    reason: str = ""


class DeliveriesRecorded(Event, tag="webhook.deliveries_recorded", kw_only=True, frozen=True):
    """Outcomes of one endpoint since the last commit, in the order in which they were found out."""

    endpoint_id: str
    account_id: str
    records: tuple[Recorded, ...]


class Forgotten(Struct, frozen=True, gc=False):
    """One delivery of which no row is kept, nor of its `attempts` attempts."""

    delivery_id: str
    attempts: int


class DeliveriesForgotten(Event, tag="webhook.deliveries_forgotten", kw_only=True, frozen=True):
    """Settled long ago. The log has them for ever; nobody can look at them or send them again any more."""

    endpoint_id: str
    account_id: str
    deliveries: tuple[Forgotten, ...]
    has_more: bool = False


# --- account ------------------------------------------------------------------------------------------------------


class DefaultSecretSet(Event, tag="webhook.default_secret_set", kw_only=True, frozen=True):
    """Signs what goes to URLs that were given with an instance."""

    account_id: str
    sealed_secret: str


class DefaultSecretCleared(Event, tag="webhook.default_secret_cleared", kw_only=True, frozen=True):
    account_id: str


EndpointEvent = (
    EndpointCreated
    | EndpointChanged
    | SecretRotated
    | EndpointPaused
    | EndpointResumed
    | EndpointEnabled
    | EndpointFailing
    | EndpointRecovered
    | EndpointDisabled
    | EndpointDeleted
    | ResendRequested
    | RecoveryRequested
)
MailboxEvent = DeliveriesRecorded | DeliveriesForgotten
AccountEvent = DefaultSecretSet | DefaultSecretCleared
AnyEvent = EndpointEvent | MailboxEvent | AccountEvent
