//! The operations of `/api/groups`: what each reads, answers and refuses.

use convene_hop::api::{Api, Operation};
use convene_model::{
    Code,
    history::{HistoryPage, MessageDetail, SearchPage},
    tasks::Task,
    usage::GroupUsage,
    why::Why,
};

use super::{
    api::{self},
    commands, life, messages,
};
use crate::{
    rooms::Carried,
    state::AppState,
    ui::view::{GroupItem, Person},
};

/// What every operation on a group may answer.
const GROUP: &[Code] = &[Code::GroupNotFound, Code::GroupDeleted, Code::Forbidden];
/// What steps of a group's life may answer besides.
const LIFE: &[Code] = &[
    Code::OrgBlocked,
    Code::GroupNotActive,
    Code::IllegalTransition,
    Code::Conflict,
    Code::ActiveGroupLimitExceeded,
    Code::SnapshotTooLarge,
    Code::SnapshotCorrupt,
    Code::ArchiveStoreUnavailable,
    Code::GroupControllerUnavailable,
    Code::Unavailable,
];
/// What operations that need the group itself may answer besides.
const ROOM: &[Code] = &[
    Code::GroupNotFound,
    Code::Forbidden,
    Code::AccessRevoked,
    Code::OrgBlocked,
    Code::GroupArchived,
    Code::GroupDeleted,
    Code::ActiveGroupLimitExceeded,
    Code::RateLimited,
    Code::GroupControllerUnavailable,
    Code::HistoryServiceUnavailable,
    Code::Overloaded,
    Code::EgressExhausted,
    Code::GroupQuarantined,
];
/// What operations that read an archived group may answer besides.
const ARCHIVE: &[Code] = &[Code::SnapshotCorrupt, Code::ArchiveStoreUnavailable];
/// What operations that write in it may answer besides.
const WRITE: &[Code] =
    &[Code::MessageNotFound, Code::MessageIdReused, Code::ValidationFailed, Code::StorageFull];

/// What operations on the work of agents may answer besides.
const WORK: &[Code] = &[Code::AgentsPaused, Code::StorageFull];

/// The API of groups.
pub(crate) fn api() -> Api<AppState> {
    let all = Api::new().merge(groups()).merge(lives()).merge(people());
    all.merge(conversation()).merge(work())
}

/// What people do to the work of agents.
fn work() -> Api<AppState> {
    let write = |operation: Operation| operation.answers::<Carried>(200).problems(ROOM);
    Api::new()
        .on(
            write(Operation::post(
                "/api/groups/{group_id}/approvals/{approval_id}",
                "decideApproval",
                "Permit a call of an agent, or refuse it.",
            ))
            .body::<commands::Decide>()
            .problems(&[
                Code::NotPermitted,
                Code::ApprovalNotFound,
                Code::ApprovalDecided,
                Code::ApprovalExpired,
                Code::StorageFull,
            ]),
            commands::approve,
        )
        .on(
            write(Operation::post(
                "/api/groups/{group_id}/runs/{run_id}/cancel",
                "cancelRun",
                "Stop a run.",
            ))
            .problems(&[Code::RunNotFound]),
            commands::cancel_run,
        )
        .on(
            write(Operation::post(
                "/api/groups/{group_id}/runs/{run_id}/retry",
                "retryRun",
                "Make a run again that failed, was cut off or stopped.",
            ))
            .problems(&[Code::RunNotFound, Code::NotRetryable])
            .problems(WORK),
            commands::retry_run,
        )
        .on(
            write(Operation::post(
                "/api/groups/{group_id}/messages/{message_id}/continue",
                "letContinue",
                "Let an agent answer a message where a bound had stopped it.",
            ))
            .body::<commands::LetContinue>()
            .problems(&[Code::NotContinuable])
            .problems(WORK),
            commands::let_continue,
        )
}

fn groups() -> Api<AppState> {
    const ONE: &str = "/api/groups/{group_id}";
    Api::new()
        .on(
            Operation::get("/api/groups", "listGroups", "The caller's groups of a workspace.")
                .query::<api::ListQuery>()
                .answers::<Vec<GroupItem>>(200)
                .problems(&[Code::NotFound]),
            api::list,
        )
        .on(
            Operation::post("/api/groups", "makeGroup", "Make a group.")
                .body::<api::GroupBody>()
                .answers::<GroupItem>(201)
                .problems(&[Code::NotFound, Code::Forbidden]),
            api::make,
        )
        .on(
            Operation::get(ONE, "readGroup", "A group, and what the caller is in it.")
                .answers::<api::GroupDetail>(200)
                .problems(GROUP),
            api::show,
        )
        .on(
            Operation::patch(ONE, "changeGroup", "Change what is given; the rest stays.")
                .body::<api::GroupChange>()
                .answers::<api::GroupDetail>(200)
                .problems(GROUP)
                .problems(&[Code::GroupControllerUnavailable]),
            api::change,
        )
        .on(
            Operation::post(
                "/api/groups/{group_id}/clone",
                "cloneGroup",
                "A new group like this one.",
            )
            .body::<api::CloneBody>()
            .answers::<GroupItem>(201)
            .problems(GROUP),
            api::clone,
        )
}

fn lives() -> Api<AppState> {
    Api::new()
        .on(
            Operation::post(
                "/api/groups/{group_id}/archive",
                "archiveGroup",
                "Put a group away; it can be read, and restored. For owners and admins.",
            )
            .answers::<life::api::Lives>(200)
            .answers::<life::api::Lives>(202)
            .problems(GROUP)
            .problems(LIFE),
            life::api::archive,
        )
        .on(
            Operation::post(
                "/api/groups/{group_id}/restore",
                "restoreGroup",
                "Bring an archived group back. For owners and admins.",
            )
            .answers::<life::api::Lives>(200)
            .answers::<life::api::Lives>(202)
            .problems(GROUP)
            .problems(LIFE),
            life::api::restore,
        )
        .on(
            Operation::delete(
                "/api/groups/{group_id}",
                "deleteGroup",
                "Remove a group and everything in it for good. For owners and admins.",
            )
            .answers_empty(204)
            .problems(GROUP)
            .problems(LIFE),
            life::api::delete,
        )
        .on(
            Operation::get(
                "/api/groups/{group_id}/tasks/{task_id}",
                "readGroupTask",
                "How an archive or a restore that takes a while stands.",
            )
            .answers::<Task>(200)
            .problems(GROUP)
            .problems(&[Code::TaskNotFound, Code::Unavailable]),
            life::api::task,
        )
        .on(
            Operation::get(
                "/api/groups/{group_id}/usage",
                "readGroupUsage",
                "What the group's agents and clients have used, by month.",
            )
            .answers::<GroupUsage>(200)
            .problems(GROUP)
            .problems(&[Code::Unavailable]),
            life::api::usage,
        )
}

fn people() -> Api<AppState> {
    const MEMBER: &str = "/api/groups/{group_id}/members/{user_id}";
    const AGENTS: &str = "/api/groups/{group_id}/agents";
    Api::new()
        .on(
            Operation::get("/api/groups/{group_id}/members", "listGroupMembers", "Who sees it.")
                .answers::<Vec<Person>>(200)
                .problems(GROUP),
            api::members,
        )
        .on(
            Operation::put(MEMBER, "addGroupMember", "Let somebody into a private group.")
                .answers_empty(204)
                .problems(GROUP)
                .problems(&[Code::ValidationFailed]),
            api::add_member,
        )
        .on(
            Operation::delete(MEMBER, "removeGroupMember", "Remove somebody, or leave.")
                .answers_empty(204)
                .problems(GROUP)
                .problems(&[Code::ValidationFailed, Code::Conflict]),
            api::remove_member,
        )
        .on(
            Operation::get(AGENTS, "listGroupAgents", "Its agents and what wakes them.")
                .answers::<api::GroupAgents>(200)
                .problems(GROUP),
            api::agents,
        )
        .on(
            Operation::put(AGENTS, "setGroupAgents", "Set its agents, or pause them all.")
                .body::<api::AgentsBody>()
                .answers::<api::GroupAgents>(200)
                .problems(GROUP)
                .problems(&[Code::GroupControllerUnavailable]),
            api::set_agents,
        )
}

fn conversation() -> Api<AppState> {
    const MESSAGES: &str = "/api/groups/{group_id}/messages";
    const MESSAGE: &str = "/api/groups/{group_id}/messages/{message_id}";
    const REACTION: &str = "/api/groups/{group_id}/messages/{message_id}/reactions/{emoji}";
    const PIN: &str = "/api/groups/{group_id}/messages/{message_id}/pin";
    let write =
        |operation: Operation| operation.answers::<Carried>(200).problems(ROOM).problems(WRITE);
    Api::new()
        .on(
            Operation::get(MESSAGES, "readMessages", "A page of history, oldest first.")
                .query::<messages::PageQuery>()
                .answers::<HistoryPage>(200)
                .problems(ROOM)
                .problems(ARCHIVE)
                .problems(&[Code::ValidationFailed]),
            messages::history,
        )
        .on(
            Operation::post(MESSAGES, "postMessage", "Post a message; idempotent by `message_id`.")
                .body::<commands::NewMessage>()
                .answers::<Carried>(201)
                .problems(ROOM)
                .problems(WRITE),
            commands::post,
        )
        .on(
            Operation::get(MESSAGE, "readMessage", "One message with its former texts.")
                .query::<messages::DetailQuery>()
                .answers::<MessageDetail>(200)
                .problems(ROOM)
                .problems(&[Code::MessageNotFound]),
            messages::detail,
        )
        .on(
            Operation::get(
                "/api/groups/{group_id}/messages/{message_id}/why",
                "explainMessage",
                "Why agents answered a message, or did not.",
            )
            .answers::<Why>(200)
            .problems(ROOM)
            .problems(ARCHIVE)
            .problems(&[Code::MessageNotFound]),
            messages::why,
        )
        .on(
            write(Operation::patch(MESSAGE, "editMessage", "Another text for a message."))
                .body::<commands::NewText>(),
            commands::edit,
        )
        .on(
            write(Operation::delete(
                MESSAGE,
                "deleteMessage",
                "Take a message back; its texts go.",
            )),
            commands::delete,
        )
        .on(
            write(Operation::put(REACTION, "addReaction", "React with one emoji.")),
            commands::add_reaction,
        )
        .on(
            write(Operation::delete(REACTION, "removeReaction", "Take a reaction back.")),
            commands::remove_reaction,
        )
        .on(write(Operation::put(PIN, "pinMessage", "Pin a message.")), commands::pin)
        .on(write(Operation::delete(PIN, "unpinMessage", "Take a pin off.")), commands::unpin)
        .on(
            Operation::get(
                "/api/groups/{group_id}/search",
                "searchMessages",
                "Search, newest first.",
            )
            .query::<messages::SearchQuery>()
            .answers::<SearchPage>(200)
            .problems(ROOM)
            .problems(&[Code::ValidationFailed]),
            messages::search,
        )
        .on(
            Operation::get(
                "/api/groups/{group_id}/ws",
                "openSocket",
                "Upgrade to a WebSocket that speaks `convene.v1`.",
            )
            .answers_empty(101)
            .problems(ROOM)
            .problems(&[Code::BadOrigin, Code::UpgradeRequired, Code::InvalidRequest]),
            messages::socket,
        )
}
