"""Accounts in memory: their plan, what was done with their access, and how much of the day is used.

Owned and fed by `keys.Keys`, which folds the log; read by the routes of account and audit, by `limits` and by `usage`.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from proto.base import Commit, Event
from proto.gateway.events import AccountOpened, KeyIssued, KeyRevoked, KeyRotated, PlanChanged, UsageNoted
from proto.gateway.queries import AccountView

# The log has all of them; what a person reads is the newest. About 300 bytes each.
AUDIT_ENTRIES_MAX = 1_000


class AuditEntry(Struct, frozen=True, gc=False):
    """One thing that was done with the access to an account. `request_id` is that of the request that did it."""

    at: datetime
    event: str
    actor: str
    subject_id: str
    facts: dict[str, object]
    request_id: str


class Accounts:
    """Every account, by id."""

    def __init__(self) -> None:
        self._accounts: dict[str, AccountView] = {}
        self._audit: defaultdict[str, deque[AuditEntry]] = defaultdict(lambda: deque(maxlen=AUDIT_ENTRIES_MAX))
        self._noted: dict[str, tuple[str, int]] = {}

    def get(self, account_id: str) -> AccountView | None:
        return self._accounts.get(account_id)

    def all(self) -> list[AccountView]:
        return [self._accounts[account_id] for account_id in sorted(self._accounts)]

    def audit(self, account_id: str) -> Sequence[AuditEntry]:
        """Newest first, at most AUDIT_ENTRIES_MAX."""
        return tuple(reversed(self._audit[account_id])) if account_id in self._audit else ()

    def noted(self, account_id: str, day: str) -> int:
        """Requests of that day that the log knows of."""
        noted_day, requests = self._noted.get(account_id, ("", 0))
        return requests if noted_day == day else 0

    def count(self, noted: UsageNoted) -> None:
        for use in noted.accounts:
            day, requests = self._noted.get(use.account_id, ("", 0))
            if noted.day >= day:
                known = requests if noted.day == day else 0
                self._noted[use.account_id] = (noted.day, max(known, use.requests))

    def apply(self, event: Event, commit: Commit[Event]) -> None:
        """A fact of a key or an account."""
        match event:
            case AccountOpened():
                self._accounts[event.account_id] = AccountView(
                    account_id=event.account_id, name=event.name, plan=event.plan, opened_at=event.opened_at
                )
                facts: dict[str, object] = {"name": event.name, "plan": event.plan}
                self._remember(event.account_id, event.account_id, event, commit, facts)
            case PlanChanged():
                self._accounts[event.account_id] = replace(self._accounts[event.account_id], plan=event.plan)
                facts = {"plan": event.plan, "previous": event.previous}
                self._remember(event.account_id, event.account_id, event, commit, facts)
            case KeyIssued():
                facts = {"name": event.name, "scopes": list(event.scopes), "replaces": event.replaces}
                self._remember(event.account_id, event.key_id, event, commit, facts)
            case KeyRotated():
                facts = {"successor_id": event.successor_id, "valid_until": event.valid_until}
                self._remember(event.account_id, event.key_id, event, commit, facts)
            case KeyRevoked():
                self._remember(event.account_id, event.key_id, event, commit, {"reason": event.reason})
            case _:
                raise TypeError(f"no fact of an account or key: {event!r}")

    def _remember(
        self, account_id: str, subject_id: str, event: Event, commit: Commit[Event], facts: dict[str, object]
    ) -> None:
        said = str(type(event).__struct_config__.tag)
        actor = str(getattr(event, "actor", ""))
        entry = AuditEntry(commit.at, said, actor, subject_id, facts, commit.cause)
        self._audit[account_id].append(entry)
