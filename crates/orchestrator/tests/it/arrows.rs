//! The arrows of a group's life as callers see them: from each state, each call is an arrow with an
//! event in the audit for each step of it, or it is refused and nothing has changed.

use std::sync::Arc;

use convene_db::{Statement, params};
use serde_json::json;

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

/// One group of an organization of its own, in a world that all of them share.
struct Case {
    world: Arc<World>,
    group: String,
    org: String,
}

impl Case {
    async fn make(&self, act: Act) -> Answer {
        let Self { world, group, org } = self;
        match act {
            Act::Activate => world.activate(group, org).await,
            Act::FallAsleep => self.report("idle").await,
            Act::Wake => self.report("active").await,
            Act::Archive => world.archive(group).await,
            Act::Restore => world.restore(group).await,
            Act::Delete => world.delete(group).await,
            Act::Adopt => {
                let path = format!("/infra/groups/{group}/adopt");
                world.ask("POST", &path).json(&json!({})).send().await
            }
        }
    }

    async fn report(&self, status: &str) -> Answer {
        let body = json!({"group_id": self.group, "status": status, "reason": ""});
        self.world.ask("POST", "/infra/cleanup").json(&body).send().await
    }

    /// What the directory knows of the group: its record, the count, the audit and its snapshots.
    async fn known(&self) -> Vec<String> {
        let mut known = Vec::new();
        for (sql, of) in [
            ("SELECT * FROM routing_records WHERE group_id = $1", &self.group),
            ("SELECT * FROM org_counts WHERE org_id = $1", &self.org),
            ("SELECT * FROM lifecycle_events WHERE group_id = $1 ORDER BY event_id", &self.group),
            ("SELECT * FROM archives WHERE group_id = $1", &self.group),
        ] {
            let of = of.as_str();
            let rows = self.world.db.query(Statement::new(sql, params![of])).await.unwrap();
            known.extend(rows.iter().map(|row| format!("{row:?}")));
        }
        known
    }

    /// Begins what is held at a call of the controllers, until that is let pass.
    async fn hold(self: &Arc<Self>, verb: &str, act: Act) {
        self.world.controllers.once(verb, Behaviour::Held);
        let case = Arc::clone(self);
        tokio::spawn(async move { case.make(act).await });
        self.world.controllers.arrived().await;
    }

    /// Brings the group into a state; true when a call is held to keep it there.
    async fn bring_to(self: &Arc<Self>, state: &str) -> bool {
        if state == "inactive" {
            return false;
        }
        self.make(Act::Activate).await.expect_status(200);
        self.world.post(&self.group, 3);
        match state {
            "active" => {}
            "idle" => drop(self.make(Act::FallAsleep).await.expect_status(204)),
            "archiving" => self.hold("export", Act::Archive).await,
            "archived" | "restoring" => {
                self.make(Act::Archive).await.expect_status(200);
                self.world.settled().await;
                if state == "restoring" {
                    self.hold("piece", Act::Restore).await;
                }
            }
            "deleting" => self.hold("remove", Act::Delete).await,
            "deleted" => drop(self.make(Act::Delete).await.expect_status(204)),
            other => panic!("there is no state {other}"),
        }
        ["archiving", "restoring", "deleting"].contains(&state)
    }

    /// That an act from where the group stands does what the table says.
    async fn check(self: &Arc<Self>, act: Act, from: &str, mut held: bool) {
        let before = self.known().await;
        let mut life = self.world.life(&self.group).await;
        match outcome(act, from) {
            Refused(status, code) => {
                let refused = self.make(act).await;
                let found = (refused.status.as_u16(), &refused.body["code"]);
                assert_eq!(found, (status, &json!(code)), "{act:?} from {from}: {}", refused.body);
                assert_eq!(self.known().await, before, "{act:?} from {from}");
            }
            Taken(steps) => {
                let answer = if (act, from) == (Act::Delete, "deleting") {
                    let path = format!("/infra/groups/{}", self.group);
                    let ask = self.world.ask("DELETE", &path).header("prefer", "respond-async");
                    let answer = ask.send().await;
                    self.world.controllers.let_pass();
                    held = false;
                    self.world.settled().await;
                    answer
                } else {
                    self.make(act).await
                };
                assert!(answer.status.is_success(), "{act:?} from {from}: {}", answer.body);
                life.extend(steps.iter().map(|step| (*step).to_owned()));
                assert_eq!(self.world.life(&self.group).await, life, "{act:?} from {from}");
                let stands = steps.last().map_or(from, |step| step.split_once('>').unwrap().1);
                let counts = u64::from(!["archived", "deleted"].contains(&stands));
                assert_eq!(self.world.active(&self.org).await, counts, "{act:?} from {from}");
            }
        }
        if held {
            self.world.controllers.let_pass();
        }
        self.world.settled().await;
    }
}

#[tokio::test]
async fn from_each_state_each_call_takes_its_arrows_or_changes_nothing() {
    let world = Arc::new(World::new().await);
    for from in STATES {
        for (nth, act) in ACTS.into_iter().enumerate() {
            let (group, org) = (format!("{from}-{nth}"), format!("o-{from}-{nth}"));
            let case = Arc::new(Case { world: Arc::clone(&world), group, org });
            let held = case.bring_to(from).await;
            world.settle_but(usize::from(held)).await;
            case.check(act, from, held).await;
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
