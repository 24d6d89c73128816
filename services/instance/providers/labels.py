"""The names that we give to machines at clouds: which platform they belong to, and which of its machines they are.

Used by every adapter. Several platforms may share one cloud account (production and staging, two developers), and the
census destroys what nobody owns: only a label that begins with this platform's own id is ours.
"""

from __future__ import annotations

import hashlib
import hmac

ID_HEX_CHARS = 16  # 64 bits: two platforms of one account never share it
SEPARATOR = "."


def platform_id(secret: str) -> str:
    """Of the platform that has this secret, as long as it has it. Shown to clouds; the secret cannot be told from it.

    Replicas share the secret and so the id. A platform whose secret was replaced leaves its unowned machines alone.
    """
    return "p" + hmac.new(secret.encode(), b"platform-id", hashlib.sha256).hexdigest()[:ID_HEX_CHARS]


def label_of(platform: str, machine_id: str) -> str:
    return f"{platform}{SEPARATOR}{machine_id}"


def machine_in(platform: str, label: str) -> str:
    """The machine that a label names, empty when the label is another's."""
    owner, _, machine_id = label.partition(SEPARATOR)
    return machine_id if owner == platform else ""
