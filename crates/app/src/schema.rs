//! The tables of the workspace's database, as forward-only migrations.
//!
//! Times are epoch milliseconds, flags 0 or 1. Tokens stand here as digests only, secrets only
//! encrypted. Names that must be unique without regard to case have a column `…_key`.

use convene_db::Migration;

/// All steps; a step that has shipped never changes.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "workspace", sql: WORKSPACE },
    Migration { version: 2, name: "reading", sql: READING },
];

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
