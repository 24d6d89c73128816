"""A URL that wants to hear, and how it fares.

Paused: facts are kept. Disabled: they are not taken on. A deleted endpoint is gone for everybody; its id is not used
again. Five days without a success disable it (novita.md and the Standard Webhooks specification leave the figure open;
it is Svix's), announced by `webhook.failing` long before.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from libs.refusal import Refused
from proto.base import Event
from proto.webhook_dispatch.commands import (
    ChangeEndpoint,
    CreateEndpoint,
    DeleteEndpoint,
    DisableEndpoint,
    DisableIfFailing,
    EndpointCommand,
    MarkFailing,
    MarkRecovered,
    PauseEndpoint,
    RequestRecovery,
    RequestResend,
    ResumeEndpoint,
    RotateSecret,
)
from proto.webhook_dispatch.events import (
    EndpointChanged,
    EndpointCreated,
    EndpointDeleted,
    EndpointDisabled,
    EndpointEnabled,
    EndpointEvent,
    EndpointFailing,
    EndpointPaused,
    EndpointRecovered,
    EndpointResumed,
    RecoveryRequested,
    ResendRequested,
    SecretRotated,
)
from proto.webhook_dispatch.words import DisableReason, EndpointKind, EndpointStatus

FAILING_DAYS_MAX = 5
REQUESTS_REMEMBERED_MAX = 200  # resends and recoveries: a repeat comes within seconds
ADVICE_ENABLE = "enable the webhook first"


class Endpoint(Struct, frozen=True):
    account_id: str
    name: str
    url: str
    events: tuple[str, ...]
    kind: EndpointKind
    status: EndpointStatus
    sealed_secret: str
    rate_limit_per_s: int
    request_hash: str
    is_deleted: bool = False
    failing_since: datetime | None = None
    requests: tuple[str, ...] = ()


EndpointState: TypeAlias = Endpoint | None


def decide(state: EndpointState, command: EndpointCommand) -> Sequence[Event]:
    """Raises WEBHOOK_NOT_FOUND for a strange account, IDEMPOTENCY_CONFLICT, INVALID_STATE."""
    if isinstance(command, CreateEndpoint):
        return _create(state, command)
    if state is None or state.account_id != command.account_id:
        raise Refused("WEBHOOK_NOT_FOUND", webhook_id=command.endpoint_id)
    if isinstance(command, DeleteEndpoint):
        return [] if state.is_deleted else [EndpointDeleted(**_whose(command), reason=command.reason)]
    if state.is_deleted:
        raise Refused("WEBHOOK_NOT_FOUND", webhook_id=command.endpoint_id)
    return _wish(state, command)


def _wish(state: Endpoint, command: EndpointCommand) -> Sequence[Event]:
    match command:
        case ChangeEndpoint():
            return [*_change(state, command), *_switch(state, command, command.is_enabled)]
        case RotateSecret():
            return _rotate(state, command)
        case PauseEndpoint():
            if state.status == "disabled":
                raise Refused("INVALID_STATE", status=state.status, advice=ADVICE_ENABLE)
            return [] if state.status == "paused" else [EndpointPaused(**_whose(command))]
        case ResumeEndpoint():
            if state.status == "paused":
                return [EndpointResumed(**_whose(command))]
            return _switch(state, command, is_enabled=True)
        case RequestResend(delivery_id=delivery_id, request_id=request_id):
            said = ResendRequested(**_whose(command), delivery_id=delivery_id, request_id=request_id)
            return [] if request_id in state.requests else [said]
        case RequestRecovery(since=since, request_id=request_id):
            if state.status == "disabled":
                raise Refused("INVALID_STATE", status=state.status, advice=ADVICE_ENABLE)
            return (
                []
                if request_id in state.requests
                else [RecoveryRequested(**_whose(command), since=since, request_id=request_id)]
            )
        case MarkFailing() | MarkRecovered() | DisableEndpoint() | DisableIfFailing():
            return _fare(state, command)
        case _:
            raise TypeError(f"{type(command).__name__} is not a wish for an endpoint")


def _fare(
    state: Endpoint, command: MarkFailing | MarkRecovered | DisableEndpoint | DisableIfFailing
) -> Sequence[Event]:
    """What the dispatcher and the clock say about it."""
    match command:
        case MarkFailing(since=since, last_error=last_error):
            if state.failing_since is not None or state.status == "disabled":
                return []
            disable_at = since + timedelta(days=FAILING_DAYS_MAX)
            return [
                EndpointFailing(
                    **_whose(command), name=state.name, since=since, disable_at=disable_at, last_error=last_error
                )
            ]
        case MarkRecovered():
            return [EndpointRecovered(**_whose(command), name=state.name)] if state.failing_since else []
        case DisableEndpoint(reason=reason):
            return _disable(state, command, reason)
        case DisableIfFailing(now=now):
            since = state.failing_since
            is_due = since is not None and now >= since + timedelta(days=FAILING_DAYS_MAX)
            return _disable(state, command, "failing") if is_due else []


def _create(state: EndpointState, command: CreateEndpoint) -> Sequence[Event]:
    if state is not None:
        return _again(state, command)
    return [
        EndpointCreated(
            **_whose(command),
            name=command.name,
            url=command.url,
            events=command.events,
            sealed_secret=command.sealed_secret,
            kind=command.kind,
            instance_id=command.instance_id,
            rate_limit_per_s=command.rate_limit_per_s,
            is_enabled=command.is_enabled,
            request_hash=command.request_hash,
        )
    ]


def _again(state: Endpoint, command: CreateEndpoint) -> Sequence[Event]:
    """A repeat; or an instance that was started with another URL."""
    if state.account_id != command.account_id or state.kind != command.kind:
        raise Refused("IDEMPOTENCY_CONFLICT")
    if state.kind == "instance":
        if state.is_deleted or state.url == command.url:
            return []
        return [
            EndpointChanged(
                **_whose(command),
                name=state.name,
                url=command.url,
                events=state.events,
                rate_limit_per_s=state.rate_limit_per_s,
            )
        ]
    if state.request_hash != command.request_hash:
        raise Refused("IDEMPOTENCY_CONFLICT")
    return []


def _change(state: Endpoint, command: ChangeEndpoint) -> Sequence[Event]:
    sealed = command.sealed_secret or ""
    changed = EndpointChanged(
        **_whose(command),
        name=state.name if command.name is None else command.name,
        url=state.url if command.url is None else command.url,
        events=state.events if command.events is None else command.events,
        rate_limit_per_s=state.rate_limit_per_s if command.rate_limit_per_s is None else command.rate_limit_per_s,
        sealed_secret=sealed if sealed != state.sealed_secret else "",
    )
    return [] if _changed(state, changed) == state else [changed]


def _switch(state: Endpoint, command: EndpointCommand, is_enabled: bool | None) -> Sequence[Event]:
    if is_enabled is None or is_enabled == (state.status != "disabled"):
        return []
    return [EndpointEnabled(**_whose(command))] if is_enabled else _disable(state, command, "user_request")


def _disable(state: Endpoint, command: EndpointCommand, reason: DisableReason) -> Sequence[Event]:
    if state.status == "disabled":
        return []
    return [EndpointDisabled(**_whose(command), name=state.name, reason=reason)]


def _rotate(state: Endpoint, command: RotateSecret) -> Sequence[Event]:
    if state.sealed_secret == command.sealed_secret:
        return []
    return [
        SecretRotated(
            **_whose(command),
            sealed_secret=command.sealed_secret,
            sealed_old_secret=state.sealed_secret,
            old_until=command.old_until,
        )
    ]


def _whose(command: EndpointCommand) -> dict[str, str]:
    return {"endpoint_id": command.endpoint_id, "account_id": command.account_id}


def evolve(state: EndpointState, event: EndpointEvent) -> EndpointState:
    if isinstance(event, EndpointCreated):
        return _created(event)
    assert state is not None, f"{type(event).__name__} of an endpoint that was never created"
    match event:
        case EndpointChanged():
            return _changed(state, event)
        case SecretRotated(sealed_secret=sealed):
            return replace(state, sealed_secret=sealed)
        case EndpointPaused():
            return replace(state, status="paused")
        case EndpointResumed() | EndpointEnabled():
            return replace(state, status="enabled", failing_since=None)
        case EndpointFailing(since=since):
            return replace(state, failing_since=since)
        case EndpointRecovered():
            return replace(state, failing_since=None)
        case EndpointDisabled():
            return replace(state, status="disabled", failing_since=None)
        case EndpointDeleted():
            return replace(state, is_deleted=True)
        case ResendRequested(request_id=request_id) | RecoveryRequested(request_id=request_id):
            return replace(state, requests=(*state.requests, request_id)[-REQUESTS_REMEMBERED_MAX:])


def _created(event: EndpointCreated) -> Endpoint:
    return Endpoint(
        account_id=event.account_id,
        name=event.name,
        url=event.url,
        events=event.events,
        kind=event.kind,
        status="enabled" if event.is_enabled else "disabled",
        sealed_secret=event.sealed_secret,
        rate_limit_per_s=event.rate_limit_per_s,
        request_hash=event.request_hash,
    )


def _changed(state: Endpoint, event: EndpointChanged) -> Endpoint:
    return replace(
        state,
        name=event.name,
        url=event.url,
        events=event.events,
        rate_limit_per_s=event.rate_limit_per_s,
        sealed_secret=event.sealed_secret or state.sealed_secret,
    )
