//! The table of routes: what each operation reads, answers and refuses. The router and the OpenAPI
//! document are both made from it.

use convene_hop::api::{Access, Api, Operation};
use convene_model::{
    Code,
    event::GroupConfig,
    history::{HistoryPage, HistoryQuery, MessageDetail, SearchPage, SearchRequest},
    infra::{
        ActivateRequest, Activation, BlockRequest, CleanupRequest, OrgBlock, OrgLimits,
        RaiseEpochRequest, RevokeRequest, RoutingRecord, RoutingToken, RoutingTokenRequest,
    },
    keys::Jwks,
    listing::{
        GroupsPage, GroupsQuery, LifeEventsPage, LifeEventsQuery, OrgsPage, OrgsQuery, TasksPage,
        TasksQuery,
    },
    tasks::{AdoptRequest, ArchiveRequest, Archived, Task},
    usage::{
        AbuseFlags, AbuseQuery, GroupUsage, OrgUsage, OrgUsageQuery, Released, Reservation,
        ReserveRequest, UsageReport,
    },
    why::Why,
};

use super::{
    Orchestra, groups, lifecycle, org_block, org_limits, orgs, routing_tokens, service, tasks,
    usage,
};

/// What operations on a group may answer.
const GROUP: &[Code] =
    &[Code::Forbidden, Code::OrgBlocked, Code::GroupNotFound, Code::GroupDeleted];
/// What operations that reach the group's controller may answer besides.
const CONTROLLER: &[Code] = &[
    Code::GroupControllerUnavailable,
    Code::GroupArchived,
    Code::StaleEpoch,
    Code::AccessRevoked,
    Code::Overloaded,
    Code::GroupQuarantined,
    Code::StorageFull,
    Code::IllegalTransition,
];

/// What operations may answer that write or read snapshots.
const ARCHIVES: &[Code] = &[Code::ArchiveStoreUnavailable, Code::SnapshotCorrupt];

/// What operations may answer that read texts which an organization keeps itself.
const TEXTS: &[Code] = &[Code::HistoryServiceUnavailable];

/// All operations.
pub(crate) fn api() -> Api<Orchestra> {
    Api::new()
        .merge(of_groups())
        .merge(of_lives())
        .merge(of_orgs())
        .merge(of_usage())
        .merge(of_users())
        .merge(of_the_service())
}

fn of_groups() -> Api<Orchestra> {
    Api::new()
        .on(
            Operation::post("/infra/groups", "activateGroup", "Make a group active.")
                .body::<ActivateRequest>()
                .idempotent()
                .answers::<Activation>(200)
                .problems(GROUP)
                .problems(CONTROLLER)
                .problems(&[
                    Code::ActiveGroupLimitExceeded,
                    Code::OrgBlocked,
                    Code::OrgMismatch,
                    Code::HistoryModeUnsupported,
                    Code::RateLimited,
                ]),
            groups::activate::handle,
        )
        .on(
            Operation::get(
                "/infra/groups",
                "listGroups",
                "A page of groups; of all for operators.",
            )
            .query::<GroupsQuery>()
            .answers::<GroupsPage>(200)
            .problems(&[Code::Forbidden]),
            groups::list::handle,
        )
        .on(
            Operation::get("/infra/groups/{id}", "readGroup", "The group's routing record.")
                .answers::<RoutingRecord>(200)
                .problems(GROUP),
            groups::read::handle,
        )
        .on(
            Operation::get(
                "/infra/groups/{id}/events",
                "listGroupEvents",
                "The steps of the group's life, the newest first; also of one that is gone.",
            )
            .query::<LifeEventsQuery>()
            .answers::<LifeEventsPage>(200)
            .problems(GROUP),
            groups::events::handle,
        )
        .on(
            Operation::put(
                "/infra/groups/{id}/config",
                "configureGroup",
                "What the controller needs to know; an equal or older version changes nothing.",
            )
            .body::<GroupConfig>()
            .idempotent()
            .answers_empty(204)
            .problems(GROUP)
            .problems(CONTROLLER),
            groups::configure::handle,
        )
        .on(
            Operation::post(
                "/infra/groups/{id}/revoke",
                "revokeUser",
                "Void a user's routing tokens and detach them.",
            )
            .body::<RevokeRequest>()
            .idempotent()
            .answers_empty(204)
            .problems(GROUP)
            .problems(CONTROLLER),
            groups::revoke::handle,
        )
        .on(
            Operation::post(
                "/infra/groups/{id}/epoch",
                "raiseEpoch",
                "Void every token of the group and detach everybody.",
            )
            .body::<RaiseEpochRequest>()
            .idempotent()
            .answers::<RoutingRecord>(200)
            .problems(GROUP)
            .problems(CONTROLLER),
            groups::raise_epoch::handle,
        )
        .on(
            Operation::post(
                "/infra/cleanup",
                "reportGroup",
                "A group fell asleep or is in use again; also for controllers.",
            )
            .body::<CleanupRequest>()
            .idempotent()
            .answers_empty(204)
            .problems(GROUP)
            .problems(&[Code::StaleEpoch, Code::IllegalTransition]),
            lifecycle::cleanup::handle,
        )
}

fn of_lives() -> Api<Orchestra> {
    Api::new()
        .on(
            Operation::post(
                "/infra/groups/{id}/archive",
                "archiveGroup",
                "Write the group's snapshot and take the group out of service.",
            )
            .body::<ArchiveRequest>()
            .idempotent()
            .answers::<Archived>(200)
            .answers::<Task>(202)
            .problems(GROUP)
            .problems(CONTROLLER)
            .problems(ARCHIVES)
            .problems(&[
                Code::GroupNotActive,
                Code::HistoryModeUnsupported,
                Code::SnapshotTooLarge,
                Code::Conflict,
            ]),
            lifecycle::archive::handle,
        )
        .on(
            Operation::post(
                "/infra/groups/{id}/adopt",
                "adoptGroup",
                "Take a snapshot from elsewhere as the group's own; operators only.",
            )
            .body::<AdoptRequest>()
            .idempotent()
            .answers::<RoutingRecord>(200)
            .problems(GROUP)
            .problems(ARCHIVES)
            .problems(&[Code::IllegalTransition, Code::OrgMismatch, Code::Conflict]),
            lifecycle::adopt::handle,
        )
        .on(
            Operation::post(
                "/infra/groups/{id}/restore",
                "restoreGroup",
                "Bring an archived group back into service.",
            )
            .idempotent()
            .answers::<Activation>(200)
            .answers::<Task>(202)
            .problems(GROUP)
            .problems(CONTROLLER)
            .problems(ARCHIVES)
            .problems(&[
                Code::ActiveGroupLimitExceeded,
                Code::OrgBlocked,
                Code::Conflict,
            ]),
            lifecycle::restore::handle,
        )
        .on(
            Operation::delete(
                "/infra/groups/{id}",
                "deleteGroup",
                "Remove the group for good: its state, its snapshots, its records.",
            )
            .idempotent()
            .answers_empty(204)
            .answers::<Task>(202)
            .problems(TEXTS)
            .problems(GROUP)
            .problems(&[Code::Conflict]),
            lifecycle::delete::handle,
        )
        .on(
            Operation::get(
                "/infra/tasks",
                "listTasks",
                "A page of tasks, the newest first; of all groups for operators.",
            )
            .query::<TasksQuery>()
            .answers::<TasksPage>(200),
            tasks::list::handle,
        )
        .on(
            Operation::get(
                "/infra/tasks/{id}",
                "readTask",
                "How work that outlives its call stands.",
            )
            .answers::<Task>(200)
            .problems(&[Code::Forbidden, Code::TaskNotFound]),
            tasks::read::handle,
        )
}

fn of_orgs() -> Api<Orchestra> {
    const LIMITS: &str = "/infra/orgs/{id}/limits";
    const BLOCK: &str = "/infra/orgs/{id}/block";
    Api::new()
        .on(
            Operation::get(
                "/infra/orgs",
                "listOrgs",
                "A page of organizations; of all for operators.",
            )
            .query::<OrgsQuery>()
            .answers::<OrgsPage>(200),
            orgs::list::handle,
        )
        .on(
            Operation::get(LIMITS, "readLimits", "An organization's limits.")
                .answers::<OrgLimits>(200)
                .problems(GROUP),
            org_limits::read::handle,
        )
        .on(
            Operation::put(LIMITS, "setLimits", "Set an organization's limits; operators only.")
                .body::<OrgLimits>()
                .idempotent()
                .answers::<OrgLimits>(200)
                .problems(GROUP),
            org_limits::set::handle,
        )
        .on(
            Operation::get(
                BLOCK,
                "readBlock",
                "Whether an organization is blocked; operators only.",
            )
            .answers::<OrgBlock>(200)
            .problems(GROUP),
            org_block::read::handle,
        )
        .on(
            Operation::put(
                BLOCK,
                "setBlock",
                "Block an organization, or lift its block; operators only.",
            )
            .body::<BlockRequest>()
            .idempotent()
            .answers::<OrgBlock>(200)
            .problems(GROUP),
            org_block::set::handle,
        )
}

fn of_usage() -> Api<Orchestra> {
    const USAGE: &str = "/infra/groups/{id}/usage";
    Api::new()
        .on(
            Operation::post(
                USAGE,
                "reportUsage",
                "What a group has used since the report before; for its controller, always with a key.",
            )
            .body::<UsageReport>()
            .always_idempotent()
            .answers_empty(204)
            .problems(&[Code::Forbidden, Code::StaleEpoch, Code::GroupNotFound]),
            usage::report::handle,
        )
        .on(
            Operation::get(USAGE, "readGroupUsage", "What a group has used, by month.")
                .answers::<GroupUsage>(200)
                .problems(GROUP),
            usage::read_group::handle,
        )
        .on(
            Operation::post(
                "/infra/groups/{id}/reserve",
                "reserveForRun",
                "Hold tokens of the organization's budget for a run; for the group's controller.",
            )
            .body::<ReserveRequest>()
            .idempotent()
            .answers::<Reservation>(200)
            .problems(GROUP)
            .problems(&[
                Code::BudgetExhausted,
                Code::StaleEpoch,
                Code::GroupArchived,
                Code::Conflict,
            ]),
            usage::reserve::handle,
        )
        .on(
            Operation::post(
                "/infra/groups/{id}/release-resources",
                "releaseResources",
                "End what a group holds; for its controller.",
            )
            .idempotent()
            .answers::<Released>(200)
            .problems(GROUP)
            .problems(&[Code::StaleEpoch, Code::IllegalTransition]),
            usage::release::handle,
        )
        .on(
            Operation::get(
                "/infra/orgs/{id}/usage",
                "readOrgUsage",
                "What an organization has used in a month.",
            )
            .query::<OrgUsageQuery>()
            .answers::<OrgUsage>(200)
            .problems(GROUP),
            usage::read_org::handle,
        )
        .on(
            Operation::get(
                "/infra/abuse",
                "listAbuse",
                "Who went beyond a rate, the latest first; operators only.",
            )
            .query::<AbuseQuery>()
            .answers::<AbuseFlags>(200)
            .problems(&[Code::Forbidden]),
            usage::abuse::handle,
        )
}

fn of_users() -> Api<Orchestra> {
    Api::new()
        .on(
            Operation::post(
                "/infra/routing-token",
                "issueRoutingToken",
                "A user's right to a group.",
            )
            .body::<RoutingTokenRequest>()
            .answers::<RoutingToken>(200)
            .problems(GROUP),
            routing_tokens::issue::handle,
        )
        .on(
            Operation::get("/groups/{id}/history", "readHistory", "A page of the group's history.")
                .access(Access::CallerAndUser)
                .query::<HistoryQuery>()
                .answers::<HistoryPage>(200)
                .problems(GROUP)
                .problems(CONTROLLER)
                .problems(TEXTS)
                .problems(ARCHIVES)
                .problems(&[Code::EgressExhausted]),
            groups::history::handle,
        )
        .on(
            Operation::get(
                "/groups/{id}/messages/{message_id}",
                "readMessage",
                "One message with its former texts.",
            )
            .access(Access::CallerAndUser)
            .answers::<MessageDetail>(200)
            .problems(GROUP)
            .problems(CONTROLLER)
            .problems(TEXTS)
            .problems(&[Code::MessageNotFound])
            .problems(&[Code::EgressExhausted]),
            groups::message::handle,
        )
        .on(
            Operation::get(
                "/groups/{id}/messages/{message_id}/why",
                "explainMessage",
                "Why agents answered a message, or did not.",
            )
            .access(Access::CallerAndUser)
            .answers::<Why>(200)
            .problems(GROUP)
            .problems(CONTROLLER)
            .problems(ARCHIVES)
            .problems(&[Code::MessageNotFound])
            .problems(&[Code::EgressExhausted]),
            groups::why::handle,
        )
        .on(
            Operation::post("/groups/{id}/search", "searchGroup", "Search the group's messages.")
                .access(Access::CallerAndUser)
                .body::<SearchRequest>()
                .answers::<SearchPage>(200)
                .problems(GROUP)
                .problems(CONTROLLER)
                .problems(&[Code::EgressExhausted]),
            groups::search::handle,
        )
        .on(
            Operation::get(
                "/groups/{id}/ws",
                "openUpstream",
                "Upgrade to an upstream of the group, which carries many users.",
            )
            .access(Access::CallerAndUser)
            .answers_empty(101)
            .problems(GROUP)
            .problems(CONTROLLER)
            .problems(&[
                Code::UpgradeRequired,
                Code::InvalidRequest,
                Code::EgressExhausted,
            ]),
            groups::connect::handle,
        )
}

fn of_the_service() -> Api<Orchestra> {
    Api::new()
        .on(
            Operation::get("/.well-known/jwks.json", "readKeys", "The Orchestrator's public keys.")
                .access(Access::Open)
                .answers::<Jwks>(200),
            service::jwks::handle,
        )
        .on(
            Operation::get("/healthz", "isAlive", "Whether the process answers.")
                .access(Access::Open)
                .answers_text(200, "text/plain; charset=utf-8"),
            service::health::alive,
        )
        .on(
            Operation::get("/readyz", "isReady", "Whether it can work.")
                .access(Access::Open)
                .answers::<service::health::Ready>(200),
            service::health::ready,
        )
}
