"""Questions the gateway answers on `qry.gateway.<tag>`, from its indexes of keys and accounts."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from msgspec import Struct

from proto.base import Query
from proto.gateway.words import Plan, Scope
from proto.health import GetHealth, GetMetrics


class KeyView(Struct, frozen=True, kw_only=True):
    """A key as its owner may see it: never the secret, never its hash."""

    key_id: str
    account_id: str
    name: str
    prefix: str
    last4: str
    scopes: tuple[Scope, ...]
    plan: Plan
    issued_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = None
    successor_id: str = ""


class AccountView(Struct, frozen=True, kw_only=True):
    """An account as the operator and its own keys see it."""

    account_id: str
    name: str
    plan: Plan
    opened_at: datetime


class ListKeys(Query, tag="keys", frozen=True, kw_only=True):
    """Newest first, revoked ones included."""

    service: ClassVar[str] = "gateway"
    reply: ClassVar[object] = list[KeyView]
    account_id: str


class ListAccounts(Query, tag="accounts", frozen=True, kw_only=True):
    """Every account, by id. For the operator."""

    service: ClassVar[str] = "gateway"
    reply: ClassVar[object] = list[AccountView]


class GetGatewayHealth(GetHealth, tag="health", frozen=True):
    service: ClassVar[str] = "gateway"


class GetGatewayMetrics(GetMetrics, tag="metrics", frozen=True):
    service: ClassVar[str] = "gateway"


AnyQuery = ListKeys | ListAccounts | GetGatewayHealth | GetGatewayMetrics
