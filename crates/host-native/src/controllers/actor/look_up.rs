//! What a command refers to, looked up as it stands after everything that the group has said so far,
//! and refused where the node has no room for what the command would lead to.

use convene_group_controller::{Address, Found, Input, Post, React, Standing, Target};
use convene_model::{Code, MessageId, Problem, Ref};
use convene_storage::{FoundMessage, NoRoom, StoredMessage, StoredReaction};

use super::Actor;
use crate::controllers::{inbound::Command, store_problem};

impl Actor {
    pub(super) fn look_up_post(&mut self, post: Post) -> Input {
        match self.referred(&post) {
            Ok((found, answered)) => Input::Post(Post { found, answered, ..post }),
            Err(problem) => refuse(post.from, post.r#ref, problem),
        }
    }

    pub(super) fn look_up_target(
        &mut self,
        from: Address,
        r#ref: Ref,
        message_id: MessageId,
        command: Command,
    ) -> Input {
        let target = match self.has_room().and_then(|()| self.target(&message_id)) {
            Ok(target) => target,
            Err(problem) => return refuse(from, r#ref, problem),
        };
        match command {
            Command::Edit { text } => Input::Edit { from, r#ref, message_id, text, target },
            Command::Delete => Input::Delete { from, r#ref, message_id, target },
            Command::Pin { on } => Input::Pin { from, r#ref, message_id, on, target },
            Command::React { emoji, on } => match self.reactions(target.as_ref()) {
                Ok(reactions) => {
                    Input::React(React { from, r#ref, message_id, emoji, on, target, reactions })
                }
                Err(problem) => refuse(from, r#ref, problem),
            },
        }
    }

    fn referred(&mut self, post: &Post) -> Result<(Option<Found>, Option<Target>), Problem> {
        let found = self.find(&post.message_id)?;
        // A repeat of what is known needs no room, whatever became of what it answers.
        if found.is_some() {
            return Ok((found, None));
        }
        self.has_room()?;
        let answered = match &post.reply_to {
            Some(message_id) => self.target(message_id)?,
            None => None,
        };
        Ok((None, answered))
    }

    fn has_room(&self) -> Result<(), Problem> {
        self.shared.store.has_room().map_err(|no_room| {
            let code = match no_room {
                NoRoom::Overloaded(_) => Code::Overloaded,
                NoRoom::DiskFull { .. } => Code::StorageFull,
            };
            Problem::new(code).with("retry_after_ms", no_room.retry_after_ms())
        })
    }

    fn find(&self, message_id: &MessageId) -> Result<Option<Found>, Problem> {
        let pending = self.batch.posts.iter().find(|post| post.message_id == *message_id);
        if let Some(post) = pending {
            return Ok(Some(Found { seq: post.seq, digest: post.digest }));
        }
        let found = self
            .shared
            .store
            .find_message(self.key, message_id)
            .map_err(|error| store_problem(&self.group_id, &error))?;
        Ok(found.map(|FoundMessage { seq, digest }| Found { seq, digest }))
    }

    /// A message as it stands. The store knows what was handed to the journal, so what is pending
    /// about the message is handed over first.
    fn target(&mut self, message_id: &MessageId) -> Result<Option<Target>, Problem> {
        let batch = &self.batch;
        if batch.changed.contains(message_id)
            || batch.posts.iter().any(|post| post.message_id == *message_id)
        {
            self.commit();
        }
        let stored = self
            .shared
            .store
            .message(self.key, message_id)
            .map_err(|error| store_problem(&self.group_id, &error))?;
        Ok(stored.map(|StoredMessage { seq, author, deleted, text }| Target {
            seq,
            author,
            deleted,
            text,
        }))
    }

    /// The reactions that stand on a message, once nothing about it is pending.
    fn reactions(&self, target: Option<&Target>) -> Result<Vec<Standing>, Problem> {
        let Some(target) = target else { return Ok(Vec::new()) };
        let stored = self
            .shared
            .store
            .reactions(self.key, target.seq)
            .map_err(|error| store_problem(&self.group_id, &error))?;
        let standing = |StoredReaction { emoji, authors }| Standing { emoji, authors };
        Ok(stored.into_iter().map(standing).collect())
    }
}

fn refuse(from: Address, r#ref: Ref, problem: Problem) -> Input {
    Input::Refuse {
        from,
        r#ref: Some(r#ref),
        code: problem.code,
        retry_after_ms: problem.extra.get("retry_after_ms").and_then(serde_json::Value::as_u64),
        detail: problem.detail.unwrap_or_default(),
    }
}
