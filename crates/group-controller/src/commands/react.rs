//! Puts a reaction on a message or takes one's own off.

use convene_model::{
    Code,
    event::{Author, EventKind, Reaction},
    limits::{MAX_EMOJI_BYTES, MAX_EMOJIS_PER_MESSAGE},
};

use crate::{
    React,
    commands::{person, standing},
    controller::{Rejected, Turn},
};

pub(crate) fn react(turn: &mut Turn<'_>, react: React) -> Result<(), Rejected> {
    let author = Author::User(person(turn, &react.from)?.user_id.clone());
    let emoji = emoji(&react.emoji)?;
    let target = standing(react.target)?;

    let of_emoji = react.reactions.iter().find(|standing| standing.emoji == emoji);
    let stands = of_emoji.is_some_and(|standing| standing.authors.contains(&author));
    if react.on && of_emoji.is_none() && react.reactions.len() >= MAX_EMOJIS_PER_MESSAGE {
        return Err(Rejected::new(
            Code::ValidationFailed,
            format!("a message has at most {MAX_EMOJIS_PER_MESSAGE} different reactions"),
        ));
    }
    let seq = (stands != react.on).then(|| {
        let reaction = Reaction {
            message_id: react.message_id.clone(),
            message_seq: target.seq,
            author,
            emoji: emoji.to_owned(),
        };
        turn.emit(match react.on {
            true => EventKind::ReactionAdded(reaction),
            false => EventKind::ReactionRemoved(reaction),
        })
    });
    turn.ok(&react.from, &react.r#ref, seq, Some(react.message_id));
    Ok(())
}

/// The one emoji that a text is, in its fully qualified form: what looks the same counts together.
fn emoji(text: &str) -> Result<&'static str, Rejected> {
    let invalid = |detail: String| Rejected::new(Code::ValidationFailed, detail);
    if text.len() > MAX_EMOJI_BYTES {
        return Err(invalid(format!("an emoji has at most {MAX_EMOJI_BYTES} bytes")));
    }
    let known = emojis::get(text).ok_or_else(|| invalid("a reaction is one emoji".to_owned()))?;
    Ok(known.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_emoji_is_taken_with_its_modifiers_and_in_one_form() {
        for one in ["👍", "👍🏽", "👩‍👩‍👧‍👦", "🇦🇶", "1️⃣", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "❤️"]
        {
            assert_eq!(emoji(one), Ok(one));
        }
        assert_eq!(emoji("\u{2764}"), Ok("\u{2764}\u{fe0f}"));
    }

    #[test]
    fn anything_else_is_no_emoji() {
        for other in ["", " ", "a", "1", ":+1:", "👍👍", "👍 ", "\u{fe0f}", "\u{200d}", "<b>", "ü"]
        {
            let refused = emoji(other).map_err(|rejected| rejected.code);
            assert_eq!(refused, Err(Code::ValidationFailed), "{other:?}");
        }
        let long = "👍".repeat(MAX_EMOJI_BYTES / 4 + 1);
        assert!(emoji(&long).unwrap_err().detail.contains("at most"));
    }

    #[test]
    fn every_emoji_is_within_the_limit() {
        assert_eq!(emojis::iter().find(|emoji| emoji.as_str().len() > MAX_EMOJI_BYTES), None);
    }
}
