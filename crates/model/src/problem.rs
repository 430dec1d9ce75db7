//! Errors as clients see them: RFC 9457 problem details with a stable code.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal, $title:literal;)*) => {
        /// A stable error code, in problem documents and in `error` frames.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $(
                $(#[$doc])*
                #[serde(rename = $code)]
                $name,
            )*
        }

        impl Code {
            /// All codes, for documentation and tests.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code as it stands on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The HTTP status that goes with the code.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// One short sentence for people.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// The request is not of the documented form.
    InvalidRequest = "invalid_request", 400, "The request is not of the documented form.";
    /// A frame is not of the documented form.
    InvalidFrame = "invalid_frame", 400, "The frame is not of the documented form.";
    /// A frame's `type` is not known.
    UnknownType = "unknown_type", 400, "The frame's type is not known.";
    /// No credentials, or credentials that do not hold.
    Unauthorized = "unauthorized", 401, "Valid credentials are required.";
    /// A token is past its `exp`.
    TokenExpired = "token_expired", 401, "The token has expired.";
    /// A single-use token was used before.
    TokenReplayed = "token_replayed", 401, "The token has been used before.";
    /// A budget is used up.
    BudgetExhausted = "budget_exhausted", 402, "The budget is used up.";
    /// A group has sent as many bytes as it may for now.
    EgressExhausted = "egress_exhausted", 402, "The group has sent as much as it may for now.";
    /// The caller may not do this.
    Forbidden = "forbidden", 403, "You may not do this.";
    /// A token of a former epoch.
    StaleEpoch = "stale_epoch", 403, "The token belongs to a former epoch of the group.";
    /// A token issued before its user was removed.
    AccessRevoked = "access_revoked", 403, "Access to the group was withdrawn.";
    /// The decision is for somebody else to make.
    NotPermitted = "not_permitted", 403, "This is for somebody else to decide.";
    /// The organization is blocked.
    OrgBlocked = "org_blocked", 403, "The organization is blocked.";
    /// A browser request without its CSRF proof, or from another origin.
    BadOrigin = "bad_origin", 403, "The request does not come from this site.";
    /// Nothing there, or nothing that the caller may see.
    NotFound = "not_found", 404, "There is nothing here.";
    /// No such group, or none that the caller may see.
    GroupNotFound = "group_not_found", 404, "There is no such group.";
    /// No such task, or none that the caller may see.
    TaskNotFound = "task_not_found", 404, "There is no such task.";
    /// No such message.
    MessageNotFound = "message_not_found", 404, "There is no such message.";
    /// No such run, or it has ended.
    RunNotFound = "run_not_found", 404, "There is no such run in progress.";
    /// No such approval.
    ApprovalNotFound = "approval_not_found", 404, "There is no such approval.";
    /// The method is not offered here.
    MethodNotAllowed = "method_not_allowed", 405, "The method is not offered here.";
    /// The same idempotency key is in use at this moment.
    Conflict = "conflict", 409, "Another request is changing the same thing.";
    /// The group is archived and read-only.
    GroupArchived = "group_archived", 409, "The group is archived.";
    /// The group belongs to another organization.
    OrgMismatch = "org_mismatch", 409, "The group belongs to another organization.";
    /// The lifecycle has no such step.
    IllegalTransition = "illegal_transition", 409, "The group's lifecycle has no such step.";
    /// Only an active or idle group can be archived.
    GroupNotActive = "group_not_active", 409, "The group is neither active nor idle.";
    /// A snapshot does not hold what its manifest says.
    SnapshotCorrupt = "snapshot_corrupt", 409, "The snapshot fails its checks.";
    /// The `message_id` belongs to another message.
    MessageIdReused = "message_id_reused", 409, "The message id belongs to another message.";
    /// The name or address is taken.
    AlreadyExists = "already_exists", 409, "This already exists.";
    /// Somebody else has decided about the approval, or otherwise.
    ApprovalDecided = "approval_decided", 409, "This has been decided already.";
    /// No bound stops the agent at the message, or the message is too old.
    NotContinuable = "not_continuable", 409, "There is nothing here that could go on.";
    /// The run goes on, was completed, or is too old.
    NotRetryable = "not_retryable", 409, "This run cannot be made again.";
    /// All agents of the group are paused.
    AgentsPaused = "agents_paused", 409, "The agents of the group are paused.";
    /// The connection has not attached yet.
    NotAttached = "not_attached", 409, "Attach to the group first.";
    /// A group or an invitation that is gone for good.
    Gone = "gone", 410, "This is no longer available.";
    /// Nobody decided about the approval in time, or its run ended first.
    ApprovalExpired = "approval_expired", 410, "This can be decided no longer.";
    /// The group was deleted.
    GroupDeleted = "group_deleted", 410, "The group was deleted.";
    /// The replay asked for is too long; read history instead.
    TooOld = "too_old", 410, "Too much was missed to replay; read the history.";
    /// A body or frame is above its limit.
    TooLarge = "too_large", 413, "This is too large.";
    /// A group is larger than a snapshot may be.
    SnapshotTooLarge = "snapshot_too_large", 413, "The group is larger than a snapshot may be.";
    /// A value breaks a documented rule.
    ValidationFailed = "validation_failed", 422, "A value breaks a rule.";
    /// The idempotency key was used with another body.
    IdempotencyKeyReused = "idempotency_key_reused", 422, "The idempotency key was used with another body.";
    /// External history is not offered.
    HistoryModeUnsupported = "history_mode_unsupported", 422, "This history mode is not offered.";
    /// A WebSocket upgrade is required.
    UpgradeRequired = "upgrade_required", 426, "A WebSocket upgrade is required.";
    /// Too many requests.
    RateLimited = "rate_limited", 429, "Too many requests.";
    /// The organization has as many active groups as it may have.
    ActiveGroupLimitExceeded = "active_group_limit_exceeded", 429, "The organization's limit of active groups is reached.";
    /// A bug or a broken part; the cause is in the log only.
    Internal = "internal", 500, "Something failed on our side.";
    /// The group's controller cannot be reached.
    GroupControllerUnavailable = "group_controller_unavailable", 502, "The group cannot be reached at the moment.";
    /// Another part cannot be reached.
    Unavailable = "unavailable", 503, "A part of the service cannot be reached at the moment.";
    /// The store of archives does not answer, or not as it should.
    ArchiveStoreUnavailable = "archive_store_unavailable", 503, "The archive store cannot be reached at the moment.";
    /// The group or the node has more work than it can queue.
    Overloaded = "overloaded", 503, "The service is overloaded; try again shortly.";
    /// The node's disk is full: nothing can be written until there is room again.
    HistoryServiceUnavailable = "history_service_unavailable", 503, "The organization's history service cannot be used; try again later.";
    /// See the title.
    StorageFull = "storage_full", 507, "There is no room to store this; try again later.";
    /// The group's stored history fails its checks; an operator must look.
    GroupQuarantined = "group_quarantined", 503, "The group is set aside because its stored history fails its checks.";
}

/// An error as RFC 9457 has it; rendered with `content-type: application/problem+json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:convene:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One short sentence, the same for every problem of this code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: Code,
    /// What is particular to this occurrence; never an internal cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Figures and names that a program can use, beside the standard members.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The documents of both APIs describe it once, as `Problem`.
impl schemars::JsonSchema for Problem {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Problem".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "$ref": "#/components/schemas/Problem" })
    }

    fn inline_schema() -> bool {
        true
    }
}

impl Problem {
    /// A problem with nothing beyond its code.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self {
            kind: format!("urn:convene:problem:{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: None,
            extra: Map::new(),
        }
    }

    /// Adds what is particular to this occurrence.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a figure or a name under `key`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(key.to_owned(), value.into());
        self
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_keeps_its_figures_beside_the_standard_members() {
        let problem =
            Problem::new(Code::ActiveGroupLimitExceeded).with("limit", 3).with("active", 3);
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["code"], "active_group_limit_exceeded");
        assert_eq!(json["status"], 429);
        assert_eq!(json["limit"], 3);
        assert_eq!(serde_json::from_value::<Problem>(json).unwrap(), problem);
    }

    #[test]
    fn no_two_codes_share_a_name() {
        let mut names: Vec<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
