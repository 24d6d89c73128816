"""The specification language itself: it accepts what is right and explains what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from msgspec import Struct

from libs.refusal import Refused
from libs.runtime.service import Aggregate
from libs.spec.given import spec
from libs.spec.properties import every_command_twice_is_once
from proto.base import Command, Event

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Lit(Event, tag="lamp.lit", frozen=True):
    by: str


class Dimmed(Event, tag="lamp.dimmed", frozen=True):
    pass


class Foreign(Event, tag="lamp.foreign", frozen=True):
    pass


class LampCommand(Command, frozen=True, kw_only=True):
    service: ClassVar[str] = "lamp"
    aggregate: ClassVar[str] = "lamp"

    @property
    def aggregate_id(self) -> str:
        return "lamp_1"


class Light(LampCommand, tag="light", frozen=True, kw_only=True):
    by: str = "me"


class Dim(LampCommand, tag="dim", frozen=True, kw_only=True):
    pass


class Lamp(Struct, frozen=True):
    is_lit: bool = False


def decide(state: Lamp, command: Light | Dim) -> Sequence[Event]:
    match command:
        case Light():
            return [] if state.is_lit else [Lit(command.by)]
        case Dim():
            if not state.is_lit:
                raise Refused("LAMP_IS_DARK", lamp="lamp_1", since=3)
            return [Dimmed()]


def evolve(state: Lamp, event: Lit | Dimmed) -> Lamp:
    del state
    return Lamp(is_lit=isinstance(event, Lit))


LAMP = Aggregate("lamp", Lamp(), decide, evolve, Lit | Dimmed)
LIGHT, DIM = Light(now=NOW), Dim(now=NOW)


def test_a_story_reads_from_fact_to_fact() -> None:
    (
        spec(LAMP)
        .when(LIGHT)
        .then(Lit("me"))
        .when(LIGHT)
        .then_nothing()
        .holds(lambda lamp: lamp.is_lit)
        .when(DIM, LIGHT)
        .then_kinds(Dimmed, Lit)
        .when(DIM)
        .then(Dimmed())
        .when(DIM)
        .refused("LAMP_IS_DARK", since=3)
    )
    spec(LAMP).given(Lit("you")).when(DIM).then(Dimmed())


def test_a_wrong_field_is_shown_as_a_difference() -> None:
    with pytest.raises(AssertionError) as failure:
        spec(LAMP).when(LIGHT).then(Lit("you"))
    assert '-  "by": "you"' in str(failure.value)
    assert '+  "by": "me"' in str(failure.value)


def test_an_unexpected_refusal_names_the_command_and_what_was_said_before() -> None:
    with pytest.raises(AssertionError, match=r"(?s)LAMP_IS_DARK.*Dim\(.*3 of 3.*lamp\.dimmed"):
        spec(LAMP).when(LIGHT, DIM, DIM).then(Lit("me"), Dimmed())


def test_a_missing_or_other_refusal_is_explained() -> None:
    with pytest.raises(AssertionError, match=r"(?s)expected a refusal.*lamp\.lit"):
        spec(LAMP).when(LIGHT).refused("LAMP_IS_DARK")
    with pytest.raises(AssertionError, match="expected LAMP_IS_BROKEN"):
        spec(LAMP).when(DIM).refused("LAMP_IS_BROKEN")
    with pytest.raises(AssertionError, match="'since': 4"):
        spec(LAMP).when(DIM).refused("LAMP_IS_DARK", since=4)


def test_an_event_of_another_aggregate_is_not_accepted() -> None:
    with pytest.raises(AssertionError, match="could not read"):
        spec(LAMP).given(Foreign())


LAMP_COMMANDS = st.sampled_from([LIGHT, DIM])


def test_a_command_that_is_refused_when_repeated_is_found() -> None:
    with pytest.raises(AssertionError, match="repeat refused"):
        every_command_twice_is_once(LAMP, LAMP_COMMANDS, examples_max=50)


def test_a_command_that_does_its_work_twice_is_found() -> None:
    eager = Aggregate("lamp", Lamp(), lambda _, command: [Lit(command.by)], evolve, Lit | Dimmed)
    with pytest.raises(AssertionError, match="twice is not once"):
        every_command_twice_is_once(eager, st.just(LIGHT), examples_max=5)


def test_a_decider_with_a_hidden_memory_is_found() -> None:
    calls: list[int] = []

    def forgetful(state: Lamp, command: Light) -> list[Event]:
        calls.append(1)
        return [Lit(str(len(calls)))]

    with pytest.raises(AssertionError, match="not pure"):
        every_command_twice_is_once(Aggregate("lamp", Lamp(), forgetful, evolve, Lit | Dimmed), st.just(LIGHT))


def test_a_sound_decider_passes_and_its_invariant_is_asked() -> None:
    def gentle(state: Lamp, command: Light | Dim) -> Sequence[Event]:
        if isinstance(command, Dim) and not state.is_lit:
            return []
        return decide(state, command)

    seen: list[Lamp] = []
    every_command_twice_is_once(
        Aggregate("lamp", Lamp(), gentle, evolve, Lit | Dimmed), LAMP_COMMANDS, invariant=seen.append, examples_max=50
    )
    assert {lamp.is_lit for lamp in seen} == {True, False}
