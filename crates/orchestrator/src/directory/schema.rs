//! The directory's tables. A migration that was released never changes; a new one follows it.

use convene_db::{LEASES_TABLE, Migration};

/// The directory's schema.
pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "directory", sql: DIRECTORY },
    Migration { version: 2, name: "leases", sql: LEASES_TABLE },
    Migration { version: 3, name: "lifecycle", sql: LIFECYCLE },
    Migration { version: 4, name: "blocks", sql: BLOCKS },
    Migration { version: 5, name: "usage", sql: USAGE },
    Migration { version: 6, name: "costs", sql: COSTS },
    Migration { version: 7, name: "archive_failures", sql: ARCHIVE_FAILURES },
];

const DIRECTORY: &str = "
CREATE TABLE org_owners (
    org_id TEXT NOT NULL PRIMARY KEY,
    issuer TEXT NOT NULL,
    owned_since BIGINT NOT NULL
);
CREATE TABLE org_counts (
    org_id TEXT NOT NULL PRIMARY KEY,
    active BIGINT NOT NULL CHECK (active >= 0),
    max_active BIGINT CHECK (max_active >= 0)
);
CREATE TABLE routing_records (
    group_id TEXT NOT NULL PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES org_owners (org_id),
    group_controller_id TEXT NOT NULL,
    status TEXT NOT NULL,
    history_mode TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    activated_at BIGINT NOT NULL,
    last_active BIGINT NOT NULL,
    idle_at BIGINT,
    region TEXT
);
CREATE INDEX routing_records_by_org ON routing_records (org_id);
CREATE TABLE access_revocations (
    group_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    revoked_at BIGINT NOT NULL,
    PRIMARY KEY (group_id, user_id)
);
CREATE TABLE idempotency_keys (
    issuer TEXT NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    claim TEXT NOT NULL,
    claimed_at BIGINT NOT NULL,
    status BIGINT,
    body TEXT,
    PRIMARY KEY (issuer, method, path, idempotency_key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (claimed_at);
";

/// What archive, restore and delete need.
///
/// - `routing_records.archive_id`: while `archiving` the attempt that the group is frozen for, while
///   `archived` and `restoring` the attempt that made its snapshot; beside `active` or `idle` an
///   attempt that failed and of which the controller is still to be told.
/// - `routing_records.task_id`: the task that holds the group while it is on its way.
/// - `org_counts.auto_archive_ms`: after how long a sleep groups are archived; 0 is never, NULL the
///   default.
/// - `tasks`: work that goes on after a crash. Whoever raises `attempt` has it; every step of it
///   is guarded by that number. `lease_until` is when somebody else may take it over, or when it is
///   due for the first time.
/// - `archives`: one row for each attempt that came as far as to write; `wiped_at` is when the
///   controller has confirmed that it has nothing more.
/// - `lifecycle_events`: what happened, for ever added to and never changed.
const LIFECYCLE: &str = "
ALTER TABLE routing_records ADD COLUMN archive_id TEXT;
ALTER TABLE routing_records ADD COLUMN task_id TEXT;
ALTER TABLE org_counts ADD COLUMN auto_archive_ms BIGINT;
CREATE INDEX routing_records_by_idle ON routing_records (status, idle_at);
CREATE INDEX routing_records_by_use ON routing_records (status, last_active);
CREATE TABLE tasks (
    task_id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    group_id TEXT NOT NULL,
    org_id TEXT NOT NULL,
    status TEXT NOT NULL,
    step TEXT NOT NULL,
    done BIGINT NOT NULL,
    total BIGINT NOT NULL,
    problem TEXT,
    result TEXT,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    archive_id TEXT,
    epoch BIGINT NOT NULL,
    worker TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX tasks_due ON tasks (status, lease_until);
CREATE INDEX tasks_by_group ON tasks (group_id, created_at);
CREATE TABLE archives (
    archive_id TEXT NOT NULL PRIMARY KEY,
    group_id TEXT NOT NULL,
    org_id TEXT NOT NULL,
    state TEXT NOT NULL,
    snapshot_id TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    chain TEXT NOT NULL,
    checksum TEXT,
    bytes BIGINT,
    plain_bytes BIGINT,
    messages BIGINT,
    events BIGINT,
    begun_at BIGINT NOT NULL,
    marked_at BIGINT,
    wiped_at BIGINT
);
CREATE INDEX archives_by_group ON archives (group_id, begun_at);
CREATE TABLE lifecycle_events (
    event_id TEXT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    group_id TEXT NOT NULL,
    org_id TEXT NOT NULL,
    from_status TEXT NOT NULL,
    to_status TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    task_id TEXT
);
CREATE INDEX lifecycle_events_by_group ON lifecycle_events (group_id, at);
CREATE INDEX lifecycle_events_by_age ON lifecycle_events (at);
";

/// Blocked organizations. `routing_records.tell` counts the changes, of the epoch or of limits, that the
/// group's controller is still to be told of.
const BLOCKS: &str = "
ALTER TABLE org_counts ADD COLUMN blocked_at BIGINT;
ALTER TABLE org_counts ADD COLUMN block_reason TEXT;
ALTER TABLE routing_records ADD COLUMN tell BIGINT NOT NULL DEFAULT 0;
CREATE INDEX routing_records_by_tell ON routing_records (tell, group_id);
";

/// What groups use, and what it is held against. Months are numbers like 202611, days are counted from
/// 1970-01-01, both in UTC.
///
/// - `org_counts`: the limits, NULL where there is none.
/// - `org_months`: `used_tokens` and `reserved_tokens` are the budget's and change at once; the sums
///   of reports follow in batches. `peak_active` changes with the count.
/// - `reservations.state`: `held`; `expired` once it was settled at its full amount; `settled` once
///   the run has said what it used.
/// - `usage_reports`: what controllers have said, under the key that they said it with. A report
///   whose `batch` is NULL is in no sum yet.
/// - `routing_records.egress_until`: until then the group is closed for its egress.
/// - `abuse_flags`: who went beyond a rate, an empty `user_id` for an organization.
const USAGE: &str = "
ALTER TABLE org_counts ADD COLUMN monthly_tokens BIGINT;
ALTER TABLE org_counts ADD COLUMN monthly_egress_bytes BIGINT;
ALTER TABLE org_counts ADD COLUMN group_daily_egress_bytes BIGINT;
ALTER TABLE org_counts ADD COLUMN user_posts_per_minute BIGINT;
ALTER TABLE org_counts ADD COLUMN org_posts_per_minute BIGINT;
ALTER TABLE org_counts ADD COLUMN user_attaches_per_minute BIGINT;
ALTER TABLE org_counts ADD COLUMN activations_per_minute BIGINT;
ALTER TABLE routing_records ADD COLUMN egress_until BIGINT;
CREATE TABLE org_months (
    org_id TEXT NOT NULL,
    month BIGINT NOT NULL,
    used_tokens BIGINT NOT NULL DEFAULT 0 CHECK (used_tokens >= 0),
    reserved_tokens BIGINT NOT NULL DEFAULT 0 CHECK (reserved_tokens >= 0),
    peak_active BIGINT NOT NULL DEFAULT 0,
    runs BIGINT NOT NULL DEFAULT 0,
    input_tokens BIGINT NOT NULL DEFAULT 0,
    output_tokens BIGINT NOT NULL DEFAULT 0,
    egress_bytes BIGINT NOT NULL DEFAULT 0,
    active_secs BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (org_id, month)
);
CREATE TABLE group_months (
    group_id TEXT NOT NULL,
    month BIGINT NOT NULL,
    org_id TEXT NOT NULL,
    runs BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    egress_bytes BIGINT NOT NULL,
    active_secs BIGINT NOT NULL,
    PRIMARY KEY (group_id, month)
);
CREATE INDEX group_months_by_org ON group_months (org_id, month);
CREATE TABLE group_days (
    group_id TEXT NOT NULL,
    day BIGINT NOT NULL,
    org_id TEXT NOT NULL,
    egress_bytes BIGINT NOT NULL,
    PRIMARY KEY (group_id, day)
);
CREATE INDEX group_days_by_day ON group_days (day);
CREATE TABLE reservations (
    group_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    org_id TEXT NOT NULL,
    month BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    state TEXT NOT NULL,
    reserved_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (group_id, run_id)
);
CREATE INDEX reservations_by_expiry ON reservations (state, expires_at);
CREATE TABLE usage_reports (
    report_id TEXT NOT NULL PRIMARY KEY,
    group_id TEXT NOT NULL,
    org_id TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    at BIGINT NOT NULL,
    month BIGINT NOT NULL,
    day BIGINT NOT NULL,
    runs BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    egress_bytes BIGINT NOT NULL,
    active_secs BIGINT NOT NULL,
    batch TEXT
);
CREATE INDEX usage_reports_by_batch ON usage_reports (batch, at);
CREATE INDEX usage_reports_by_org ON usage_reports (org_id, month);
CREATE TABLE abuse_flags (
    org_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    group_id TEXT,
    count BIGINT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    PRIMARY KEY (org_id, user_id, kind)
);
CREATE INDEX abuse_flags_by_age ON abuse_flags (last_at);
";

/// What models cost, beside the tokens that they took. Of what was reported before nothing is known.
const COSTS: &str = "
ALTER TABLE org_months ADD COLUMN cost_micro_usd BIGINT NOT NULL DEFAULT 0;
ALTER TABLE org_months ADD COLUMN cost_unknown BIGINT NOT NULL DEFAULT 0;
ALTER TABLE group_months ADD COLUMN cost_micro_usd BIGINT NOT NULL DEFAULT 0;
ALTER TABLE group_months ADD COLUMN cost_unknown BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_reports ADD COLUMN cost_micro_usd BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_reports ADD COLUMN cost_unknown BIGINT NOT NULL DEFAULT 0;
UPDATE org_months SET cost_unknown = runs WHERE input_tokens + output_tokens > 0;
UPDATE group_months SET cost_unknown = runs WHERE input_tokens + output_tokens > 0;
UPDATE usage_reports SET cost_unknown = runs WHERE input_tokens + output_tokens > 0;
";

/// How often scheduled work could not archive a group since somebody used it last, and when it tries again;
/// `archive_due_at` is NULL when nothing has failed.
const ARCHIVE_FAILURES: &str = "
ALTER TABLE routing_records ADD COLUMN archive_failures BIGINT NOT NULL DEFAULT 0;
ALTER TABLE routing_records ADD COLUMN archive_due_at BIGINT;
";
