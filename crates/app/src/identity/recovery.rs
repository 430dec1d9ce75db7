//! What an operator does to accounts from beside the App: listing them, and giving somebody who is
//! locked out a new password.
//!
//! Works on the workspace's database alone, whether a process serves from it or not. Asks nobody
//! for permission: whoever can open the database may do this.

use convene_db::{Database, DbError, Statement, params};
use convene_model::{OrgId, Timestamp, UserId};
use serde_json::json;
use zeroize::Zeroizing;

use super::{accounts, passwords, tokens};
use crate::{
    changes::{self, Change},
    validate,
    web::rows,
    workspaces::audit::{self, Action},
};

/// Who an audit entry names where nobody was signed in: the operator at the machine. No account has
/// this id, since those of accounts are UUIDs.
pub const OPERATOR: &str = "operator";

/// An account, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Whose.
    pub user_id: UserId,
    /// The mail address.
    pub email: String,
    /// The display name.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The workspaces that it belongs to, each with its name and the role there, by name.
    pub orgs: Vec<(String, String)>,
}

/// What a reset ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    /// Whose password it was.
    pub user_id: UserId,
    /// Sessions of browsers that were ended.
    pub sessions: usize,
    /// Bearer tokens that were deleted.
    pub tokens: usize,
}

/// Why a password was not reset.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// Nobody has this mail address.
    #[error("there is no account with the mail address {0}")]
    NoAccount(String),
    /// The new password breaks a rule.
    #[error("{0}")]
    Password(String),
    /// The workspace's database failed.
    #[error("the workspace database: {0}")]
    Database(#[from] DbError),
    /// The system gave no random bytes, or the password could not be hashed.
    #[error("{0}")]
    System(String),
}

/// All accounts, by mail address.
///
/// # Errors
/// [`DbError`] when the database fails or was never used by an App.
pub async fn accounts(db: &dyn Database) -> Result<Vec<Account>, DbError> {
    const USERS: &str = "SELECT user_id, email, name, created_at FROM users ORDER BY email";
    const ORGS: &str = "SELECT m.user_id, o.name, m.role FROM org_members m
        JOIN orgs o ON o.org_id = m.org_id ORDER BY o.name";
    let mut memberships: std::collections::HashMap<String, Vec<(String, String)>> =
        std::collections::HashMap::new();
    for row in db.query(Statement::new(ORGS, params![])).await? {
        let user: String = row.get("user_id")?;
        memberships.entry(user).or_default().push((row.get("name")?, row.get("role")?));
    }
    let mut accounts = Vec::new();
    for row in db.query(Statement::new(USERS, params![])).await? {
        let user_id: UserId = rows::id(&row, "user_id")?;
        accounts.push(Account {
            orgs: memberships.remove(user_id.as_str()).unwrap_or_default(),
            user_id,
            email: row.get("email")?,
            name: row.get("name")?,
            created_at: rows::time(&row, "created_at")?,
        });
    }
    Ok(accounts)
}

/// A password that nobody has to think of: more than 130 random bits in groups that can be read out.
///
/// # Errors
/// [`RecoveryError::System`] when the system gave no random bytes.
pub fn fresh_password() -> Result<Zeroizing<String>, RecoveryError> {
    let failed = |_| RecoveryError::System("the system gave no random bytes".to_owned());
    let letters = Zeroizing::new(tokens::fresh().map_err(failed)?);
    // Of base64url only what no font confuses; 43 letters leave more than enough.
    let clear = letters.chars().filter(|c| c.is_ascii_alphanumeric() && !"0O1lI".contains(*c));
    let mut password = Zeroizing::new(String::with_capacity(30));
    for (place, letter) in clear.take(24).enumerate() {
        if place > 0 && place % 6 == 0 {
            password.push('-');
        }
        password.push(letter);
    }
    match password.len() {
        27 => Ok(password),
        // So many confusable letters come once in the age of the universe.
        _ => Err(RecoveryError::System("the random bytes gave no password".to_owned())),
    }
}

/// Gives an account another password, ends all its sessions and deletes all its bearer tokens, in
/// one transaction with an entry in the audit of each workspace that it belongs to.
///
/// # Errors
/// [`RecoveryError`], and nothing is changed.
pub async fn reset_password(
    db: &dyn Database,
    email: &str,
    password: &str,
    now: Timestamp,
) -> Result<Reset, RecoveryError> {
    const ORGS: &str = "SELECT org_id FROM org_members WHERE user_id = $1";
    const PASSWORD: &str = "UPDATE users SET password_hash = $2 WHERE user_id = $1";
    const SESSIONS: &str = "DELETE FROM sessions WHERE user_id = $1 RETURNING token_hash";
    const TOKENS: &str = "DELETE FROM api_tokens WHERE user_id = $1 RETURNING token_id";
    if let Err(problem) = validate::new_password("password", password) {
        return Err(RecoveryError::Password(problem.detail.unwrap_or_default()));
    }
    let address = email.trim().to_lowercase();
    let Some((user, _)) = accounts::with_hash(db, &address).await? else {
        return Err(RecoveryError::NoAccount(address));
    };
    let hash = passwords::compute(password.as_bytes()).map_err(RecoveryError::System)?;
    let user_id = user.user_id;
    let id = user_id.as_str();
    let mut batch = vec![
        Statement::new(PASSWORD, params![id, hash]).expect_rows(),
        Statement::new(SESSIONS, params![id]),
        Statement::new(TOKENS, params![id]),
    ];
    let operator = UserId::new(OPERATOR).expect("letters are an id");
    for row in db.query(Statement::new(ORGS, params![id])).await? {
        let org: OrgId = rows::id(&row, "org_id")?;
        batch.push(audit::record(&org, &operator, Action::PasswordReset, id, &json!({}), now));
    }
    // What was opened with the ended credentials is closed by the processes that serve.
    changes::note(&mut batch, &Change::User(user_id.clone()));
    let done = db.batch(batch).await?;
    let rows = |index: usize| done.get(index).map_or(0, Vec::len);
    Ok(Reset { sessions: rows(1), tokens: rows(2), user_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_password_is_long_readable_and_never_the_same() {
        let (a, b) = (fresh_password().unwrap(), fresh_password().unwrap());
        assert_ne!(*a, *b);
        assert_eq!(a.split('-').map(str::len).collect::<Vec<_>>(), [6, 6, 6, 6]);
        assert!(!a.contains(['0', 'O', '1', 'l', 'I']));
    }
}
