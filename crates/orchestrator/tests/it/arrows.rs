//! The arrows of a group's life as callers see them: from each state, each call is an arrow with an
//! event in the audit for each step of it, or it is refused and nothing has changed.

use std::sync::Arc;

use convene_db::{Statement, params};
use serde_json::{Value, json};

use crate::{
    controllers::Behaviour,
    stores::{Fault, Faulty},
    world::{Answer, World},
};

/// Where a group can stand when a call comes.
const STATES: [&str; 8] =
    ["inactive", "active", "idle", "archiving", "archived", "restoring", "deleting", "deleted"];

/// What callers can do to a group's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Activate,
    FallAsleep,
    Wake,
    Archive,
    Restore,
    Delete,
    Adopt,
}

const ACTS: [Act; 7] = [
    Act::Activate,
    Act::FallAsleep,
    Act::Wake,
    Act::Archive,
    Act::Restore,
    Act::Delete,
    Act::Adopt,
];

/// What comes of an act: the steps that the audit has afterwards, or the refusal.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Taken(&'static [&'static str]),
    Refused(u16, &'static str),
}

use Outcome::{Refused, Taken};

/// The table of the design, from the outside.
fn outcome(act: Act, from: &str) -> Outcome {
    match (act, from) {
        (Act::Activate, "inactive") => Taken(&["inactive>active"]),
        (Act::Activate | Act::Wake, "active") | (Act::FallAsleep, "idle") => Taken(&[]),
        (Act::Activate | Act::Wake, "idle") => Taken(&["idle>active"]),
        (Act::Activate, "archiving" | "archived" | "restoring") => Refused(409, "group_archived"),
        (Act::FallAsleep, "active") => Taken(&["active>idle"]),
        (
            Act::FallAsleep | Act::Wake,
            "archiving" | "archived" | "restoring" | "deleting" | "deleted",
        ) => Refused(409, "illegal_transition"),
        (Act::Archive, "active") => Taken(&["active>archiving", "archiving>archived"]),
        (Act::Archive, "idle") => Taken(&["idle>archiving", "archiving>archived"]),
        (Act::Archive, "archiving" | "archived" | "restoring" | "deleting") => {
            Refused(409, "group_not_active")
        }
        (Act::Restore, "archived") => Taken(&["archived>restoring", "restoring>active"]),
        (Act::Restore, "active" | "idle" | "archiving" | "restoring") => {
            Refused(409, "illegal_transition")
        }
        (Act::Delete, "active") => Taken(&["active>deleting", "deleting>deleted"]),
        (Act::Delete, "idle") => Taken(&["idle>deleting", "deleting>deleted"]),
        (Act::Delete, "archiving") => Taken(&["archiving>deleting", "deleting>deleted"]),
        (Act::Delete, "archived") => Taken(&["archived>deleting", "deleting>deleted"]),
        (Act::Delete, "restoring") => Taken(&["restoring>deleting", "deleting>deleted"]),
        // Whoever asks again waits for the same end.
        (Act::Delete, "deleting") => Taken(&["deleting>deleted"]),
        (Act::Adopt, "inactive") => Refused(409, "snapshot_corrupt"),
        (Act::Adopt, "active" | "idle" | "archiving" | "archived" | "restoring") => {
            Refused(409, "illegal_transition")
        }
        (_, "inactive") => Refused(404, "group_not_found"),
        (Act::Activate | Act::Restore | Act::Adopt, "deleting") | (_, "deleted") => {
            Refused(410, "group_deleted")
        }
        (act, from) => panic!("nobody has said what {act:?} does from {from}"),
    }
}

impl Act {
    async fn make(self, world: &World) -> Answer {
        let report = |status: &str| json!({"group_id": "g1", "status": status, "reason": ""});
        match self {
            Self::Activate => world.activate("g1", "o1").await,
            Self::FallAsleep => report_of(world, &report("idle")).await,
            Self::Wake => report_of(world, &report("active")).await,
            Self::Archive => world.archive("g1").await,
            Self::Restore => world.restore("g1").await,
            Self::Delete => world.delete("g1").await,
            Self::Adopt => {
                world.ask("POST", "/infra/groups/g1/adopt").json(&json!({})).send().await
            }
        }
    }
}

async fn report_of(world: &World, body: &Value) -> Answer {
    world.ask("POST", "/infra/cleanup").json(body).send().await
}

/// What the directory knows of the group: its record, the count and the audit.
async fn known(world: &World) -> Vec<String> {
    let mut known = Vec::new();
    for sql in [
        "SELECT * FROM routing_records ORDER BY 1",
        "SELECT * FROM org_counts ORDER BY 1",
        "SELECT * FROM lifecycle_events ORDER BY 1",
        "SELECT * FROM archives ORDER BY 1",
    ] {
        let rows = world.db.query(Statement::new(sql, params![])).await.unwrap();
        known.extend(rows.iter().map(|row| format!("{row:?}")));
    }
    known
}

/// Brings `g1` into a state, and holds it there: what it is on its way to comes when a held call of
/// the controllers is let pass.
async fn standing(world: &Arc<World>, state: &str) {
    if state == "inactive" {
        return;
    }
    world.activate("g1", "o1").await.expect_status(200);
    world.post("g1", 3);
    let held = |verb: &'static str, act: Act| async move {
        world.controllers.once(verb, Behaviour::Held);
        let beside = Arc::clone(world);
        tokio::spawn(async move { act.make(&beside).await });
        world.controllers.arrived().await;
    };
    match state {
        "active" => {}
        "idle" => drop(Act::FallAsleep.make(world).await.expect_status(204)),
        "archiving" => held("export", Act::Archive).await,
        "archived" | "restoring" => {
            world.archive("g1").await.expect_status(200);
            world.settled().await;
            if state == "restoring" {
                held("piece", Act::Restore).await;
            }
        }
        "deleting" => held("remove", Act::Delete).await,
        "deleted" => drop(world.delete("g1").await.expect_status(204)),
        other => panic!("there is no state {other}"),
    }
    world.settle_but(usize::from(["archiving", "restoring", "deleting"].contains(&state))).await;
}

#[tokio::test]
async fn from_each_state_each_call_takes_its_arrows_or_changes_nothing() {
    for from in STATES {
        for act in ACTS {
            let world = Arc::new(World::new().await);
            standing(&world, from).await;
            let before = world.life("g1").await;
            let known_before = known(&world).await;
            match outcome(act, from) {
                Refused(status, code) => {
                    let refused = act.make(&world).await;
                    assert_eq!(
                        (refused.status.as_u16(), &refused.body["code"]),
                        (status, &json!(code)),
                        "{act:?} from {from}: {}",
                        refused.body
                    );
                    assert_eq!(known(&world).await, known_before, "{act:?} from {from}");
                }
                Taken(steps) => {
                    if act == Act::Delete && from == "deleting" {
                        world.controllers.let_pass();
                    }
                    let answer = act.make(&world).await;
                    assert!(answer.status.is_success(), "{act:?} from {from}: {}", answer.body);
                    let mut life = before;
                    life.extend(steps.iter().map(|step| (*step).to_owned()));
                    assert_eq!(world.life("g1").await, life, "{act:?} from {from}");
                    let stands = steps.last().map_or(from, |step| step.split_once('>').unwrap().1);
                    let counts = !["archived", "deleted"].contains(&stands);
                    assert_eq!(world.active("o1").await, u64::from(counts), "{act:?} from {from}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_arrows_back_have_their_events_too() {
    let faulty = Arc::new(Faulty::new());
    let world = World::with_store(Arc::clone(&faulty) as _).await;
    world.activate("g1", "o1").await.expect_status(200);
    world.post("g1", 3);
    faulty.set(Some(Fault::NoPut));
    world.archive("g1").await.expect_problem(503, "archive_store_unavailable");
    world.settled().await;
    let mut life = vec!["inactive>active", "active>archiving", "archiving>active"];
    assert_eq!(world.life("g1").await, life);
    faulty.set(None);
    world.archive("g1").await.expect_status(200);
    world.settled().await;
    faulty.set(Some(Fault::NoGet));
    world.restore("g1").await.expect_problem(503, "archive_store_unavailable");
    world.settled().await;
    life.extend([
        "active>archiving",
        "archiving>archived",
        "archived>restoring",
        "restoring>archived",
    ]);
    assert_eq!(world.life("g1").await, life);
    assert_eq!(world.active("o1").await, 0);
}
