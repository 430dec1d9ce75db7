//! The commands of a group, one file each: what is checked, what happens.

mod attach;
mod cancel;
mod configure;
mod detach;
mod init;
mod post;
mod revoke;

pub(crate) use attach::attach;
pub(crate) use cancel::cancel;
pub(crate) use configure::configure;
pub(crate) use detach::detach;
pub(crate) use init::init;
pub(crate) use post::post;
pub(crate) use revoke::revoke;

use convene_model::{Code, claims::Access};

use crate::{
    Address,
    controller::{Rejected, Turn},
};

/// The right of an attached connection.
fn attached<'a>(turn: &'a Turn<'_>, from: &Address) -> Result<&'a Access, Rejected> {
    turn.live.access(from).ok_or_else(|| Rejected::new(Code::NotAttached, ""))
}
