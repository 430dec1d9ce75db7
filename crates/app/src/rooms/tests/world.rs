//! Rooms on a real listener, with a workspace and a clock that tests change.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    extract::{Path, Request, State},
    response::Response,
    routing::get,
};
use convene_hop::{Clock, Hop, Signer};
use convene_model::{
    Code, GroupId, HistoryId, MessageId, OrgId, Problem, Role, Timestamp, UserId, claims::service,
    event::GroupConfig, infra::GroupStatus, keys::SigningKey,
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::Notify};

use super::{
    client::Client,
    group::{FakeGroup, GROUP},
};
use crate::{
    orchestrator::OrchestratorClient,
    rooms::{
        Carried, GroupCommand, GroupDescription, Groups, Head, PostRequest, Proof, Records, Rooms,
        RoomsConfig,
        tuning::{PING_EVERY, Tuning},
    },
};

/// How long a test waits for what must come.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Rooms between a scripted group and real clients.
pub(super) struct World {
    pub(super) group: FakeGroup,
    pub(super) workspace: Arc<Workspace>,
    pub(super) rooms: Rooms,
    pub(super) address: SocketAddr,
    now: Arc<AtomicU64>,
    server: tokio::task::JoinHandle<()>,
}

/// The workspace as the rooms see it.
#[derive(Default)]
pub(super) struct Workspace {
    roles: Mutex<HashMap<UserId, Role>>,
    pub(super) version: AtomicU64,
    pub(super) activations: AtomicUsize,
    /// Where the group was said to stand.
    pub(super) stood: Mutex<Vec<GroupStatus>>,
    records: Mutex<Vec<Records>>,
    head: Mutex<Option<Head>>,
    pub(super) refuses_records: AtomicBool,
    changed: Notify,
}

#[async_trait]
impl Groups for Workspace {
    async fn describe(&self, group: &GroupId) -> Result<GroupDescription, Problem> {
        if group.as_str() != GROUP {
            return Err(Code::GroupNotFound.into());
        }
        let version = self.version.load(Ordering::Relaxed);
        let config = GroupConfig { version, ..GroupConfig::default() };
        Ok(GroupDescription { org_id: OrgId::new("o1").unwrap(), config })
    }

    async fn role(&self, _: &GroupId, user: &UserId) -> Result<Option<Role>, Problem> {
        Ok(self.roles.lock().get(user).copied())
    }

    async fn head(&self, _: &GroupId) -> Result<Option<Head>, Problem> {
        Ok(self.head.lock().clone())
    }

    async fn record(&self, _: &GroupId, records: Records) -> Result<Option<Head>, Problem> {
        self.changed.notify_waiters();
        if self.refuses_records.load(Ordering::Relaxed) {
            return Err(Code::Unavailable.into());
        }
        let mut head = self.head.lock();
        if let (Some(first), Some(last)) = (records.said.first(), records.said.last()) {
            let stands = head.as_ref().map_or(0, |head| head.nth);
            if records.jump || (first.nth <= stands + 1 && stands < last.nth) {
                let history = records.history.clone();
                *head = Some(Head { history, seq: last.seq, nth: last.nth });
            }
        }
        self.records.lock().push(records);
        self.changed.notify_waiters();
        Ok(head.clone())
    }

    async fn activated(&self, _: &GroupId) -> Result<(), Problem> {
        self.activations.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn stands(&self, _: &GroupId, status: GroupStatus) -> Result<(), Problem> {
        self.stood.lock().push(status);
        self.changed.notify_waiters();
        Ok(())
    }
}

impl Workspace {
    /// What was recorded.
    pub(super) fn records(&self) -> Vec<Records> {
        self.records.lock().clone()
    }

    /// The numbers of the messages that were recorded, in order.
    pub(super) fn recorded(&self) -> Vec<u64> {
        self.records().iter().flat_map(|records| &records.said).map(|said| said.nth).collect()
    }

    /// Up to where another process has recorded.
    pub(super) fn set_head(&self, history: &str, seq: u64, nth: u64) {
        let history = HistoryId::new(history).unwrap();
        *self.head.lock() = Some(Head { history, seq, nth });
    }

    /// Waits until something was recorded.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if holds(self) {
                    return;
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "waited for {what} in vain: {:?}", self.records());
    }

    pub(super) fn set_role(&self, user: &str, role: impl Into<Option<Role>>) {
        let user = UserId::new(user).unwrap();
        match role.into() {
            Some(role) => self.roles.lock().insert(user, role),
            None => self.roles.lock().remove(&user),
        };
    }
}

impl World {
    /// With short periods and the users `u1` to `u9`.
    pub(super) async fn new() -> Self {
        Self::tuned(Self::quick()).await
    }

    pub(super) fn quick() -> Tuning {
        Tuning {
            tick: Duration::from_millis(20),
            reconnect_first: Duration::from_millis(5),
            after_revocation: Duration::from_millis(5),
            record_pause: Duration::from_millis(5),
            ..Tuning::default()
        }
    }

    pub(super) async fn tuned(tuning: Tuning) -> Self {
        let now = Arc::new(AtomicU64::new(1_732_100_000_000));
        let clock: Clock = {
            let now = Arc::clone(&now);
            Arc::new(move || Timestamp::from_millis(now.load(Ordering::Relaxed)))
        };
        let key = SigningKey::from_seed(service::APP, &[1; 32]);
        let group = FakeGroup::new(&key, clock.clone());
        let workspace = Arc::new(Workspace::default());
        for user in 1..=9 {
            workspace.set_role(&format!("u{user}"), Role::Member);
        }
        let signer = Signer::new(key, clock.clone());
        let orchestrator = OrchestratorClient::new(Hop::in_process(group.router()), signer);
        let groups = Arc::clone(&workspace) as Arc<dyn Groups>;
        let render = |text: &str| format!("<p>{text}</p>");
        let rooms = Rooms::tuned(
            RoomsConfig {
                orchestrator,
                groups,
                render,
                clock,
                external_history: std::collections::BTreeSet::new(),
                ping_every: PING_EVERY,
            },
            tuning,
        );
        let router = Router::new().route("/{user}", get(upgrade)).with_state(rooms.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { group, workspace, rooms, address, now, server }
    }

    pub(super) async fn client(&self, user: &str) -> Client {
        Client::connect(self.address, user).await.unwrap()
    }

    /// A client that is attached and has read the answer.
    pub(super) async fn attached(&self, user: &str) -> Client {
        let mut client = self.client(user).await;
        client.attach().await;
        client
    }

    pub(super) fn advance(&self, by: Duration) {
        self.now.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }

    pub(super) async fn post(&self, user: &str, id: &str, text: &str) -> Result<Carried, Problem> {
        let request = PostRequest {
            message_id: MessageId::new(id).unwrap(),
            text: text.to_owned(),
            mentions: None,
            reply_to: None,
        };
        self.command(user, GroupCommand::Post(request)).await
    }

    pub(super) async fn command(
        &self,
        user: &str,
        command: GroupCommand,
    ) -> Result<Carried, Problem> {
        self.rooms.command(group_id(), UserId::new(user).unwrap(), command).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(super) fn group_id() -> GroupId {
    GroupId::new(GROUP).unwrap()
}

async fn upgrade(
    State(rooms): State<Rooms>,
    Path(user): Path<UserId>,
    request: Request,
) -> Response {
    let proof = Proof { id: user.to_string(), expires_at: None, is_agent: false, token_id: None };
    rooms.upgrade(group_id(), user, proof, request).await
}
