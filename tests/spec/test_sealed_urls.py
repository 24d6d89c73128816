"""A URL with credentials in its query or path is shown without them and called with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.sealed_urls import credentials_in, hidden, opened, shown
from libs.sealing import NotSealedHere, Sealer

SEALER = Sealer("ab" * 32, purpose="test")


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://h.com/p?token=abc&x=1", "https://h.com/p?token=***&x=***"),
        ("https://h.com:8443/?abc", "https://h.com:8443/?***"),
        ("https://h.com/p?a=b=c#part", "https://h.com/p?a=***"),
        ("https://h.com/p", "https://h.com/p"),
        ("https://h.com", "https://h.com"),
        ("https://h.com/dumont-hooks/prod2/v1/", "https://h.com/dumont-hooks/prod2/v1/"),
        ("https://h.com/IncomingWebhook/index.php?a", "https://h.com/IncomingWebhook/index.php?***"),
        (
            "https://hooks.slack.com/services/T0A1B2C3D/B9Z8Y7X6W/abcdefghijklmnopqrstuvwx",
            "https://hooks.slack.com/***/***/***/***",
        ),
        ("https://discord.com/api/webhooks/112233445566778899/x-Yz_0aB", "https://discord.com/***/***/***/***"),
        ("https://api.telegram.org/bot123456:AAF-x/sendMessage", "https://api.telegram.org/***/***"),
        ("https://hook.eu1.MAKE.com:443/abcdefghi/", "https://hook.eu1.MAKE.com:443/***/"),
        ("https://notmake.com/abcdefghi", "https://notmake.com/abcdefghi"),
        ("https://hooks.slack.com/", "https://hooks.slack.com/"),
        ("https://h.com/hooks/aBcdEfgH/API/gpuReady2", "https://h.com/hooks/***/API/gpuReady2"),
        ("https://h.com/KLMNOPQR//sendMessage", "https://h.com/***//sendMessage"),
        ("https://h.com/hooks/catch/123456/b9k2xq1/", "https://h.com/hooks/catch/***/***/"),
        ("https://h.com/5f0c1d2e-1111-4222-8333-abcdefabcdef", "https://h.com/***"),
        ("https://h.com/hook/%61bc;x=1", "https://h.com/hook/***"),
    ],
)
def test_it_is_shown_without_values_and_opened_as_it_was(url: str, seen: str):
    text = hidden(url, SEALER, owner="acct_7")
    assert shown(text) == seen
    assert opened(text, SEALER, owner="acct_7") == url
    assert hidden(url, SEALER, owner="acct_7") == text, "a repeat is no change"


@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", min_size=24, max_size=80))
def test_no_long_credential_is_taken_for_a_word(credential: str):
    assert credential not in shown(hidden(f"https://h.com/hooks/{credential}/send", SEALER, owner="acct_7"))


@given(st.lists(st.from_regex("[a-z][A-Z]", fullmatch=True), min_size=2, max_size=7))
def test_letters_of_both_cases_are_no_word_unless_a_large_one_begins_one(pairs: list[str]):
    credential = "".join(pairs)
    assert credential not in shown(hidden(f"https://h.com/hooks/{credential}", SEALER, owner="acct_7"))


def test_what_is_not_shown_is_known_to_who_calls_it_as_it_is_sent_and_as_it_is_read():
    url = "https://h.com/hooks/T0A1B2C3D?token=a%20b%20c&x=1&loose"
    assert set(credentials_in(url)) == {"T0A1B2C3D", "a%20b%20c", "a b c", "loose"}
    assert credentials_in("https://h.com/hooks/prod2") == ()


def test_it_is_opened_for_its_owner_only():
    text = hidden("https://h.com/?t=1", SEALER, owner="acct_7")
    assert text != hidden("https://h.com/?t=1", SEALER, owner="acct_8")
    for other in (text[:-8], "https://h.com/#sealed:v1.nonsense"):
        with pytest.raises(NotSealedHere):
            opened(other, SEALER, owner="acct_7")
    with pytest.raises(NotSealedHere):
        opened(text, SEALER, owner="acct_8")
