-- Rows of the billing service, folded from its own events; dropped and replayed, never migrated by hand.
-- Non-key columns are nullable because rows are merged column by column. Days are text (YYYY-MM-DD, UTC).

-- One customer's ledger: `totals` over the chart of accounts, always summing to zero.
CREATE TABLE accounts (
    account_id text PRIMARY KEY,
    currency text,
    totals jsonb,
    charged_until timestamptz,
    stage text,
    grace_until timestamptz,
    storage_kept_until timestamptz,
    is_low_money boolean,
    is_low_runway boolean,
    alerts jsonb,
    changed_at timestamptz
);

-- What is measured, and at which rate it runs now. `paid_until`: charged further than the account's `charged_until`.
CREATE TABLE meters (
    account_id text,
    meter_id text,
    instance_id text,
    line text,
    label text,
    rate bigint,
    since timestamptz,
    paid_until timestamptz,
    machine_id text,
    PRIMARY KEY (account_id, meter_id)
);
CREATE INDEX meters_of_instance ON meters (instance_id);
CREATE INDEX meters_running ON meters (account_id) WHERE since IS NOT NULL;

-- Closed stretches at one rate on one machine.
CREATE TABLE segments (
    account_id text,
    meter_id text,
    since timestamptz,
    until timestamptz,
    instance_id text,
    line text,
    rate bigint,
    machine_id text,
    usd_micros bigint,
    PRIMARY KEY (account_id, meter_id, since)
);
CREATE INDEX segments_of_machine ON segments (machine_id);

-- What a meter came to on a day, up to `until`; what a running one adds since is computed when it is asked for.
CREATE TABLE usage_days (
    account_id text,
    day text,
    meter_id text,
    seconds bigint,
    usd_micros bigint,
    until timestamptz,
    PRIMARY KEY (account_id, day, meter_id)
);

-- What of the usage the credits did not cover and nobody is asked for: the account's whole sum as of that day.
CREATE TABLE uncollected_days (
    account_id text,
    day text,
    after bigint,
    until timestamptz,
    PRIMARY KEY (account_id, day)
);

-- Everything else in the history: purchases, bonuses, corrections.
CREATE TABLE entries (
    account_id text,
    entry_id text,
    type text,
    usd_micros bigint,
    created_at timestamptz,
    description text,
    reference_id text,
    instance_id text,
    PRIMARY KEY (account_id, entry_id)
);

CREATE TABLE holds (
    account_id text,
    instance_id text,
    usd_micros bigint,
    expires_at timestamptz,
    PRIMARY KEY (account_id, instance_id)
);

CREATE TABLE payments (
    payment_id text PRIMARY KEY,
    account_id text,
    usd_micros bigint,
    method text,
    reference text,
    status text,
    reason text,
    requested_at timestamptz
);

-- Reconciliation: what providers charged us for a machine, and how that compares with our own ledger.
CREATE TABLE provider_charges (
    machine_id text,
    charge_id text,
    account_id text,
    provider text,
    instance_id text,
    since timestamptz,
    until timestamptz,
    usd_micros bigint,
    PRIMARY KEY (machine_id, charge_id)
);
CREATE TABLE reconciled (
    machine_id text PRIMARY KEY,
    account_id text,
    provider text,
    kind text,
    ours bigint,
    theirs bigint,
    reconciled_at timestamptz
);

CREATE TABLE deadlines (
    aggregate_id text,
    name text,
    due_at timestamptz,
    command text,
    PRIMARY KEY (aggregate_id, name)
);
CREATE INDEX deadlines_by_time ON deadlines (due_at);
