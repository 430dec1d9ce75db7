//! What a model costs, and what a call of it cost.
//!
//! Prices are what a workspace says about its provider's models; money is counted in whole millionths of
//! a US dollar. Owns the arithmetic and its rounding, and no price of any service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{agents::Usage, usage::MAX_REPORTED};

/// The highest price for a million tokens, in millionths of a US dollar: 10,000 dollars.
pub const MAX_PRICE: u64 = 10_000_000_000;
/// The most that one call can cost, in millionths of a US dollar; whatever a provider says that it used.
pub const MAX_COST: u64 = MAX_REPORTED;

const TOKENS_PRICED: u128 = 1_000_000;

/// What a million tokens of a model cost, in millionths of a US dollar: 3 dollars are 3000000. Each is at
/// most [`MAX_PRICE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelPrice {
    /// Tokens that it reads.
    pub input: u64,
    /// Tokens that it reads and the provider had in its cache; absent, they cost as much as others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<u64>,
    /// Tokens that it reads and the provider puts into its cache; absent, they cost as much as others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<u64>,
    /// Tokens that it writes.
    pub output: u64,
}

impl ModelPrice {
    /// Whether none of its figures is above [`MAX_PRICE`].
    #[must_use]
    pub fn is_within_limits(&self) -> bool {
        let Self { input, cached_input, cache_write, output } = *self;
        let said = [Some(input), cached_input, cache_write, Some(output)];
        said.into_iter().flatten().all(|price| price <= MAX_PRICE)
    }

    /// What one call cost that used so much: rounded up once to a whole millionth of a dollar, at most
    /// [`MAX_COST`]. More cached tokens than were read at all count as those that were read.
    #[must_use]
    pub fn cost(&self, used: &Usage) -> u64 {
        let cached = used.cached_input_tokens.min(used.input_tokens);
        let written = used.cache_write_tokens.min(used.input_tokens - cached);
        let parts = [
            (used.input_tokens - cached - written, self.input),
            (cached, self.cached_input.unwrap_or(self.input)),
            (written, self.cache_write.unwrap_or(self.input)),
            (used.output_tokens, self.output),
        ];
        let product = |(tokens, price)| u128::from(tokens) * u128::from(price);
        let sum = parts.map(product).into_iter().fold(0, u128::saturating_add);
        u64::try_from(sum.div_ceil(TOKENS_PRICED)).unwrap_or(MAX_COST).min(MAX_COST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: ModelPrice = ModelPrice {
        input: 3_000_000,
        cached_input: Some(300_000),
        cache_write: Some(3_750_000),
        output: 15_000_000,
    };

    fn used(input_tokens: u64, output_tokens: u64) -> Usage {
        Usage { input_tokens, output_tokens, ..Usage::default() }
    }

    #[test]
    fn each_kind_of_tokens_has_its_own_price() {
        assert_eq!(PRICE.cost(&used(1_000, 200)), 3_000 + 3_000);
        let cached =
            Usage { cached_input_tokens: 600, cache_write_tokens: 100, ..used(1_000, 200) };
        assert_eq!(PRICE.cost(&cached), 300 * 3 + 180 + 375 + 3_000);
        let alike = ModelPrice { cached_input: None, cache_write: None, ..PRICE };
        assert_eq!(alike.cost(&cached), alike.cost(&used(1_000, 200)));
    }

    #[test]
    fn a_call_is_rounded_up_once_to_a_whole_millionth() {
        let cheap = ModelPrice { input: 1, cached_input: Some(0), cache_write: None, output: 1 };
        assert_eq!(cheap.cost(&used(0, 0)), 0);
        assert_eq!(cheap.cost(&used(1, 0)), 1);
        assert_eq!(
            cheap.cost(&used(500_000, 500_000)),
            1,
            "the parts are not rounded by themselves"
        );
        assert_eq!(cheap.cost(&used(500_000, 500_001)), 2);
        assert_eq!(cheap.cost(&Usage { cached_input_tokens: 7, ..used(7, 0) }), 0);
    }

    #[test]
    fn a_price_may_be_as_high_as_the_limit_and_no_higher() {
        let of = |price| ModelPrice {
            input: price,
            cached_input: Some(price),
            cache_write: Some(price),
            output: price,
        };
        assert!(of(0).is_within_limits() && of(MAX_PRICE).is_within_limits());
        let over = MAX_PRICE + 1;
        for price in [
            ModelPrice { input: over, ..PRICE },
            ModelPrice { cached_input: Some(over), ..PRICE },
            ModelPrice { cache_write: Some(over), ..PRICE },
            ModelPrice { output: over, ..PRICE },
        ] {
            assert!(!price.is_within_limits(), "{price:?}");
        }
    }

    #[test]
    fn a_cost_is_bounded_whatever_a_provider_says() {
        let dear = ModelPrice { input: 1_000_000, output: MAX_PRICE, ..PRICE };
        assert_eq!(dear.cost(&used(MAX_COST - 1, 0)), MAX_COST - 1);
        assert_eq!(dear.cost(&used(MAX_COST + 1, 0)), MAX_COST);
        assert_eq!(dear.cost(&used(u64::MAX, u64::MAX)), MAX_COST);
        let lies = Usage {
            cached_input_tokens: u64::MAX,
            cache_write_tokens: u64::MAX,
            ..used(1_000_000, 0)
        };
        assert_eq!(PRICE.cost(&lies), 300_000, "what was read was read from the cache");
    }
}
