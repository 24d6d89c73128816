"""Headers of a signed message to a receiver: who says it, when, and the proof.

Used by webhook dispatch for deliveries and by `dumont webhooks listen`. Owns no secret.

Three proofs over the same bytes, so that every receiver of the seeds and every Standard Webhooks library can check one:
- `webhook-signature`: `v1,<base64>` HMAC-SHA256 over `id.timestamp.body`, once per secret in force (rotation), and
  `v1a,<base64>` ed25519 with the platform's key, whose public half the gateway publishes;
- `X-Signature-SHA256` (seed 004) and `X-Webhook-Signature`: `sha256=<hex>` HMAC-SHA256 over the body alone, keyed with
  the secret's text as it was shown.
"""

from __future__ import annotations

import base64
import binascii
import hmac

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

USER_AGENT = "Dumont-Webhooks/1.0"
SECRET_PREFIX = "whsec_"  # noqa: S105 - what Standard Webhooks secrets begin with


class Keys(Struct, frozen=True):
    """The secrets in force, newest first, opened. `hmac_keys` are what Standard Webhooks makes of their texts."""

    texts: tuple[bytes, ...]
    hmac_keys: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"Keys({len(self.texts)} secrets)"


def keys_of(*secrets: str) -> Keys:
    """Empty ones are left out."""
    texts = [secret for secret in secrets if secret]
    return Keys(tuple(text.encode() for text in texts), tuple(map(_hmac_key, texts)))


def _hmac_key(secret: str) -> bytes:
    """`whsec_` and base64 as the specification says; any other text is its own key."""
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        return secret.encode()


def signed_headers(
    delivery_id: str,
    event_type: str,
    body: bytes,
    *,
    timestamp_s: int,
    keys: Keys,
    platform_key: Ed25519PrivateKey | None = None,
) -> dict[str, str]:
    """Everything but the length. The id stays the same over all tries, the timestamp is that of this one."""
    second = str(timestamp_s)
    content = f"{delivery_id}.{second}.".encode() + body
    proofs = ["v1," + _base64(hmac.digest(key, content, "sha256")) for key in keys.hmac_keys]
    if platform_key is not None:
        proofs.append("v1a," + _base64(platform_key.sign(content)))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "webhook-id": delivery_id,
        "webhook-timestamp": second,
        "webhook-signature": " ".join(proofs),
        "X-Dumont-Event": event_type,
        "X-Dumont-Delivery": delivery_id,
        "X-Dumont-Timestamp": second,
    }
    if keys.texts:
        plain = "sha256=" + hmac.digest(keys.texts[0], body, "sha256").hex()
        headers["X-Signature-SHA256"] = headers["X-Webhook-Signature"] = plain
    return headers


def _base64(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).decode()
