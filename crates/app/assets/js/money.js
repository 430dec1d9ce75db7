// Amounts of money as people read them, counted in millionths of a US dollar; `ui/money.rs` has the same
// words.

const language = document.documentElement.lang || "en";
const decimals = (/** @type {number} */ most) => new Intl.NumberFormat(language, { style: "currency", currency: "USD", minimumFractionDigits: 2, maximumFractionDigits: most });
const [cents, parts] = [decimals(2), decimals(4)];
/** Figures as the reader's language has them. */
export const number = new Intl.NumberFormat(language);

/** `$0.0042`, `$12.30`: cents, and below a dollar up to four decimals. @param {number} micro */
export function dollars(micro) {
  if (micro === 0) return "$0";
  if (micro < 100) return "under $0.0001";
  return (micro < 1_000_000 ? parts : cents).format(micro / 1_000_000);
}

/**
 * What was spent as far as it is known; `unknown` are those of whom it is not.
 * @param {number} micro
 * @param {number} unknown
 */
export function sum(micro, unknown) {
  if (!unknown) return dollars(micro);
  return micro ? `at least ${dollars(micro)}` : "cost unknown";
}

/**
 * `1,204 tokens, $0.0042`, and what the provider said beyond what can have been; nothing where nobody has
 * said anything.
 * @param {Usage | undefined} usage
 */
export function spent(usage) {
  if (!usage) return "";
  const excess = usage.excess_tokens;
  return counted(usage) + (excess ? ` (the provider says ${number.format(excess)} more, which cannot be)` : "");
}

/** @param {Usage} usage */
function counted(usage) {
  if (usage.tokens_unknown) return "tokens and cost unknown";
  const tokens = usage.input_tokens + usage.output_tokens;
  if (!tokens) return "0 tokens";
  const cost = usage.cost_micro_usd;
  return `${number.format(tokens)} tokens, ${cost === undefined ? "cost unknown" : dollars(cost)}`;
}
