-- Endpoints and what became of their deliveries; dropped and replayed from the log, never hand-migrated.

CREATE TABLE endpoints (
    endpoint_id text PRIMARY KEY,
    account_id text,
    name text,
    url text,
    events jsonb,
    kind text,
    instance_id text,
    status text,                -- enabled, paused, disabled
    sealed_secret text,
    sealed_old_secret text,
    old_until timestamptz,
    rate_limit_per_s bigint,
    disabled_reason text,
    failing_since timestamptz,
    created_at timestamptz,
    changed_at timestamptz,
    deleted_at timestamptz
);
CREATE INDEX endpoints_of_account ON endpoints (account_id, created_at DESC);

CREATE TABLE default_secrets (
    account_id text PRIMARY KEY,
    sealed_secret text
);

-- A first attempt that succeeded is in its delivery's row (first_*), because nearly all do; every other one is a row of
-- `attempts`.
CREATE TABLE deliveries (
    delivery_id text PRIMARY KEY,
    endpoint_id text,
    account_id text,
    mailbox_id text,
    event_id text,
    event_type text,
    lane text,
    public_seq bigint,
    event_at timestamptz,
    body text,
    correlation text,
    trace text,
    status text,
    reason text,
    attempts bigint,
    tries bigint,
    next_at timestamptz,
    first_at timestamptz,
    first_status_code bigint,
    first_took_ms bigint,
    first_response text
);
CREATE INDEX deliveries_of_endpoint ON deliveries (endpoint_id, public_seq DESC);
CREATE INDEX deliveries_under_way ON deliveries (endpoint_id, public_seq) WHERE status IN ('waiting', 'retrying');

CREATE TABLE attempts (
    delivery_id text,
    number bigint,
    endpoint_id text,
    at timestamptz,
    triggered_by text,
    outcome text,
    status_code bigint,
    error text,
    response text,
    took_ms bigint,
    PRIMARY KEY (delivery_id, number)
);
CREATE INDEX attempts_of_endpoint ON attempts (endpoint_id, at DESC);

CREATE TABLE deadlines (
    aggregate_id text,
    name text,
    due_at timestamptz,
    command text,
    PRIMARY KEY (aggregate_id, name)
);
CREATE INDEX deadlines_by_time ON deadlines (due_at);
