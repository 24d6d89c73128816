"""A service's schemas and projection versions: create them, say which one is active, prove that two are equal.

Called by composition roots at start (`ensure_schema`), by `libs.postgres.rebuild` and by the CLI. Owns the tables
`cursors` and `projections` of `<service>_live` and the `deadlines` table of every version.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from libs.postgres.pool import LONG_STATEMENT_TIMEOUT_S, Database, postgres_errors
from libs.postgres.writing import quoted
from libs.runtime.service import DEADLINES_TABLE

if TYPE_CHECKING:
    import asyncpg

    from libs.postgres.pool import Connection

LIVE_TABLES_SQL = """
create table if not exists cursors (name text primary key, seq bigint not null, companion bigint not null);
create table if not exists projections (
    version bigint primary key,
    fingerprint text not null,
    status text not null check (status in ('active', 'building', 'retired')),
    seq bigint not null default 0,
    created_at timestamptz not null default now()
);
create unique index if not exists projections_one_active on projections (status) where status = 'active';
"""

DEADLINES_SQL = f"""
create table {DEADLINES_TABLE} (
    aggregate_id text, name text, due_at timestamptz, command text, primary key (aggregate_id, name)
);
create index {DEADLINES_TABLE}_by_time on {DEADLINES_TABLE} (due_at);
"""

# $1: schema name. Generated columns carry their expression as a default, but nobody writes them.
DEFAULTS_SQL = """
select c.relname, a.attname
from pg_catalog.pg_attribute a
join pg_catalog.pg_class c on c.oid = a.attrelid and c.relkind = 'r'
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and a.attnum > 0 and not a.attisdropped
  and ((a.atthasdef and a.attgenerated = '') or a.attidentity <> '')
order by c.relname, a.attnum
"""


@dataclass(frozen=True)
class Definition:
    """What a service's tables should be. `fingerprint` changes when `schema.sql` or the projection's source does."""

    service: str
    schema_sql: str
    fingerprint: str
    live_sql: str = ""  # idempotent (`create table if not exists`): run at every start


@dataclass(frozen=True)
class ActiveProjection:
    """The version that is read. When its fingerprint is not the definition's, `rebuild` makes the next one."""

    version: int
    fingerprint: str
    seq: int


async def ensure_schema(database: Database, definition: Definition) -> ActiveProjection:
    """Create what is missing; version 1 at first. Idempotent; replicas that start together wait for each other."""
    service = definition.service
    async with database.transaction() as connection:
        await connection.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", f"dumont.schema.{service}")
        await connection.execute(f"create schema if not exists {service}_live")
        await connection.execute(f"set local search_path = {service}_live, public")
        await connection.execute(LIVE_TABLES_SQL + definition.live_sql)
        active = await _active(connection, service)
        if active is None:
            await create_tables(connection, definition, service)
            await connection.execute(
                f"insert into {service}_live.projections (version, fingerprint, status) "  # noqa: S608
                "values (1, $1, 'active')",
                definition.fingerprint,
            )
            active = ActiveProjection(1, definition.fingerprint, 0)
    return active


async def active_projection(database: Database) -> ActiveProjection | None:
    """The version that is read now; None before the first `ensure_schema`."""
    async with database.transaction() as connection:
        return await _active(connection, database.service)


async def _active(connection: Connection, service: str) -> ActiveProjection | None:
    row = await connection.fetchrow(
        f"select version, fingerprint, seq from {service}_live.projections where status = 'active'"  # noqa: S608
    )
    return ActiveProjection(row["version"], row["fingerprint"], row["seq"]) if row else None


async def create_tables(connection: Connection, definition: Definition, schema: str) -> None:
    """Run `schema.sql` in a new schema, inside the caller's transaction; add `deadlines` where it has none."""
    await connection.execute(f"create schema {schema}")
    await connection.execute(f"set local search_path = {schema}, {definition.service}_live, public")
    await connection.execute(definition.schema_sql)
    defaults = await connection.fetch(DEFAULTS_SQL, schema)
    if defaults:
        named = ", ".join(f"{table}.{column}" for table, column in defaults)
        raise ValueError(
            f"{definition.service}/schema.sql: a column that no row mentions is NULL, so no DEFAULT: {named}"
        )
    if await connection.fetchval("select to_regclass($1)", f"{schema}.{DEADLINES_TABLE}") is None:
        await connection.execute(DEADLINES_SQL)


async def table_hashes(database: Database, schema: str) -> dict[str, str]:
    """SHA-256 over all rows of each table of a schema, ordered by primary key: equal rows, equal hashes."""
    connection = await database.connect(statement_timeout_s=LONG_STATEMENT_TIMEOUT_S)
    try:
        with postgres_errors():
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                names = await connection.fetch(
                    "select tablename from pg_catalog.pg_tables where schemaname = $1 order by tablename", schema
                )
                return {name: await _table_hash(connection, f"{schema}.{quoted(name)}") for (name,) in names}
    finally:
        connection.terminate()


async def _table_hash(connection: asyncpg.Connection[asyncpg.Record], table: str) -> str:
    digest = hashlib.sha256()

    async def take(data: bytes) -> None:
        digest.update(data)

    # The text of the whole row orders it: needs no key and does not depend on the database's collation.
    await connection.copy_from_query(f'select * from {table} t order by t::text collate "C"', output=take)  # noqa: S608
    return digest.hexdigest()
