"""Twice is once, for wishes about hosts and about machines that nobody owns."""

from __future__ import annotations

from hypothesis import strategies as st

from libs.spec.properties import every_command_twice_is_once
from proto.instance.host_commands import (
    Blacklist,
    DestroyOrphan,
    RecordAttempt,
    ReportOrphan,
    ReportOrphanGone,
    Unblacklist,
)
from services.instance.decider import HOST, ORPHAN
from tests.spec.instance.controls import ACCOUNT, INSTANCE_ID, NOW, OFFER, OTHER_ACCOUNT, minutes

ACCOUNTS = st.sampled_from([ACCOUNT, ACCOUNT, ACCOUNT, OTHER_ACCOUNT])
HOST_COMMON = {"now": st.just(NOW), "provider": st.just("sandbox"), "host_id": st.just("host_1")}


def test_every_wish_for_a_host_twice_is_once() -> None:
    attempts = st.builds(
        RecordAttempt,
        **HOST_COMMON,
        attempt_id=st.integers(0, 30).map(lambda number: f"att_{number}"),
        offer=st.just(OFFER),
        outcome=st.sampled_from(["success", "failure", "failure", "cancelled"]),
        instance_id=st.just(INSTANCE_ID),
        stage=st.sampled_from([None, "loading", "connecting"]),
    )
    entries = st.builds(
        Blacklist,
        **HOST_COMMON,
        account_id=ACCOUNTS,
        reason=st.sampled_from(["slow", "hot"]),
        expires_at=st.sampled_from([None, minutes(1)]),
    )
    lifts = st.builds(Unblacklist, **HOST_COMMON, account_id=ACCOUNTS)
    every_command_twice_is_once(HOST, attempts | entries | lifts)


def test_every_wish_for_an_orphan_twice_is_once() -> None:
    common = {"now": st.just(NOW), "provider": st.just("sandbox"), "provider_machine_id": st.just("sb_1")}
    commands = st.one_of(
        st.builds(ReportOrphan, **common, label=st.just("mach_9"), destroy_after=st.integers(0, 9).map(minutes)),
        st.builds(DestroyOrphan, **common),
        st.builds(ReportOrphanGone, **common),
    )
    every_command_twice_is_once(ORPHAN, commands)
