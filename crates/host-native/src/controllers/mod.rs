//! The host of Group Controllers: one task per awake group over the shared journal.
//!
//! Owns the awake groups, their mailboxes and their order of output. It decides nothing about a
//! group itself: that is the controller's `step`.

mod actor;
mod alarms;
mod archive;
mod budget;
mod figures;
mod history_service;
mod inbound;
mod invoke;
mod lifecycle;
mod output;
mod policy;
mod reads;
mod routes;
mod summarize;
mod upstreams;
mod usage;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use convene_hop::{Clock, GroupLink, Hop, Signer};
use convene_model::{
    Code, GroupId, HistoryId, OrgId, Problem, UpstreamId,
    claims::Access,
    history::{HistoryPage, HistoryQuery},
    infra::{HistoryMode, InitRequest},
    keys::TrustedKeys,
};
use convene_storage::{GroupStore, StoreError};
use parking_lot::Mutex;
use tokio::sync::{
    Semaphore,
    mpsc::{self, error::TrySendError},
    oneshot,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use actor::{Actor, Loaded, Mail};
use alarms::Alarms;
pub use figures::Figures;
use figures::{Counters, OpenLink};
pub use history_service::{HistoryServices, Service as HistoryService};
use lifecycle::Lifecycle;
use usage::Usage;
pub use usage::UsageTotals;

/// Inputs that wait for one group. Requests beyond it are refused as overloaded; what a run of the
/// group says waits in turn.
pub const MAILBOX: usize = 1024;
/// Inputs that a group takes at a time, and events that it commits as one row, at most.
pub const MAX_BATCH: usize = 64;
/// Batches of one group that wait for their commit at a time.
pub const MAX_UNCOMMITTED_BATCHES: usize = 16;
/// Groups that are read from the store to wake at the same time; others wait for them.
pub const WAKING_AT_ONCE: usize = 8;
/// Groups that wait for that at most; requests for further ones are refused as overloaded.
pub const MAX_WAKING: usize = 10_000;
/// What a refused caller is told to wait, in milliseconds, when a mailbox is full.
pub const MAILBOX_RETRY_MS: u64 = 100;
/// What a refused caller is told to wait, in milliseconds, when too many groups wake.
pub const WAKING_RETRY_MS: u64 = 1_000;
/// Events between two snapshots of a controller's state.
pub const SNAPSHOT_EVERY: u64 = 1000;

/// What the host of controllers needs.
#[derive(Debug, Clone)]
pub struct ControllersConfig {
    /// Signs agent-access tokens.
    pub signer: Signer,
    /// The Orchestrator's keys: for service tokens and routing tokens.
    pub orchestrator_keys: TrustedKeys,
    /// The Agents Worker.
    pub agents: Hop,
    /// How long a group that nobody uses stays awake.
    pub idle_after: Duration,
}

/// The host of Group Controllers. Cheap to clone.
#[derive(Clone)]
pub struct Controllers {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) store: GroupStore,
    pub(crate) config: ControllersConfig,
    pub(crate) clock: Clock,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
    alarms: Alarms,
    counters: Counters,
    lifecycle: Lifecycle,
    usage: Usage,
    policy: policy::Policy,
    budgets: budget::Budgets,
    /// The history services of organizations that have one.
    history: OnceLock<HistoryServices>,
    /// The groups that are awake, or wake.
    groups: Mutex<HashMap<GroupId, Arc<tokio::sync::Mutex<Slot>>>>,
    /// Groups that may be read from the store at the same time.
    waking: Semaphore,
    next_upstream: std::sync::atomic::AtomicU64,
}

/// Where a group's mailbox is kept; its lock is held while the group wakes.
#[derive(Default)]
struct Slot {
    mailbox: Option<mpsc::Sender<Box<Mail>>>,
}

impl Shared {
    /// Takes a group off the register, unless somebody has a way to its mailbox or something is in
    /// it. Afterwards whoever wants the group wakes it anew.
    ///
    /// Every way to a mailbox begins at its slot, and every hold on a slot at the register: while
    /// the register is locked and nobody else holds the slot, nobody can get one.
    fn retire(&self, group_id: &GroupId, inbox: &mpsc::Receiver<Box<Mail>>) -> bool {
        let mut groups = self.groups.lock();
        let Some(slot) = groups.get(group_id) else {
            // The node stops, and its register is empty already.
            return inbox.is_empty() && inbox.sender_strong_count() == 0;
        };
        let alone =
            Arc::strong_count(slot) == 1 && inbox.sender_strong_count() == 1 && inbox.is_empty();
        if alone {
            groups.remove(group_id);
        }
        alone
    }

    /// Takes a group off the register that could not wake or whose task ended by itself, unless
    /// somebody wakes it anew by now.
    fn forget(&self, group_id: &GroupId, holds: usize) {
        let mut groups = self.groups.lock();
        if groups.get(group_id).is_some_and(|slot| Arc::strong_count(slot) <= 1 + holds) {
            groups.remove(group_id);
        }
    }

    /// Whether the group is awake, or wakes.
    fn is_awake(&self, group_id: &GroupId) -> bool {
        self.groups.lock().contains_key(group_id)
    }
}

/// What is known of a group when history is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The number of the last committed event.
    pub seq: u64,
    /// The epoch.
    pub epoch: u64,
    /// The numbering.
    pub history: HistoryId,
    /// The organization, where its own service keeps what is written in the group.
    pub kept_by: Option<OrgId>,
}

impl Controllers {
    /// A host over `store`.
    #[must_use]
    pub fn new(store: GroupStore, config: ControllersConfig) -> Self {
        let clock: Clock = {
            let signer = config.signer.clone();
            Arc::new(move || signer.now())
        };
        Self {
            shared: Arc::new(Shared {
                store,
                config,
                clock,
                tasks: TaskTracker::new(),
                stopping: CancellationToken::new(),
                alarms: Alarms::default(),
                counters: Counters::default(),
                lifecycle: Lifecycle::default(),
                usage: Usage::default(),
                policy: policy::Policy::default(),
                budgets: budget::Budgets::default(),
                history: OnceLock::new(),
                groups: Mutex::new(HashMap::new()),
                waking: Semaphore::new(WAKING_AT_ONCE),
                next_upstream: std::sync::atomic::AtomicU64::new(1),
            }),
        }
    }

    /// The routes that the Orchestrator calls, each with its service token.
    pub fn router(&self) -> axum::Router {
        routes::router(self.clone())
    }

    /// Wakes the groups whose deadlines outlived the last process, so that their runs end or go on.
    ///
    /// # Errors
    /// [`StoreError`] when the deadlines cannot be read. A single group that cannot wake is logged.
    pub async fn wake_due(&self) -> Result<usize, StoreError> {
        let store = self.shared.store.clone();
        let alarms = tokio::task::spawn_blocking(move || store.alarms())
            .await
            .map_err(|error| StoreError::Failed(error.to_string()))??;
        for (group_id, _) in &alarms {
            if let Err(problem) = self.mailbox(group_id).await {
                tracing::error!(group = %group_id, code = problem.code.as_str(), "a group with a deadline cannot wake");
            }
        }
        Ok(alarms.len())
    }

    /// Tells the Orchestrator from now on which groups are awake and which sleep, and what they use.
    /// `db` keeps what has not been said yet.
    ///
    /// # Errors
    /// [`convene_db::DbError`] when it cannot be read.
    pub async fn report_to(
        &self,
        orchestrator: Hop,
        db: convene_db::Db,
    ) -> Result<(), convene_db::DbError> {
        lifecycle::begin(&self.shared, orchestrator, db).await
    }

    /// Lets organizations' own services keep what is written in their groups. Only the first call
    /// counts.
    pub fn keep_history_with(&self, services: HistoryServices) {
        if self.shared.history.set(services).is_err() {
            tracing::warn!("the history services are set already");
        }
    }

    /// How many groups are awake.
    #[must_use]
    pub fn awake(&self) -> usize {
        self.shared.groups.lock().len()
    }

    /// Words on groups that the Orchestrator has not been told yet.
    #[must_use]
    pub fn unreported(&self) -> usize {
        self.shared.lifecycle.waiting()
    }

    /// What the groups of this process have used.
    #[must_use]
    pub fn usage(&self) -> UsageTotals {
        self.shared.usage.totals()
    }

    /// Brings a group to life, or repeats that.
    ///
    /// # Errors
    /// The controller's refusal, or [`Code::GroupQuarantined`].
    pub async fn init(&self, group_id: &GroupId, request: InitRequest) -> Result<Head, Problem> {
        let keeps = |services: &HistoryServices| services.has(&request.org_id);
        if request.history_mode == HistoryMode::External
            && !self.shared.history.get().is_some_and(keeps)
        {
            let detail = "no history service of the organization is configured";
            return Err(Problem::new(Code::HistoryModeUnsupported).detail(detail));
        }
        self.wiped(group_id).await?;
        self.ask(group_id, |reply| Mail::Init { request, reply }).await?
    }

    /// Waits for all that was accepted before, then says where the group stands.
    ///
    /// # Errors
    /// [`Code::GroupNotFound`] for a group that was never brought to life.
    pub async fn head(&self, group_id: &GroupId) -> Result<Head, Problem> {
        self.ask(group_id, |reply| Mail::Head { access: None, reply }).await?
    }

    /// Like [`Self::head`], for a user whose verified routing token the group must admit.
    ///
    /// # Errors
    /// Why the group does not admit it, or [`Code::GroupNotFound`].
    pub async fn admit(&self, group_id: &GroupId, access: Access) -> Result<Head, Problem> {
        self.ask(group_id, |reply| Mail::Head { access: Some(access), reply }).await?
    }

    pub(crate) async fn call(
        &self,
        group_id: &GroupId,
        input: convene_group_controller::Input,
    ) -> Result<(), Problem> {
        self.ask(group_id, |reply| Mail::Call { input, reply }).await?
    }

    /// A page of history up to what is committed now.
    ///
    /// # Errors
    /// [`Code::GroupNotFound`], or [`Code::GroupQuarantined`] when stored rows fail their checks.
    pub async fn history(
        &self,
        group_id: &GroupId,
        query: HistoryQuery,
    ) -> Result<HistoryPage, Problem> {
        let head = self.head(group_id).await?;
        let (store, key) = (self.shared.store.clone(), group_id.key());
        let mut parts = tokio::task::spawn_blocking(move || store.history(key, query, head.seq))
            .await
            .map_err(|error| internal("reading history", &error))?
            .map_err(|error| store_problem(group_id, &error))?;
        if let Some((org_id, services)) = head.kept_by.as_ref().zip(self.shared.history.get()) {
            services.fill(org_id, group_id, &mut parts.messages).await?;
            services.fill_excerpts(org_id, group_id, &mut parts.answered).await;
        }
        Ok(HistoryPage {
            messages: parts.messages,
            runs: parts.runs,
            answered: parts.answered,
            more_before: parts.more_before,
            more_after: parts.more_after,
            head: head.seq,
            history: head.history,
        })
    }

    /// Opens an upstream of a group and returns the caller's end.
    ///
    /// # Errors
    /// [`Code::GroupNotFound`] for a group that was never brought to life.
    pub async fn open(&self, group_id: &GroupId) -> Result<GroupLink, Problem> {
        let upstream = UpstreamId(
            self.shared.next_upstream.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
        );
        let (theirs, ours) = GroupLink::pair();
        let mailbox = self.mailbox(group_id).await?;
        let (reply, opened) = oneshot::channel();
        let figures = OpenLink::new(&self.shared, upstream, &theirs, &ours);
        self.send(&mailbox, Mail::Open { upstream, link: ours, figures, reply })?;
        opened.await.map_err(|_| gone())??;
        Ok(theirs)
    }

    /// Lets every group commit what it has accepted, then stops them all.
    pub async fn shutdown(&self) {
        self.shared.stopping.cancel();
        self.shared.groups.lock().clear();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        if let Err(error) = self.shared.usage.note().await {
            tracing::error!(%error, "what groups have used last is lost");
        }
    }

    async fn ask<T>(
        &self,
        group_id: &GroupId,
        mail: impl FnOnce(oneshot::Sender<T>) -> Mail,
    ) -> Result<T, Problem> {
        let mailbox = self.mailbox(group_id).await?;
        let (reply, answer) = oneshot::channel();
        self.send(&mailbox, mail(reply))?;
        answer.await.map_err(|_| gone())
    }

    fn send(&self, mailbox: &mpsc::Sender<Box<Mail>>, mail: Mail) -> Result<(), Problem> {
        mailbox.try_send(Box::new(mail)).map_err(|refused| match refused {
            TrySendError::Full(_) => self.shared.counters.mailbox_full(),
            TrySendError::Closed(_) => gone(),
        })
    }

    /// The group's mailbox; wakes the group when it sleeps.
    async fn mailbox(&self, group_id: &GroupId) -> Result<mpsc::Sender<Box<Mail>>, Problem> {
        if self.shared.stopping.is_cancelled() {
            return Err(gone());
        }
        let slot = Arc::clone(self.shared.groups.lock().entry(group_id.clone()).or_default());
        let mut locked = slot.lock().await;
        if let Some(mailbox) = locked.mailbox.as_ref().filter(|mailbox| !mailbox.is_closed()) {
            return Ok(mailbox.clone());
        }
        match self.wake(group_id).await {
            Ok(mailbox) => {
                locked.mailbox = Some(mailbox.clone());
                Ok(mailbox)
            }
            Err(problem) => {
                drop(locked);
                self.shared.forget(group_id, 1);
                Err(problem)
            }
        }
    }

    /// Reads a group from the store and lets its task begin.
    async fn wake(&self, group_id: &GroupId) -> Result<mpsc::Sender<Box<Mail>>, Problem> {
        let (store, key) = (self.shared.store.clone(), group_id.key());
        let _waking = self.shared.counters.waking()?;
        let turn = self.shared.waking.acquire().await.map_err(|_| gone())?;
        let load = move || {
            let group = store.load(key)?;
            let import = if group.is_none() { store.load_import(key)? } else { None };
            Ok(Loaded { group, import })
        };
        let loaded = tokio::task::spawn_blocking(load)
            .await
            .map_err(|error| internal("waking a group", &error))?
            .map_err(|error| store_problem(group_id, &error))?;
        drop(turn);
        let (mailbox, inbox) = mpsc::channel(MAILBOX);
        let actor = Actor::wake(
            Arc::clone(&self.shared),
            group_id.clone(),
            loaded,
            inbox,
            mailbox.downgrade(),
        )
        .map_err(|error| {
            tracing::error!(group = %group_id, %error, "a group's history cannot be replayed");
            Problem::new(Code::GroupQuarantined)
        })?;
        self.shared.tasks.spawn(Box::new(actor).run());
        Ok(mailbox)
    }
}

/// The group's task is gone: the node stops, or the group's last commit failed.
fn gone() -> Problem {
    Problem::new(Code::GroupControllerUnavailable)
}

fn internal(doing: &str, error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, doing, "an internal task failed");
    Problem::new(Code::Internal)
}

fn store_problem(group_id: &GroupId, error: &StoreError) -> Problem {
    if let StoreError::PageSize(_) | StoreError::Query(_) = error {
        // What was asked is at fault, not the storage.
        tracing::debug!(group = %group_id, %error, "a read was refused");
    } else {
        tracing::error!(group = %group_id, %error, "a group's storage cannot be read");
    }
    match error {
        StoreError::Quarantined { .. } => Problem::new(Code::GroupQuarantined),
        StoreError::PageSize(_) => Problem::new(Code::InvalidRequest).detail(error.to_string()),
        StoreError::Query(_) => Problem::new(Code::ValidationFailed).detail(error.to_string()),
        StoreError::Missing { .. } | StoreError::Refused(_) | StoreError::Failed(_) => {
            Problem::new(Code::Internal)
        }
    }
}
