"""When a failed delivery is tried again, and when it is given up. Pure; the dispatcher asks the same question of it.

The pauses are those of the Standard Webhooks specification: ten tries over 75 hours and 35 minutes, each pause spread
by 20 % either way, so that receivers that come back are not met by everybody at once.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from proto.webhook_dispatch.words import DeliveryStatus

_M, _H = 60, 3_600
PAUSES_S = (5, 5 * _M, 30 * _M, 2 * _H, 5 * _H, 10 * _H, 14 * _H, 20 * _H, 24 * _H)
TRIES_MAX = len(PAUSES_S) + 1
JITTER_PPM = 200_000
MILLION = 1_000_000
RETRY_AFTER_MAX_S = 24 * _H  # a receiver may slow us down, not hold its deliveries for ever


class Verdict(NamedTuple):
    """What a failed try means."""

    status: DeliveryStatus
    next_at: datetime | None


def verdict(tries: int, ended_at: datetime, *, jitter_ppm: int, retry_after_s: int, pace_ppm: int) -> Verdict:
    """After the try with this number (from 1) failed. `retry_after_s` is what the receiver asked for, 0: nothing."""
    if tries >= TRIES_MAX:
        return Verdict("exhausted", None)
    spread_ppm = MILLION - JITTER_PPM + 2 * JITTER_PPM * jitter_ppm // MILLION
    pause_us = PAUSES_S[tries - 1] * spread_ppm * pace_ppm // MILLION
    asked_us = min(retry_after_s, RETRY_AFTER_MAX_S) * MILLION
    return Verdict("retrying", ended_at + timedelta(microseconds=max(pause_us, asked_us)))
