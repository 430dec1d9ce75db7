//! Writes a message, once for each `message_id`, and decides which agents it wakes.

use convene_model::{
    Code, Role,
    event::{Author, EventKind, Posted, post_digest},
    limits::MAX_MENTIONS,
};

use crate::{
    Post,
    commands::{attached, check_text, standing},
    controller::{Rejected, Turn},
    mention,
    runs::REPLY_PREFIX,
    triggers,
};

pub(crate) fn post(turn: &mut Turn<'_>, post: Post) -> Result<(), Rejected> {
    let access = attached(turn, &post.from)?;
    if access.claims.role == Role::Agent {
        // An agent's message never opens a root, and this one belongs to no run that has one.
        return Err(Rejected::new(Code::Forbidden, "an agent writes in its runs only"));
    }
    let author = Author::User(access.claims.user_id.clone());
    check(&post)?;

    if let Some(found) = post.found {
        if found.digest != post_digest(&author, &post.text, post.reply_to.as_ref()) {
            return Err(Rejected::new(Code::MessageIdReused, ""));
        }
        turn.ok(&post.from, &post.r#ref, Some(found.seq), Some(post.message_id));
        return Ok(());
    }
    let answered = post.reply_to.as_ref().map(|_| standing(post.answered)).transpose();
    let answered = answered.map_err(|rejected| {
        Rejected::new(rejected.code, "the message that it answers is not there")
    })?;

    let mentions = match post.mentions {
        Some(mentions) => mentions,
        None => mention::participants(&post.text, &turn.state().config.agents),
    };
    let posted = Posted {
        root: post.message_id.clone(),
        message_id: post.message_id.clone(),
        author,
        hop: 0,
        nth: turn.state().messages + 1,
        reply_to: post.reply_to,
        run_id: None,
        mentions,
        text: post.text,
    };
    let answered = answered.map(|target| target.author);
    let decided = triggers::decide(turn, &posted, 0, answered.as_ref(), turn.next_seq());
    let seq = turn.emit(EventKind::MessagePosted(posted));
    if let Some(decided) = decided {
        turn.emit(EventKind::TriggerDecided(decided));
    }
    turn.ok(&post.from, &post.r#ref, Some(seq), Some(post.message_id));
    Ok(())
}

fn check(post: &Post) -> Result<(), Rejected> {
    let invalid = |detail: String| Err(Rejected::new(Code::ValidationFailed, detail));
    check_text(&post.text)?;
    if post.mentions.as_ref().is_some_and(|mentions| mentions.len() > MAX_MENTIONS) {
        return invalid(format!("a message mentions at most {MAX_MENTIONS}"));
    }
    if post.message_id.as_str().starts_with(REPLY_PREFIX) {
        return invalid(format!("message ids that begin with {REPLY_PREFIX} belong to agents"));
    }
    Ok(())
}
