// Times as the reader's own language and time zone have them.

const language = document.documentElement.lang || "en";
const clockFormat = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const fullFormat = new Intl.DateTimeFormat(language, { dateStyle: "full", timeStyle: "medium" });
const dateFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "long" });
const dayFormat = new Intl.DateTimeFormat("en-GB", { weekday: "long", day: "numeric", month: "long", year: "numeric" });

/** `14:05` @param {number} at epoch milliseconds */
export const clock = (at) => clockFormat.format(at);

/** `14:05` today, `tomorrow at 14:05`, or `1 December at 14:05`. @param {number} at epoch milliseconds */
export function moment(at) {
  const key = dayKey(at);
  if (key === dayKey(Date.now())) return clock(at);
  if (key === dayKey(Date.now() + 86_400_000)) return `tomorrow at ${clock(at)}`;
  return `${dateFormat.format(at)} at ${clock(at)}`;
}

/** The moment in full, for a tooltip. @param {number} at epoch milliseconds */
export const full = (at) => fullFormat.format(at);

/** `YYYY-MM-DD` in the reader's zone. @param {number} at epoch milliseconds */
export function dayKey(at) {
  const date = new Date(at);
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

/** `Friday, 20 November 2026`, or today and yesterday by name. @param {number} at epoch milliseconds */
export function dayName(at) {
  const key = dayKey(at);
  if (key === dayKey(Date.now())) return "Today";
  if (key === dayKey(Date.now() - 86_400_000)) return "Yesterday";
  const parts = dayFormat.formatToParts(at);
  const part = (/** @type {string} */ type) => parts.find((p) => p.type === type)?.value ?? "";
  return `${part("weekday")}, ${part("day")} ${part("month")} ${part("year")}`;
}
