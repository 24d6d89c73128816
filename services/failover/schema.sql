-- Rows of the failover service, folded from its own events; dropped and replayed, never migrated by hand.
-- Non-key columns are nullable because rows are merged column by column.

CREATE TABLE failovers (
    failover_id text PRIMARY KEY,
    instance_id text,
    account_id text,
    status text,                -- in_progress, succeeded, failed
    phase text,
    strategy text,
    reason text,
    test boolean,
    counts boolean,             -- towards the limits: it was allowed to climb
    strategy_attempted text,
    strategy_succeeded text,
    original_machine_id text,
    machine_id text,
    started_at timestamptz,
    ended_at timestamptz,
    total_ms bigint,
    data_loss_window_s bigint,
    error text,
    attempts jsonb,
    phases jsonb
);
CREATE INDEX failovers_of_account ON failovers (account_id, started_at DESC, failover_id);
CREATE INDEX failovers_of_instance ON failovers (instance_id, started_at DESC);

CREATE TABLE guards (
    instance_id text PRIMARY KEY,
    account_id text,
    settings jsonb,
    pool jsonb,
    has_snapshot boolean,
    cpu_machine_id text,
    volume_id text,
    closed boolean
);
CREATE INDEX guards_of_account ON guards (account_id, instance_id);

CREATE TABLE settings (
    account_id text PRIMARY KEY,
    settings jsonb
);

CREATE TABLE deadlines (
    aggregate_id text,
    name text,
    due_at timestamptz,
    command text,
    PRIMARY KEY (aggregate_id, name)
);
CREATE INDEX deadlines_by_time ON deadlines (due_at);
