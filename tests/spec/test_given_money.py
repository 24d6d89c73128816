"""Money: exact, half up, and the same total however time is cut."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.money import charge_micros, cost_micros, format_micros, parse_micros

AMOUNTS = st.integers(-(10**14), 10**14)


@given(AMOUNTS)
def test_what_is_written_in_full_is_read_back(micros: int) -> None:
    assert parse_micros(format_micros(micros)) == micros


@given(st.decimals(min_value=-999_999_999, max_value=999_999_999, places=12))
def test_reading_agrees_with_decimal_arithmetic(amount: Decimal) -> None:
    expected = int((amount * 1_000_000).to_integral_value(ROUND_HALF_UP))
    assert parse_micros(f"{amount:f}") == expected


@given(AMOUNTS, st.integers(0, 6))
def test_writing_agrees_with_decimal_arithmetic(micros: int, decimals: int) -> None:
    rounded = (Decimal(micros) / 1_000_000).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
    assert format_micros(micros, decimals=decimals) == (f"{rounded:f}" if rounded else f"{abs(rounded):f}")


@given(st.integers(0, 10**9), st.lists(st.integers(0, 10**6), max_size=30))
def test_any_partition_of_the_time_gives_the_same_total(rate: int, pieces: list[int]) -> None:
    charged, total = 0, 0
    for piece in pieces:
        total += charge_micros(charged, charged + piece, rate)
        charged += piece
    assert total == cost_micros(charged, rate)


def test_examples() -> None:
    assert parse_micros("0.35") == 350_000
    assert parse_micros("0.0000005") == 1
    assert parse_micros("-0.0000005") == -1
    assert parse_micros("0.0000004999") == 0
    assert format_micros(355_000, decimals=2) == "0.36"
    assert format_micros(-1, decimals=2) == "0.00"
    assert cost_micros(3_600, 350_000) == 350_000
    assert cost_micros(1, 1_800) == 1


@pytest.mark.parametrize("text", ["", "1e3", "+1", " 1", "1.", ".5", "1,5", "٣", "1" * 10, "0." + "1" * 31, "nan"])
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a decimal"):
        parse_micros(text)


def test_time_never_runs_backwards() -> None:
    with pytest.raises(ValueError, match="shrink"):
        charge_micros(10, 9, 1)
    with pytest.raises(ValueError, match="negative"):
        cost_micros(-1, 1)
