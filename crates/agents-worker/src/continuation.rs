//! What an attempt leaves for the next one when it hands calls over: the rounds so far.
//!
//! The rest of the conversation comes with the next call again, and tools are resolved anew, so that
//! nothing stale and no secret is in here. The controller keeps it unread; it has a version and a
//! bounded size. What does not fit is shortened, the oldest results first.

use convene_model::{
    agents::{ResolvedModel, Usage, failure},
    limits::{MAX_CONTINUATION_BYTES, RUN_TOKENS},
};
use serde::{Deserialize, Serialize};

use crate::{
    dialogue::{Ask, Round},
    failure::Failure,
    tools::cut,
};

/// The version of the form.
const VERSION: u32 = 1;
/// Tokens that must be left for an answer; a model that may write less is not asked.
const MIN_ANSWER_TOKENS: u64 = 256;
/// Bytes of rounds that a model is shown; beyond it the oldest results are shortened.
const MAX_SHOWN_BYTES: usize = 256 * 1024;
/// What results are shortened to, one after the other, until it is enough.
const SHORTER: [usize; 6] = [8192, 4096, 2048, 1024, 512, 128];

/// What a run has used of the tokens that it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spent {
    usage: Usage,
    /// Whether some of its tokens are not known.
    unknown: bool,
    /// Tokens beside those that providers said: the most that it can have been.
    #[serde(default)]
    guessed: u64,
    /// Tokens of the last question of this attempt, where the provider said them.
    #[serde(skip)]
    asked: Option<u64>,
}

impl Spent {
    /// Adds a reply's usage, where the provider said it; otherwise it counts as `most` tokens.
    pub(crate) fn add(&mut self, usage: Option<Usage>, most: u64) {
        self.asked = usage.map(|usage| usage.input_tokens).filter(|tokens| *tokens > 0);
        match usage {
            Some(usage) => self.usage = self.usage.and(usage),
            None => {
                self.unknown = true;
                self.guessed = self.guessed.saturating_add(most);
            }
        }
    }

    /// How many tokens the next question has at most: what the provider counted of the last one, which it
    /// begins with, and the round that has come since; or all that it can be.
    pub(crate) fn question(&self, ask: &Ask) -> u64 {
        let grown = self.asked.zip(ask.rounds.last());
        let grown = grown.map(|(asked, round)| asked.saturating_add(round.tokens()));
        grown.map_or(ask.tokens(), |grown| grown.min(ask.tokens()))
    }

    /// How many tokens may be written in answer to a question of so many; `None` where what is left does
    /// not cover both.
    pub(crate) fn room_after(&self, question: u64) -> Option<u64> {
        let Usage { input_tokens, output_tokens, .. } = self.usage;
        let spent = [input_tokens, output_tokens, self.guessed, question];
        let spent = spent.into_iter().fold(0, u64::saturating_add);
        RUN_TOKENS.checked_sub(spent).filter(|left| *left >= MIN_ANSWER_TOKENS)
    }

    /// Adds what tools sent and received.
    pub(crate) fn add_egress(&mut self, egress_bytes: u64) {
        self.usage = self.usage.and(Usage { egress_bytes, ..Usage::default() });
    }

    /// All of it, as far as it is known; `None` where nothing is.
    pub(crate) fn total(&self) -> Option<Usage> {
        let nothing = self.unknown && self.usage == Usage::default();
        let tokens_unknown = self.unknown || self.usage.tokens_unknown;
        (!nothing).then_some(Usage { tokens_unknown, ..self.usage })
    }
}

/// The rounds of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Continuation {
    v: u32,
    /// The model that wrote the rounds; signatures are for it alone.
    model: String,
    pub(crate) rounds: Vec<Round>,
    /// Rounds so far, also those that are left out.
    pub(crate) asked: u32,
    pub(crate) spent: Spent,
}

impl Continuation {
    /// The beginning of a run on `model`.
    pub(crate) fn new(model: &ResolvedModel) -> Self {
        Self { v: VERSION, model: name(model), ..Self::default() }
    }

    /// Reads what [`Continuation::write`] wrote, for `model`.
    ///
    /// # Errors
    /// [`Failure`] when it is of another form.
    pub(crate) fn read(text: &str, model: &ResolvedModel) -> Result<Self, Failure> {
        let invalid = || {
            let why = "What the agent had done so far cannot be read any more.";
            Failure::new(failure::CONTINUATION_INVALID, why)
        };
        if text.len() > MAX_CONTINUATION_BYTES {
            return Err(invalid());
        }
        let mut read: Self = serde_json::from_str(text).map_err(|_| invalid())?;
        if read.v != VERSION || read.rounds.is_empty() {
            return Err(invalid());
        }
        let model = name(model);
        if read.model != model {
            read.model = model;
            for round in &mut read.rounds {
                round.reasoning = None;
                round.calls.iter_mut().for_each(|call| call.signature = None);
            }
        }
        Ok(read)
    }

    /// The rounds as text of at most [`MAX_CONTINUATION_BYTES`].
    pub(crate) fn write(mut self) -> String {
        let frame = size(&self) - size(&self.rounds);
        shorten(&mut self.rounds, MAX_CONTINUATION_BYTES - frame);
        serde_json::to_string(&self).unwrap_or_default()
    }

    /// Shortens the rounds to what a model can be shown.
    pub(crate) fn fit(&mut self) {
        shorten(&mut self.rounds, MAX_SHOWN_BYTES);
    }
}

fn name(model: &ResolvedModel) -> String {
    match model {
        ResolvedModel::Demo => "demo".to_owned(),
        ResolvedModel::OpenaiCompatible { model, .. } => format!("openai_compatible {model}"),
        ResolvedModel::Anthropic { model, .. } => format!("anthropic {model}"),
        ResolvedModel::Gemini { model, .. } => format!("gemini {model}"),
    }
}

fn size(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(0, |bytes| bytes.len())
}

/// Shortens results, the oldest first; then texts; then leaves whole rounds out, but for the last.
fn shorten(rounds: &mut Vec<Round>, limit: usize) {
    for bytes in SHORTER {
        for at in 0..rounds.len() {
            if size(rounds) <= limit {
                return;
            }
            for result in rounds[at].calls.iter_mut().filter_map(|call| call.result.as_mut()) {
                result.text = cut(&result.text, bytes);
            }
        }
    }
    while size(rounds) > limit && rounds.len() > 1 {
        rounds.remove(0);
    }
    for bytes in SHORTER {
        if size(rounds) <= limit {
            return;
        }
        for round in rounds.iter_mut() {
            round.reasoning = None;
            round.text = cut(&round.text, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use convene_model::CallId;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        dialogue::{CallResult, Called},
        prompt::{Prompt, Role, Turn},
    };

    fn round(number: usize, result: usize, arguments: usize) -> Round {
        Round {
            text: "Let me see.".into(),
            reasoning: Some("Hm.".into()),
            calls: vec![Called {
                call_id: CallId::new(format!("c{number}")).unwrap(),
                tool: "t".into(),
                arguments: "x".repeat(arguments),
                signature: Some("sig".into()),
                result: Some(CallResult { text: "\"".repeat(result), failed: false }),
            }],
        }
    }

    fn with(rounds: Vec<Round>) -> Continuation {
        Continuation { rounds, asked: 7, ..Continuation::new(&ResolvedModel::Demo) }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut written = with(vec![round(1, 10, 2)]);
        written.spent.add(Some(used(3, 2)), 0);
        written.spent.add_egress(9);
        let read = Continuation::read(&written.clone().write(), &ResolvedModel::Demo).unwrap();
        // How large the last question was holds within an attempt only.
        written.spent.asked = None;
        assert_eq!(read, written);
        let total = read.spent.total();
        assert_eq!(total, Some(Usage { egress_bytes: 9, ..used(3, 2) }));
    }

    fn used(input_tokens: u64, output_tokens: u64) -> Usage {
        Usage { input_tokens, output_tokens, ..Usage::default() }
    }

    #[test]
    fn tokens_that_are_not_known_once_are_not_known_in_all_and_the_rest_still_is() {
        let mut spent = Spent::default();
        spent.add(Some(Usage::default()), 9);
        assert_eq!(spent.total(), Some(Usage::default()));
        spent.add(None, 9);
        assert_eq!(spent.total(), None);
        spent.add_egress(7);
        let known = Usage { egress_bytes: 7, tokens_unknown: true, ..Usage::default() };
        assert_eq!(spent.total(), Some(known));
        assert_eq!(known.tokens(), None);
    }

    #[test]
    fn a_run_has_room_for_a_question_and_a_short_answer_and_for_no_token_less() {
        let mut spent = Spent::default();
        let most = RUN_TOKENS - MIN_ANSWER_TOKENS;
        assert_eq!(spent.room_after(most), Some(MIN_ANSWER_TOKENS));
        assert_eq!(spent.room_after(most + 1), None);
        spent.add(Some(used(30, 12)), 1_000);
        spent.add(None, 8);
        assert_eq!(spent.room_after(0), Some(RUN_TOKENS - 50));
        assert_eq!(spent.room_after(most - 50), Some(MIN_ANSWER_TOKENS));
        assert_eq!(spent.room_after(most - 49), None);
        spent.add(None, u64::MAX);
        assert_eq!(spent.room_after(0), None);
    }

    /// A question with these rounds behind a prompt.
    fn ask(rounds: &[Round]) -> Ask {
        let turns = vec![Turn { role: Role::Others, text: "hi ".repeat(40) }];
        let prompt = Prompt { system: "Be brief.".into(), turns };
        Ask { rounds: rounds.to_vec(), ..Ask::plain(prompt, 0) }
    }

    #[test]
    fn a_question_is_what_the_provider_counted_of_the_last_one_and_the_round_since() {
        let mut spent = Spent::default();
        let rounds = [round(1, 50, 4)];
        assert_eq!(spent.question(&ask(&[])), ask(&[]).tokens());
        spent.add(Some(used(7, 3)), 0);
        assert_eq!(spent.question(&ask(&rounds)), 7 + rounds[0].tokens());
        spent.add(None, 0);
        assert_eq!(spent.question(&ask(&rounds)), ask(&rounds).tokens(), "nobody said");
        spent.add(Some(used(1_000_000, 3)), 0);
        assert_eq!(spent.question(&ask(&rounds)), ask(&rounds).tokens(), "it cannot be more");
    }

    /// A round of a model, and how its provider counts it.
    #[derive(Debug, Clone)]
    struct Turned {
        round: Round,
        /// Which part of what it can be at most the question is, in thousandths.
        dense: u64,
        /// Which part of what it may write the answer is, in thousandths.
        written: u64,
        says: bool,
    }

    fn turned() -> impl Strategy<Value = Turned> {
        let parts = (0..=1000_u64, 0..=1000_u64, any::<bool>());
        (0..20_000_usize, 0..8_000_usize, parts).prop_map(
            |(result, arguments, (dense, written, says))| Turned {
                round: round(1, result, arguments),
                dense,
                written,
                says,
            },
        )
    }

    proptest! {
        /// Whatever is said and done in a run: what its models read and write is never more than it may use.
        #[test]
        fn no_run_uses_more_than_it_has_reserved(turns in prop::collection::vec(turned(), 1..16)) {
            let mut spent = Spent::default();
            let (mut rounds, mut before, mut real) = (Vec::new(), 0, 0);
            for Turned { round, dense, written, says } in turns {
                let question = ask(&rounds);
                let most = spent.question(&question);
                let Some(max_output) = spent.room_after(most) else { break };
                // A provider counts a token for each byte at most, and what it counted before again.
                let added = rounds.last().map_or(question.tokens(), Round::tokens);
                let read = before + added * dense / 1000;
                prop_assert!(read <= question.tokens());
                before = read;
                let written = max_output * written / 1000;
                real += read + written;
                prop_assert!(real <= RUN_TOKENS, "{real} tokens");
                let usage = says.then_some(used(read, written));
                spent.add(usage, most + written);
                rounds.push(round);
            }
        }
    }

    #[test]
    fn what_was_written_before_tokens_were_guessed_is_read() {
        let spent: Spent = serde_json::from_str(
            r#"{"usage":{"input_tokens":1,"output_tokens":2},"unknown":false}"#,
        )
        .unwrap();
        assert_eq!(spent.total(), Some(used(1, 2)));
    }

    #[test]
    fn what_is_too_long_is_shortened_from_its_old_end() {
        let rounds = (0..12).map(|number| round(number, 16 * 1024, 4)).collect();
        let text = with(rounds).write();
        assert!(text.len() <= MAX_CONTINUATION_BYTES, "{}", text.len());
        let read = Continuation::read(&text, &ResolvedModel::Demo).unwrap();
        assert_eq!((read.rounds.len(), read.asked), (12, 7));
        let length = |at: usize| read.rounds[at].calls[0].told().0.len();
        assert!(length(0) < length(11), "{} {}", length(0), length(11));

        let rounds = (0..12).map(|number| round(number, 10, 30 * 1024)).collect();
        let text = with(rounds).write();
        assert!(text.len() <= MAX_CONTINUATION_BYTES, "{}", text.len());
        let read = Continuation::read(&text, &ResolvedModel::Demo).unwrap();
        assert_eq!(read.rounds.last(), Some(&round(11, 10, 30 * 1024)));
    }

    #[test]
    fn another_model_does_not_get_the_signatures_of_the_first() {
        let text = with(vec![round(1, 1, 1)]).write();
        let other = ResolvedModel::OpenaiCompatible {
            base_url: String::new(),
            model: "m".into(),
            api_key: None,
            options: serde_json::Map::new(),
        };
        let read = Continuation::read(&text, &other).unwrap();
        assert_eq!(read.rounds[0].reasoning, None);
        assert_eq!(read.rounds[0].calls[0].signature, None);
    }

    #[test]
    fn anything_else_is_refused() {
        let text = with(vec![round(1, 1, 1)]).write();
        let newer = text.replacen("\"v\":1", "\"v\":2", 1);
        let long = " ".repeat(MAX_CONTINUATION_BYTES + 1 - text.len()) + &text;
        for text in ["", "{}", &newer, &long, &with(Vec::new()).write()] {
            let refused = Continuation::read(text, &ResolvedModel::Demo).unwrap_err();
            assert_eq!(refused.code, failure::CONTINUATION_INVALID);
        }
    }
}
