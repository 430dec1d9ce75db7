//! An Orchestrator on a directory of its own, with a clock that only tests move.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::Router;
use bytes::Bytes;
use convene_db::{Db, Row, Statement, params};
use convene_hop::{Clock, Hop, Signer, read_body};
use convene_model::{Timestamp, keys::TrustedKeys, limits::MAX_BODY_BYTES};
use convene_orchestrator::{Config, Orchestrator, Reconciled, Times, TrustedApp, open};
use convene_testing::forge::{Bound, Forged, Identity};
use futures_util::TryStreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use object_store::{ObjectStore, memory::InMemory};
use serde_json::{Value, json};

use crate::{
    controllers::{Call, FakeControllers},
    place::Place,
};

/// Groups that an organization may have active by default.
pub(crate) const DEFAULT_LIMIT: u64 = 100;

/// The period of scheduled work, in real time; its leases are in the time of the world.
pub(crate) const RECONCILE_EVERY: Duration = Duration::from_millis(20);

pub(crate) struct World {
    pub(crate) router: Router,
    pub(crate) controllers: FakeControllers,
    pub(crate) db: Db,
    /// Our own App: operator scope.
    pub(crate) app: Identity,
    /// An outside app without operator scope.
    pub(crate) portal: Identity,
    /// The Orchestrator itself.
    pub(crate) orchestrator: Identity,
    /// The controllers' host.
    pub(crate) host: Identity,
    pub(crate) opened: Orchestrator,
    pub(crate) archives: Arc<dyn ObjectStore>,
    now: Arc<AtomicU64>,
    place: Place,
}

/// A call in the making.
pub(crate) struct Asking<'a> {
    world: &'a World,
    method: &'static str,
    target: String,
    body: String,
    headers: HeaderMap,
    by: Identity,
    org: Option<String>,
}

/// An answer, read to its end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: String,
    /// `null` for an empty body or one that is no JSON.
    pub(crate) body: Value,
}

/// Everything that a refused call must leave as it was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    tables: Vec<String>,
    calls: Vec<Call>,
}

fn apps() -> Vec<TrustedApp> {
    vec![
        TrustedApp { issuer: "app".into(), operator: true },
        TrustedApp { issuer: "portal".into(), operator: false },
    ]
}

fn times() -> Times {
    Times {
        call_waits: Duration::from_secs(5),
        reconcile_every: RECONCILE_EVERY,
        ..Times::default()
    }
}

/// The Agents Worker, which calls on behalf of runs.
pub(crate) fn agents() -> Identity {
    Identity::new("agents", 5)
}

impl World {
    pub(crate) async fn new() -> Self {
        let place = Place::new().await;
        Self::on(place.open(), place).await
    }

    /// A world for tests whose clock stands still: it would jump over every wait for a server.
    pub(crate) async fn in_a_file() -> Self {
        let place = Place::folder();
        Self::on(place.open(), place).await
    }

    /// A world whose snapshots go into this store.
    pub(crate) async fn with_store(archives: Arc<dyn ObjectStore>) -> Self {
        let place = Place::new().await;
        Self::made_of(place.open(), place, archives, times()).await
    }

    /// A world with other periods and limits; calls wait and work is scheduled as in every world.
    pub(crate) async fn with_times(own: Times) -> Self {
        let place = Place::new().await;
        let Times { call_waits, reconcile_every, .. } = times();
        let times = Times { call_waits, reconcile_every, ..own };
        Self::made_of(place.open(), place, Arc::new(InMemory::new()), times).await
    }

    /// A world on a directory that is there already, or that is no directory at all.
    pub(crate) async fn on(db: Db, place: Place) -> Self {
        Self::made_of(db, place, Arc::new(InMemory::new()), times()).await
    }

    async fn made_of(db: Db, place: Place, archives: Arc<dyn ObjectStore>, times: Times) -> Self {
        let now = Arc::new(AtomicU64::new(1_800_000_000_000));
        let clock: Clock = {
            let now = Arc::clone(&now);
            Arc::new(move || Timestamp::from_millis(now.load(Ordering::SeqCst)))
        };
        let app = Identity::new("app", 1);
        let portal = Identity::new("portal", 2);
        let orchestrator = Identity::new("orchestrator", 3);
        let host = Identity::new("controllers", 4);
        let app_keys = TrustedKeys::of("app", &app.key.jwks()).unwrap();
        app_keys.replace("portal", &portal.key.jwks()).unwrap();
        // A second trusted issuer of controllers, so that its kid can be tried under the first.
        let controller_keys = TrustedKeys::of("controllers", &host.key.jwks()).unwrap();
        controller_keys.replace("portal", &portal.key.jwks()).unwrap();
        let own_keys = TrustedKeys::of("orchestrator", &orchestrator.key.jwks()).unwrap();
        let controllers = FakeControllers::new(own_keys, Arc::clone(&clock));
        let opened = open(Config {
            signer: Signer::new(orchestrator.key.clone(), Arc::clone(&clock)),
            apps: apps(),
            app_keys,
            controller_keys,
            agents_keys: TrustedKeys::of("agents", &agents().key.jwks()).unwrap(),
            external_history: ["o-external".parse().unwrap()].into(),
            controllers: Hop::in_process(controllers.router()),
            db: Arc::clone(&db),
            clock,
            default_max_active_groups: DEFAULT_LIMIT,
            archives: Arc::clone(&archives),
            times,
        })
        .await
        .unwrap();
        let router = opened.router();
        Self {
            router,
            controllers,
            db,
            app,
            portal,
            orchestrator,
            host,
            opened,
            archives,
            now,
            place,
        }
    }

    /// Another Orchestrator on the same directory, store and controllers.
    pub(crate) async fn second(&self, db: Db) -> Orchestrator {
        let clock = self.clock();
        open(Config {
            signer: Signer::new(self.orchestrator.key.clone(), Arc::clone(&clock)),
            apps: apps(),
            app_keys: TrustedKeys::of("app", &self.app.key.jwks()).unwrap(),
            controller_keys: TrustedKeys::of("controllers", &self.host.key.jwks()).unwrap(),
            agents_keys: TrustedKeys::of("agents", &agents().key.jwks()).unwrap(),
            external_history: ["o-external".parse().unwrap()].into(),
            controllers: Hop::in_process(self.controllers.router()),
            db,
            clock,
            default_max_active_groups: DEFAULT_LIMIT,
            archives: Arc::clone(&self.archives),
            times: times(),
        })
        .await
        .unwrap()
    }

    fn clock(&self) -> Clock {
        let now = Arc::clone(&self.now);
        Arc::new(move || Timestamp::from_millis(now.load(Ordering::SeqCst)))
    }

    /// Another Orchestrator on the same directory, store and controllers, as a world of its own.
    pub(crate) async fn beside(&self, db: Db) -> Self {
        let opened = self.second(Arc::clone(&db)).await;
        Self {
            router: opened.router(),
            controllers: self.controllers.clone(),
            db,
            app: self.app.clone(),
            portal: self.portal.clone(),
            orchestrator: self.orchestrator.clone(),
            host: self.host.clone(),
            opened,
            archives: Arc::clone(&self.archives),
            now: Arc::clone(&self.now),
            place: Place::folder(),
        }
    }

    /// The same directory after a restart.
    pub(crate) async fn restarted(self) -> Self {
        let Self { place, db, .. } = self;
        drop(db);
        Self::on(place.open(), place).await
    }

    /// A world in which group `g1` of `o1` is active.
    pub(crate) async fn with_group() -> Self {
        let world = Self::new().await;
        world.activate("g1", "o1").await.expect_status(200);
        world
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Ordering::SeqCst))
    }

    pub(crate) fn advance_ms(&self, millis: u64) {
        self.now.fetch_add(millis, Ordering::SeqCst);
    }

    /// A world in which `g1` of `o1` is active and has so many messages.
    pub(crate) async fn with_messages(count: usize) -> Self {
        let world = Self::with_group().await;
        world.post("g1", count);
        world
    }

    /// Has somebody write in a group.
    pub(crate) fn post(&self, group: &str, count: usize) {
        self.controllers.groups().post(&group.parse().unwrap(), count);
    }

    /// The group's events with the controllers, if it lives there.
    pub(crate) fn lines(&self, group: &str) -> Option<Vec<Bytes>> {
        self.controllers.groups().lines(&group.parse().unwrap())
    }

    pub(crate) async fn archive(&self, group: &str) -> Answer {
        self.ask("POST", &format!("/infra/groups/{group}/archive"))
            .json(&json!({ "reason": "a test" }))
            .send()
            .await
    }

    pub(crate) async fn restore(&self, group: &str) -> Answer {
        self.ask("POST", &format!("/infra/groups/{group}/restore")).send().await
    }

    pub(crate) async fn delete(&self, group: &str) -> Answer {
        self.ask("DELETE", &format!("/infra/groups/{group}")).send().await
    }

    pub(crate) async fn status(&self, group: &str) -> String {
        self.record(group).await["group_status"].as_str().unwrap().to_owned()
    }

    /// Waits until this process works on no task; the deadline only turns a hang into a failure.
    pub(crate) async fn settled(&self) {
        self.settle_but(0).await;
    }

    /// The same while so many tasks are held.
    pub(crate) async fn settle_but(&self, held: usize) {
        let waited = async {
            while self.opened.running_tasks() > held {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waited).await.expect("tasks end");
    }

    /// What scheduled work does after its leases and pauses have run out.
    pub(crate) async fn reconciled(&self) -> Reconciled {
        self.advance_ms(120_000);
        self.opened.reconcile_once().await.unwrap()
    }

    /// The files in the store, by path.
    pub(crate) async fn files(&self) -> Vec<String> {
        let found = self.archives.list(None).try_collect::<Vec<_>>().await.unwrap();
        let mut paths: Vec<_> = found.into_iter().map(|meta| meta.location.to_string()).collect();
        paths.sort();
        paths
    }

    /// A group's way through its life, as the audit has it: `from>to`.
    pub(crate) async fn life(&self, group: &str) -> Vec<String> {
        let order = self.place.writing_order();
        let sql = format!(
            "SELECT from_status, to_status FROM lifecycle_events WHERE group_id = $1 ORDER BY {order}"
        );
        let rows = self.db.query(Statement::new(sql, params![group])).await.unwrap();
        let text = |row: &Row, column: &str| row.get::<String>(column).unwrap();
        rows.iter()
            .map(|row| [text(row, "from_status"), text(row, "to_status")].join(">"))
            .collect()
    }

    /// A call by our own App, unless said otherwise.
    pub(crate) fn ask(&self, method: &'static str, target: &str) -> Asking<'_> {
        Asking {
            world: self,
            method,
            target: target.to_owned(),
            body: String::new(),
            headers: HeaderMap::new(),
            by: self.app.clone(),
            org: None,
        }
    }

    pub(crate) async fn activate(&self, group: &str, org: &str) -> Answer {
        self.ask("POST", "/infra/groups")
            .json(&json!({ "group_id": group, "org_id": org }))
            .send()
            .await
    }

    pub(crate) async fn set_limit(&self, org: &str, limit: u64) -> Answer {
        self.ask("PUT", &format!("/infra/orgs/{org}/limits"))
            .json(&json!({ "max_active_groups": limit }))
            .send()
            .await
    }

    pub(crate) async fn record(&self, group: &str) -> Value {
        let answer = self.ask("GET", &format!("/infra/groups/{group}")).send().await;
        answer.expect_status(200).body
    }

    /// A routing token as the Orchestrator issues it.
    pub(crate) async fn routing_token(&self, group: &str, user: &str) -> String {
        let answer = self
            .ask("POST", "/infra/routing-token")
            .json(&json!({ "group_id": group, "user_id": user, "role": "member" }))
            .send()
            .await
            .expect_status(200);
        answer.body["routing_token"].as_str().unwrap().to_owned()
    }

    /// How many groups count against an organization's limit.
    pub(crate) async fn active(&self, org: &str) -> u64 {
        let sql = "SELECT active FROM org_counts WHERE org_id = $1";
        let rows = self.db.query(Statement::new(sql, params![org])).await.unwrap();
        rows.first().map_or(0, |row| row.get("active").unwrap())
    }

    /// How many rows a table has.
    pub(crate) async fn rows(&self, table: &str) -> u64 {
        let sql = format!("SELECT count(*) AS n FROM {table}");
        let rows = self.db.query(Statement::new(sql, params![])).await.unwrap();
        rows[0].get("n").unwrap()
    }

    /// How many routing records an organization has.
    pub(crate) async fn records(&self, org: &str) -> u64 {
        let sql = "SELECT count(*) AS n FROM routing_records WHERE org_id = $1";
        let rows = self.db.query(Statement::new(sql, params![org])).await.unwrap();
        rows[0].get("n").unwrap()
    }

    /// How many of an organization's groups count by the state that they are in.
    pub(crate) async fn counted(&self, org: &str) -> u64 {
        let sql = "SELECT count(*) AS n FROM routing_records
             WHERE org_id = $1 AND status NOT IN ('archived', 'deleted')";
        let rows = self.db.query(Statement::new(sql, params![org])).await.unwrap();
        rows[0].get("n").unwrap()
    }

    /// The idempotency keys on record.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let sql = "SELECT idempotency_key FROM idempotency_keys ORDER BY idempotency_key";
        let rows = self.db.query(Statement::new(sql, params![])).await.unwrap();
        rows.iter().map(|row| row.get("idempotency_key").unwrap()).collect()
    }

    pub(crate) async fn execute(&self, sql: &'static str) {
        assert!(self.db.execute(Statement::new(sql, params![])).await.unwrap() > 0, "{sql}");
    }

    /// Every row of every table, and every call that reached the controllers.
    pub(crate) async fn standing(&self) -> Standing {
        let mut tables = Vec::new();
        let names = Statement::new(self.place.tables(), params![]);
        for row in self.db.query(names).await.unwrap() {
            let name: String = row.get("name").unwrap();
            let sql = format!("SELECT * FROM {name} ORDER BY 1, 2, 3");
            for row in self.db.query(Statement::new(sql, params![])).await.unwrap() {
                tables.push(format!("{name}: {row:?}"));
            }
        }
        Standing { tables, calls: self.controllers.calls() }
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Answer {
        let response = Hop::in_process(self.router.clone()).send(request).await.unwrap();
        let status = response.status();
        let content_type = response
            .headers()
            .get(http::header::CONTENT_TYPE)
            .map_or("", |value| value.to_str().unwrap())
            .to_owned();
        let body = read_body(response.into_body(), MAX_BODY_BYTES).await.unwrap();
        Answer { status, content_type, body: serde_json::from_slice(&body).unwrap_or_default() }
    }
}

impl Asking<'_> {
    pub(crate) fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string();
        self
    }

    pub(crate) fn body(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn by(mut self, by: &Identity) -> Self {
        self.by = by.clone();
        self
    }

    /// With a token that names an organization.
    pub(crate) fn for_org(mut self, org: &str) -> Self {
        self.org = Some(org.to_owned());
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).unwrap();
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    pub(crate) fn routing_token(self, token: &str) -> Self {
        self.header("x-routing-token", token)
    }

    pub(crate) fn bound(&self) -> Bound<'_> {
        let path = self.target.split_once('?').map_or(&*self.target, |(path, _)| path);
        Bound { method: self.method, path, body: &self.body }
    }

    /// The sound `app+jwt` for this call.
    pub(crate) fn app_token(&self) -> Forged {
        let token = Forged::app(&self.by, self.world.now(), self.bound());
        match &self.org {
            Some(org) => token.with("org_id", org.as_str()),
            None => token,
        }
    }

    /// The sound `controller+jwt` for this call.
    pub(crate) fn controller_token(&self, group: &str, epoch: u64) -> Forged {
        Forged::controller(&self.world.host, self.world.now(), self.bound(), group, epoch)
    }

    /// The sound `worker+jwt` for this call, on behalf of the run of `act`.
    pub(crate) fn worker_token(&self, act: &str) -> Forged {
        Forged::worker(&agents(), self.world.now(), self.bound(), act)
    }

    /// The request with whatever token is given.
    pub(crate) fn request(&self, token: Option<&str>) -> Request<Bytes> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(&self.target)
            .body(Bytes::from(self.body.clone()))
            .unwrap();
        request.headers_mut().extend(self.headers.clone());
        if let Some(token) = token {
            let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
            request.headers_mut().insert(http::header::AUTHORIZATION, value);
        }
        request
    }

    /// Sends the call with a fresh, sound `app+jwt`.
    pub(crate) async fn send(&self) -> Answer {
        self.send_with(Some(&self.app_token().encode())).await
    }

    pub(crate) async fn send_with(&self, token: Option<&str>) -> Answer {
        self.world.send(self.request(token)).await
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self
    }

    /// That this is the problem with that status and code, in the documented form.
    #[track_caller]
    pub(crate) fn expect_problem(self, status: u16, code: &str) -> Self {
        let answer = self.expect_status(status);
        assert_eq!(answer.body["code"], code, "{}", answer.body);
        assert_eq!(answer.body["status"], status, "{}", answer.body);
        assert_eq!(answer.content_type, "application/problem+json");
        answer
    }
}
