"""Properties that every decider has, whatever its rules: a command twice is once, and folding never fails.

Called by the tests of every decider with a hypothesis strategy for its commands. The strategy need not know the state:
commands that make no sense yet are refused, and refusals are part of the property.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from libs.refusal import Refused
from libs.runtime.service import Aggregate
from libs.spec.given import fold, pretty
from proto.base import Command, Event

# Enough sequences to reach states of depth 5 or so by chance; a decider test then takes a few seconds.
EXAMPLES_MAX = 200
STEPS_MAX = 20
START = datetime(2026, 1, 1, tzinfo=UTC)
# Same instant, within a retry, within a deadline, after every deadline.
GAPS = (timedelta(0), timedelta(seconds=1), timedelta(minutes=3), timedelta(hours=2), timedelta(days=2))


def every_command_twice_is_once(
    aggregate: Aggregate,
    commands: SearchStrategy[Command],
    *,
    invariant: Callable[[Any], None] | None = None,
    examples_max: int = EXAMPLES_MAX,
    steps_max: int = STEPS_MAX,
) -> None:
    """Run random command sequences with increasing `now` (it replaces the command's own) and check after each step:

    - decide is pure: the same state and command give the same events or the same refusal;
    - having decided, the same command decides nothing more (or is refused exactly as before);
    - events survive their wire form and fold without error;
    - `invariant(state)`, when given, does not raise.
    """
    steps = st.lists(st.tuples(st.sampled_from(GAPS), commands), min_size=1, max_size=steps_max)

    @settings(max_examples=examples_max, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(steps)
    def check(steps: list[tuple[timedelta, Command]]) -> None:
        state, now = aggregate.initial, START
        for gap, command in steps:
            now += gap
            state = twice_is_once(aggregate, state, msgspec.structs.replace(command, now=now))
            if invariant is not None:
                invariant(state)

    check()


def twice_is_once(aggregate: Aggregate, state: Any, command: Command) -> Any:
    """One step of the property: the state after `command`, having checked that a repeat adds nothing."""
    first = _decided(aggregate, state, command)
    note(f"{command!r} -> {first!r}")
    again = _decided(aggregate, state, command)
    assert _same(first, again), f"decide is not pure for {command!r}:\n{first!r}\n{again!r}"
    if isinstance(first, Refused):
        return state
    after = fold(aggregate, state, first)
    repeat = _decided(aggregate, after, command)
    said = f"first said:\n{pretty(first)}"
    assert not isinstance(repeat, Refused), f"{command!r} was accepted and its repeat refused: {repeat}\n{said}"
    assert not repeat, f"{command!r} twice is not once:\n{said}\nthen:\n{pretty(repeat)}"
    return after


def _decided(aggregate: Aggregate, state: Any, command: Command) -> Sequence[Event] | Refused:
    try:
        return list(aggregate.decide(state, command))
    except Refused as refused:
        return refused


def _same(left: Sequence[Event] | Refused, right: Sequence[Event] | Refused) -> bool:
    if isinstance(left, Refused) or isinstance(right, Refused):
        return isinstance(left, Refused) and isinstance(right, Refused) and _said(left) == _said(right)
    return left == right


def _said(refused: Refused) -> tuple[str, dict[str, Any]]:
    return refused.code, refused.facts
