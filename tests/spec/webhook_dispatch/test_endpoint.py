"""An endpoint: made, changed, switched, failing, gone; each wish twice is once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from libs.spec.given import spec
from libs.spec.properties import every_command_twice_is_once
from proto.webhook_dispatch import commands as wish
from proto.webhook_dispatch import events as fact
from services.webhook_dispatch.decider import ACCOUNT, ENDPOINT

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WHOSE = {"endpoint_id": "whe_1", "account_id": "acct_1"}
BY = {"now": NOW, **WHOSE}
ABOUT = {"name": "mine", "url": "https://example.com/hook", "events": ("*",)}
CREATE = wish.CreateEndpoint(**BY, **ABOUT, sealed_secret="v1.a", request_hash="h1")
CREATED = fact.EndpointCreated(**WHOSE, **ABOUT, sealed_secret="v1.a", request_hash="h1")
DISABLED = fact.EndpointDisabled(**WHOSE, name="mine", reason="user_request")
GIVEN_URL = {"name": "inst_1", "events": ("instance.*",), "kind": "instance", "instance_id": "inst_1"}


def test_a_repeated_create_changes_nothing_and_another_under_the_same_key_is_refused() -> None:
    made = spec(ENDPOINT).given().when(CREATE).then(CREATED)
    made.when(CREATE).then_nothing()
    other = wish.CreateEndpoint(**BY, **ABOUT, request_hash="h2")
    made.when(other).refused("IDEMPOTENCY_CONFLICT")
    stranger = wish.CreateEndpoint(**{**BY, "account_id": "acct_2"}, **GIVEN_URL, url="https://example.com/b")
    mine = wish.CreateEndpoint(**BY, **GIVEN_URL, url="https://example.com/a")
    spec(ENDPOINT).given().when(mine).then_kinds(fact.EndpointCreated).when(stranger).refused("IDEMPOTENCY_CONFLICT")


def test_another_account_does_not_find_it() -> None:
    stranger = wish.PauseEndpoint(now=NOW, endpoint_id="whe_1", account_id="acct_2")
    spec(ENDPOINT).given(CREATED).when(stranger).refused("WEBHOOK_NOT_FOUND", webhook_id="whe_1")


def test_a_partial_change_keeps_the_rest() -> None:
    changed = fact.EndpointChanged(**WHOSE, name="mine", url="https://example.com/new", events=("*",))
    url = wish.ChangeEndpoint(**BY, url="https://example.com/new")
    spec(ENDPOINT).given(CREATED).when(url).then(changed).when(url).then_nothing()


def test_an_instance_started_with_another_url_moves_its_endpoint() -> None:
    first = wish.CreateEndpoint(**BY, **GIVEN_URL, url="https://example.com/a")
    second = wish.CreateEndpoint(**BY, **GIVEN_URL, url="https://example.com/b")
    spec(ENDPOINT).given().when(first).then_kinds(fact.EndpointCreated).when(second).then_kinds(fact.EndpointChanged)


def test_rotation_keeps_the_old_secret_until_its_time() -> None:
    until = NOW + timedelta(hours=24)
    rotate = wish.RotateSecret(**BY, sealed_secret="v1.b", old_until=until)
    rotated = fact.SecretRotated(**WHOSE, sealed_secret="v1.b", sealed_old_secret="v1.a", old_until=until)
    spec(ENDPOINT).given(CREATED).when(rotate).then(rotated).when(rotate).then_nothing()


def test_a_disabled_endpoint_cannot_be_paused_but_can_be_resumed() -> None:
    disabled = spec(ENDPOINT).given(CREATED, DISABLED)
    disabled.when(wish.PauseEndpoint(**BY)).refused("INVALID_STATE", status="disabled")
    disabled.when(wish.ResumeEndpoint(**BY)).then(fact.EndpointEnabled(**WHOSE))


def test_five_days_without_a_success_disable_it_and_a_success_before_does_not() -> None:
    failing = fact.EndpointFailing(
        **WHOSE, name="mine", since=NOW, disable_at=NOW + timedelta(days=5), last_error="HTTP 500"
    )
    mark = wish.MarkFailing(**BY, since=NOW, last_error="HTTP 500")
    told = spec(ENDPOINT).given(CREATED).when(mark).then(failing)
    told.when(mark).then_nothing()
    late = wish.DisableIfFailing(now=NOW + timedelta(days=5), **WHOSE)
    told.when(late).then(fact.EndpointDisabled(**WHOSE, name="mine", reason="failing"))
    well = told.when(wish.MarkRecovered(**BY)).then(fact.EndpointRecovered(**WHOSE, name="mine"))
    well.when(late).then_nothing()


def test_a_resend_asked_for_twice_is_one() -> None:
    resend = wish.RequestResend(**BY, delivery_id="msg_1", request_id="r1")
    requested = fact.ResendRequested(**WHOSE, delivery_id="msg_1", request_id="r1")
    spec(ENDPOINT).given(CREATED).when(resend, resend).then(requested)


def test_a_deleted_endpoint_is_not_found_and_deleting_again_is_fine() -> None:
    gone = spec(ENDPOINT).given(CREATED, fact.EndpointDeleted(**WHOSE))
    gone.when(wish.DeleteEndpoint(**BY)).then_nothing()
    gone.when(wish.ResumeEndpoint(**BY)).refused("WEBHOOK_NOT_FOUND")


def test_a_default_secret_is_set_once_and_cleared_once() -> None:
    about = {"now": NOW, "account_id": "acct_1"}
    put, clear = wish.SetDefaultSecret(**about, sealed_secret="v1.a"), wish.ClearDefaultSecret(**about)
    is_set = spec(ACCOUNT).given().when(put, put).then_kinds(fact.DefaultSecretSet)
    is_set.when(clear, clear).then_kinds(fact.DefaultSecretCleared)


_SECRETS = st.sampled_from(["v1.a", "v1.b"])
_URLS = st.sampled_from(["https://example.com/a", "https://example.com/b"])
_ENDPOINT_WISHES = st.one_of(
    st.builds(wish.CreateEndpoint, **{name: st.just(value) for name, value in (BY | ABOUT).items()}),
    st.builds(
        wish.CreateEndpoint, url=_URLS, **{name: st.just(value) for name, value in (BY | GIVEN_URL).items()}
    ),
    st.builds(
        wish.ChangeEndpoint, url=st.none() | _URLS, is_enabled=st.none() | st.booleans(),
        sealed_secret=st.none() | _SECRETS, **{name: st.just(value) for name, value in BY.items()},
    ),
    st.builds(
        wish.RotateSecret, sealed_secret=_SECRETS, old_until=st.just(NOW),
        **{name: st.just(value) for name, value in BY.items()},
    ),
    st.sampled_from([wish.PauseEndpoint, wish.ResumeEndpoint, wish.DeleteEndpoint, wish.MarkRecovered,
                     wish.DisableEndpoint, wish.DisableIfFailing]).map(lambda kind: kind(**BY)),
    st.just(wish.MarkFailing(**BY, since=NOW)),
    st.sampled_from(["r1", "r2"]).map(lambda name: wish.RequestResend(**BY, delivery_id="msg_1", request_id=name)),
    st.sampled_from(["r1", "r3"]).map(lambda name: wish.RequestRecovery(**BY, since=NOW, request_id=name)),
)  # fmt: skip


def test_every_wish_for_an_endpoint_twice_is_once() -> None:
    every_command_twice_is_once(ENDPOINT, _ENDPOINT_WISHES)
