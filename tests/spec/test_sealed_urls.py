"""A URL with credentials in its query is shown without them and called with them."""

from __future__ import annotations

import pytest

from libs.sealed_urls import hidden, opened, shown
from libs.sealing import NotSealedHere, Sealer

SEALER = Sealer("ab" * 32, purpose="test")


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://h.com/p?token=abc&x=1", "https://h.com/p?token=***&x=***"),
        ("https://h.com:8443/?abc", "https://h.com:8443/?***"),
        ("https://h.com/p?a=b=c#part", "https://h.com/p?a=***"),
        ("https://h.com/p", "https://h.com/p"),
    ],
)
def test_it_is_shown_without_values_and_opened_as_it_was(url: str, seen: str):
    text = hidden(url, SEALER, owner="acct_7")
    assert shown(text) == seen
    assert opened(text, SEALER, owner="acct_7") == url
    assert hidden(url, SEALER, owner="acct_7") == text, "a repeat is no change"


def test_it_is_opened_for_its_owner_only():
    text = hidden("https://h.com/?t=1", SEALER, owner="acct_7")
    assert text != hidden("https://h.com/?t=1", SEALER, owner="acct_8")
    for given in (text[:-8], "https://h.com/#sealed:v1.nonsense"):
        with pytest.raises(NotSealedHere):
            opened(given, SEALER, owner="acct_7")
    with pytest.raises(NotSealedHere):
        opened(text, SEALER, owner="acct_8")
