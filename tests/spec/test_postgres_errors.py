"""Which of the database client's errors mean "unwell, try again", and which are bugs."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from libs.postgres.pool import postgres_errors
from libs.refusal import Transient


def test_a_statement_on_a_connection_whose_server_has_just_been_killed_is_transient() -> None:
    """Seen once in three kills of PostgreSQL under load: the service died of it, and its caller got a 500."""
    with pytest.raises(Transient), postgres_errors():
        raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")


def test_a_schema_that_was_switched_under_a_statement_is_transient() -> None:
    with pytest.raises(Transient), postgres_errors():
        raise asyncpg.OutdatedSchemaCacheError("cached lookup failed")


RELEASED_TWICE = "PoolConnectionHolder.release() called on a free connection holder"


def test_a_connection_that_dies_as_its_statement_ends_is_transient() -> None:
    """Seen once in a hundred kills of processes around PostgreSQL: the service died of it."""
    with pytest.raises(Transient), postgres_errors():
        raise asyncpg.InternalClientError(RELEASED_TWICE)


@pytest.mark.parametrize(
    "ending",
    [
        None,  # the statement had just ended: `wait_for` of Python 3.11 returns its result
        ConnectionRefusedError(),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError(RELEASED_TWICE),
    ],
)
async def test_who_is_told_to_stop_as_a_connection_dies_stops(ending: Exception | None) -> None:
    """Seen once in a hundred kills of PostgreSQL: a loop of a service went on, so its lead never ended and never began
    anew, and nothing but a kill helped."""
    stopped = asyncio.Event()

    async def statement() -> None:
        try:
            await stopped.wait()
        except asyncio.CancelledError:  # lost, as in the client
            if ending is not None:
                raise ending from None

    async def loop() -> None:
        with postgres_errors():
            await statement()

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()


async def test_what_is_done_while_stopping_still_says_what_went_wrong() -> None:
    """A last statement of somebody who is stopping already is not stopped again."""
    said: list[str] = []

    async def last_statement() -> None:
        with postgres_errors():
            raise ConnectionRefusedError

    async def loop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await last_statement()
            except Transient:
                said.append("unwell")

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert said == ["unwell"]


def test_two_statements_at_once_on_one_connection_are_a_bug() -> None:
    with pytest.raises(asyncpg.InternalClientError), postgres_errors():
        raise asyncpg.InternalClientError("cannot switch to state 12; another operation (12) is in progress")
