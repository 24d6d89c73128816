"""Given facts, when wishes, then facts: how the rules of an aggregate are written down.

Called by the tests of every decider:

    spec(INSTANCE).given(created).when(stop).then(InstanceStopping(...))
    spec(INSTANCE).given(created).when(stop).refused("INSTANCE_NOT_RUNNING", status="creating")

Every event, given or decided, must survive its wire form and belong to the aggregate's union, so a decider cannot say
what the log could not tell again. After a `then` the story goes on: `.then(...).when(...).then(...)`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from libs.refusal import Refused
from libs.runtime.service import Aggregate
from proto.base import Command, Event


def spec(aggregate: Aggregate) -> Given:
    """Start a story of one aggregate."""
    return Given(aggregate, aggregate.initial)


class Given:
    """The past so far. `state` is its fold."""

    def __init__(self, aggregate: Aggregate, state: Any) -> None:
        self._aggregate = aggregate
        self.state = state

    def given(self, *events: Event) -> Given:
        """Add facts to the past."""
        return Given(self._aggregate, fold(self._aggregate, self.state, events))

    def when(self, *commands: Command) -> Outcome:
        """Apply wishes in order, each to what the ones before it left behind; stops at the first refusal."""
        state = self.state
        said: list[Event] = []
        for number, command in enumerate(commands, 1):
            try:
                events = list(self._aggregate.decide(state, command))
            except Refused as refused:
                return Outcome(self._aggregate, state, said, refused, f"{command!r} ({number} of {len(commands)})")
            state = fold(self._aggregate, state, events)
            said += events
        return Outcome(self._aggregate, state, said, None, "")

    def holds(self, check: Callable[[Any], bool]) -> Given:
        """Assert something about the folded state."""
        assert check(self.state), f"the state does not hold:\n{self.state!r}"
        return self


class Outcome:
    """What came of the wishes: `events` said, or `refusal`."""

    def __init__(
        self, aggregate: Aggregate, state: Any, events: list[Event], refusal: Refused | None, refused_at: str
    ) -> None:
        self._aggregate = aggregate
        self._refused_at = refused_at
        self.state = state
        self.events = events
        self.refusal = refusal

    def then(self, *events: Event) -> Given:
        """Exactly these facts were said, in this order, and nothing was refused."""
        self._must_not_be_refused()
        assert self.events == list(events), "the facts differ:\n" + difference(events, self.events)
        return Given(self._aggregate, self.state)

    def then_kinds(self, *kinds: type[Event]) -> Given:
        """Facts of exactly these types, in this order: for stories that are not about the fields."""
        self._must_not_be_refused()
        found = [type(event).__name__ for event in self.events]
        expected = [kind.__name__ for kind in kinds]
        assert found == expected, f"the facts differ:\n  expected {expected}\n  said     {found}"
        return Given(self._aggregate, self.state)

    def then_nothing(self) -> Given:
        """Accepted, and nothing changed."""
        return self.then()

    def refused(self, code: str, **facts: Any) -> Given:
        """The last wish was refused with this code; `facts` is a subset of what the refusal says."""
        if self.refusal is None:
            raise AssertionError(f"expected a refusal with {code}, but these facts were said:\n{pretty(self.events)}")
        assert self.refusal.code == code, f"refused with {self.refusal}, expected {code}, at {self._refused_at}"
        missing = {name: value for name, value in facts.items() if self.refusal.facts.get(name) != value}
        assert not missing, f"{code} says {self.refusal.facts}, expected {missing}"
        return Given(self._aggregate, self.state)

    def _must_not_be_refused(self) -> None:
        if self.refusal is not None:
            raise AssertionError(
                f"refused with {self.refusal} at {self._refused_at}\nsaid before:\n{pretty(self.events)}"
            )


def fold(aggregate: Aggregate, state: Any, events: Sequence[Event]) -> Any:
    """Evolve over the wire form of `events`, as a later reader of the log would. Asserts that the form is lossless."""
    for event in events:
        encoded = msgspec.json.encode(event)
        try:
            read_back = msgspec.json.decode(encoded, type=aggregate.events)
        except msgspec.ValidationError as error:
            raise AssertionError(f"the log of {aggregate.kind} could not read {event!r} again: {error}") from error
        assert read_back == event, f"{type(event).__name__} changes on the wire:\n{difference([event], [read_back])}"
        state = aggregate.evolve(state, read_back)
    return state


def difference(expected: Sequence[Event], said: Sequence[Event]) -> str:
    """A line-by-line difference of two lists of events."""
    lines = difflib.unified_diff(
        pretty(expected).splitlines(), pretty(said).splitlines(), "expected", "said", lineterm="", n=20
    )
    return "\n".join(lines)


def pretty(events: Sequence[Event]) -> str:
    """Events as indented JSON, type first."""
    if not events:
        return "(nothing)"
    return "\n".join(msgspec.json.format(msgspec.json.encode(event), indent=2).decode() for event in events)
