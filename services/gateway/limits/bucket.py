"""One bucket: a smooth limit per period and, for plans, an exact count per UTC day. Pure; `limiter` owns many of them.

The smooth part is the generic cell rate algorithm: one instant (`full_at_us`) says when the bucket will be full again,
each request moves it on by one interval, and a request is let through while the bucket would be full again within one
period. So `limit` requests pass at once, after that one per interval, and nobody waits for a window to turn.
Time is whole microseconds: no rounding accumulates over a simulated year.
"""

from __future__ import annotations

from msgspec import Struct

MICROS = 1_000_000
DAY_US = 86_400 * MICROS


class Quota(Struct, frozen=True, gc=False):
    """What a bucket allows. `per_day` 0 is unlimited; `window` is the word for the period in an error."""

    limit: int
    period_us: int
    per_day: int = 0
    window: str = "minute"

    @property
    def interval_us(self) -> int:
        return self.period_us // self.limit


class Standing(Struct, frozen=True, gc=False):
    """Where somebody stands after asking: the tighter of the windows. `retry_after_us` is 0 unless refused."""

    limit: int
    remaining: int
    reset_at_us: int
    window: str
    retry_after_us: int = 0

    @property
    def is_refused(self) -> bool:
        return self.retry_after_us > 0


class Bucket:
    """Mutable, two numbers and a day."""

    __slots__ = ("day", "full_at_us", "used")

    def __init__(self) -> None:
        self.full_at_us = 0
        self.day = 0
        self.used = 0

    def room(self, quota: Quota, now_us: int) -> int:
        """How many requests could pass now."""
        left = self._period_left(quota, now_us)
        return min(left, self._day_left(quota, now_us)) if quota.per_day else left

    def take(self, quota: Quota, count: int, now_us: int) -> None:
        """Let `count` requests pass; the caller has made sure that there is room."""
        self.full_at_us = max(self.full_at_us, now_us) + count * quota.interval_us
        day = now_us // DAY_US
        if day != self.day:
            self.day, self.used = day, 0
        self.used += count

    def change(self, old: Quota, new: Quota, now_us: int) -> None:
        """Another plan: what was used stays used, counted at the new pace."""
        used = max(self.full_at_us - now_us, 0) // old.interval_us
        self.full_at_us = now_us + used * new.interval_us

    def standing(self, quota: Quota, now_us: int) -> Standing:
        """The tighter window; with no room in it, how long until there is."""
        left = self._period_left(quota, now_us)
        if quota.per_day:
            day_left = self._day_left(quota, now_us)
            if day_left < left or day_left == 0:
                reset_us = (now_us // DAY_US + 1) * DAY_US
                return Standing(quota.per_day, day_left, reset_us, "day", 0 if day_left else reset_us - now_us)
        wait_us = 0
        if left == 0:
            wait_us = self.full_at_us + quota.interval_us - quota.interval_us * quota.limit - now_us
        return Standing(quota.limit, left, max(self.full_at_us, now_us), quota.window, wait_us)

    def _period_left(self, quota: Quota, now_us: int) -> int:
        interval_us = quota.interval_us
        behind_us = self.full_at_us - now_us
        if behind_us <= 0:
            return quota.limit
        capacity_us = interval_us * quota.limit
        if behind_us > capacity_us:  # the clock was set back, or the quota lowered
            self.full_at_us, behind_us = now_us + capacity_us, capacity_us
        return (capacity_us - behind_us) // interval_us

    def _day_left(self, quota: Quota, now_us: int) -> int:
        used = self.used if self.day == now_us // DAY_US else 0
        return max(quota.per_day - used, 0)
