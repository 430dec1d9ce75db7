//! The broadcaster of one room: what waits on the upstream goes to every attached socket at once.
//!
//! A frame is encoded once for each of the two encodings, the frames of a batch are joined into
//! one buffer, and that buffer is written to each socket directly: one write for each socket and
//! batch, no task and no copy for each connection. Knows sockets and positions in the stream; what
//! frames mean for a connection is the room's affair.
//!
//! ```text
//! upstream ──recv_many──▶ prepare ──▶ Batch { plain, html, actions } ──▶ flush ──▶ sockets
//! ```
//!
//! A batch has positions: position `n` is after its first `n` broadcasts. A connection that joins
//! or leaves the stream in the middle of a batch does so at a position, and gets exactly the
//! broadcasts of its side of it.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use convene_model::{
    ConnId, UserId,
    frame::{GroupFrame, split_conn},
};

use super::{
    html::{Fragments, Render, event_seq},
    outbound::{Outbound, Sent},
    ws,
};

const DETACHED_START: &[u8] = b"{\"type\":\"detached\"";

/// The sockets of one room and what was fanned out to them.
#[derive(Debug)]
pub struct Fanout {
    members: Vec<Member>,
    index: HashMap<ConnId, usize>,
    html_members: usize,
    fragments: Fragments,
    render: Render,
    last_seq: u64,
    gone: Vec<ConnId>,
}

#[derive(Debug)]
struct Member {
    conn: ConnId,
    user: UserId,
    outbound: Arc<Outbound>,
    html: bool,
    attached: bool,
    /// The position of the batch under way up to which it has everything.
    cursor: usize,
}

/// What waited on the upstream, ready to be written.
#[derive(Debug, Default)]
pub struct Batch {
    plain: Bytes,
    html: Bytes,
    marks: Vec<Mark>,
    before: u64,
    actions: Vec<(usize, Action)>,
}

/// Where a broadcast ends.
#[derive(Debug, Clone, Copy)]
struct Mark {
    plain: usize,
    html: usize,
    seq: u64,
}

/// A frame that is not simply written to everybody, to be carried out at its position.
#[derive(Debug)]
pub(crate) enum Action {
    /// For one connection.
    Directed(ConnId, Bytes),
    /// All of a user's connections left the stream.
    UserDetached(UserId),
    /// All connections left the stream.
    AllDetached,
}

impl Batch {
    pub(crate) fn take_actions(&mut self) -> Vec<(usize, Action)> {
        std::mem::take(&mut self.actions)
    }

    /// The last event number at a position.
    pub(crate) fn seq_at(&self, at: usize) -> u64 {
        at.checked_sub(1).and_then(|last| self.marks.get(last)).map_or(self.before, |mark| mark.seq)
    }

    fn offset(&self, html: bool, at: usize) -> usize {
        let mark = at.checked_sub(1).and_then(|last| self.marks.get(last));
        mark.map_or(0, |mark| if html { mark.html } else { mark.plain })
    }

    fn bytes(&self, html: bool) -> &Bytes {
        if html { &self.html } else { &self.plain }
    }
}

impl Fanout {
    /// A room without sockets.
    #[must_use]
    pub fn new(render: Render) -> Self {
        Self {
            members: Vec::new(),
            index: HashMap::new(),
            html_members: 0,
            fragments: Fragments::new(render),
            render,
            last_seq: 0,
            gone: Vec::new(),
        }
    }

    /// Adds a socket, which gets nothing before it is attached.
    pub fn join(&mut self, conn: ConnId, user: UserId, outbound: Arc<Outbound>) {
        self.index.insert(conn.clone(), self.members.len());
        let (html, attached, cursor) = (false, false, 0);
        self.members.push(Member { conn, user, outbound, html, attached, cursor });
    }

    /// Lets a socket have everything that is broadcast from position `at` of the batch under way
    /// on; outside a batch the position is 0. A socket that is attached already goes on.
    pub fn attach(&mut self, conn: &ConnId, at: usize) {
        if let Some(member) = self.member(conn).filter(|member| !member.attached) {
            member.attached = true;
            member.cursor = at;
        }
    }

    /// Encodes and joins `frames`, as they came from the upstream.
    pub fn prepare(&mut self, frames: &mut Vec<Bytes>) -> Batch {
        let with_html = self.html_members > 0;
        let with_plain = self.html_members < self.members.len();
        let size = frames.iter().map(|frame| frame.len() + 10).sum();
        let mut plain = BytesMut::with_capacity(if with_plain { size } else { 0 });
        let mut html = BytesMut::new();
        let mut batch = Batch { before: self.last_seq, ..Batch::default() };
        batch.marks.reserve(frames.len());
        for frame in frames.drain(..) {
            let at = batch.marks.len();
            let (conn, payload) = split_conn(&frame);
            if let Some(conn) = conn {
                batch.actions.push((at, Action::Directed(conn, payload)));
                continue;
            }
            if let Some(action) = detached(&frame) {
                batch.actions.push((at, action));
                continue;
            }
            if let Some(seq) = event_seq(&frame) {
                self.last_seq = self.last_seq.max(seq);
            }
            if with_plain {
                ws::put_text(&mut plain, &frame);
            }
            if with_html {
                ws::put_text(&mut html, &self.fragments.html(&frame));
            }
            batch.marks.push(Mark { plain: plain.len(), html: html.len(), seq: self.last_seq });
        }
        (batch.plain, batch.html) = (plain.freeze(), html.freeze());
        batch
    }

    /// Writes a batch to every attached socket, each from where it stands in it. Returns how many
    /// sockets could not take all of it at once; theirs follows as they read.
    pub fn flush(&mut self, batch: &Batch) -> usize {
        let end = batch.marks.len();
        let mut behind = 0;
        for member in self.members.iter_mut() {
            if member.attached {
                match member.write(batch, end) {
                    Sent::Written => {}
                    Sent::Waiting => behind += 1,
                    Sent::Gone => self.gone.push(member.conn.clone()),
                }
            }
            member.cursor = 0;
        }
        behind
    }

    /// Writes a frame to one socket, after the broadcasts before position `at`.
    pub(crate) fn direct(&mut self, batch: &Batch, at: usize, conn: &ConnId, payload: &Bytes) {
        let Some(place) = self.index.get(conn) else { return };
        let member = &mut self.members[*place];
        let rendered = if member.html { self.fragments.html(payload) } else { payload.clone() };
        let before = if member.attached { member.write(batch, at) } else { Sent::Written };
        if before == Sent::Gone || member.outbound.send_text(&rendered) == Sent::Gone {
            self.gone.push(member.conn.clone());
        }
    }

    /// Lets a socket have nothing that is broadcast from position `at` on.
    pub(crate) fn detach(&mut self, batch: &Batch, at: usize, conn: &ConnId) {
        let Some(place) = self.index.get(conn) else { return };
        let member = &mut self.members[*place];
        if member.attached && member.write(batch, at) == Sent::Gone {
            self.gone.push(member.conn.clone());
        }
        member.attached = false;
    }

    /// Lets no socket have anything until it is attached again: the upstream is lost.
    pub(crate) fn detach_all(&mut self) {
        for member in &mut self.members {
            member.attached = false;
        }
    }

    /// Chooses the encoding that a socket gets.
    pub(crate) fn set_html(&mut self, conn: &ConnId, html: bool) {
        let Some(member) = self.member(conn) else { return };
        let was = std::mem::replace(&mut member.html, html);
        self.html_members = self.html_members + usize::from(html) - usize::from(was);
    }

    /// Takes a socket out; what it was sent stays sent.
    pub(crate) fn leave(&mut self, conn: &ConnId) {
        let Some(place) = self.index.remove(conn) else { return };
        let member = self.members.swap_remove(place);
        self.html_members -= usize::from(member.html);
        if let Some(moved) = self.members.get(place) {
            self.index.insert(moved.conn.clone(), place);
        }
    }

    /// Forgets what was fanned out: the group's numbering is another one.
    pub(crate) fn renumber(&mut self) {
        self.last_seq = 0;
        self.fragments = Fragments::new(self.render);
    }

    /// The connections of a user.
    pub(crate) fn of_user(&self, user: &UserId) -> Vec<ConnId> {
        let theirs = self.members.iter().filter(|member| member.user == *user);
        theirs.map(|member| member.conn.clone()).collect()
    }

    /// The connections whose sockets took nothing more since the last call.
    pub fn take_gone(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.gone)
    }

    /// The last event number that was fanned out.
    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    fn member(&mut self, conn: &ConnId) -> Option<&mut Member> {
        self.index.get(conn).and_then(|place| self.members.get_mut(*place))
    }
}

impl Member {
    /// Writes the broadcasts from the cursor to position `at`.
    fn write(&mut self, batch: &Batch, at: usize) -> Sent {
        if at <= self.cursor {
            return Sent::Written;
        }
        let from = batch.offset(self.html, self.cursor);
        let frames = at - self.cursor;
        self.cursor = at;
        let bytes = batch.bytes(self.html);
        if at == batch.marks.len() {
            return self.outbound.send(bytes, from, frames);
        }
        self.outbound.send(&bytes.slice(..batch.offset(self.html, at)), from, frames)
    }
}

/// What a broadcast `detached` asks for.
fn detached(frame: &Bytes) -> Option<Action> {
    if !frame.starts_with(DETACHED_START) {
        return None;
    }
    match serde_json::from_slice(frame).ok()? {
        GroupFrame::Detached { user_id: Some(user_id), .. } => Some(Action::UserDetached(user_id)),
        GroupFrame::Detached { user_id: None, .. } => Some(Action::AllDetached),
        GroupFrame::Attached { .. }
        | GroupFrame::Ok { .. }
        | GroupFrame::Error { .. }
        | GroupFrame::Reset { .. }
        | GroupFrame::Delta { .. }
        | GroupFrame::Presence { .. }
        | GroupFrame::Typing { .. } => None,
    }
}
