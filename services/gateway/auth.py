"""Who asks: from the credential of a request to an account and its scopes. Called by the pipeline and the agent route.

Keys come as `Authorization: Bearer` or `X-API-Key`. A machine's agent does not use a key but its own token, which is
checked against the instance it speaks of (libs.tokens), so it is verified by the handler that knows the payload.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from libs.refusal import Refused
from libs.tokens import AgentIdentity, check_agent_token
from proto.gateway.words import DEFAULT_ACCOUNT
from services.gateway.call import RETRY_AFTER_S, Caller

if TYPE_CHECKING:
    from services.gateway.gateway import Gateway
    from services.gateway.routing import Route

ANYONE = ""  # scope of routes that tell nothing about an account
AGENT = "agent:report"  # scope of the route that takes an agent token instead of a key

_NOBODY = Caller(account_id="", actor="anonymous", scopes=())


def credential(authorization: str, api_key: str) -> str:
    """The secret of the request, empty when there is none."""
    scheme, _, secret = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return secret.strip()
    return api_key.strip()


def identify(gateway: Gateway, route: Route, secret: str, now: datetime) -> Caller:
    """The caller, who may or may not use this route. Raises UNAUTHENTICATED."""
    if route.scope in (ANYONE, AGENT):
        return _NOBODY
    if not secret and gateway.settings.is_open and route.dialect.open_on_loopback:
        return _local(gateway)
    return _by_key(gateway, secret, now)


def require_scope(caller: Caller, route: Route) -> None:
    """Raises INSUFFICIENT_SCOPE."""
    if route.scope not in (ANYONE, AGENT) and not allows(caller.scopes, route.scope):
        raise Refused("INSUFFICIENT_SCOPE", scope=route.scope)


def allows(scopes: tuple[str, ...], wanted: str) -> bool:
    return "all" in scopes or wanted in scopes


def identify_agent(gateway: Gateway, secret: str, instance_id: str) -> AgentIdentity:
    """The machine behind a heartbeat; a token of another instance is no token at all."""
    identity = check_agent_token(gateway.settings.secret.reveal(), secret, instance_id=instance_id)
    if identity is None:
        raise Refused("UNAUTHENTICATED")
    return identity


def _by_key(gateway: Gateway, secret: str, now: datetime) -> Caller:
    known = gateway.keys.find(secret) if secret else None
    if known is not None and known.is_live(now):
        known.used_at = now
        issued = known.issued
        return Caller(issued.account_id, issued.key_id, issued.scopes, gateway.keys.plan_of(issued))
    if secret and known is None and not gateway.keys.caught_up:
        raise Refused("SERVICE_UNAVAILABLE", service="gateway", retry_after_s=RETRY_AFTER_S)
    raise Refused("UNAUTHENTICATED")


def _local(gateway: Gateway) -> Caller:
    """Whoever sits at a developer's own machine, as the account that `./dumont up` opens."""
    account = gateway.keys.accounts.get(DEFAULT_ACCOUNT)
    return Caller(DEFAULT_ACCOUNT, "local", ("all",), "free" if account is None else account.plan)
