"""Who wants to hear: every live endpoint in memory, kept in step with the service's own stream.

Used by the dispatcher only. Loaded from the rows, then fed with events; `until` lets the dispatcher wait until an
endpoint whose creation was acknowledged before a fact was said is known when that fact is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.eventlog import EventLog
from libs.runtime.codec import EventDecoder, stream_of
from proto.base import Event
from proto.webhook_dispatch.events import (
    AccountEvent,
    DefaultSecretCleared,
    DefaultSecretSet,
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
    SecretRotated,
)
from proto.webhook_dispatch.queries import SERVICE
from proto.webhook_dispatch.words import EndpointKind, EndpointStatus, wants

STREAM = stream_of(SERVICE)
KINDS = ("endpoint", "account")


@dataclass(slots=True)
class Target:
    """One endpoint as the dispatcher needs it; changes in place."""

    endpoint_id: str
    account_id: str
    url: str
    events: tuple[str, ...]
    kind: EndpointKind
    instance_id: str
    status: EndpointStatus
    created_at: datetime
    sealed_secret: str = ""
    sealed_old_secret: str = ""
    old_until: datetime | None = None
    rate_limit_per_s: int = 0
    failing_since: datetime | None = None
    is_deleted: bool = False


class Directory:
    """Targets by id, by account and by instance; default secrets by account. `seq` is how far it has read."""

    def __init__(self) -> None:
        self.targets: dict[str, Target] = {}
        self.default_secrets: dict[str, str] = {}
        self.seq = 0
        self._by_account: dict[str, dict[str, Target]] = {}
        self._by_instance: dict[str, Target] = {}
        self._moved = asyncio.Event()

    def add(self, target: Target) -> None:
        at = target.created_at
        target.created_at = at.replace(microsecond=at.microsecond // 1000 * 1000)  # public facts are told to the ms
        self.targets[target.endpoint_id] = target
        if target.kind == "instance":
            self._by_instance[target.instance_id] = target
        else:
            self._by_account.setdefault(target.account_id, {})[target.endpoint_id] = target

    def hearers(self, account_id: str, event_type: str, instance_id: str, at: datetime) -> Iterator[Target]:
        """Who hears this fact. An account's endpoint hears nothing that was said before it was made."""
        for target in self._by_account.get(account_id, {}).values():
            if target.status != "disabled" and target.created_at <= at and wants(target.events, event_type):
                yield target
        target = self._by_instance.get(instance_id) if instance_id else None
        is_its_own = target is not None and target.account_id == account_id and target.status != "disabled"
        if target is not None and is_its_own and wants(target.events, event_type):
            yield target

    async def follow(self, log: EventLog, changed: Any) -> None:
        """Read the own stream for ever; `changed(target)` is called after each change of one."""
        decoders = {"endpoint": EventDecoder(EndpointEvent), "account": EventDecoder(AccountEvent)}
        async for batch in log.follow(STREAM, after_seq=self.seq):
            for stored in batch:
                _, _, kind, aggregate_id = stored.subject.split(".", 3)
                if kind in KINDS:  # mailboxes, which are nearly all, are not even decoded
                    commit = decoders[kind].commit(stored.data)
                    for event in commit.events:
                        self.apply(event, commit.at)
                    if aggregate_id in self.targets:
                        changed(self.targets[aggregate_id])
                    self._forget_deleted(aggregate_id)
            self._advance(batch[-1].seq)

    async def until(self, seq: int) -> None:
        """Everything up to `seq` is known."""
        while self.seq < seq:
            await self._moved.wait()

    def apply(self, event: Event, at: datetime) -> None:
        match event:
            case EndpointCreated():
                self.add(_target(event, at))
            case DefaultSecretSet(account_id=account_id, sealed_secret=sealed):
                self.default_secrets[account_id] = sealed
            case DefaultSecretCleared(account_id=account_id):
                self.default_secrets.pop(account_id, None)
            case _:
                target = self.targets.get(getattr(event, "endpoint_id", ""))
                if target is not None:
                    _change(target, event)

    def _advance(self, seq: int) -> None:
        self.seq = seq
        self._moved.set()
        self._moved = asyncio.Event()

    def _forget_deleted(self, endpoint_id: str) -> None:
        target = self.targets.get(endpoint_id)
        if target is not None and target.is_deleted:
            del self.targets[endpoint_id]
            self._by_instance.pop(target.instance_id, None)
            self._by_account.get(target.account_id, {}).pop(endpoint_id, None)


def _target(event: EndpointCreated, at: datetime) -> Target:
    return Target(
        endpoint_id=event.endpoint_id,
        account_id=event.account_id,
        url=event.url,
        events=event.events,
        kind=event.kind,
        instance_id=event.instance_id,
        status="enabled" if event.is_enabled else "disabled",
        created_at=at,
        sealed_secret=event.sealed_secret,
        rate_limit_per_s=event.rate_limit_per_s,
    )


def _change(target: Target, event: Event) -> None:
    match event:
        case EndpointChanged():
            target.url, target.events = event.url, event.events
            target.rate_limit_per_s = event.rate_limit_per_s
            target.sealed_secret = event.sealed_secret or target.sealed_secret
        case SecretRotated():
            target.sealed_secret, target.sealed_old_secret = event.sealed_secret, event.sealed_old_secret
            target.old_until = event.old_until
        case EndpointPaused():
            target.status = "paused"
        case EndpointResumed() | EndpointEnabled():
            target.status, target.failing_since = "enabled", None
        case EndpointFailing(since=since):
            target.failing_since = since
        case EndpointRecovered():
            target.failing_since = None
        case EndpointDisabled():
            target.status, target.failing_since = "disabled", None
        case EndpointDeleted():
            target.is_deleted = True
        case _:
            return
