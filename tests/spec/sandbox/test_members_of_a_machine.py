"""Which of a host's processes belong to a machine."""

from __future__ import annotations

from services.sandbox.processes import Seen, members

LEADER = 100


def belonging(*seen: Seen) -> list[int]:
    return members(seen, LEADER, user_id=20_000, machine_id="sbx_1")


def test_session_and_descent_belong_even_across_sessions_of_their_own():
    agent, shell, job = Seen(101, 100, 100, 0), Seen(102, 100, 102, 20_000), Seen(103, 102, 103, 20_000)
    assert belonging(Seen(100, 1, 100, 0), agent, shell, job) == [100, 101, 102, 103]


def test_a_stranger_with_the_same_user_does_not_belong():
    # Another cloud on the same host may use the same numbers.
    assert belonging(Seen(100, 1, 100, 0), Seen(2_000_000_000, 1, 2_000_000_000, 20_000)) == [100]
