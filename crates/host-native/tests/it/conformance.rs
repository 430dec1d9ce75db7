//! The suite that every Convene passes, on one process and on several.

use convene_testing::{
    cluster::Plan,
    conformance::{self, Target},
};

use crate::convene;

#[tokio::test]
async fn one_process_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("convene.toml");
    std::fs::write(&config, Target::apps_toml()).unwrap();
    let infra = format!("127.0.0.1:{}", convene_testing::browser::free_port());
    let node = convene(dir.path())
        .arg("--config")
        .arg(config.to_str().unwrap())
        .arg("--orchestrator-listen")
        .arg(&infra)
        .start()
        .await;
    conformance::run(&Target::new(&node.url, format!("http://{infra}"))).await;
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn two_apps_two_orchestrators_the_controllers_and_two_agents_workers_conform() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(env!("CARGO_BIN_EXE_convene"), dir.path()).toml(&Target::apps_toml());
    let cluster = plan.start().await;
    conformance::run(&Target::new(cluster.url(), cluster.infra_url())).await;
    cluster.shut_down().await;
}
