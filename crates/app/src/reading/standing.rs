//! How groups stand with their readers: what lists and event streams show.

use convene_db::{Database, DbError, Row, Statement, Value, params};
use convene_model::{GroupId, OrgId, Timestamp, UserId};

use crate::{
    ui::view::{GroupItem, Standing},
    web::rows,
};

/// Users who are asked about in one statement.
pub(crate) const USERS_AT_ONCE: usize = 64;

/// A group with a user beside it, wherever the user may see it; conditions can follow.
pub(crate) const SEEN: &str = "SELECT g.group_id, g.org_id, g.title, g.is_private, g.created_at,
    g.paused, g.created_by, g.revisions, g.max_rounds, g.cooldown_secs, g.status, g.status_at,
    g.task_id, m.user_id, m.role,
    COALESCE(h.seq, 0) AS head, COALESCE(h.nth, 0) AS nth, h.at AS last_at,
    COALESCE(r.up_to, 0) AS read_up_to, COALESCE(r.nth, 0) AS read_nth,
    COALESCE(p.muted, 0) AS muted,
    (SELECT count(*) FROM mentions x WHERE x.user_id = m.user_id AND x.group_id = g.group_id
        AND x.seq > COALESCE(r.up_to, 0)) AS mentions
    FROM chat_groups g JOIN org_members m ON m.org_id = g.org_id
    LEFT JOIN group_heads h ON h.group_id = g.group_id
    LEFT JOIN read_marks r ON r.group_id = g.group_id AND r.user_id = m.user_id
    LEFT JOIN group_preferences p ON p.group_id = g.group_id AND p.user_id = m.user_id
    WHERE g.deleted_at IS NULL AND (g.is_private = 0 OR EXISTS (SELECT 1 FROM group_members s
        WHERE s.group_id = g.group_id AND s.user_id = m.user_id))";

/// The groups that a user may see, of one workspace or of all, oldest first.
pub(crate) async fn of_user(
    db: &dyn Database,
    user: &UserId,
    org: Option<&OrgId>,
) -> Result<Vec<GroupItem>, DbError> {
    let sql = format!(
        "{SEEN} AND m.user_id = $1 AND ($2 = '' OR g.org_id = $2) ORDER BY g.created_at, g.group_id"
    );
    let org = org.map_or("", OrgId::as_str);
    let found = db.query(Statement::new(sql, params![user.as_str(), org])).await?;
    found.iter().map(item).collect()
}

/// A group as each of some users sees it; those who may not see it are left out.
pub(crate) async fn of_group(
    db: &dyn Database,
    group: &GroupId,
    users: &[UserId],
) -> Result<Vec<(UserId, GroupItem)>, DbError> {
    let mut standings = Vec::with_capacity(users.len());
    for some in users.chunks(USERS_AT_ONCE) {
        // Always as many places, so that the statement is always the same.
        let places: Vec<_> = (2..2 + USERS_AT_ONCE).map(|place| format!("${place}")).collect();
        let sql = format!("{SEEN} AND g.group_id = $1 AND m.user_id IN ({})", places.join(","));
        let mut params = params![group.as_str()];
        let padding = some.iter().cycle().take(USERS_AT_ONCE);
        params.extend(padding.map(|user| Value::from(user.as_str())));
        for row in db.query(Statement::new(sql, params)).await? {
            standings.push((rows::id(&row, "user_id")?, item(&row)?));
        }
    }
    Ok(standings)
}

/// The columns of [`SEEN`] as lists show them.
pub(crate) fn item(row: &Row) -> Result<GroupItem, DbError> {
    let (nth, read_nth): (u64, u64) = (row.get("nth")?, row.get("read_nth")?);
    Ok(GroupItem {
        group_id: rows::id(row, "group_id")?,
        org_id: rows::id(row, "org_id")?,
        title: row.get("title")?,
        is_private: row.get("is_private")?,
        created_at: rows::time(row, "created_at")?,
        status: rows::life(row, "status")?,
        status_at: rows::maybe_time(row, "status_at")?,
        standing: Standing {
            head: row.get("head")?,
            nth,
            unread: nth.saturating_sub(read_nth),
            mentions: row.get("mentions")?,
            muted: row.get("muted")?,
            read_up_to: row.get("read_up_to")?,
            last_at: rows::maybe_time(row, "last_at")?,
        },
    })
}

/// The statement by which somebody who joins a workspace, or one group of it, has nothing unread.
pub(crate) fn caught_up(
    org: &OrgId,
    group: Option<&GroupId>,
    user: &UserId,
    now: Timestamp,
) -> Statement {
    const SQL: &str = "INSERT INTO read_marks (user_id, group_id, up_to, nth, at)
        SELECT $1, g.group_id, h.seq, h.nth, CAST($4 AS BIGINT)
        FROM chat_groups g JOIN group_heads h ON h.group_id = g.group_id
        WHERE g.org_id = $2 AND ($3 = '' OR g.group_id = $3)
        ON CONFLICT (user_id, group_id) DO UPDATE
        SET up_to = excluded.up_to, nth = excluded.nth, at = excluded.at
        WHERE read_marks.up_to < excluded.up_to";
    let group = group.map_or("", GroupId::as_str);
    Statement::new(SQL, params![user.as_str(), org.as_str(), group, now.millis()])
}
