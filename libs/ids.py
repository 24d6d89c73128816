"""Ids: time-ordered fresh ones and derived ones that make a repeat meet its own first attempt.

Used by composition roots, the gateway and policies. An id carries its type as a prefix (`inst_`, `mach_`, `fo_`)
and contains only letters, digits and underscores, so that it is one NATS subject token.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

import uuid_utils

DERIVED_HEX_CHARS = 26  # 104 bits: collision-free for any number of ids we can store


class Ids(Protocol):
    """Where fresh ids come from; the simulation hands in a seeded one."""

    def fresh(self, prefix: str) -> str: ...


class SystemIds:
    """UUIDv7 ids: sortable by creation time."""

    def fresh(self, prefix: str) -> str:
        return f"{prefix}_{uuid_utils.uuid7().hex}"


def derive_id(prefix: str, *parts: str) -> str:
    """The same parts always give the same id: a redelivered cause meets its own first effect."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
    return f"{prefix}_{digest[:DERIVED_HEX_CHARS]}"
