//! The commands of a group, one file each: what is checked, what happens.

mod attach;
mod cancel;
mod configure;
mod delete;
mod detach;
mod edit;
mod freeze;
mod init;
mod pin;
mod post;
mod react;
mod restore;
mod revoke;
mod thaw;
mod typing;

pub(crate) use attach::attach;
pub(crate) use cancel::cancel;
pub(crate) use configure::configure;
pub(crate) use delete::delete;
pub(crate) use detach::detach;
pub(crate) use edit::edit;
pub(crate) use freeze::freeze;
pub(crate) use init::init;
pub(crate) use pin::pin;
pub(crate) use post::post;
pub(crate) use react::react;
pub(crate) use restore::restore;
pub(crate) use revoke::revoke;
pub(crate) use thaw::thaw;
pub(crate) use typing::typing;

use convene_model::{
    Code, Role,
    claims::{Access, RoutingClaims},
    event::EventKind,
    frame::{DetachReason, GroupFrame},
    limits::MAX_TEXT_BYTES,
};

use crate::{
    Address, Target,
    controller::{Rejected, Turn},
};

/// The right of an attached connection.
fn attached<'a>(turn: &'a Turn<'_>, from: &Address) -> Result<&'a Access, Rejected> {
    turn.live.access(from).ok_or_else(|| Rejected::new(Code::NotAttached, ""))
}

/// The claims of an attached connection whose user is not a program in the role of an agent.
fn person<'a>(turn: &'a Turn<'_>, from: &Address) -> Result<&'a RoutingClaims, Rejected> {
    let claims = &attached(turn, from)?.claims;
    match claims.role {
        Role::Member | Role::Admin | Role::Owner => Ok(claims),
        Role::Agent => Err(Rejected::new(Code::Forbidden, "this is for people, not for agents")),
    }
}

/// A message that exists and was not taken back.
fn standing(target: Option<Target>) -> Result<Target, Rejected> {
    target.filter(|target| !target.deleted).ok_or_else(|| Rejected::new(Code::MessageNotFound, ""))
}

/// A message's text: 1 to [`MAX_TEXT_BYTES`] bytes, not only blanks.
fn check_text(text: &str) -> Result<(), Rejected> {
    if text.len() > MAX_TEXT_BYTES {
        let detail = format!("a text has at most {MAX_TEXT_BYTES} bytes");
        return Err(Rejected::new(Code::TooLarge, detail));
    }
    if text.trim().is_empty() {
        return Err(Rejected::new(Code::ValidationFailed, "a message needs a text"));
    }
    Ok(())
}

/// Takes over a higher epoch: every token of a former one is void.
fn raise_epoch(turn: &mut Turn<'_>, epoch: u64) {
    turn.emit(EventKind::EpochRaised { epoch });
    for address in turn.live.expel_all() {
        turn.send(
            address,
            GroupFrame::Detached { reason: DetachReason::EpochRaised, user_id: None },
        );
    }
}
