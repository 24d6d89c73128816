-- What agents said last: not facts, so kept outside the log; survives a rebuild and may be lost without harm.

CREATE TABLE IF NOT EXISTS agents (
    machine_id text PRIMARY KEY,
    instance_id text NOT NULL,
    generation bigint NOT NULL,
    status text NOT NULL,
    agent_version text NOT NULL,
    hostname text NOT NULL,
    message text NOT NULL,
    gpu_utilization_percent double precision,
    memory_used_percent double precision,
    cpu_utilization_percent double precision,
    uptime_s bigint,
    ssh_sessions bigint,
    last_activity_at timestamptz,
    idle_since timestamptz,
    last_seen_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS agents_of_instance ON agents (instance_id);
-- The newest whole copy that a CPU standby says it has.
ALTER TABLE agents ADD COLUMN IF NOT EXISTS copy_captured_at timestamptz;
ALTER TABLE agents ADD COLUMN IF NOT EXISTS copy_files bigint;
ALTER TABLE agents ADD COLUMN IF NOT EXISTS copy_bytes bigint;
ALTER TABLE agents ADD COLUMN IF NOT EXISTS copies bigint;
