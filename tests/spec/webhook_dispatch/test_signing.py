"""Signatures, checked as the seeds' receivers check them and as the Standard Webhooks specification says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import shutil
import subprocess

import pytest
from cryptography.exceptions import InvalidSignature

from libs.sealing import NotSealedHere, Sealer, signing_key
from libs.signing import keys_of, signed_headers

PLATFORM_KEY = signing_key("5ec7e7", purpose="test")
BODY = '{"id":"cmt_1.0","data":{"name":"ação"}}'.encode()
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
EXPRESS = """
const crypto = require('crypto');
function verifyWebhookSignature(payload, signature, secret) {
  if (!secret) return true; // Skip verification if no secret configured

  const expectedSignature = crypto
    .createHmac('sha256', secret)
    .update(payload)
    .digest('hex');

  return `sha256=${expectedSignature}` === signature;
}
const [body, signature, secret] = JSON.parse(require('fs').readFileSync(0));
const payload = JSON.stringify(JSON.parse(body));
process.stdout.write(String(verifyWebhookSignature(payload, signature, secret)));
"""


# Seed 004, Python Flask Webhook Handler, as written there.
def verify_signature(payload, signature, secret):
    if not secret:
        return True

    expected_signature = hmac.new(secret.encode("utf-8"), payload.encode("utf-8"), hashlib.sha256).hexdigest()

    return f"sha256={expected_signature}" == signature  # fmt: skip


def headers(*secrets: str) -> dict[str, str]:
    return signed_headers(
        "msg_1", "instance.ready", BODY, timestamp_s=1_700_000_000, keys=keys_of(*secrets), platform_key=PLATFORM_KEY
    )


@pytest.mark.parametrize("secret", [SECRET, "my secret of seed 004"])
def test_the_flask_receiver_of_seed_004_accepts_and_refuses(secret: str) -> None:
    signature = headers(secret)["X-Signature-SHA256"]
    assert verify_signature(BODY.decode(), signature, secret)
    assert not verify_signature(BODY.decode() + " ", signature, secret)
    assert not verify_signature(BODY.decode(), signature, "another")


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")
def test_the_express_receiver_of_seed_004_accepts() -> None:
    told = json.dumps([BODY.decode(), headers(SECRET)["X-Signature-SHA256"], SECRET])
    done = subprocess.run(["node", "-e", EXPRESS], input=told, capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "true"


def test_standard_webhooks_v1_is_keyed_with_the_decoded_secret_and_covers_id_and_time() -> None:
    made = headers(SECRET)
    content = b"msg_1.1700000000." + BODY
    expected = base64.b64encode(hmac.digest(bytes(range(32)), content, "sha256")).decode()
    assert made["webhook-signature"].split()[0] == f"v1,{expected}"
    assert (made["webhook-id"], made["webhook-timestamp"]) == ("msg_1", "1700000000")


def test_during_a_rotation_both_secrets_sign() -> None:
    both = headers("new-secret", "old-secret")["webhook-signature"].split()
    assert both[0] == headers("new-secret")["webhook-signature"].split()[0]
    assert both[1] == headers("old-secret")["webhook-signature"].split()[0]


def test_v1a_verifies_with_the_published_key_and_not_for_other_bytes() -> None:
    proof = headers()["webhook-signature"].split()[-1]
    assert proof.startswith("v1a,")
    signature = base64.b64decode(proof.partition(",")[2])
    PLATFORM_KEY.public_key().verify(signature, b"msg_1.1700000000." + BODY)
    with pytest.raises(InvalidSignature):
        PLATFORM_KEY.public_key().verify(signature, b"msg_1.1700000000.{}")


def test_without_a_secret_only_the_platform_signs() -> None:
    made = headers()
    assert "X-Signature-SHA256" not in made
    assert len(made["webhook-signature"].split()) == 1


def test_a_sealed_secret_opens_for_its_owner_with_the_platform_secret_only() -> None:
    sealed = Sealer("5ec7e7", purpose="webhook-secret").seal(SECRET, owner="whe_1")
    assert SECRET not in sealed
    assert Sealer("5ec7e7", purpose="webhook-secret").open(sealed, owner="whe_1") == SECRET
    for sealer, owner in (
        (Sealer("other", purpose="webhook-secret"), "whe_1"),
        (Sealer("5ec7e7", purpose="other"), "whe_1"),
        (Sealer("5ec7e7", purpose="webhook-secret"), "whe_2"),
    ):
        with pytest.raises(NotSealedHere):
            sealer.open(sealed, owner=owner)
