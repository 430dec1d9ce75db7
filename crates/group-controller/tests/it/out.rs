//! A step, as a test asks about it.

use convene_group_controller::{Address, Effect, Invocation, Step};
use convene_model::{
    Code, RunId, UserId,
    event::{Decision, Event, EventKind, Posted, RunFinished, SuppressReason, WakeReason},
    frame::{DetachReason, GroupFrame},
};

/// A step, as a test asks about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Out(pub(crate) Step);

impl Out {
    #[track_caller]
    pub(crate) fn accepted(self) -> Self {
        assert_eq!(self.0.answer, Ok(()));
        self
    }

    /// The input was refused with `code`, and nothing happened.
    #[track_caller]
    pub(crate) fn refused(self, code: Code) -> Self {
        assert_eq!(self.0.answer.as_ref().map_err(|rejected| rejected.code), Err(code));
        assert_eq!(self.0.events, []);
        self
    }

    /// The frame was refused with `code`, its sender was told, and nothing else happened.
    #[track_caller]
    pub(crate) fn refused_to(self, to: &Address, code: Code) -> Self {
        let out = self.refused(code);
        let [GroupFrame::Error { code: told, .. }] = &out.to(to)[..] else {
            panic!("one error frame: {out:?}")
        };
        assert_eq!((*told, out.0.effects.len()), (code, 1));
        out
    }

    /// The kinds of the events, in order.
    pub(crate) fn kinds(&self) -> Vec<String> {
        let kind = |event: &Event| {
            let json = serde_json::to_value(event).unwrap();
            json["kind"].as_str().unwrap().to_owned()
        };
        self.0.events.iter().map(kind).collect()
    }

    /// The frames for one connection, in order.
    pub(crate) fn to(&self, address: &Address) -> Vec<GroupFrame> {
        let frame = |effect: &Effect| match effect {
            Effect::Send { to, frame } if to == address => Some(frame.clone()),
            _ => None,
        };
        self.0.effects.iter().filter_map(frame).collect()
    }

    /// The one frame for one connection.
    #[track_caller]
    pub(crate) fn one_to(&self, address: &Address) -> GroupFrame {
        let mut frames = self.to(address);
        assert_eq!(frames.len(), 1, "one frame: {frames:?}");
        frames.remove(0)
    }

    /// The number in the `ok` for one connection.
    #[track_caller]
    pub(crate) fn ok_seq(&self, address: &Address) -> u64 {
        match self.one_to(address) {
            GroupFrame::Ok { seq: Some(seq), .. } => seq,
            other => panic!("an ok with a number: {other:?}"),
        }
    }

    /// Who was detached, and why.
    pub(crate) fn detached(&self) -> Vec<(String, DetachReason)> {
        let detached = |effect: &Effect| match effect {
            Effect::Send { to, frame: GroupFrame::Detached { reason, user_id: None } } => {
                Some((to.conn.to_string(), *reason))
            }
            _ => None,
        };
        self.0.effects.iter().filter_map(detached).collect()
    }

    /// What is replayed, as (after, upto).
    pub(crate) fn replays(&self) -> Vec<(u64, u64)> {
        let replay = |effect: &Effect| match effect {
            Effect::Replay { after, upto, .. } => Some((*after, *upto)),
            _ => None,
        };
        self.0.effects.iter().filter_map(replay).collect()
    }

    /// The changes of presence that everybody is told, as (joined, left, count).
    pub(crate) fn presence(&self) -> Vec<(Vec<UserId>, Vec<UserId>, u64)> {
        let presence = |frame| match frame {
            GroupFrame::Presence { joined, left, count } => Some((joined, left, count)),
            _ => None,
        };
        self.broadcasts().into_iter().filter_map(presence).collect()
    }

    /// The frames for everybody.
    pub(crate) fn broadcasts(&self) -> Vec<GroupFrame> {
        let broadcast = |effect: &Effect| match effect {
            Effect::Broadcast(frame) => Some(frame.clone()),
            _ => None,
        };
        self.0.effects.iter().filter_map(broadcast).collect()
    }

    /// The calls of the Agents Worker.
    pub(crate) fn invocations(&self) -> Vec<Invocation> {
        let invoke = |effect: &Effect| match effect {
            Effect::Invoke(invocation) => Some((**invocation).clone()),
            _ => None,
        };
        self.0.effects.iter().filter_map(invoke).collect()
    }

    /// The agents that were called, in order.
    pub(crate) fn called(&self) -> Vec<String> {
        self.invocations().iter().map(|call| call.request.agent_id.to_string()).collect()
    }

    /// The attempts that are no longer waited for.
    pub(crate) fn aborts(&self) -> Vec<(RunId, u32)> {
        let abort = |effect: &Effect| match effect {
            Effect::Abort { run_id, attempt } => Some((run_id.clone(), *attempt)),
            _ => None,
        };
        self.0.effects.iter().filter_map(abort).collect()
    }

    pub(crate) fn posted(&self) -> Vec<Posted> {
        let posted = |event: &Event| match &event.kind {
            EventKind::MessagePosted(posted) => Some(posted.clone()),
            _ => None,
        };
        self.0.events.iter().filter_map(posted).collect()
    }

    pub(crate) fn finished(&self) -> Vec<RunFinished> {
        let finished = |event: &Event| match &event.kind {
            EventKind::RunFinished(finished) => Some(finished.clone()),
            _ => None,
        };
        self.0.events.iter().filter_map(finished).collect()
    }

    /// The one run that ended.
    #[track_caller]
    pub(crate) fn one_finished(&self) -> RunFinished {
        let mut finished = self.finished();
        assert_eq!(finished.len(), 1, "one run ends: {:?}", self.0.events);
        finished.remove(0)
    }

    /// What was decided about each agent that came into question.
    pub(crate) fn decided(&self) -> Vec<(String, Verdict)> {
        let candidates = self.0.events.iter().filter_map(|event| match &event.kind {
            EventKind::TriggerDecided(decided) => Some(&decided.candidates),
            _ => None,
        });
        let verdict = |decision: &Decision| match decision {
            Decision::Accepted { reason, .. } => Verdict::Wakes(*reason),
            Decision::Suppressed { reason } => Verdict::Not(*reason),
        };
        candidates
            .flatten()
            .map(|candidate| (candidate.agent_id.to_string(), verdict(&candidate.decision)))
            .collect()
    }
}

/// A decision without the run's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Wakes(WakeReason),
    Not(SuppressReason),
}
