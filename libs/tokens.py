"""Agent tokens: proof that a heartbeat comes from the machine it speaks for, checkable without a database.

Minted by `services.instance.effects`, checked by `services.gateway.auth`. A token is
`dumont_agent_<machine_id>.<generation>.<hex HMAC-SHA256(secret, "agent:<machine_id>:<instance_id>:<generation>")>`;
the instance id is not in it, so a token shown with another instance's id does not verify.
"""

from __future__ import annotations

import hashlib
import hmac
import re

from msgspec import Struct

PREFIX = "dumont_agent_"
TOKEN_CHARS_MAX = 300  # machine ids are at most 128 characters, a digest is 64
# ASCII only: `int` and `str.isdigit` would let other scripts' digits through.
_FORM = re.compile(r"dumont_agent_([A-Za-z0-9_-]{1,128})\.(0|[1-9][0-9]{0,17})\.([0-9a-f]{64})", re.ASCII)


class AgentIdentity(Struct, frozen=True):
    """Whom a verified token speaks for."""

    machine_id: str
    instance_id: str
    generation: int


def mint_agent_token(secret: str, *, machine_id: str, instance_id: str, generation: int) -> str:
    """The token of one machine in one generation of one instance. The same facts always give the same token."""
    return f"{PREFIX}{machine_id}.{generation}.{_digest(secret, machine_id, instance_id, generation)}"


def check_agent_token(secret: str, token: str, *, instance_id: str) -> AgentIdentity | None:
    """Who is speaking, or None when the token is malformed, forged, or belongs to another instance. Constant time."""
    if len(token) > TOKEN_CHARS_MAX:
        return None
    match = _FORM.fullmatch(token)
    if match is None:
        return None
    machine_id, generation, digest = match[1], int(match[2]), match[3]
    expected = _digest(secret, machine_id, instance_id, generation)
    if not hmac.compare_digest(expected, digest):
        return None
    return AgentIdentity(machine_id=machine_id, instance_id=instance_id, generation=generation)


def _digest(secret: str, machine_id: str, instance_id: str, generation: int) -> str:
    said = f"agent:{machine_id}:{instance_id}:{generation}"
    return hmac.new(secret.encode(), said.encode(), hashlib.sha256).hexdigest()
