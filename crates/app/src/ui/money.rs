//! Amounts of money as people read and write them. They are counted in millionths of a US dollar; the
//! script has the same words (`assets/js/money.js`).

use convene_model::agents::Usage;

use super::runs::grouped;

/// Millionths of a dollar in a dollar.
const DOLLAR: u64 = 1_000_000;
/// The least that is told as a figure: a hundredth of a cent.
const LEAST: u64 = 100;

/// `$0.0042`, `$12.30`: cents, and below a dollar up to four decimals.
#[must_use]
pub fn dollars(micro: &u64) -> String {
    if *micro == 0 {
        return "$0".to_owned();
    }
    if *micro < LEAST {
        return "under $0.0001".to_owned();
    }
    if *micro >= DOLLAR {
        let cents = micro.saturating_add(5_000) / 10_000;
        return format!("${}.{:02}", grouped(cents / 100), cents % 100);
    }
    let parts = (micro + 50) / 100;
    let decimals = format!("{:04}", parts % 10_000);
    let end = decimals.trim_end_matches('0').len().max(2);
    format!("${}.{}", parts / 10_000, &decimals[..end])
}

/// A price as it is written into a field: `3`, `0.3`, `3.75`.
#[must_use]
pub fn amount(micro: &u64) -> String {
    let (whole, rest) = (micro / DOLLAR, micro % DOLLAR);
    if rest == 0 {
        return whole.to_string();
    }
    format!("{whole}.{rest:06}").trim_end_matches('0').to_owned()
}

/// The same of a price that may be absent.
#[must_use]
pub fn optional(micro: &Option<u64>) -> String {
    micro.as_ref().map(amount).unwrap_or_default()
}

/// What was spent as far as it is known: `$0.42`, `at least $0.42` where the cost of something is not
/// known, `cost unknown` where that of nothing is.
#[must_use]
pub fn sum(micro: &u64, unknown: &u64) -> String {
    match (micro, unknown) {
        (_, 0) => dollars(micro),
        (0, _) => "cost unknown".to_owned(),
        _ => format!("at least {}", dollars(micro)),
    }
}

/// What a run took: `1,204 tokens, $0.0042`, and what its provider said beyond what can have been.
#[must_use]
pub fn spent(usage: Usage) -> String {
    let excess = match usage.excess_tokens {
        0 => String::new(),
        excess => format!(" (the provider says {} more, which cannot be)", grouped(excess)),
    };
    counted(usage) + &excess
}

fn counted(usage: Usage) -> String {
    match (usage.tokens(), usage.cost()) {
        (None, _) => "tokens and cost unknown".to_owned(),
        (Some(0), _) => "0 tokens".to_owned(),
        (Some(tokens), None) => format!("{} tokens, cost unknown", grouped(tokens)),
        (Some(tokens), Some(cost)) => format!("{} tokens, {}", grouped(tokens), dollars(&cost)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_the_decimals_that_matter() {
        for (micro, text) in [
            (0, "$0"),
            (1, "under $0.0001"),
            (99, "under $0.0001"),
            (100, "$0.0001"),
            (4_200, "$0.0042"),
            (4_249, "$0.0042"),
            (4_250, "$0.0043"),
            (420_000, "$0.42"),
            (999_949, "$0.9999"),
            (999_950, "$1.00"),
            (1_000_000, "$1.00"),
            (12_345_000, "$12.35"),
            (1_234_567_891_234, "$1,234,567.89"),
        ] {
            assert_eq!(dollars(&micro), text);
        }
    }

    #[test]
    fn a_price_is_written_as_it_was_given() {
        for (micro, text) in
            [(0, "0"), (3_000_000, "3"), (300_000, "0.3"), (3_750_000, "3.75"), (1, "0.000001")]
        {
            assert_eq!(amount(&micro), text);
        }
        assert_eq!((optional(&None), optional(&Some(2_000_000))), (String::new(), "2".to_owned()));
    }

    #[test]
    fn what_is_not_known_is_not_told_as_nothing() {
        assert_eq!(sum(&0, &0), "$0");
        assert_eq!(sum(&420_000, &0), "$0.42");
        assert_eq!(sum(&420_000, &2), "at least $0.42");
        assert_eq!(sum(&0, &2), "cost unknown");
        let used = Usage { input_tokens: 1_200, output_tokens: 4, ..Usage::default() };
        assert_eq!(spent(used), "1,204 tokens, cost unknown");
        assert_eq!(spent(Usage { cost_micro_usd: Some(4_200), ..used }), "1,204 tokens, $0.0042");
        assert_eq!(spent(Usage { tokens_unknown: true, ..used }), "tokens and cost unknown");
        assert_eq!(spent(Usage::default()), "0 tokens");
        assert_eq!(
            spent(Usage { excess_tokens: 9_000, ..used }),
            "1,204 tokens, cost unknown (the provider says 9,000 more, which cannot be)"
        );
    }
}
