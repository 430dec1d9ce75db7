//! The queues as figures, and what a full one answers.

use std::{collections::BTreeSet, path::Path, time::Duration};

use axum::Router;
use convene_hop::{Hop, Signer};
use convene_host_native::controllers::{Controllers, ControllersConfig, MAILBOX, MAX_WAKING};
use convene_model::{
    Code, GroupId, Problem,
    claims::service,
    infra::{HistoryMode, InitRequest},
    keys::{SigningKey, TrustedKeys},
};
use convene_storage::{GroupStore, StoreOptions};
use convene_testing::{
    browser::free_port,
    client::{Person, http_client},
    cluster::{Member, Plan},
    openmetrics::Exposition,
};
use futures_util::{
    future::{join_all, maybe_done},
    poll,
};

use crate::convene;

/// What the operator's guide says of metrics.
const GUIDE: &str = include_str!("../../../../docs/operations.md");
const TOKEN: &str = "a-token-for-scraping";

async fn ask(url: &str, token: Option<&str>) -> reqwest::Response {
    let mut request = http_client().get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.send().await.unwrap()
}

async fn scrape(url: &str, token: Option<&str>) -> Exposition {
    let answer = ask(url, token).await;
    assert_eq!(answer.status(), 200, "{url}");
    let format = answer.headers()["content-type"].to_str().unwrap();
    assert_eq!(format, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    Exposition::read(&answer.text().await.unwrap()).unwrap_or_else(|why| panic!("{url}: {why}"))
}

/// The first cells of the table below the row that names its columns.
fn documented(columns: &str) -> BTreeSet<String> {
    let (_, table) = GUIDE.split_once(columns).unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.flat_map(|row| row.split('|').nth(1).unwrap().split(','));
    cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
}

#[tokio::test]
async fn every_queue_has_its_depth_its_bound_and_its_refusals_and_the_guide_names_them_all() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = format!("127.0.0.1:{}", free_port());
    let node = convene(dir.path()).env("CONVENE_METRICS__LISTEN", metrics.clone()).start().await;
    let url = format!("http://{metrics}/metrics");
    let before = scrape(&url, None).await.samples;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Plans").await;
    let (mut socket, _) = ana.attach(&group, None).await;
    socket.post("m1", "hello").await;
    socket.answer("m1").await;
    let Exposition { families, samples: after } = scrape(&url, None).await;

    for queue in [
        "commit_events",
        "commit_bytes",
        "projector_events",
        "projector_bytes",
        "learning_groups",
        "fullest_mailbox",
        "waking_groups",
        "fullest_upstream_to_group",
        "fullest_upstream_from_group",
        "fullest_room",
        "event_streams",
        "password_hashes",
        "log_lines",
    ] {
        let figure = |name: &str| after[&format!("convene_queue_{name}{{queue=\"{queue}\"}}")];
        assert!(figure("capacity") >= 128.0, "{queue}");
        assert!(figure("depth") < figure("capacity"), "{queue}");
    }
    for (key, value) in &after {
        assert!(!key.starts_with("convene_queue_refused") || *value == 0.0, "{key} {value}");
    }
    for (figure, expected) in
        [("convene_sockets", 1.0), ("convene_groups_awake", 1.0), ("convene_upstreams", 1.0)]
    {
        assert_eq!((before[figure], after[figure]), (0.0, expected), "{figure}");
    }
    assert!(after["convene_events_total"] >= before["convene_events_total"] + 3.0);
    let answered = "convene_requests_total{door=\"public\",status=\"2xx\"}";
    assert!(after[answered] >= before[answered] + 3.0);

    let depths = after.keys().filter_map(|key| key.strip_prefix("convene_queue_depth{queue=\""));
    let queues: BTreeSet<_> = depths.map(|rest| rest.trim_end_matches("\"}").to_owned()).collect();
    assert_eq!(documented("| `queue` |"), queues);
    let families: BTreeSet<_> = families.into_keys().collect();
    assert_eq!(documented("| figure |"), families);

    let public = format!("{}/metrics", node.url.trim_end_matches('/'));
    assert_eq!(ask(&public, None).await.status(), 404, "people do not reach it");
    node.stop().await;
}

#[tokio::test]
async fn each_service_tells_its_figures_to_those_who_bring_the_token_and_people_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("metrics.token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let cluster = Plan::new(env!("CARGO_BIN_EXE_convene"), dir.path())
        .env("CONVENE_METRICS__TOKEN_FILE", file.to_str().unwrap())
        .start()
        .await;
    let plan = cluster.plan();
    for member in plan.members() {
        let address = match member {
            Member::App(number) => plan.internal_address(number),
            Member::Orchestrator(_) | Member::Controllers | Member::Agents(_) => {
                plan.address(member)
            }
        };
        let url = format!("http://{address}/metrics");
        for wrong in [None, Some("another-token-that-is-long")] {
            assert_eq!(ask(&url, wrong).await.status(), 401, "{member:?}");
        }
        let found = scrape(&url, Some(TOKEN)).await;
        let door = format!("convene_requests_unanswered{{door=\"{}\"}}", member.role());
        assert!(found.samples.contains_key(&door), "{member:?}: {found:?}");
        let has = |family: &str| found.families.contains_key(family);
        assert_eq!(has("convene_groups_awake"), member.role() == "controllers", "{member:?}");
        assert_eq!(has("convene_sockets"), member.role() == "app", "{member:?}");
    }
    let public = format!("{}/metrics", cluster.url().trim_end_matches('/'));
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
    let answer = client.unwrap().get(public).bearer_auth(TOKEN).send().await.unwrap();
    assert!(!answer.status().is_success(), "the token opens nothing at the door for people");
    drop(cluster);
}

#[tokio::test]
async fn without_a_token_the_infra_door_tells_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let infra = format!("127.0.0.1:{}", free_port());
    let node = convene(dir.path()).env("CONVENE_ORCHESTRATOR__LISTEN", infra.clone()).start().await;
    let status = ask(&format!("http://{infra}/metrics"), Some(TOKEN)).await.status();
    assert_eq!(status, 404);
    node.stop().await;
}

fn host(dir: &Path) -> (Controllers, GroupStore) {
    let store = GroupStore::open(dir, StoreOptions::default(), |why| panic!("{why}")).unwrap();
    let key = SigningKey::from_seed(service::CONTROLLERS, &[1; 32]);
    let config = ControllersConfig {
        signer: Signer::new(key, convene_host_native::clock::system()),
        orchestrator_keys: TrustedKeys::new(),
        agents: Hop::in_process(Router::new()),
        idle_after: Duration::from_secs(3600),
    };
    (Controllers::new(store.clone(), config), store)
}

/// Lets all begin before any other task of this thread comes to its turn.
async fn all_at_once<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.map(|one| Box::pin(maybe_done(one))).collect();
    tokio::task::unconstrained(async {
        for one in &mut all {
            let _ = poll!(one.as_mut());
        }
    })
    .await;
    join_all(all.iter_mut().map(|one| one.as_mut())).await;
    all.iter_mut().map(|one| one.as_mut().take_output().unwrap()).collect()
}

fn is_overloaded<T>(answer: &Result<T, Problem>) -> bool {
    let Err(problem) = answer else { return false };
    if problem.code != Code::Overloaded {
        return false;
    }
    assert!(problem.extra["retry_after_ms"].as_u64().unwrap() > 0);
    true
}

#[tokio::test]
async fn a_full_mailbox_refuses_as_overloaded_and_the_group_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (controllers, store) = host(dir.path());
    let group: GroupId = "g1".parse().unwrap();
    let org_id = "o1".parse().unwrap();
    let limits = convene_model::infra::GroupLimits::default();
    let request = InitRequest { org_id, history_mode: HistoryMode::Internal, epoch: 1, limits };
    controllers.init(&group, request).await.unwrap();

    let answers = all_at_once((0..MAILBOX + 10).map(|_| controllers.head(&group))).await;
    let refused = answers.iter().filter(|answer| is_overloaded(answer)).count();
    assert_eq!(refused, 10);
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), MAILBOX);
    assert_eq!(controllers.figures().refused_mailbox, 10);
    controllers.head(&group).await.unwrap();
    controllers.shutdown().await;
    store.close();
}

#[tokio::test]
async fn too_many_waking_groups_are_refused_as_overloaded_and_the_others_wake() {
    let dir = tempfile::tempdir().unwrap();
    let (controllers, store) = host(dir.path());
    let groups: Vec<GroupId> =
        (0..MAX_WAKING + 10).map(|index| format!("g{index}").parse().unwrap()).collect();
    let answers = all_at_once(groups.iter().map(|group| controllers.head(group))).await;
    let refused = answers.iter().filter(|answer| is_overloaded(answer)).count();
    assert_eq!(refused, 10);
    assert_eq!(controllers.figures().refused_waking, 10);
    assert!(controllers.figures().awake <= MAX_WAKING, "what was refused is not kept");
    assert_eq!(controllers.figures().waking, 0);
    controllers.shutdown().await;
    store.close();
}
