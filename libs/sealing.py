"""Sealing: secrets that must be kept and used again are stored encrypted under the platform secret.

Used by the gateway (which makes or takes a secret and seals it before it goes on the bus) and by whoever uses it. Owns
the derivation of keys from DUMONT_SECRET: each purpose has a key of its own (HKDF-SHA256), so nothing sealed for one
can be opened for another, and the sealed text of one owner cannot be given to another (the owner's id is bound in).
"""

from __future__ import annotations

import base64
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FORM = "v1."
MARK = "sealed:"  # before a sealed text in a field that may hold one from before it was sealed
NONCE_BYTES = 12  # random: safe for 2^32 secrets under one key
KEY_BYTES = 32


class NotSealedHere(Exception):
    """The text was not sealed with this platform secret, for this purpose and owner, or has been changed."""


class Sealer:
    """Seals and opens for one purpose ("webhook-secret")."""

    def __init__(self, platform_secret: str, *, purpose: str) -> None:
        self._cipher = AESGCM(_derived(platform_secret, f"sealing:{purpose}"))
        self._alike = _derived(platform_secret, f"alike:{purpose}")

    def seal(self, text: str, *, owner: str) -> str:
        """Never the same twice. `owner` must be named again to open it."""
        return self._sealed(text, owner, os.urandom(NONCE_BYTES))

    def seal_alike(self, text: str, *, owner: str) -> str:
        """The same for the same text and owner, where a repeat must not look like a change; tells no more than that."""
        named = len(owner).to_bytes(4) + owner.encode() + text.encode()
        return self._sealed(text, owner, hmac.digest(self._alike, named, "sha256")[:NONCE_BYTES])

    def _sealed(self, text: str, owner: str, nonce: bytes) -> str:
        sealed = self._cipher.encrypt(nonce, text.encode(), owner.encode())
        return FORM + base64.urlsafe_b64encode(nonce + sealed).decode()

    def open(self, sealed: str, *, owner: str) -> str:
        """Raises NotSealedHere; the message says nothing of the text."""
        try:
            raw = base64.urlsafe_b64decode(sealed.removeprefix(FORM).encode())
            return self._cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], owner.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise NotSealedHere(f"a sealed text of {owner} cannot be opened") from error

    def seal_field(self, text: str, *, owner: str) -> str:
        """For a field of an event or row: sealed and marked as such; nothing stays nothing."""
        return MARK + self.seal(text, owner=owner) if text else text

    def open_field(self, text: str, *, owner: str) -> str:
        """What `seal_field` was given; a text without the mark is older than sealing. Raises NotSealedHere."""
        return self.open(text.removeprefix(MARK), owner=owner) if text.startswith(MARK) else text


def made_secret(platform_secret: str, *, purpose: str, owner: str) -> bytes:
    """A secret for `owner` that nobody can guess and that a repeated request meets again."""
    return _derived(platform_secret, f"made:{purpose}:{owner}")


def signing_key(platform_secret: str, *, purpose: str) -> Ed25519PrivateKey:
    """The platform's own key pair for one purpose: the same as long as the platform secret is."""
    return Ed25519PrivateKey.from_private_bytes(_derived(platform_secret, f"signing:{purpose}"))


def _derived(platform_secret: str, purpose: str) -> bytes:
    derivation = HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=f"dumont:{purpose}".encode())
    return derivation.derive(platform_secret.encode())
