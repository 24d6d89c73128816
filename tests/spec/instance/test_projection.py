"""Which rows follow from the facts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, get_args

import msgspec
import pytest

from libs.runtime.service import DEADLINES_TABLE, Row
from proto.base import Command, Event, Heard
from proto.instance.commands import AnyCommand, GiveUpMachine, StopIfIdle
from services.contracts import language
from services.contracts.golden import golden_path
from services.instance.projection import project
from services.instance.rooms import SERVICE
from tests.spec.instance.controls import (
    CREATE,
    DELETE,
    DESTROYED,
    GONE,
    INSTANCE_ID,
    MACHINE,
    NOW,
    PREEMPTED,
    TO_READY,
    TO_STOPPED,
    after,
    minutes,
)

Key = tuple[str, tuple[Any, ...]]


def rows_of(event: Event, number: int) -> list[Row]:
    heard = Heard(event, f"c{number}.0", INSTANCE_ID, NOW + timedelta(seconds=number), "EVT_INSTANCE", number)
    return list(project(heard))


def projected(*commands: Command) -> dict[Key, dict[str, Any]]:
    """All rows after the facts to which these wishes lead, merged as the store merges them."""
    table: dict[Key, dict[str, Any]] = {}
    for number, event in enumerate(after(*commands), 1):
        for row in rows_of(event, number):
            key = (row.table, tuple(row.key.values()))
            if row.columns is None:
                table.pop(key, None)
            else:
                table[key] = {**table.get(key, {}), **row.columns}
    return table


def instance(*commands: Command) -> dict[str, Any]:
    return projected(*commands)[("instances", (INSTANCE_ID,))]


def machine(*commands: Command) -> dict[str, Any]:
    return projected(*commands)[("machines", (MACHINE,))]


def deadlines(*commands: Command) -> dict[tuple[Any, ...], Any]:
    return {key: row["due_at"] for (name, key), row in projected(*commands).items() if name == DEADLINES_TABLE}


@pytest.mark.parametrize(
    ("past", "instance_status", "machine_status"),
    [
        ((CREATE,), "creating", "requested"),
        (TO_READY[:2], "starting", "rented"),
        (TO_READY[:3], "health_checking", "booted"),
        (TO_READY, "ready", "healthy"),
        (TO_STOPPED, "stopped", "stopped"),
        ((*TO_READY, PREEMPTED), "interrupted", "lost"),
        ((*TO_READY, DELETE), "deleting", "destroying"),
        ((*TO_READY, DELETE, DESTROYED), "deleted", "destroyed"),
        ((CREATE, DELETE), "deleted", "cancelled"),
    ],
)
def test_rows_show_the_status_that_the_decider_holds(
    past: tuple[Command, ...], instance_status: str, machine_status: str
) -> None:
    assert instance(*past)["status"] == instance_status
    assert machine(*past)["status"] == machine_status


def test_a_contract_is_open_until_the_cloud_has_nothing_left_of_it() -> None:
    assert machine(*TO_READY)["gone"] is False
    assert machine(*TO_READY, PREEMPTED)["gone"] is False
    assert machine(*TO_READY, GONE)["gone"] is True
    assert machine(*TO_READY, DELETE, DESTROYED)["gone"] is True


def test_a_machine_coming_up_has_a_deadline_and_a_ready_instance_another() -> None:
    give_up = f"give_up:{MACHINE}"
    assert deadlines(CREATE) == {(INSTANCE_ID, give_up): minutes(10)}
    assert deadlines(*TO_READY) == {(INSTANCE_ID, "auto_stop"): minutes(20)}
    assert deadlines(*TO_STOPPED) == deadlines(*TO_READY, GONE) == deadlines(CREATE, DELETE) == {}


def test_the_command_of_a_deadline_lacks_only_now() -> None:
    rows = [row for number, event in enumerate(after(*TO_READY)) for row in rows_of(event, number)]
    wishes = [row.columns["command"] for row in rows if row.table == DEADLINES_TABLE and row.columns]
    commands = [
        msgspec.convert({**msgspec.json.decode(wish), "now": NOW}, type=AnyCommand, strict=False) for wish in wishes
    ]
    assert commands == [
        GiveUpMachine(now=NOW, instance_id=INSTANCE_ID, machine_id=MACHINE),
        StopIfIdle(now=NOW, instance_id=INSTANCE_ID),
    ]


def test_rows_are_a_function_of_the_event_alone() -> None:
    for number, event in enumerate(after(*TO_STOPPED)):
        assert rows_of(event, number) == rows_of(event, number)


def test_what_an_instance_shows_comes_from_its_own_facts_alone() -> None:
    """Its answer is kept until one of them is projected (`queries.instances`)."""
    golden = {spoken.event: golden_path(spoken) for spoken in language.events()}
    for aggregate in SERVICE.aggregates:
        shown: set[str] = set()
        for kind in get_args(aggregate.events) or (aggregate.events,):
            event = msgspec.json.decode(golden[kind].read_bytes(), type=kind)
            shown |= {row.table for row in rows_of(event, 1)} & {"instances", "machines"}
        assert shown == ({"instances", "machines"} if aggregate.kind == "instance" else set()), aggregate.kind
