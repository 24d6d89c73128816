"""Accept-Language, by its weights."""

from __future__ import annotations

import pytest

from services.gateway.languages import language_of


@pytest.mark.parametrize(
    ("accepted", "default", "language"),
    [
        ("", "pt", "pt"),
        ("", "en", "en"),
        ("en", "pt", "en"),
        ("pt-BR", "en", "pt"),
        ("PT-br;Q=0.9, en;q=0.8", "en", "pt"),
        ("en;q=0.1, pt;q=0.2", "en", "pt"),
        ("fr, de;q=0.9", "pt", "pt"),
        ("fr, en;q=0.1", "pt", "en"),
        ("en;q=0", "en", "pt"),  # refused: the other one is all that is left
        ("en;q=0, *", "en", "pt"),
        ("pt;q=0, en;q=0", "pt", "pt"),  # refusing both is no wish that can be met
        ("*;q=0.5, en;q=0.4", "pt", "pt"),
        ("en;q=0.5, pt;q=0.5", "pt", "en"),
        ("english", "pt", "pt"),
        ("en-US-x-private;q=0.2, pt;q=0.3", "en", "pt"),
        ("en;q=nonsense, pt;q=0.1", "en", "pt"),
        ("en;q=7", "pt", "pt"),
        ("," * 500 + "en", "pt", "pt"),
    ],
)
def test_the_best_of_what_is_accepted(accepted: str, default: str, language: str) -> None:
    assert language_of(accepted, "pt" if default == "pt" else "en") == language
