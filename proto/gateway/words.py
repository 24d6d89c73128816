"""Closed word sets of the gateway and the form of an API key.

Words: an *account* is who owns things, on a *plan* that says how much it may ask; a *key* is a secret that speaks for
an account, within *scopes*; a key that is *rotated* works on beside its successor for a stated time.
The secret itself is shown once and never stored: only its SHA-256, its first characters and its last four.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from msgspec import Struct

DEFAULT_ACCOUNT = "acct_default"
KEY_PREFIX = "dumont_sk_"
KEY_SECRET_BYTES = 32  # 43 url-safe characters (contract dumont 8)
KEY_SHOWN_CHARS = 16
KEY_PATTERN = re.compile(r"dumont_sk_[A-Za-z0-9_-]{20,128}")
ACCOUNT_PATTERN = re.compile(r"acct_[A-Za-z0-9_]{1,60}")  # one token of a NATS subject

# What each allows is configuration (DUMONT_LIMITS). `operator` is for whoever runs the installation.
Plan = Literal["free", "pro", "enterprise", "operator"]
# `all` lets everything through; the rest is `<area>:<read|write>` as in contract dumont 8.
Scope = Literal[
    "all",
    "instances:read",
    "instances:write",
    "offers:read",
    "machines:read",
    "machines:write",
    "agent:read",
    "agent:write",
    "agent:report",
    "keys:read",
    "keys:write",
    "failover:read",
    "failover:write",
    "failover:execute",
    "warmpool:read",
    "warmpool:write",
    "standby:read",
    "standby:write",
    "billing:read",
    "billing:write",
    "webhooks:read",
    "webhooks:write",
    "events:read",
    "account:read",
    "metrics:read",
]


class Fingerprint(Struct, frozen=True):
    """All that is kept of a key."""

    key_hash: str
    prefix: str
    last4: str


def fingerprint(key: str) -> Fingerprint:
    """SHA-256 is enough for a secret of 256 random bits: there is nothing to guess, so nothing to slow down."""
    return Fingerprint(key_hash=hash_key(key), prefix=key[:KEY_SHOWN_CHARS], last4=key[-4:])


def hash_key(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
