//! Two Orchestrator processes on one database that want the same at the same moment.

use std::time::Duration;

use convene_testing::{
    cluster::{Member, Plan},
    conformance::{Portal, Target},
    postgres::TestDatabase,
};
use serde_json::json;
use tokio::time::{Instant, sleep};

const RIVALS: usize = 64;

#[tokio::test]
async fn of_64_activations_for_the_last_place_by_two_processes_exactly_one_succeeds_on_postgres() {
    let database = TestDatabase::fresh().await;
    one_of_all_gets_the_last_place(Some(database.url())).await;
}

#[tokio::test]
async fn of_64_activations_for_the_last_place_by_two_processes_exactly_one_succeeds_on_sqlite() {
    one_of_all_gets_the_last_place(None).await;
}

/// The limit leaves the organization one place, and each half of the calls goes to a process of its own.
async fn one_of_all_gets_the_last_place(database: Option<&str>) {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = Plan::sized(env!("CARGO_BIN_EXE_convene"), dir.path(), 1, 2, 1)
        .toml(&Target::apps_toml())
        .env("CONVENE_ORCHESTRATOR__MAX_ACTIVE_GROUPS", "3");
    if let Some(url) = database {
        plan = plan.env("CONVENE_DATABASE_URL", url);
    }
    let cluster = plan.start().await;
    let in_a_file = dir.path().join("data/infra.db").exists();
    assert_eq!(in_a_file, database.is_none(), "both have the database that was meant");
    let target = Target::new("", "");
    let portals = [0, 1].map(|number| {
        let address = cluster.plan().address(Member::Orchestrator(number)).to_owned();
        Portal::new(&format!("http://{address}"), &target.portal)
    });
    let activate = async |portal: &Portal, group: String| {
        let body = json!({"group_id": group, "org_id": "o1"});
        portal.call("POST", "/infra/groups", body).await.0
    };
    let patience = Instant::now() + Duration::from_secs(60);
    for (portal, group) in portals.iter().zip(["a", "b"]) {
        // Until the controllers have read the keys of both, a call may find them away.
        while activate(portal, group.to_owned()).await != 200 {
            assert!(Instant::now() < patience, "no group is activated");
            sleep(Duration::from_millis(50)).await;
        }
    }
    let rivals = (0..RIVALS).map(|nth| activate(&portals[nth % 2], format!("g{nth}")));
    let statuses = futures_util::future::join_all(rivals).await;
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(200), count(429)), (1, RIVALS - 1), "{statuses:?}");
    cluster.shut_down().await;
}
