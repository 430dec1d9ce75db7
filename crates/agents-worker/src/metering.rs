//! What a provider says that a call used, held to what it can have been.
//!
//! A count is believed up to what was sent and what may have been written; the rest is told beside it
//! and counted nowhere, so that a provider that miscounts eats no budget. A count that cannot be one is
//! none. Never guesses: what is not known is the caller's to bound.

use convene_model::agents::{ResolvedModel, Usage};

/// The most that one call can have used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Most {
    /// Tokens of the question, if each of its bytes is one.
    pub(crate) read: u64,
    /// Tokens of the answer: what the provider was told to write at most, or what came of it.
    pub(crate) written: u64,
}

/// What counts of what a provider said; `None` where it said nothing that can be.
pub(crate) fn counted(model: &ResolvedModel, said: Option<Usage>, most: Most) -> Option<Usage> {
    let said = said?;
    if *model == ResolvedModel::Demo {
        return Some(said);
    }
    // Some services say zero where they do not count; each question has tokens.
    if said.input_tokens == 0 {
        return None;
    }
    let input_tokens = said.input_tokens.min(most.read);
    let output_tokens = said.output_tokens.min(most.written);
    let cached_input_tokens = said.cached_input_tokens.min(input_tokens);
    let cache_write_tokens = said.cache_write_tokens.min(input_tokens - cached_input_tokens);
    let excess_tokens =
        (said.input_tokens - input_tokens).saturating_add(said.output_tokens - output_tokens);
    if excess_tokens > 0 {
        tracing::warn!(
            input_tokens = said.input_tokens,
            output_tokens = said.output_tokens,
            most_read = most.read,
            most_written = most.written,
            "a provider counts more tokens than there can have been"
        );
    }
    Some(Usage {
        input_tokens,
        output_tokens,
        cached_input_tokens,
        cache_write_tokens,
        excess_tokens,
        ..said
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Most = Most { read: 100, written: 20 };

    fn said(input_tokens: u64, output_tokens: u64) -> Usage {
        Usage { input_tokens, output_tokens, ..Usage::default() }
    }

    fn of_service(said: Usage) -> Option<Usage> {
        let model = ResolvedModel::OpenaiCompatible {
            base_url: "https://models.example/v1".into(),
            model: "m".into(),
            api_key: None,
            options: serde_json::Map::new(),
        };
        counted(&model, Some(said), MOST)
    }

    #[test]
    fn a_count_is_believed_up_to_the_most_that_there_can_have_been() {
        assert_eq!(of_service(said(1, 0)), Some(said(1, 0)));
        assert_eq!(of_service(said(100, 20)), Some(said(100, 20)));
        for (input, output, excess) in [(101, 20, 1), (100, 21, 1), (150, 27, 57)] {
            let held = Usage { excess_tokens: excess, ..said(100, 20) };
            assert_eq!(of_service(said(input, output)), Some(held), "{input} {output}");
        }
        let held = Usage { excess_tokens: u64::MAX, ..said(100, 20) };
        assert_eq!(of_service(said(u64::MAX, u64::MAX)), Some(held));
    }

    #[test]
    fn a_question_without_a_token_was_not_counted_but_for_the_demo_models() {
        for none in [said(0, 0), said(0, 7)] {
            assert_eq!(of_service(none), None);
        }
        let demo = counted(&ResolvedModel::Demo, Some(Usage::default()), MOST);
        assert_eq!(demo, Some(Usage::default()));
        assert_eq!(counted(&ResolvedModel::Demo, None, MOST), None);
    }

    #[test]
    fn no_more_was_cached_than_was_read() {
        let lies =
            Usage { cached_input_tokens: u64::MAX, cache_write_tokens: u64::MAX, ..said(60, 1) };
        let held = Usage { cached_input_tokens: 60, ..said(60, 1) };
        assert_eq!(of_service(lies), Some(held));
        let true_one = Usage { cached_input_tokens: 40, cache_write_tokens: 20, ..said(60, 1) };
        assert_eq!(of_service(true_one), Some(true_one));
    }
}
