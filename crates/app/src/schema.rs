//! The tables of the workspace's database, as forward-only migrations.
//!
//! Times are epoch milliseconds, flags 0 or 1. Tokens stand here as digests only, secrets only
//! encrypted. Names that must be unique without regard to case have a column `…_key`.

use convene_db::Migration;

/// All steps; a step that has shipped never changes.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "workspace", sql: WORKSPACE },
    Migration { version: 2, name: "reading", sql: READING },
    Migration { version: 3, name: "secrets", sql: SECRETS },
    Migration { version: 4, name: "agent_policy", sql: AGENT_POLICY },
    Migration { version: 6, name: "lives", sql: LIVES },
    Migration { version: 7, name: "outside_agents", sql: OUTSIDE_AGENTS },
    Migration { version: 8, name: "devices", sql: DEVICES },
];

/// What a session is used from, as its browser called itself (empty for those that were begun before), and
/// when it was last.
const DEVICES: &str = "
ALTER TABLE sessions ADD COLUMN device TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN last_used_at BIGINT;
";

/// Agents that are processes of somebody else's, and what those prove themselves by.
const OUTSIDE_AGENTS: &str = "
ALTER TABLE agents ADD COLUMN outside BIGINT NOT NULL DEFAULT 0;
CREATE TABLE agent_tokens (
    token_id TEXT PRIMARY KEY,
    token_hash TEXT NOT NULL UNIQUE,
    agent_id TEXT NOT NULL REFERENCES agents (agent_id),
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT
);
CREATE INDEX agent_tokens_of_agent ON agent_tokens (agent_id);
";

const WORKSPACE: &str = "
CREATE TABLE users (
    user_id TEXT PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE TABLE sessions (
    token_hash TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (user_id),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sessions_of_user ON sessions (user_id);
CREATE TABLE api_tokens (
    token_id TEXT PRIMARY KEY,
    token_hash TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL REFERENCES users (user_id),
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT
);
CREATE INDEX api_tokens_of_user ON api_tokens (user_id);
CREATE TABLE orgs (
    org_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    changes BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE org_members (
    org_id TEXT NOT NULL REFERENCES orgs (org_id),
    user_id TEXT NOT NULL REFERENCES users (user_id),
    role TEXT NOT NULL,
    joined_at BIGINT NOT NULL,
    PRIMARY KEY (org_id, user_id)
);
CREATE INDEX org_members_of_user ON org_members (user_id);
CREATE TABLE invites (
    invite_id TEXT PRIMARY KEY,
    token_hash TEXT NOT NULL UNIQUE,
    org_id TEXT NOT NULL REFERENCES orgs (org_id),
    role TEXT NOT NULL,
    created_by TEXT NOT NULL REFERENCES users (user_id),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    used_by TEXT
);
CREATE INDEX invites_of_org ON invites (org_id);
CREATE TABLE secrets (
    secret_id TEXT PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES orgs (org_id),
    sealed TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE TABLE providers (
    provider_id TEXT PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES orgs (org_id),
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    base_url TEXT NOT NULL,
    secret_id TEXT REFERENCES secrets (secret_id),
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (org_id, name_key)
);
CREATE TABLE agents (
    agent_id TEXT PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES orgs (org_id),
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    system_prompt TEXT NOT NULL,
    provider_id TEXT,
    model TEXT NOT NULL,
    is_default BIGINT NOT NULL,
    wakes_on TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX agents_by_name ON agents (org_id, name_key) WHERE deleted_at IS NULL;
CREATE TABLE chat_groups (
    group_id TEXT PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES orgs (org_id),
    title TEXT NOT NULL,
    is_private BIGINT NOT NULL,
    paused BIGINT NOT NULL DEFAULT 0,
    version BIGINT NOT NULL,
    created_by TEXT NOT NULL REFERENCES users (user_id),
    created_at BIGINT NOT NULL,
    activated_at BIGINT
);
CREATE INDEX chat_groups_of_org ON chat_groups (org_id);
CREATE TABLE group_members (
    group_id TEXT NOT NULL REFERENCES chat_groups (group_id),
    user_id TEXT NOT NULL REFERENCES users (user_id),
    added_at BIGINT NOT NULL,
    PRIMARY KEY (group_id, user_id)
);
CREATE INDEX group_members_of_user ON group_members (user_id);
CREATE TABLE group_agents (
    group_id TEXT NOT NULL REFERENCES chat_groups (group_id),
    agent_id TEXT NOT NULL REFERENCES agents (agent_id),
    wakes_on TEXT NOT NULL,
    place BIGINT NOT NULL,
    PRIMARY KEY (group_id, agent_id)
);
CREATE INDEX group_agents_of_agent ON group_agents (agent_id);
CREATE TABLE audit (
    audit_id TEXT PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES orgs (org_id),
    at BIGINT NOT NULL,
    actor_id TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX audit_of_org ON audit (org_id, audit_id);
";

/// What people have read, and what several App processes tell each other.
///
/// `group_heads` says up to which message of a group mentions and the authors' own marks are
/// recorded. `changes` is a log of what changed, with one row for each subject: a row's number grows
/// in the order of the commits, since `change_counter` is locked from its change to the commit.
const READING: &str = "
ALTER TABLE chat_groups ADD COLUMN revisions TEXT NOT NULL DEFAULT 'keep';
CREATE TABLE group_heads (
    group_id TEXT PRIMARY KEY,
    history TEXT NOT NULL,
    seq BIGINT NOT NULL,
    nth BIGINT NOT NULL,
    at BIGINT NOT NULL
);
CREATE TABLE read_marks (
    user_id TEXT NOT NULL,
    group_id TEXT NOT NULL,
    up_to BIGINT NOT NULL,
    nth BIGINT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (user_id, group_id)
);
CREATE INDEX read_marks_of_group ON read_marks (group_id);
CREATE TABLE mentions (
    user_id TEXT NOT NULL,
    group_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (user_id, group_id, seq)
);
CREATE INDEX mentions_of_message ON mentions (group_id, seq);
CREATE TABLE group_preferences (
    user_id TEXT NOT NULL,
    group_id TEXT NOT NULL,
    muted BIGINT NOT NULL,
    PRIMARY KEY (user_id, group_id)
);
CREATE TABLE change_counter (one BIGINT PRIMARY KEY, n BIGINT NOT NULL);
INSERT INTO change_counter (one, n) VALUES (1, 0);
CREATE TABLE changes (
    kind TEXT NOT NULL,
    group_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    change BIGINT NOT NULL,
    PRIMARY KEY (kind, group_id, user_id)
);
CREATE UNIQUE INDEX changes_in_order ON changes (change);
";

/// Secrets under data keys, and the canonical objects of the configuration.
///
/// A value stands in `secret_versions`; `secrets.sealed` is what one key sealed before there were
/// data keys, and empty since. `orgs.configuration` grows with every change that a run could see, so
/// that whoever keeps what was resolved can ask whether it still holds. `config_objects` has what
/// tools, servers and env profiles are as JSON in its one column `config`; the others are for
/// queries, and `seen` is what a check of the object last found.
const SECRETS: &str = "
ALTER TABLE orgs ADD COLUMN configuration BIGINT NOT NULL DEFAULT 0;
CREATE TABLE data_keys (
    data_key_id TEXT PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES orgs (org_id),
    master_id TEXT NOT NULL,
    wrapped TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    retired_at BIGINT
);
CREATE UNIQUE INDEX data_keys_in_use ON data_keys (org_id) WHERE retired_at IS NULL;
ALTER TABLE secrets ADD COLUMN scope TEXT NOT NULL DEFAULT 'provider';
ALTER TABLE secrets ADD COLUMN owner_id TEXT NOT NULL DEFAULT '';
ALTER TABLE secrets ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE secrets ADD COLUMN note TEXT NOT NULL DEFAULT '';
ALTER TABLE secrets ADD COLUMN all_groups BIGINT NOT NULL DEFAULT 0;
ALTER TABLE secrets ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
ALTER TABLE secrets ADD COLUMN created_by TEXT NOT NULL DEFAULT '';
ALTER TABLE secrets ADD COLUMN updated_at BIGINT NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX secrets_by_name ON secrets (org_id, scope, owner_id, name)
    WHERE scope <> 'provider';
CREATE TABLE secret_versions (
    secret_id TEXT NOT NULL REFERENCES secrets (secret_id),
    version BIGINT NOT NULL,
    data_key_id TEXT NOT NULL REFERENCES data_keys (data_key_id),
    sealed TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (secret_id, version)
);
CREATE INDEX secret_versions_of_key ON secret_versions (data_key_id);
CREATE TABLE secret_grants (
    secret_id TEXT NOT NULL REFERENCES secrets (secret_id),
    group_id TEXT NOT NULL,
    PRIMARY KEY (secret_id, group_id)
);
CREATE INDEX secret_grants_of_group ON secret_grants (group_id);
CREATE TABLE config_objects (
    object_id TEXT PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES orgs (org_id),
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    config TEXT NOT NULL,
    seen TEXT NOT NULL DEFAULT '',
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (org_id, kind, name_key)
);
ALTER TABLE orgs ADD COLUMN tool_hosts TEXT;
ALTER TABLE providers ADD COLUMN config TEXT NOT NULL DEFAULT '{}';
ALTER TABLE providers ADD COLUMN seen TEXT NOT NULL DEFAULT '';
ALTER TABLE agents ADD COLUMN visibility TEXT NOT NULL DEFAULT 'workspace';
ALTER TABLE agents ADD COLUMN config TEXT NOT NULL DEFAULT '{}';
";

/// Who made an agent (empty for the one that a workspace began with and for those made before), and
/// the bounds of discussions in a group, where it sets them.
const AGENT_POLICY: &str = "
ALTER TABLE agents ADD COLUMN made_by TEXT NOT NULL DEFAULT '';
ALTER TABLE chat_groups ADD COLUMN max_rounds BIGINT;
ALTER TABLE chat_groups ADD COLUMN cooldown_secs BIGINT;
";

/// Where groups stand in their lives, as the Orchestrator said last: it alone decides. `task_id` is
/// what is under way. Of a deleted group its row stays, without a title, so that whoever could see it
/// learns what became of it.
const LIVES: &str = "
ALTER TABLE chat_groups ADD COLUMN status TEXT NOT NULL DEFAULT 'active';
ALTER TABLE chat_groups ADD COLUMN status_at BIGINT;
ALTER TABLE chat_groups ADD COLUMN task_id TEXT;
ALTER TABLE chat_groups ADD COLUMN deleted_at BIGINT;
CREATE INDEX chat_groups_by_status ON chat_groups (status);
";
