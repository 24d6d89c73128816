"""The low-water mark never passes work that is still open, in whatever order work ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from libs.runtime.watermark import Watermark


def test_everything_below_the_oldest_open_message_is_finished():
    mark = Watermark(10)
    for seq in (11, 12, 13):
        mark.begin(seq)
    mark.passed(14)
    mark.finish(12)
    assert mark.low == 10
    mark.finish(11)
    assert mark.low == 12
    mark.finish(13)
    assert mark.low == 14


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_the_mark_is_one_below_the_oldest_open_message(jobs_per_message: list[int], chance: object):
    mark = Watermark(0)
    still_open: list[int] = []
    for seq, jobs in enumerate(jobs_per_message, 1):
        for _ in range(jobs):
            mark.begin(seq)
            still_open.append(seq)
        mark.passed(seq)
    chance.shuffle(still_open)  # pyright: ignore[reportAttributeAccessIssue]
    while still_open:
        assert mark.low == min(still_open) - 1
        mark.finish(still_open.pop())
    assert mark.low == len(jobs_per_message)
