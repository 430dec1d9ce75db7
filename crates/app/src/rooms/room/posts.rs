//! Posts over HTTP: each is a connection of its own for as long as it takes.

use bytes::Bytes;
use convene_model::{
    Code, ConnId, Problem, Ref, UserId,
    frame::{GroupFrame, UpstreamFrame},
    infra::RoutingToken,
};
use tokio::sync::oneshot;

use super::{Room, Upstream, conn::encode};
use crate::rooms::{PostAccepted, PostRequest, shared::is_about_the_user};

/// A post that waits for its answer.
pub(super) struct WaitingPost {
    pub(super) user: UserId,
    request: PostRequest,
    /// Taken when it is answered.
    reply: Option<oneshot::Sender<Result<PostAccepted, Problem>>>,
    retried: bool,
}

impl Room {
    pub(super) fn post(
        &mut self,
        user: UserId,
        request: PostRequest,
        reply: oneshot::Sender<Result<PostAccepted, Problem>>,
    ) {
        let limit = self.shared.tuning.max_posts;
        if self.posts.len() >= limit {
            let problem = Problem::new(Code::Overloaded).with("limit", limit);
            let _ = reply.send(Err(problem.with("retry_after_ms", 1000)));
            return;
        }
        let conn = ConnId::new(format!("p{}", self.next_post)).expect("a letter and a number");
        self.next_post += 1;
        let post = WaitingPost { user: user.clone(), request, reply: Some(reply), retried: false };
        self.posts.insert(conn.clone(), post);
        match self.upstream {
            Upstream::Open(_) => self.fetch_token(conn, user),
            Upstream::Closed | Upstream::Opening => self.open_if_needed(),
        }
    }

    /// Sends all posts on an upstream that was just opened.
    pub(super) fn start_posts(&mut self) {
        let posts = self.posts.iter().map(|(conn, post)| (conn.clone(), post.user.clone()));
        for (conn, user) in posts.collect::<Vec<_>>() {
            self.fetch_token(conn, user);
        }
    }

    pub(super) fn post_token(
        &mut self,
        conn: &ConnId,
        result: Result<Option<RoutingToken>, Problem>,
    ) {
        let token = match result {
            Ok(Some(token)) => token,
            Ok(None) => return self.answer_post(conn, Err(Problem::new(Code::Forbidden))),
            Err(problem) => return self.answer_post(conn, Err(problem)),
        };
        let Some(post) = self.posts.get(conn) else { return };
        let PostRequest { message_id, text, mentions, reply_to } = post.request.clone();
        let attach = encode(&UpstreamFrame::Attach {
            conn: conn.clone(),
            r#ref: attach_ref(),
            token: token.routing_token,
            after: None,
            history: None,
            render: None,
        });
        let (conn_id, r#ref) = (conn.clone(), post_ref());
        let frame =
            UpstreamFrame::Post { conn: conn_id, r#ref, message_id, text, mentions, reply_to };
        // While the upstream is down the post waits and is sent when it is open again.
        if let Err(Code::Overloaded) =
            self.send_up(attach).and_then(|()| self.send_up(encode(&frame)))
        {
            self.detach_up(conn);
            let problem = Problem::new(Code::Overloaded).with("retry_after_ms", 1000);
            self.answer_post(conn, Err(problem));
        }
    }

    pub(super) fn post_answer(&mut self, conn: &ConnId, frame: &Bytes) {
        let Ok(frame) = serde_json::from_slice::<GroupFrame>(frame) else { return };
        match frame {
            GroupFrame::Ok { r#ref, seq: Some(seq), message_id: Some(message_id) }
                if r#ref == post_ref() =>
            {
                self.detach_up(conn);
                self.answer_post(conn, Ok(PostAccepted { seq, message_id }));
            }
            GroupFrame::Error { r#ref, code, detail, retry_after_ms, .. } => {
                let Some(post) = self.posts.get_mut(conn) else { return };
                let of_attach = r#ref == Some(attach_ref());
                if post.retried && !of_attach && code == Code::NotAttached {
                    // The answer to the post behind the refused attach, which is tried again.
                    return;
                }
                if of_attach && is_about_the_user(code) && !post.retried {
                    post.retried = true;
                    let user = post.user.clone();
                    self.shared.withdraw_token(&self.group, &user);
                    return self.fetch_token(conn.clone(), user);
                }
                self.detach_up(conn);
                let mut problem = Problem::new(code);
                problem.detail = detail;
                if let Some(millis) = retry_after_ms {
                    problem = problem.with("retry_after_ms", millis);
                }
                self.answer_post(conn, Err(problem));
            }
            GroupFrame::Detached { .. } => {
                self.answer_post(conn, Err(Problem::new(Code::AccessRevoked)));
            }
            GroupFrame::Presence { .. }
            | GroupFrame::Typing { .. }
            | GroupFrame::Attached { .. }
            | GroupFrame::Ok { .. }
            | GroupFrame::Reset { .. }
            | GroupFrame::Delta { .. } => {}
        }
    }

    fn answer_post(&mut self, conn: &ConnId, answer: Result<PostAccepted, Problem>) {
        if let Some(reply) = self.posts.remove(conn).and_then(|post| post.reply) {
            let _ = reply.send(answer);
        }
    }

    pub(super) fn fail_posts(&mut self, problem: &Problem) {
        for (_, post) in self.posts.drain() {
            if let Some(reply) = post.reply {
                let _ = reply.send(Err(problem.clone()));
            }
        }
    }

    /// Lets posts be sent again on the next upstream: the group knows them by `message_id`.
    pub(super) fn restart_posts(&mut self) {
        for post in self.posts.values_mut() {
            post.retried = false;
        }
    }

    /// Takes out the posts whose callers no longer wait.
    pub(super) fn forget_abandoned_posts(&mut self) {
        let abandoned = |post: &WaitingPost| post.reply.as_ref().is_none_or(|r| r.is_closed());
        let gone = self.posts.iter().filter(|(_, post)| abandoned(post));
        for conn in gone.map(|(conn, _)| conn.clone()).collect::<Vec<_>>() {
            self.posts.remove(&conn);
            self.detach_up(&conn);
        }
    }
}

fn attach_ref() -> Ref {
    Ref::new("attach").expect("letters are a ref")
}

fn post_ref() -> Ref {
    Ref::new("post").expect("letters are a ref")
}
