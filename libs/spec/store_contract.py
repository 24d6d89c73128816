"""What every Store must do: `STORE_CONTRACT` is a list of checks, each run by every adapter's tests.

Called by tests/spec (memory) and tests/integration (PostgreSQL). Each check gets a fresh, empty store whose
tables are those of `CONTRACT_SCHEMA_SQL`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from libs.runtime.service import Row, deadline, no_deadline
from libs.runtime.store import Overtaken, Store

CONTRACT_SCHEMA_SQL = """
create table things (
    thing_id text primary key,
    name text not null,
    size bigint,
    ready boolean,
    facts jsonb,
    made_at timestamptz
);
create index things_by_name on things (name);
create table parts (thing_id text, part integer, label text, primary key (thing_id, part));
"""
CONTRACT_TABLES: dict[str, tuple[str, ...]] = {
    "things": ("thing_id", "name", "size", "ready", "facts", "made_at"),
    "parts": ("thing_id", "part", "label"),
}
CONTRACT_KEYS: dict[str, tuple[str, ...]] = {"things": ("thing_id",), "parts": ("thing_id", "part")}

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WAIT_S_MAX = 5.0  # PostgreSQL's lease is tried four times a second
SHORT_WAIT_S = 0.6  # long enough for a wrong lease to be handed out


@dataclass(frozen=True)
class Subject:
    """A store under test and a way to see its rows: ordered by key, as dicts of every column, jsonb decoded."""

    store: Store
    rows: Callable[[str], Awaitable[Sequence[dict[str, Any]]]]
    bad_row: type[Exception]  # what the adapter raises for a row that the schema cannot hold


class Facts(Struct):
    colour: str
    weights: list[int]


def thing(thing_id: str, **columns: Any) -> Row:
    return Row("things", {"thing_id": thing_id}, columns)


async def check_rows_and_cursor_move_together(subject: Subject) -> None:
    facts = Facts(colour="blå", weights=[1, 2])
    row = thing("a", name="first", size=2**40, ready=True, facts=facts, made_at=NOON)
    await subject.store.project([row], after_seq=0, seq=7)
    assert await subject.store.cursor("project") == (7, 0)
    [stored] = await subject.rows("things")
    assert stored == {
        "thing_id": "a",
        "name": "first",
        "size": 2**40,
        "ready": True,
        "facts": {"colour": "blå", "weights": [1, 2]},
        "made_at": NOON,
    }


async def check_a_batch_without_rows_moves_the_cursor(subject: Subject) -> None:
    await subject.store.project([], after_seq=0, seq=3)
    assert await subject.store.cursor("project") == (3, 0)


async def check_a_wrong_cursor_is_overtaken_and_changes_nothing(subject: Subject) -> None:
    await subject.store.project([thing("a", name="one")], after_seq=0, seq=5)
    try:
        await subject.store.project([thing("a", name="two")], after_seq=4, seq=6)
    except Overtaken:
        pass
    else:
        raise AssertionError("project did not say Overtaken")
    assert [row["name"] for row in await subject.rows("things")] == ["one"]
    assert await subject.store.cursor("project") == (5, 0)


async def check_columns_merge_and_unmentioned_ones_stay(subject: Subject) -> None:
    await subject.store.project(
        [thing("a", name="a", size=1), thing("b", name="b", size=2), thing("a", size=3)], after_seq=0, seq=1
    )
    await subject.store.project(
        [thing("a", ready=True), thing("b", size=None), thing("c", name="c"), thing("b", made_at=NOON)],
        after_seq=1,
        seq=2,
    )
    seen = {row["thing_id"]: (row["name"], row["size"], row["ready"]) for row in await subject.rows("things")}
    assert seen == {"a": ("a", 3, True), "b": ("b", None, None), "c": ("c", None, None)}


async def check_a_deleted_row_starts_again_from_nothing(subject: Subject) -> None:
    gone = Row("things", {"thing_id": "a"}, None)
    await subject.store.project([thing("a", name="old", size=9), thing("b", name="b")], after_seq=0, seq=1)
    await subject.store.project([gone, thing("a", name="new")], after_seq=1, seq=2)
    assert [(row["name"], row["size"]) for row in await subject.rows("things")] == [("new", None), ("b", None)]
    await subject.store.project([thing("a", size=1), gone], after_seq=2, seq=3)
    assert [row["thing_id"] for row in await subject.rows("things")] == ["b"]
    await subject.store.project([gone], after_seq=3, seq=4)


async def check_keys_of_several_columns(subject: Subject) -> None:
    rows = [Row("parts", {"part": part, "thing_id": "a"}, {"label": f"p{part}"}) for part in range(3)]
    await subject.store.project(rows, after_seq=0, seq=1)
    await subject.store.project([Row("parts", {"thing_id": "a", "part": 1}, None)], after_seq=1, seq=2)
    assert [(row["part"], row["label"]) for row in await subject.rows("parts")] == [(0, "p0"), (2, "p2")]


async def check_a_row_without_columns_exists(subject: Subject) -> None:
    await subject.store.project([Row("parts", {"thing_id": "a", "part": 1}, {})], after_seq=0, seq=1)
    await subject.store.project([Row("parts", {"thing_id": "a", "part": 1}, {})], after_seq=1, seq=2)
    assert [row["label"] for row in await subject.rows("parts")] == [None]


async def check_many_rows_at_once(subject: Subject) -> None:
    rows = [thing(f"t{number:05}", name=f"n{number}", size=number) for number in range(2_500)]
    await subject.store.project(rows, after_seq=0, seq=1)
    await subject.store.project(
        [thing(f"t{number:05}", **({"size": -1} if number % 2 else {"ready": True})) for number in range(2_500)],
        after_seq=1,
        seq=2,
    )
    stored = await subject.rows("things")
    assert [row["size"] for row in stored] == [-1 if number % 2 else number for number in range(2_500)]
    gone = [Row("things", {"thing_id": row["thing_id"]}, None) for row in stored]
    await subject.store.project(gone, after_seq=2, seq=3)
    assert not await subject.rows("things")


async def check_a_row_the_schema_does_not_know_is_an_error(subject: Subject) -> None:
    wrong = [
        Row("nowhere", {"id": "a"}, {"name": "a"}),
        thing("a", name="a", colour="blue"),
        Row("parts", {"thing_id": "a"}, {"label": "no part"}),
    ]
    for row in wrong:
        try:
            await subject.store.project([thing("good", name="good"), row], after_seq=0, seq=1)
        except subject.bad_row:
            continue
        raise AssertionError(f"accepted {row}")
    assert await subject.store.cursor("project") == (0, 0)
    assert not await subject.rows("things")


async def check_cursors_only_move_forward(subject: Subject) -> None:
    store = subject.store
    assert await store.cursor("relay") == (0, 0)
    await store.save_cursor("relay", 10, 4)
    await store.save_cursor("relay", 9, 99)
    assert await store.cursor("relay") == (10, 4)
    await store.save_cursor("relay", 10, 5)
    assert await store.cursor("relay") == (10, 5)
    await store.save_cursor("effects", 1)
    assert (await store.cursor("effects"), await store.cursor("relay")) == ((1, 0), (10, 5))


async def check_due_deadlines_come_oldest_first(subject: Subject) -> None:
    store = subject.store
    assert await store.next_due() is None
    later = [deadline(f"inst_{number}", "boot", NOON + timedelta(seconds=number), "{}") for number in (3, 1, 2, 9)]
    await store.project(later, after_seq=0, seq=1)
    assert await store.next_due() == NOON + timedelta(seconds=1)
    due = await store.due(NOON + timedelta(seconds=3), limit=2)
    assert [found.aggregate_id for found in due] == ["inst_1", "inst_2"]
    moved = deadline("inst_1", "boot", NOON + timedelta(seconds=5), '{"again":1}')
    await store.project([moved, no_deadline("inst_2", "boot")], after_seq=1, seq=2)
    due = await store.due(NOON + timedelta(seconds=6), limit=10)
    assert [(found.aggregate_id, found.command) for found in due] == [("inst_3", "{}"), ("inst_1", '{"again":1}')]


async def check_a_lease_has_one_holder(subject: Subject) -> None:
    holders = 0
    handed_over = asyncio.Event()

    async def second() -> None:
        nonlocal holders
        async with subject.store.lease("hands"):
            holders += 1
            assert holders == 1
            handed_over.set()

    async with asyncio.TaskGroup() as tasks:
        async with subject.store.lease("hands"), subject.store.lease("another"):
            holders += 1
            tasks.create_task(second())
            try:
                await asyncio.wait_for(handed_over.wait(), SHORT_WAIT_S)
            except TimeoutError:
                holders -= 1
            else:
                raise AssertionError("two holders of one lease")
        await asyncio.wait_for(handed_over.wait(), WAIT_S_MAX)


STORE_CONTRACT: Sequence[Callable[[Subject], Awaitable[None]]] = (
    check_rows_and_cursor_move_together,
    check_a_batch_without_rows_moves_the_cursor,
    check_a_wrong_cursor_is_overtaken_and_changes_nothing,
    check_columns_merge_and_unmentioned_ones_stay,
    check_a_deleted_row_starts_again_from_nothing,
    check_keys_of_several_columns,
    check_a_row_without_columns_exists,
    check_many_rows_at_once,
    check_a_row_the_schema_does_not_know_is_an_error,
    check_cursors_only_move_forward,
    check_due_deadlines_come_oldest_first,
    check_a_lease_has_one_holder,
)
