//! Frames of connections as the group's task takes them in.

use convene_group_controller::{Address, Input, Post};
use convene_hop::trace::Span;
use convene_model::{
    MessageId, UpstreamId, claims::service, frame::GroupFrame, trace::TraceParent,
};

use super::{Actor, MAX_FOLLOWED};
use crate::controllers::{MAX_BATCH, inbound::Inbound, output::Output};

impl Actor {
    /// Takes a frame in. Its refusal is an effect of the step, so the result needs no answer here.
    pub(super) fn frame(&mut self, upstream: UpstreamId, frame: Inbound) {
        let at = |conn| Address { upstream, conn };
        let mut span = None;
        let input = match frame {
            Inbound::Attach { conn, r#ref, access, after, history } => {
                let from = at(conn);
                self.limit_attach(&from, &r#ref, &access).unwrap_or(Input::Attach {
                    from,
                    r#ref,
                    access,
                    after,
                    history,
                })
            }
            Inbound::Detach { conn, r#ref } => Input::Detach { from: at(conn), r#ref },
            Inbound::Cancel { conn, r#ref, run_id } => {
                Input::Cancel { from: at(conn), r#ref, run_id }
            }
            Inbound::Approve { conn, r#ref, approval_id, decision } => {
                Input::Approve { from: at(conn), r#ref, approval_id, decision }
            }
            Inbound::Continue { conn, r#ref, message_id, agent_id } => {
                Input::Continue { from: at(conn), r#ref, message_id, agent_id }
            }
            Inbound::Retry { conn, r#ref, run_id } => {
                Input::Retry { from: at(conn), r#ref, run_id }
            }
            Inbound::Run { conn, r#ref, run_id, attempt, act } => {
                let from = at(conn);
                self.limit_run(&from, &r#ref).unwrap_or(Input::Run {
                    from,
                    r#ref,
                    run_id,
                    attempt,
                    act,
                })
            }
            Inbound::Post { conn, r#ref, message_id, text, mentions, reply_to, trace } => {
                if let Some(refused) = self.limit_post(&at(conn.clone()), &r#ref) {
                    let _ = self.step(refused);
                    return;
                }
                span = self.follow(&message_id, trace);
                let post = Post {
                    from: at(conn),
                    r#ref,
                    message_id,
                    text,
                    mentions,
                    reply_to,
                    found: None,
                    answered: None,
                };
                self.look_up_post(post)
            }
            Inbound::About { conn, r#ref, message_id, command } => {
                self.look_up_target(at(conn), r#ref, message_id, command)
            }
            Inbound::Typing { conn } => Input::Typing { from: at(conn) },
            Inbound::Bad(bad) => match bad.conn {
                Some(conn) => Input::Refuse {
                    from: at(conn),
                    r#ref: bad.r#ref,
                    code: bad.code,
                    detail: bad.detail,
                    retry_after_ms: None,
                },
                None => {
                    let frame = GroupFrame::Error {
                        r#ref: bad.r#ref,
                        code: bad.code,
                        detail: Some(bad.detail),
                        retry_after_ms: None,
                        start: None,
                    };
                    self.batch.outputs.push(Output::Send { upstream, frame: frame.encode() });
                    return;
                }
            },
        };
        let _ = self.step(input);
        self.batch.outputs.extend(span.map(Output::Traced));
        if self.batch.records.len() >= MAX_BATCH {
            self.commit();
        }
    }

    /// Begins the span of a post that is followed, and remembers it for what the post leads to.
    fn follow(&mut self, message_id: &MessageId, parent: Option<TraceParent>) -> Option<Span> {
        let mut span = Span::after(service::CONTROLLERS, "post", parent);
        let trace = span.context()?;
        span.note("group.id", &self.group_id);
        span.note("message.id", message_id);
        if self.followed.len() >= MAX_FOLLOWED {
            self.followed.pop_front();
        }
        self.followed.push_back((message_id.clone(), trace));
        Some(span)
    }
}
