-- Rows of the instance service, folded from its own events; dropped and replayed, never migrated by hand.
-- Non-key columns are nullable because rows are merged column by column. Prices are micro-dollars per hour.

CREATE TABLE instances (
    instance_id text PRIMARY KEY,
    account_id text,
    name text,
    status text,
    gpu text,
    spec jsonb,
    region text,
    webhook_url text,
    auto_stop_minutes bigint,
    status_reason text,
    failure_code text,
    volume jsonb,               -- the workspace, when it is on a volume of a host or a region
    cpu jsonb,                  -- the wish for a CPU standby; null: none
    machine_id text,            -- the primary machine of the newest generation
    generation bigint,
    created_at timestamptz,
    ready_at timestamptz,
    started_at timestamptz,
    stopped_at timestamptz,
    deleted_at timestamptz,
    last_used_at timestamptz,
    keep_alive_until timestamptz,
    hibernate_at timestamptz,   -- announced, unless it is used before
    hibernation_wished boolean  -- under way because the customer asked for it
);
CREATE INDEX instances_of_account ON instances (account_id, created_at DESC, instance_id);
CREATE INDEX instances_of_account_by_name ON instances (account_id, name);
CREATE INDEX instances_on_volumes ON instances (instance_id) WHERE volume IS NOT NULL;

CREATE TABLE machines (
    machine_id text PRIMARY KEY,
    instance_id text,
    account_id text,
    role text,
    status text,
    generation bigint,
    provider text,
    provider_machine_id text,
    host_id text,
    region text,
    price_usd_micros_per_hour bigint,
    endpoints jsonb,
    offer jsonb,
    gone boolean,
    volume_id text,             -- a volume of its region, made for it
    restore text,               -- the snapshot it is to be filled from; '': nothing
    restored_at timestamptz,    -- its files are those of then
    silent_since timestamptz,   -- its agent was last heard of then, and called silent
    requested_at timestamptz,
    rented_at timestamptz,
    changed_at timestamptz
);
CREATE INDEX machines_of_instance ON machines (instance_id);
CREATE INDEX machines_of_provider ON machines (provider, provider_machine_id);
CREATE INDEX machines_contracted ON machines (provider) WHERE NOT gone;
CREATE INDEX machines_with_volumes ON machines (volume_id) WHERE volume_id <> '';
CREATE INDEX machines_requested ON machines (machine_id) WHERE status = 'requested';

CREATE TABLE attempts (
    attempt_id text PRIMARY KEY,
    provider text,
    host_id text,
    instance_id text,
    gpu text,
    outcome text,
    stage text,
    reason text,
    took_ms bigint,
    offer jsonb,
    attempted_at timestamptz
);
CREATE INDEX attempts_by_time ON attempts (attempted_at);
CREATE INDEX attempts_of_host ON attempts (provider, host_id, attempted_at);

CREATE TABLE hosts (
    provider text,
    host_id text,
    attempts_total bigint,
    successes_total bigint,
    last_attempt_at timestamptz,
    PRIMARY KEY (provider, host_id)
);

CREATE TABLE blacklist (
    provider text,
    host_id text,
    account_id text,            -- '': the whole platform
    kind text,
    reason text,
    gpu text,
    blacklisted_at timestamptz,
    expires_at timestamptz,     -- null: for ever
    attempts_total bigint,
    attempts_failed bigint,
    last_failure text,
    PRIMARY KEY (provider, host_id, account_id)
);
CREATE INDEX blacklist_of_account ON blacklist (account_id, blacklisted_at DESC);

CREATE TABLE orphans (
    provider text,
    provider_machine_id text,
    kind text,                  -- machine, volume
    label text,
    status text,                -- found, destroying, gone
    found_at timestamptz,
    destroy_after timestamptz,
    gone_at timestamptz,
    PRIMARY KEY (provider, provider_machine_id)
);

CREATE TABLE snapshots (
    snapshot_id text PRIMARY KEY,
    instance_id text,
    account_id text,
    machine_id text,
    generation bigint,
    base_id text,
    status text,                -- requested, completed, failed, expired
    reason text,
    requested_at timestamptz,
    captured_at timestamptz,
    completed_at timestamptz,
    files bigint,
    bytes bigint,
    stored_bytes bigint,
    took_ms bigint,
    is_point_in_time boolean,
    packs jsonb,
    error text
);
CREATE INDEX snapshots_of_instance ON snapshots (instance_id, requested_at DESC);
CREATE INDEX snapshots_requested ON snapshots (machine_id) WHERE status = 'requested';

CREATE TABLE hibernations (
    snapshot_id text PRIMARY KEY,
    instance_id text,
    account_id text,
    hibernated_at timestamptz,
    woke_at timestamptz,
    price_usd_micros_per_hour bigint,
    idle_s bigint
);
CREATE INDEX hibernations_of_account ON hibernations (account_id, instance_id);
CREATE TABLE syncs (
    instance_id text PRIMARY KEY,
    standby_machine_id text,
    started_at timestamptz,
    cycle bigint,
    ok boolean,
    files bigint,
    bytes bigint,
    took_ms bigint,
    captured_at timestamptz,
    error text
);

-- The way back from a CPU machine to a GPU. stage: searching, filling, handing_over, handed_over.
CREATE TABLE gpu_returns (
    instance_id text PRIMARY KEY,
    stage text,
    attempts_failed bigint,
    machine_id text,            -- the GPU machine of this try
    reason text,                -- why the last try failed
    next_at timestamptz
);

CREATE TABLE auto_stops (
    event_id text PRIMARY KEY,
    instance_id text,
    account_id text,
    stopped_at timestamptz
);

-- What clouds charged us, as far as it was told.
CREATE TABLE bills (
    charge_id text PRIMARY KEY,
    provider text,
    number bigint,
    machine_id text,
    usd_micros bigint
);
CREATE INDEX bills_in_order ON bills (provider, number);

-- How accounts want their machines watched and replaced; 0 and null: as this installation does.
CREATE TABLE cares (
    account_id text PRIMARY KEY,
    health_check_s bigint,
    heartbeat_misses_max bigint,
    gpu_names jsonb
);

CREATE TABLE deadlines (
    aggregate_id text,
    name text,
    due_at timestamptz,
    command text,
    PRIMARY KEY (aggregate_id, name)
);
CREATE INDEX deadlines_by_time ON deadlines (due_at);
