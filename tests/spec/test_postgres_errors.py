"""Which of the database client's errors mean "unwell, try again", and which are bugs."""

from __future__ import annotations

import asyncpg
import pytest

from libs.postgres.pool import postgres_errors
from libs.refusal import Transient


def test_a_statement_on_a_connection_whose_server_has_just_been_killed_is_transient() -> None:
    """Seen once in three kills of PostgreSQL under load: the service died of it, and its caller got a 500."""
    with pytest.raises(Transient), postgres_errors():
        raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")


def test_two_statements_at_once_on_one_connection_are_a_bug() -> None:
    with pytest.raises(asyncpg.InternalClientError), postgres_errors():
        raise asyncpg.InternalClientError("cannot switch to state 12; another operation (12) is in progress")
