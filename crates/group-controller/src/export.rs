//! The outbox of a group whose history is kept by the organization's own service.
//!
//! What the service has not acknowledged stands in the group's events; the state only knows from where
//! to where. One request is under way at a time, in order, and again after a crash: at least once.

use convene_model::{
    Timestamp,
    event::{Event, EventKind},
    infra::HistoryMode,
};
use serde::{Deserialize, Serialize};

use crate::{Effect, controller::Turn, state::State};

/// What the service is to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Outbox {
    /// Up to which event it has acknowledged.
    pub(crate) exported: u64,
    /// The last event that it is to be told of; 0 when there is none beyond `exported`.
    pub(crate) last: u64,
    /// When the first of those happened that it has not acknowledged.
    pub(crate) since: Option<Timestamp>,
}

impl State {
    /// Takes note of an event that the service is to be told of.
    pub(crate) fn put_out(&mut self, event: &Event) {
        let told = matches!(
            event.kind,
            EventKind::MessagePosted(_)
                | EventKind::MessageEdited(_)
                | EventKind::MessageDeleted(_)
                | EventKind::RunFinished(_)
        );
        if told && self.identity.history_mode == HistoryMode::External {
            let outbox = self.outbox.get_or_insert_default();
            outbox.last = event.seq;
            outbox.since.get_or_insert(event.at);
        }
    }

    /// The service has acknowledged everything up to an event.
    pub(crate) fn exported(&mut self, upto: u64) {
        let outbox = self.outbox.get_or_insert_default();
        outbox.exported = upto;
        if outbox.last <= upto {
            outbox.last = 0;
            outbox.since = None;
        }
    }

    /// When the group is to be woken after the end of a process: what waits for the service goes on.
    pub(crate) fn outbox_since(&self) -> Option<Timestamp> {
        self.outbox?.since
    }
}

/// Has what waits sent, unless something is under way.
pub(crate) fn run(turn: &mut Turn<'_>) {
    let Some(state) = turn.existing().filter(|state| state.frozen.is_none()) else { return };
    let Some(outbox) = state.outbox.filter(|outbox| outbox.since.is_some()) else { return };
    if turn.live.exporting {
        return;
    }
    turn.live.exporting = true;
    turn.effects.push(Effect::Export { after: outbox.exported, upto: outbox.last });
}

/// The service has acknowledged everything up to an event.
pub(crate) fn exported(turn: &mut Turn<'_>, upto: u64, whole: bool) {
    if whole {
        turn.live.exporting = false;
    }
    let state = turn.state();
    let known = state.outbox.map_or(0, |outbox| outbox.exported);
    if state.frozen.is_some() || upto <= known || upto > state.seq {
        return;
    }
    turn.emit(EventKind::HistoryExported { upto });
    // What is acknowledged may leave the projection, so the state must not depend on it.
    turn.checkpoint = true;
}
