-- Rows of the warm pool service, folded from its own events; dropped and replayed, never migrated by hand.
-- Non-key columns are nullable because rows are merged column by column.

CREATE TABLE pools (
    instance_id text PRIMARY KEY,
    account_id text,
    status text,
    mode text,
    host_id text,
    volume_id text,
    primary_machine_id text,
    standby_machine_id text,
    standby_state text,         -- none, stopped, starting, running
    last_failover_at timestamptz,
    error text,
    retry_at timestamptz,
    changed_at timestamptz
);
CREATE INDEX pools_of_account ON pools (account_id, instance_id);

-- One row per standby that has become a primary.
CREATE TABLE swaps (
    event_id text PRIMARY KEY,
    instance_id text
);
CREATE INDEX swaps_of_instance ON swaps (instance_id);

CREATE TABLE deadlines (
    aggregate_id text,
    name text,
    due_at timestamptz,
    command text,
    PRIMARY KEY (aggregate_id, name)
);
CREATE INDEX deadlines_by_time ON deadlines (due_at);
