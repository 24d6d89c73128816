"""One API key: issued once, rotated once, revoked once, and never anybody else's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.spec.given import spec
from libs.spec.properties import every_command_twice_is_once
from proto.gateway.commands import IssueKey, RevokeKey, RotateKey
from proto.gateway.events import KeyIssued, KeyRevoked, KeyRotated
from proto.gateway.words import KEY_PATTERN, fingerprint
from services.gateway.decider import API_KEY

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
KEY = "dumont_sk_" + "a" * 43
MARK = fingerprint(KEY)
ISSUED = KeyIssued(
    key_id="key_1", account_id="acct_1", name="ci", key_hash=MARK.key_hash, prefix=MARK.prefix, last4=MARK.last4,
    issued_at=NOW,
)  # fmt: skip
REVOKED = KeyRevoked(key_id="key_1", account_id="acct_1", revoked_at=NOW)
SOON, LATE = NOW + timedelta(hours=1), NOW + timedelta(days=90)
ROTATED = KeyRotated(key_id="key_1", account_id="acct_1", successor_id="key_2", rotated_at=NOW, valid_until=SOON)


def issue(*, account_id: str = "acct_1", key_hash: str = MARK.key_hash, expires_at: datetime | None = None) -> IssueKey:
    return IssueKey(
        now=NOW, key_id="key_1", account_id=account_id, name="ci", key_hash=key_hash, prefix=MARK.prefix,
        last4=MARK.last4, expires_at=expires_at,
    )  # fmt: skip


def revoke(account_id: str = "acct_1") -> RevokeKey:
    return RevokeKey(now=NOW, key_id="key_1", account_id=account_id)


def rotate(successor_id: str = "key_2", *, account_id: str = "acct_1", valid_until: datetime = SOON) -> RotateKey:
    return RotateKey(now=NOW, key_id="key_1", account_id=account_id, successor_id=successor_id, valid_until=valid_until)


def test_a_key_is_issued() -> None:
    spec(API_KEY).when(issue()).then(ISSUED)


def test_issuing_again_changes_nothing() -> None:
    spec(API_KEY).given(ISSUED).when(issue()).then_nothing()


def test_the_same_id_cannot_name_another_secret() -> None:
    spec(API_KEY).given(ISSUED).when(issue(key_hash="0" * 64)).refused("IDEMPOTENCY_CONFLICT")


def test_a_key_that_has_expired_is_not_issued() -> None:
    spec(API_KEY).when(issue(expires_at=NOW - timedelta(seconds=1))).refused("VALIDATION_ERROR", field="expires_at")


def test_a_key_is_revoked() -> None:
    spec(API_KEY).given(ISSUED).when(revoke()).then(REVOKED)


def test_a_revoked_key_stays_revoked() -> None:
    spec(API_KEY).given(ISSUED, REVOKED).when(revoke(), issue()).then_nothing()


@pytest.mark.parametrize("account_id", ["acct_1", "acct_2"])
def test_a_key_that_never_was_cannot_be_revoked(account_id: str) -> None:
    spec(API_KEY).when(revoke(account_id)).refused("API_KEY_NOT_FOUND", key_id="key_1")


def test_another_accounts_key_does_not_exist() -> None:
    spec(API_KEY).given(ISSUED).when(revoke("acct_2")).refused("API_KEY_NOT_FOUND")


def test_a_rotated_key_works_until_the_stated_time() -> None:
    spec(API_KEY).given(ISSUED).when(rotate()).then(ROTATED)


def test_a_rotation_never_makes_a_key_live_longer() -> None:
    issued = replace(ISSUED, expires_at=SOON)
    spec(API_KEY).given(issued).when(rotate(valid_until=LATE)).then(ROTATED)


def test_a_key_has_one_successor() -> None:
    spec(API_KEY).given(ISSUED, ROTATED).when(rotate()).then_nothing()
    spec(API_KEY).given(ISSUED, ROTATED).when(rotate("key_3")).refused("INVALID_STATE", status="rotated")


def test_only_a_live_key_is_rotated() -> None:
    spec(API_KEY).given(ISSUED, REVOKED).when(rotate()).refused("INVALID_STATE", status="revoked")
    expired = replace(ISSUED, issued_at=NOW - timedelta(days=2), expires_at=NOW - timedelta(days=1))
    spec(API_KEY).given(expired).when(rotate()).refused("INVALID_STATE", status="expired")
    spec(API_KEY).when(rotate()).refused("API_KEY_NOT_FOUND")
    spec(API_KEY).given(ISSUED).when(rotate(account_id="acct_2")).refused("API_KEY_NOT_FOUND")


def test_a_rotated_key_can_be_revoked_at_once() -> None:
    spec(API_KEY).given(ISSUED, ROTATED).when(revoke()).then(REVOKED)


def test_every_command_twice_is_once() -> None:
    accounts = st.sampled_from(["acct_1", "acct_2"])
    commands = st.one_of(
        st.builds(issue, account_id=accounts, key_hash=st.sampled_from([MARK.key_hash, "0" * 64])),
        st.builds(rotate, st.sampled_from(["key_2", "key_3"]), account_id=accounts),
        st.builds(revoke, account_id=accounts),
    )
    every_command_twice_is_once(API_KEY, commands)


def test_a_fingerprint_does_not_hold_the_secret() -> None:
    assert KEY_PATTERN.fullmatch(KEY)
    assert len(MARK.prefix) == 16
    assert KEY not in repr(MARK)
    assert KEY[16:-4] not in repr(MARK)
