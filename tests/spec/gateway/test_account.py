"""One account: opened once, on one plan at a time; and one day of use, of which only news is written down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from libs.spec.given import spec
from libs.spec.properties import every_command_twice_is_once
from proto.gateway.commands import ChangePlan, NoteUsage, OpenAccount
from proto.gateway.events import AccountOpened, AccountUse, KeyUse, PlanChanged, UsageNoted
from proto.gateway.words import Plan
from services.gateway.decider import ACCOUNT, USAGE

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
OPENED = AccountOpened(account_id="acct_1", name="one", plan="free", opened_at=NOW)


def open_account(plan: Plan = "free") -> OpenAccount:
    return OpenAccount(now=NOW, account_id="acct_1", name="one", plan=plan)


def change_plan(plan: Plan) -> ChangePlan:
    return ChangePlan(now=NOW, account_id="acct_1", plan=plan)


def note(keys: dict[str, datetime], accounts: dict[str, int]) -> NoteUsage:
    return NoteUsage(
        now=NOW,
        day="20261122",
        keys=tuple(KeyUse(key_id, at) for key_id, at in keys.items()),
        accounts=tuple(AccountUse(account_id, requests) for account_id, requests in accounts.items()),
    )


def test_an_account_is_opened() -> None:
    spec(ACCOUNT).when(open_account()).then(OPENED)


def test_an_account_that_exists_keeps_its_plan() -> None:
    spec(ACCOUNT).given(OPENED).when(open_account("pro")).then_nothing()


def test_a_plan_is_changed_and_says_from_what() -> None:
    changed = PlanChanged(account_id="acct_1", plan="pro", previous="free", changed_at=NOW)
    spec(ACCOUNT).given(OPENED).when(change_plan("pro")).then(changed)


def test_the_same_plan_is_no_change() -> None:
    spec(ACCOUNT).given(OPENED).when(change_plan("free")).then_nothing()


def test_an_account_that_never_was_has_no_plan() -> None:
    spec(ACCOUNT).when(change_plan("pro")).refused("ACCOUNT_NOT_FOUND", account_id="acct_1")


def test_every_wish_of_an_account_twice_is_once() -> None:
    plans = st.sampled_from(["free", "pro", "enterprise", "operator"])
    every_command_twice_is_once(ACCOUNT, st.builds(open_account, plans) | st.builds(change_plan, plans))


def test_use_is_noted() -> None:
    noted = UsageNoted(day="20261122", keys=(KeyUse("key_1", NOW),), accounts=(AccountUse("acct_1", 7),))
    spec(USAGE).when(note({"key_1": NOW}, {"acct_1": 7})).then(noted)


def test_what_another_replica_has_noted_is_left_out() -> None:
    earlier = UsageNoted(day="20261122", keys=(KeyUse("key_1", LATER),), accounts=(AccountUse("acct_1", 7),))
    news = UsageNoted(day="20261122", keys=(KeyUse("key_2", NOW),))
    spec(USAGE).given(earlier).when(note({"key_1": NOW, "key_2": NOW}, {"acct_1": 6})).then(news)


def test_every_note_twice_is_once() -> None:
    ids = st.sampled_from(["a", "b", "c"])
    instants = st.sampled_from([NOW, LATER])
    notes = st.builds(note, st.dictionaries(ids, instants), st.dictionaries(ids, st.integers(0, 9)))
    every_command_twice_is_once(USAGE, notes)
