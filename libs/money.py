"""Money as integer micro-units of one currency (docs/adr/0004): text to micros and back, and the cost of time.

Called wherever a price enters or leaves the platform and by whatever charges for time. No floats anywhere: a float
price differs by a micro between two machines, and sums of such prices never balance.
"""

from __future__ import annotations

import re

MICROS_PER_UNIT = 1_000_000
SECONDS_PER_HOUR = 3_600
DECIMALS = 6
# Nine digits of whole units (a thousand million) is beyond any account; more digits are an attack or a mistake.
WHOLE_DIGITS_MAX = 9
FRACTION_DIGITS_MAX = 30

_DECIMAL = re.compile(rf"(-?)([0-9]{{1,{WHOLE_DIGITS_MAX}}})(?:\.([0-9]{{1,{FRACTION_DIGITS_MAX}}}))?", re.ASCII)


def parse_micros(text: str) -> int:
    """Micros of a plain decimal such as `0.35` or `-12`; further decimals are rounded half up, away from zero.

    Raises ValueError on anything else (exponents, signs other than a leading minus, blanks, too many digits).
    """
    found = _DECIMAL.fullmatch(text)
    if found is None:
        raise ValueError(f"not a decimal amount: {text[:40]!r}")
    sign, whole, fraction = found.group(1), found.group(2), found.group(3) or ""
    kept = (fraction + "0" * DECIMALS)[:DECIMALS]
    micros = int(whole) * MICROS_PER_UNIT + int(kept) + (fraction[DECIMALS : DECIMALS + 1] >= "5")
    return -micros if sign else micros


def format_micros(micros: int, *, decimals: int = DECIMALS) -> str:
    """Exactly `decimals` (0..6) decimals, rounded half up, away from zero: 350_000 with 2 decimals is `0.35`."""
    if not 0 <= decimals <= DECIMALS:
        raise ValueError(f"decimals must be 0..{DECIMALS}, got {decimals}")
    shown = divide_half_up(abs(micros), 10 ** (DECIMALS - decimals))
    whole, fraction = divmod(shown, 10**decimals)
    sign = "-" if micros < 0 and shown else ""
    return f"{sign}{whole}.{fraction:0{decimals}}" if decimals else f"{sign}{whole}"


def cost_micros(seconds: int, rate_micros_per_hour: int) -> int:
    """What `seconds` since the start of a segment cost in all, rounded half up once."""
    if seconds < 0 or rate_micros_per_hour < 0:
        raise ValueError(f"time and rate are never negative: {seconds} s at {rate_micros_per_hour}")
    return divide_half_up(seconds * rate_micros_per_hour, SECONDS_PER_HOUR)


def charge_micros(seconds_charged: int, seconds_now: int, rate_micros_per_hour: int) -> int:
    """What is due when a segment paid up to `seconds_charged` has lasted `seconds_now`.

    Both count from the start of the segment, so however often one charges, the total is `cost_micros(seconds_now)`.
    """
    if seconds_now < seconds_charged:
        raise ValueError(f"a segment does not shrink: {seconds_charged} s were charged, now {seconds_now} s")
    return cost_micros(seconds_now, rate_micros_per_hour) - cost_micros(seconds_charged, rate_micros_per_hour)


def divide_half_up(dividend: int, divisor: int) -> int:
    """Rounded quotient of non-negative integers."""
    return (2 * dividend + divisor) // (2 * divisor)
