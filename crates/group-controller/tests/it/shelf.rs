//! The messages of a room as its events have them: what a host looks up, and a check on each event
//! that changes one.

use std::collections::BTreeMap;

use convene_group_controller::{Found, Standing, Target};
use convene_model::{
    MessageId,
    event::{Author, Event, EventKind, Reaction},
    frame::PinView,
    limits::{MAX_EMOJIS_PER_MESSAGE, MAX_PINS},
};

/// The messages of a room.
#[derive(Default)]
pub(crate) struct Shelf {
    messages: BTreeMap<MessageId, Kept>,
    pins: Vec<MessageId>,
}

struct Kept {
    found: Found,
    target: Target,
    reactions: Vec<Standing>,
}

impl Shelf {
    pub(crate) fn found(&self, message_id: &MessageId) -> Option<Found> {
        self.messages.get(message_id).map(|kept| kept.found)
    }

    pub(crate) fn target(&self, message_id: &MessageId) -> Option<Target> {
        self.messages.get(message_id).map(|kept| kept.target.clone())
    }

    pub(crate) fn reactions(&self, message_id: &MessageId) -> Vec<Standing> {
        self.messages.get(message_id).map_or_else(Vec::new, |kept| kept.reactions.clone())
    }

    /// Takes an event in, which must fit what stands.
    pub(crate) fn keep(&mut self, event: &Event) {
        if let EventKind::MessagePosted(posted) = &event.kind {
            let author = posted.author.clone();
            let text = posted.text.clone();
            let kept = Kept {
                found: Found { seq: event.seq, digest: posted.digest() },
                target: Target { seq: event.seq, author, deleted: false, text },
                reactions: Vec::new(),
            };
            let before = self.messages.insert(posted.message_id.clone(), kept);
            assert!(before.is_none(), "a message is posted once");
            assert_eq!(posted.nth, self.messages.len() as u64, "messages are counted");
            return;
        }
        let Some(message_id) = event.kind.message_id() else { return };
        let kept = self.messages.get_mut(message_id).expect("a message that was posted");
        assert!(!kept.target.deleted, "nothing happens to a deleted message: {event:?}");
        let seq = kept.target.seq;
        match &event.kind {
            EventKind::MessageEdited(edited) => {
                assert_eq!((edited.message_seq, &edited.author), (seq, &kept.target.author));
                assert_ne!(edited.text, kept.target.text, "an edit changes something");
                kept.target.text.clone_from(&edited.text);
            }
            EventKind::MessageDeleted(deleted) => {
                assert_eq!(deleted.message_seq, seq);
                kept.target.deleted = true;
                kept.target.text.clear();
                kept.reactions.clear();
                self.pins.retain(|pinned| pinned != message_id);
            }
            EventKind::ReactionAdded(reaction) => {
                assert_eq!(reaction.message_seq, seq);
                add(&mut kept.reactions, reaction);
            }
            EventKind::ReactionRemoved(reaction) => {
                assert_eq!(reaction.message_seq, seq);
                remove(&mut kept.reactions, reaction);
            }
            EventKind::MessagePinned(pinned) => {
                assert_eq!(pinned.message_seq, seq);
                assert!(!self.pins.contains(message_id), "a message is pinned once");
                self.pins.push(message_id.clone());
                assert!(self.pins.len() <= MAX_PINS);
            }
            EventKind::MessageUnpinned(pinned) => {
                assert_eq!(pinned.message_seq, seq);
                assert!(self.pins.contains(message_id), "what is taken off was pinned");
                self.pins.retain(|pinned| pinned != message_id);
            }
            _ => panic!("no event of a message: {event:?}"),
        }
    }

    /// Whether the pins of a state are those of the events.
    pub(crate) fn check_pins(&self, pins: &[PinView]) {
        let of_state: Vec<_> = pins.iter().map(|pin| pin.message_id.clone()).collect();
        assert_eq!(of_state, self.pins);
    }
}

fn add(reactions: &mut Vec<Standing>, reaction: &Reaction) {
    let Reaction { emoji, author, .. } = reaction;
    assert!(matches!(author, Author::User(_)), "people react");
    match reactions.iter_mut().find(|standing| standing.emoji == *emoji) {
        Some(standing) => {
            assert!(!standing.authors.contains(author), "a reaction is put once");
            standing.authors.push(author.clone());
        }
        None => {
            let standing = Standing { emoji: emoji.clone(), authors: vec![author.clone()] };
            reactions.push(standing);
        }
    }
    assert!(reactions.len() <= MAX_EMOJIS_PER_MESSAGE);
}

fn remove(reactions: &mut Vec<Standing>, reaction: &Reaction) {
    let standing = reactions.iter_mut().find(|standing| standing.emoji == reaction.emoji);
    let standing = standing.expect("what is taken off was there");
    let before = standing.authors.len();
    standing.authors.retain(|author| *author != reaction.author);
    assert_eq!(standing.authors.len() + 1, before, "one's own reaction is taken off");
    reactions.retain(|standing| !standing.authors.is_empty());
}
