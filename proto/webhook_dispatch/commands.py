"""Wishes webhook dispatch accepts on `cmd.webhook_dispatch.<tag>`.

The first group comes from the gateway, the second from the dispatcher itself, the third from its deadlines. Secrets
are sealed by whoever makes them, so that no message carries one in the clear.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from msgspec import Struct

from proto.base import Command
from proto.webhook_dispatch.words import Attempt, Delivery, DisableReason, EndpointKind


class EndpointCommand(Command, frozen=True, kw_only=True):
    service: ClassVar[str] = "webhook_dispatch"
    aggregate: ClassVar[str] = "endpoint"
    endpoint_id: str
    account_id: str

    @property
    def aggregate_id(self) -> str:
        return self.endpoint_id


class CreateEndpoint(EndpointCommand, tag="create_endpoint", frozen=True, kw_only=True):
    """A repeat with the same `request_hash` changes nothing; another hash is refused. For `kind` instance, another
    URL moves the endpoint."""

    name: str
    url: str
    events: tuple[str, ...]
    sealed_secret: str = ""
    kind: EndpointKind = "account"
    instance_id: str = ""
    rate_limit_per_s: int = 0
    is_enabled: bool = True
    request_hash: str = ""


class ChangeEndpoint(EndpointCommand, tag="change_endpoint", frozen=True, kw_only=True):
    """What is None stays as it is."""

    name: str | None = None
    url: str | None = None
    events: tuple[str, ...] | None = None
    sealed_secret: str | None = None
    rate_limit_per_s: int | None = None
    is_enabled: bool | None = None


class RotateSecret(EndpointCommand, tag="rotate_secret", frozen=True, kw_only=True):
    sealed_secret: str
    old_until: datetime


class PauseEndpoint(EndpointCommand, tag="pause_endpoint", frozen=True, kw_only=True):
    """Keep facts and do not send them."""


class ResumeEndpoint(EndpointCommand, tag="resume_endpoint", frozen=True, kw_only=True):
    """Out of a pause or of being disabled."""


class DeleteEndpoint(EndpointCommand, tag="delete_endpoint", frozen=True, kw_only=True):
    reason: str = "user_request"


class RequestResend(EndpointCommand, tag="request_resend", frozen=True, kw_only=True):
    delivery_id: str


class RequestRecovery(EndpointCommand, tag="request_recovery", frozen=True, kw_only=True):
    since: datetime


class SetDefaultSecret(Command, tag="set_default_secret", frozen=True, kw_only=True):
    service: ClassVar[str] = "webhook_dispatch"
    aggregate: ClassVar[str] = "account"
    account_id: str
    sealed_secret: str

    @property
    def aggregate_id(self) -> str:
        return self.account_id


class ClearDefaultSecret(Command, tag="clear_default_secret", frozen=True, kw_only=True):
    service: ClassVar[str] = "webhook_dispatch"
    aggregate: ClassVar[str] = "account"
    account_id: str

    @property
    def aggregate_id(self) -> str:
        return self.account_id


# --- what the dispatcher found out --------------------------------------------------------------------------------


class MarkFailing(EndpointCommand, tag="mark_failing", frozen=True, kw_only=True):
    since: datetime
    last_error: str = ""


class MarkRecovered(EndpointCommand, tag="mark_recovered", frozen=True, kw_only=True):
    """A delivery succeeded at `now`."""


class DisableEndpoint(EndpointCommand, tag="disable_endpoint", frozen=True, kw_only=True):
    reason: DisableReason = "gone"


class Record(Struct, frozen=True, omit_defaults=True, gc=False):
    """One thing found out. Without an attempt: taken on, and to be sent later (or, with `skipped`, not at all).

    `jitter_ppm` is the chance in the next pause, 0 to a million. `delivery` may be left out once it is recorded.
    """

    delivery_id: str
    delivery: Delivery | None = None
    attempt: Attempt | None = None
    jitter_ppm: int = 500_000
    retry_after_s: int = 0
    is_final: bool = False  # no later try can end otherwise
    reopened_after: int | None = None  # attempts: begin again if it was given up after just so many
    skipped: str = ""


class RecordDeliveries(Command, tag="record_deliveries", frozen=True, kw_only=True):
    """`pace_ppm` stretches or shortens the retry schedule; a million is the schedule as it is written."""

    service: ClassVar[str] = "webhook_dispatch"
    aggregate: ClassVar[str] = "mailbox"
    mailbox_id: str
    endpoint_id: str
    account_id: str
    records: tuple[Record, ...]
    pace_ppm: int = 1_000_000

    @property
    def aggregate_id(self) -> str:
        return self.mailbox_id


# --- time ---------------------------------------------------------------------------------------------------------


class DisableIfFailing(EndpointCommand, tag="disable_if_failing", frozen=True, kw_only=True):
    """The time that was announced has come."""


class ForgetDeliveries(Command, tag="forget_deliveries", frozen=True, kw_only=True):
    """The mailbox has been quiet for words.RETENTION_DAYS: what is settled need not be kept."""

    service: ClassVar[str] = "webhook_dispatch"
    aggregate: ClassVar[str] = "mailbox"
    mailbox_id: str
    endpoint_id: str
    account_id: str

    @property
    def aggregate_id(self) -> str:
        return self.mailbox_id


AnyCommand = (
    CreateEndpoint
    | ChangeEndpoint
    | RotateSecret
    | PauseEndpoint
    | ResumeEndpoint
    | DeleteEndpoint
    | RequestResend
    | RequestRecovery
    | SetDefaultSecret
    | ClearDefaultSecret
    | MarkFailing
    | MarkRecovered
    | DisableEndpoint
    | DisableIfFailing
    | RecordDeliveries
    | ForgetDeliveries
)
