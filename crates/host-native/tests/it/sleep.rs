//! Groups that nobody uses: they leave memory, wake with everything, and the Orchestrator knows.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path as Segments, State},
    http::{HeaderMap, StatusCode},
    routing::post,
};
use bytes::Bytes;
use convene_hop::{Clock, GroupLink, Hop, Signer};
use convene_host_native::controllers::{Controllers, ControllersConfig};
use convene_model::{
    GroupId, Timestamp,
    claims::service,
    frame::CLOSE_ASLEEP,
    history::HistoryQuery,
    infra::{HistoryMode, InitRequest},
    keys::TrustedKeys,
};
use convene_storage::{GroupStore, SqliteDatabase, StoreOptions};
use convene_testing::{
    browser::free_port,
    client::Person,
    forge::{Bound, Forged, Identity},
};
use http::Request;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::convene;

/// Long enough to see that something does not happen, given how soon it would.
const IN_VAIN: Duration = Duration::from_millis(300);
const SOON: Duration = Duration::from_millis(10);

fn now() -> Timestamp {
    convene_host_native::clock::system()()
}

fn group(index: usize) -> GroupId {
    GroupId::new(format!("g{index}")).unwrap()
}

/// Controllers on a directory, whose groups sleep after `idle_after`.
struct Host {
    controllers: Controllers,
    store: GroupStore,
    orchestrator: Identity,
}

impl Host {
    fn start(dir: &Path, idle_after: Duration) -> Self {
        let store =
            GroupStore::open(&dir.join("groups"), StoreOptions::default(), |why| panic!("{why}"));
        let store = store.unwrap();
        let orchestrator = Identity::new(service::ORCHESTRATOR, 1);
        let config = ControllersConfig {
            signer: Signer::new(Identity::new(service::CONTROLLERS, 3).key, Arc::new(now)),
            orchestrator_keys: TrustedKeys::of(orchestrator.issuer(), &orchestrator.key.jwks())
                .unwrap(),
            agents: Hop::in_process(Router::new()),
            idle_after,
        };
        Self { controllers: Controllers::new(store.clone(), config), store, orchestrator }
    }

    async fn stop(self) {
        self.controllers.shutdown().await;
        self.store.close();
    }

    async fn init(&self, group: &GroupId) {
        let org_id = "o1".parse().unwrap();
        let limits = convene_model::infra::GroupLimits::default();
        let request = InitRequest { org_id, history_mode: HistoryMode::Internal, epoch: 1, limits };
        self.controllers.init(group, request).await.unwrap();
    }

    async fn attach(&self, group: &GroupId) -> Option<GroupLink> {
        let mut link = self.controllers.open(group).await.unwrap();
        let token = Forged::routing(&self.orchestrator, now()).with("group_id", group.as_str());
        let attach = json!({"type": "attach", "ref": "a", "conn": "c", "token": token.encode()});
        send(&link, &attach).await?;
        until(&mut link, |frame| frame["type"] == "attached").await.map(|_| link)
    }

    /// Attaches to a group that may fall asleep between the opening of the link and the attach.
    async fn attach_awake(&self, group: &GroupId) -> GroupLink {
        loop {
            if let Some(link) = self.attach(group).await {
                return link;
            }
        }
    }

    async fn asleep(&self) {
        while self.controllers.awake() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// The message ids of a group and their numbers.
    async fn messages(&self, group: &GroupId) -> BTreeMap<String, u64> {
        let (mut messages, mut after) = (BTreeMap::new(), Some(0));
        loop {
            let query = HistoryQuery { after, limit: Some(200), ..HistoryQuery::default() };
            let page = self.controllers.history(group, query).await.unwrap();
            for message in &page.messages {
                let message = serde_json::to_value(message).unwrap();
                let id = message["message_id"].as_str().unwrap().to_owned();
                let seq = message["seq"].as_u64().unwrap();
                after = Some(seq);
                assert_eq!(messages.insert(id.clone(), seq), None, "{id} is there twice");
            }
            if page.messages.is_empty() {
                return messages;
            }
        }
    }
}

async fn send(link: &GroupLink, frame: &Value) -> Option<()> {
    link.tx.send(Bytes::from(frame.to_string())).await.ok()
}

/// The next frame that is `wanted`; `None` when the link ends before.
async fn until(link: &mut GroupLink, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
    loop {
        let frame: Value = serde_json::from_slice(&link.rx.recv().await?).unwrap();
        if wanted(&frame) {
            return Some(frame);
        }
    }
}

/// Posts and returns the number of the post; `None` when the link ends before.
async fn say(link: &mut GroupLink, id: &str) -> Option<u64> {
    let frame = json!({"type": "post", "ref": id, "conn": "c", "message_id": id, "text": "hello"});
    send(link, &frame).await?;
    let ok = until(link, |frame| frame["ref"] == id).await?;
    assert_eq!(ok["type"], "ok", "{ok}");
    ok["seq"].as_u64()
}

#[tokio::test]
async fn a_group_sleeps_when_its_last_user_is_gone_and_wakes_with_everything() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), SOON);
    host.init(&group(1)).await;
    let mut link = host.attach_awake(&group(1)).await;
    let first = say(&mut link, "m1").await.unwrap();
    sleep(IN_VAIN).await;
    assert_eq!(host.controllers.awake(), 1, "somebody is attached");

    send(&link, &json!({"type": "detach", "ref": "d", "conn": "c"})).await.unwrap();
    assert!(until(&mut link, |frame| frame["type"] == "never").await.is_none());
    assert_eq!(link.close.heard().map(|close| close.code), Some(CLOSE_ASLEEP));
    host.asleep().await;
    let loaded = host.store.load(group(1).key()).unwrap().unwrap();
    assert!(loaded.records.is_empty(), "the snapshot has it all: {:?}", loaded.records);

    let mut link = host.attach_awake(&group(1)).await;
    assert_eq!(say(&mut link, "m1").await, Some(first));
    assert_eq!(say(&mut link, "m2").await, Some(first + 1));
    assert_eq!(host.messages(&group(1)).await.len(), 2);
    drop(link);
    host.asleep().await;
    host.stop().await;
}

#[tokio::test]
async fn a_group_that_does_not_exist_stays_in_memory_for_a_moment_only() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), Duration::from_secs(3600));
    host.controllers.head(&group(1)).await.unwrap_err();
    assert_eq!(host.controllers.awake(), 1);
    host.asleep().await;
    host.stop().await;
}

async fn many(groups: usize) {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), SOON);
    for index in 0..groups {
        host.init(&group(index)).await;
        if index % 10 == 0 {
            // With so little patience a group may close the way that it has just let somebody in by.
            while say(&mut host.attach_awake(&group(index)).await, "m").await.is_none() {}
        }
    }
    host.asleep().await;
    assert_eq!(host.store.stats().id_filter_bytes, 0);
    for index in (0..groups).step_by(97) {
        let expected = usize::from(index % 10 == 0);
        assert_eq!(host.messages(&group(index)).await.len(), expected, "{index}");
    }
    host.asleep().await;
    host.stop().await;

    let host = Host::start(dir.path(), SOON);
    assert_eq!(host.controllers.awake(), 0, "a start wakes nobody without need");
    let found = host.messages(&group(0)).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), ["m"]);
    host.stop().await;
}

#[tokio::test]
async fn a_thousand_groups_sleep_and_each_wakes_with_its_own() {
    many(1000).await;
}

/// Run by `cargo xtask soak`.
#[tokio::test]
async fn soak_ten_thousand_groups_sleep_and_each_wakes_with_its_own() {
    many(10_000).await;
}

/// One person in one group who comes and goes; returns the acknowledged ids and their numbers.
async fn come_and_go(
    host: Arc<Host>,
    group: GroupId,
    who: usize,
    posts: usize,
) -> Vec<(String, u64)> {
    let mut acknowledged = Vec::new();
    let mut open: Option<GroupLink> = None;
    for number in 0..posts {
        let id = format!("w{who}-{number}");
        let seq = loop {
            let Some(link) = &mut open else {
                open = host.attach(&group).await;
                continue;
            };
            match say(link, &id).await {
                Some(seq) => break seq,
                // It fell asleep in between: what had no answer is sent again.
                None => open = None,
            }
        };
        acknowledged.push((id, seq));
        match fastrand::u8(0..4) {
            0 => open = None,
            1 => {
                let detach = json!({"type": "detach", "ref": "d", "conn": "c"});
                let detached = async {
                    let link = open.as_mut()?;
                    send(link, &detach).await?;
                    until(link, |frame| frame["type"] == "detached").await
                };
                if detached.await.is_none() {
                    open = None;
                }
                // The link stays, and the group may fall asleep under it at any moment.
                sleep(Duration::from_micros(fastrand::u64(0..15_000))).await;
                let token = Forged::routing(&host.orchestrator, now());
                let token = token.with("group_id", group.as_str()).encode();
                let attach = json!({"type": "attach", "ref": "a", "conn": "c", "token": token});
                let attached = async {
                    let link = open.as_mut()?;
                    send(link, &attach).await?;
                    until(link, |frame| frame["type"] == "attached").await
                };
                if attached.await.is_none() {
                    open = None;
                }
            }
            _ => sleep(Duration::from_micros(fastrand::u64(0..15_000))).await,
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn people_come_and_go_while_their_groups_fall_asleep_and_nothing_is_lost_or_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected: BTreeMap<usize, BTreeMap<String, u64>> = BTreeMap::new();
    for round in 0..3 {
        let host = Arc::new(Host::start(dir.path(), Duration::from_millis(2)));
        let mut people = Vec::new();
        for index in 0..6 {
            host.init(&group(index)).await;
            for who in 0..2 {
                let who = 100 * round + 10 * index + who;
                people.push((
                    index,
                    tokio::spawn(come_and_go(Arc::clone(&host), group(index), who, 40)),
                ));
            }
        }
        for (index, person) in people {
            expected.entry(index).or_default().extend(person.await.unwrap());
        }
        for (index, expected) in &expected {
            assert_eq!(host.messages(&group(*index)).await, *expected, "group {index}");
        }
        host.asleep().await;
        Arc::into_inner(host).unwrap().stop().await;
    }
}

/// Asks for the group again and again, around the moments at which it falls asleep.
async fn knock(host: Arc<Host>, times: usize) {
    for _ in 0..times {
        let again = Instant::now() + Duration::from_micros(fastrand::u64(900..1_400));
        host.controllers.head(&group(1)).await.unwrap();
        while Instant::now() < again {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_a_group_just_as_it_falls_asleep_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let host = Arc::new(Host::start(dir.path(), Duration::from_millis(1)));
    host.init(&group(1)).await;
    let knocking: Vec<_> = (0..2).map(|_| tokio::spawn(knock(Arc::clone(&host), 1500))).collect();
    for one in knocking {
        one.await.unwrap();
    }
    host.asleep().await;
    Arc::into_inner(host).unwrap().stop().await;
}

#[tokio::test]
async fn killing_the_process_while_groups_fall_asleep_and_wake_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let launch = convene(dir.path())
        .listen(address.clone())
        .env("CONVENE_CONTROLLERS__IDLE_AFTER_SECS", "1");
    let mut node = launch.start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let posted = Arc::new(AtomicU64::new(0));
    let mut people = Vec::new();
    for index in 0..4 {
        let id = ana.create_group(&org, &format!("Group {index}")).await;
        let (ana, posted) = (ana.clone(), Arc::clone(&posted));
        people.push(tokio::spawn(async move {
            let path = format!("/api/groups/{id}/messages");
            let mut ids = Vec::new();
            for number in 0..6 {
                let message_id = format!("m{number}");
                let body = json!({"message_id": message_id, "text": "hello"});
                loop {
                    match ana.try_send("POST", &path, Some(&body)).await {
                        Ok((status, _)) if status < 300 => break,
                        Ok((status, answer)) => assert!(status >= 409, "{status} {answer}"),
                        Err(_) => {}
                    }
                    sleep(Duration::from_millis(50)).await;
                }
                posted.fetch_add(1, Ordering::Relaxed);
                ids.push(message_id);
                sleep(Duration::from_millis(fastrand::u64(0..2_600))).await;
            }
            (id, ids)
        }));
    }
    for _ in 0..4 {
        sleep(Duration::from_millis(fastrand::u64(500..2_000))).await;
        node.kill().await;
        node = launch.start().await;
    }
    for person in people {
        let (id, expected) = person.await.unwrap();
        let messages = ana.all_messages(&id).await;
        let ids: Vec<_> =
            messages.iter().map(|message| message["message_id"].as_str().unwrap()).collect();
        assert_eq!(ids, expected);
    }
    assert_eq!(node.stop().await, Some(0));
}

/// An Orchestrator that writes down what it is told.
#[derive(Clone, Default)]
struct Told {
    words: Arc<Mutex<Vec<(String, String)>>>,
    /// The idempotency key of each, and whether it releases what is held.
    keys: Arc<Mutex<Vec<(String, bool)>>>,
    /// So many words are refused first.
    away: Arc<AtomicU64>,
}

impl Told {
    fn hop(&self) -> Hop {
        async fn told(
            State(told): State<Told>,
            headers: HeaderMap,
            Json(body): Json<Value>,
        ) -> StatusCode {
            let member = |name: &str| body[name].as_str().unwrap().to_owned();
            told.hear(&headers, member("group_id"), member("status"), false)
        }
        async fn released(
            State(told): State<Told>,
            Segments(group): Segments<String>,
            headers: HeaderMap,
        ) -> StatusCode {
            told.hear(&headers, group, "idle".to_owned(), true)
        }
        let router = Router::new().route("/infra/cleanup", post(told));
        let router = router.route("/infra/groups/{id}/release-resources", post(released));
        Hop::in_process(router.with_state(self.clone()))
    }

    fn hear(
        &self,
        headers: &HeaderMap,
        group: String,
        status: String,
        releases: bool,
    ) -> StatusCode {
        let key = headers["idempotency-key"].to_str().unwrap().to_owned();
        self.keys.lock().push((key, releases));
        let away = self
            .away
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if away.is_ok() {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        self.words.lock().push((group, status));
        StatusCode::NO_CONTENT
    }

    async fn until_last(&self, group: &str, status: &str) {
        while self.last(group).as_deref() != Some(status) {
            sleep(Duration::from_millis(2)).await;
        }
    }

    fn last(&self, group: &str) -> Option<String> {
        let words = self.words.lock();
        words.iter().rev().find(|(id, _)| id == group).map(|(_, status)| status.clone())
    }
}

fn notes(dir: &Path) -> Arc<SqliteDatabase> {
    Arc::new(SqliteDatabase::open(dir.join("lifecycle.db")).unwrap())
}

#[tokio::test]
async fn the_orchestrator_is_told_until_it_listens_and_no_group_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told::default();
    told.away.store(u64::MAX, Ordering::Relaxed);
    let host = Host::start(dir.path(), SOON);
    host.controllers.report_to(told.hop(), notes(dir.path())).await.unwrap();
    host.init(&group(1)).await;
    host.asleep().await;
    host.controllers.head(&group(1)).await.unwrap();
    host.asleep().await;
    assert!(host.controllers.unreported() <= 1, "only the newest word counts");
    assert_eq!(told.last("g1"), None);
    // A group without a run that waits releases what is held for it, under one key until it is heard.
    let again = || {
        let heard = told.keys.lock();
        let last = heard.last().filter(|(_, releases)| *releases);
        last.is_some_and(|last| heard.iter().filter(|other| *other == last).count() > 1)
    };
    while !again() {
        sleep(Duration::from_millis(2)).await;
    }
    told.away.store(0, Ordering::Relaxed);
    told.until_last("g1", "idle").await;
    assert_eq!(told.words.lock().len(), 1, "what is out of date is not said");

    let link = host.attach_awake(&group(1)).await;
    told.until_last("g1", "active").await;
    drop(link);
    told.until_last("g1", "idle").await;
    host.stop().await;
}

#[tokio::test]
async fn a_process_that_starts_anew_tells_of_the_groups_that_were_awake_in_the_last_one() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told::default();
    let host = Host::start(dir.path(), Duration::from_secs(3600));
    host.controllers.report_to(told.hop(), notes(dir.path())).await.unwrap();
    for index in [1, 2] {
        host.init(&group(index)).await;
        told.until_last(&format!("g{index}"), "active").await;
    }
    host.stop().await;

    let host = Host::start(dir.path(), Duration::from_secs(3600));
    // This one is wanted before anything is said.
    host.controllers.head(&group(2)).await.unwrap();
    host.controllers.report_to(told.hop(), notes(dir.path())).await.unwrap();
    told.until_last("g1", "idle").await;
    assert!(told.keys.lock().iter().all(|(_, releases)| !releases), "its runs are not known");
    assert_eq!(told.last("g2").as_deref(), Some("active"));
    host.stop().await;
}

#[tokio::test]
async fn the_directory_shows_who_sleeps() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), SOON);
    let app = Identity::new(service::APP, 2);
    let controllers = Identity::new(service::CONTROLLERS, 3);
    let clock: Clock = Arc::new(now);
    let orchestrator = convene_orchestrator::open(convene_orchestrator::Config {
        external_history: std::collections::BTreeSet::new(),
        signer: Signer::new(host.orchestrator.key.clone(), Arc::clone(&clock)),
        apps: Vec::new(),
        app_keys: TrustedKeys::of(app.issuer(), &app.key.jwks()).unwrap(),
        controller_keys: TrustedKeys::of(controllers.issuer(), &controllers.key.jwks()).unwrap(),
        agents_keys: TrustedKeys::new(),
        controllers: Hop::in_process(host.controllers.router()),
        db: Arc::new(SqliteDatabase::open(dir.path().join("infra.db")).unwrap()),
        clock,
        default_max_active_groups: 1,
        archives: Arc::new(object_store::memory::InMemory::new()),
        times: convene_orchestrator::Times::default(),
    });
    let hop = Hop::in_process(orchestrator.await.unwrap().router());
    host.controllers.report_to(hop.clone(), notes(dir.path())).await.unwrap();
    let call = |method: &'static str, path: &'static str, body: String| {
        let bound = Bound { method, path, body: &body };
        let token = Forged::app(&app, now(), bound).encode();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .body(Bytes::from(body))
            .unwrap();
        let hop = hop.clone();
        async move {
            let answer = hop.call(request, 1 << 20).await;
            answer.map(|body| serde_json::from_slice::<Value>(&body).unwrap_or_default())
        }
    };
    let until = async |status: &str| loop {
        let record = call("GET", "/infra/groups/g1", String::new()).await.unwrap();
        if record["group_status"] == status {
            break record;
        }
        sleep(Duration::from_millis(2)).await;
    };
    let activate = |id: &str| json!({"group_id": id, "org_id": "o1"}).to_string();
    call("POST", "/infra/groups", activate("g1")).await.unwrap();
    let idle = until("idle").await;
    assert!(idle["idle_at"].as_u64() >= idle["last_active"].as_u64(), "{idle}");
    let refused = call("POST", "/infra/groups", activate("g2")).await.unwrap_err();
    assert_eq!(refused.code.as_str(), "active_group_limit_exceeded", "it counts all the same");

    let link = host.attach_awake(&group(1)).await;
    let active = until("active").await;
    assert_eq!(active["idle_at"], Value::Null, "{active}");
    assert!(active["last_active"].as_u64() >= idle["idle_at"].as_u64(), "{active}");
    drop(link);
    until("idle").await;
    host.stop().await;
}
