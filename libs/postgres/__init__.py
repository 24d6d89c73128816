"""A service's rows in PostgreSQL: pool, store, schema versions, rebuild.

Called by composition roots (`__main__`), the CLI (`rebuild`) and tests. Implements `libs.runtime.store.Store`.

Schemas of a service `instance` (no service ever touches another's):
- `instance`: the projection that is read, whatever its version. Its tables come from `schema.sql` plus `deadlines`.
- `instance_v<k>`: a version being built, or one just retired. A switch *renames* schemas in one transaction, so every
  pool of every process reads the new rows with its next statement: PostgreSQL itself invalidates cached name look-ups
  and plans when a schema is renamed. No notification, no reconnect, no moment without tables.
- `instance_live`: what a rebuild does not touch: `live_sql` tables, `cursors`, and `projections`, the list of versions
  with their fingerprint and checkpoint. At most one row of it is `active`.
"""

from libs.postgres.columns import RowRejected
from libs.postgres.pool import Database, open_database
from libs.postgres.rebuild import RebuildProgress, RebuildRunning, Rebuilt, rebuild
from libs.postgres.schema import (
    ActiveProjection,
    Definition,
    active_projection,
    ensure_schema,
    table_hashes,
)
from libs.postgres.store import PostgresStore

__all__ = [
    "ActiveProjection",
    "Database",
    "Definition",
    "PostgresStore",
    "RebuildProgress",
    "RebuildRunning",
    "Rebuilt",
    "RowRejected",
    "active_projection",
    "ensure_schema",
    "open_database",
    "rebuild",
    "table_hashes",
]
