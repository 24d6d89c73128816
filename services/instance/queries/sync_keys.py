"""The key with which a primary's agent hands files into its CPU standby's inbox. It opens no shell and reads nothing.

Derived from the platform secret and the standby's id, so nobody keeps it: the standby is ordered with its public half
(`renting`), the primary is told the private half in the answer to its heartbeat (`queries.agents`).
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from libs.config import Secret
from libs.sealing import made_secret


def public_key(secret: Secret, machine_id: str) -> str:
    """For the standby's authorized keys."""
    return _key(secret, machine_id).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def private_key(secret: Secret, machine_id: str) -> str:
    """For the primary's agent. Never logged, never stored. The same text every time: another order would make the agent
    begin anew with a whole copy, and OpenSSH's form of a key has a random number in it."""
    return _key(secret, machine_id).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _key(secret: Secret, machine_id: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(made_secret(secret.reveal(), purpose="sync-key", owner=machine_id))
