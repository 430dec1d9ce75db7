//! Snapshots: what they hold comes back, and a form that is not known is refused by its number.

use convene_group_controller::{Controller, SnapshotError};
use convene_model::{
    Code, HistoryId, Timestamp,
    event::{Adopted, Event, EventKind, TriggerPolicy::Mention},
};

use crate::harness::{Room, id};

#[test]
fn pins_counts_and_messages_come_back_from_a_snapshot() {
    let mut room = Room::with(&[("guide", Mention)]);
    room.post("c1", "m1", "hi").accepted();
    room.post("c1", "m2", "hi again").accepted();
    room.pin("c1", "m2", true).accepted();
    room.delete("c1", "m1").accepted();
    let snapshot = room.controller.snapshot().unwrap();
    let rebuilt = Controller::rebuild(Some(&snapshot), []).unwrap();
    assert_eq!(rebuilt.state(), room.controller.state());
    assert_eq!(rebuilt.state().unwrap().pins().len(), 1);
}

#[test]
fn a_snapshot_of_another_form_is_refused_and_says_so() {
    let room = Room::with(&[]);
    let mut snapshot: serde_json::Value =
        serde_json::from_slice(&room.controller.snapshot().unwrap()).unwrap();
    let format = snapshot["format"].as_u64().unwrap() as u32;
    snapshot["format"] = (format + 1).into();
    let refused = Controller::rebuild(Some(snapshot.to_string().as_bytes()), []).unwrap_err();
    assert!(matches!(refused, SnapshotError::Format(other) if other == format + 1), "{refused}");
    let refused = Controller::rebuild(Some(b"{}"), []).unwrap_err();
    assert!(matches!(refused, SnapshotError::Malformed(_)), "{refused}");
}

#[test]
fn an_adopted_group_goes_on_under_its_new_history_and_epoch() {
    let mut room = Room::new();
    room.attach("c1", "ana");
    room.say("before the backup");
    let former = room.controller.state().unwrap().identity().clone();
    let history: HistoryId = id("adopted");
    let seq = room.seq() + 1;
    let adopted = Adopted { epoch: former.epoch + 9, history: history.clone() };
    let event = Event { seq, at: Timestamp::from_secs(9), kind: EventKind::GroupAdopted(adopted) };
    let log: Vec<_> = room.log.iter().cloned().chain([event]).collect();

    let rebuilt = Controller::rebuild(None, log).unwrap();
    let state = rebuilt.state().unwrap();
    assert_eq!(state.seq(), seq);
    assert_eq!(state.identity().epoch, former.epoch + 9);
    assert_eq!(state.identity().history, history);
    let snapshot = rebuilt.snapshot().unwrap();
    let again = Controller::rebuild(Some(&snapshot), []).unwrap();
    assert_eq!(again.state().unwrap().identity(), state.identity());
    let refused = again.state().unwrap().admits(&room.access("ana")).unwrap_err();
    assert_eq!(refused, Code::StaleEpoch);
}
