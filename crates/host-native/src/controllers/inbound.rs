//! Frames from an upstream on their way to its group: parsed and their tokens verified here, beside
//! the group's own task, so that a burst of attaches does not hold the group up.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use convene_model::{
    Code, ConnId, MessageId, ParticipantId, Ref, RunId, UpstreamId,
    claims::Access,
    frame::{self, BadFrame, UpstreamFrame},
    limits::MAX_FRAME_BYTES,
    token,
};
use tokio::sync::mpsc;

use super::{Shared, actor::Mail};

/// Frames that are read and passed on at a time: few enough that the group works on the first ones
/// while the next are read.
const AT_A_TIME: usize = 16;

/// A frame of a connection, read and checked as far as that is possible without the group.
#[derive(Debug)]
pub(super) enum Inbound {
    Attach {
        conn: ConnId,
        r#ref: Ref,
        access: Result<Access, Code>,
        after: Option<u64>,
        history: Option<convene_model::HistoryId>,
    },
    Detach {
        conn: ConnId,
        r#ref: Ref,
    },
    Post {
        conn: ConnId,
        r#ref: Ref,
        message_id: MessageId,
        text: String,
        mentions: Option<Vec<ParticipantId>>,
        reply_to: Option<MessageId>,
    },
    Cancel {
        conn: ConnId,
        r#ref: Ref,
        run_id: RunId,
    },
    /// A frame that cannot be read.
    Bad(BadFrame),
}

/// Reads an upstream's frames into the group's mailbox until either ends. A full mailbox makes the
/// upstream wait.
pub(super) async fn read(
    shared: Arc<Shared>,
    upstream: UpstreamId,
    mut frames: mpsc::Receiver<Bytes>,
    mailbox: mpsc::Sender<Mail>,
) {
    let mut stopping = pin!(shared.stopping.child_token().cancelled_owned());
    let mut waiting = Vec::with_capacity(AT_A_TIME);
    loop {
        let received = tokio::select! {
            () = &mut stopping => 0,
            received = frames.recv_many(&mut waiting, AT_A_TIME) => received,
        };
        if received == 0 {
            break;
        }
        let frames = waiting.drain(..).map(|frame| inspect(&shared, &frame)).collect();
        if mailbox.send(Mail::Frames { upstream, frames }).await.is_err() {
            return;
        }
    }
    // A group that is gone has forgotten the upstream already.
    let _ = mailbox.send(Mail::Closed { upstream }).await;
}

fn inspect(shared: &Shared, bytes: &Bytes) -> Inbound {
    let parsed = frame::parse::<UpstreamFrame>(bytes);
    if bytes.len() > MAX_FRAME_BYTES {
        let (conn, r#ref) = match parsed {
            Ok(frame) => {
                let (conn, r#ref) = frame.address();
                (Some(conn.clone()), r#ref.cloned())
            }
            Err(bad) => (bad.conn, bad.r#ref),
        };
        let detail = format!("a frame has at most {MAX_FRAME_BYTES} bytes");
        return Inbound::Bad(BadFrame { code: Code::TooLarge, detail, conn, r#ref });
    }
    match parsed {
        Ok(UpstreamFrame::Attach { conn, r#ref, token, after, history, render: _ }) => {
            let keys = &shared.config.orchestrator_keys;
            let access = token::verify_routing(keys, &token, (shared.clock)())
                .map_err(|error| convene_model::Problem::from(error).code);
            Inbound::Attach { conn, r#ref, access, after, history }
        }
        Ok(UpstreamFrame::Detach { conn, r#ref }) => Inbound::Detach { conn, r#ref },
        Ok(UpstreamFrame::Post { conn, r#ref, message_id, text, mentions, reply_to }) => {
            Inbound::Post { conn, r#ref, message_id, text, mentions, reply_to }
        }
        Ok(UpstreamFrame::Cancel { conn, r#ref, run_id }) => {
            Inbound::Cancel { conn, r#ref, run_id }
        }
        Ok(
            frame @ (UpstreamFrame::Edit { .. }
            | UpstreamFrame::Delete { .. }
            | UpstreamFrame::React { .. }
            | UpstreamFrame::Pin { .. }
            | UpstreamFrame::Typing { .. }),
        ) => {
            let (conn, r#ref) = frame.address();
            let (conn, r#ref) = (Some(conn.clone()), r#ref.cloned());
            let detail = "the group does not take this frame yet".to_owned();
            Inbound::Bad(BadFrame { code: Code::UnknownType, detail, conn, r#ref })
        }
        Err(bad) => Inbound::Bad(bad),
    }
}
