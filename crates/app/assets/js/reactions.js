// The reactions to a message, as buttons with counts.

import { h } from "./dom.js";
import { room } from "./room.js";

/** @param {Message} message */
export function pills(message) {
  return (message.reactions ?? []).map(({ emoji, count, authors }) => {
    const mine = isMine(message, emoji);
    const who = names(authors, count);
    return h(
      "button",
      { class: "reaction", type: "button", "data-emoji": emoji, "data-names": who, "aria-pressed": String(mine), "aria-label": `${emoji} ${count}: ${who}` },
      h("span", {}, emoji), h("b", {}, String(count)),
    );
  });
}

/**
 * @param {Message} message
 * @param {string} emoji
 */
export const isMine = (message, emoji) =>
  message.reactions?.some((one) => one.emoji === emoji && one.authors.some(({ id }) => id === room.me.id)) ?? false;

/**
 * @param {Author[]} authors
 * @param {number} count
 */
function names(authors, count) {
  const shown = authors.slice(0, 12).map((author) => (author.id === room.me.id ? "you" : room.name(author)));
  const rest = count - shown.length;
  if (rest > 0) shown.push(rest === 1 ? "1 other" : `${rest} others`);
  const last = shown.pop() ?? "";
  return shown.length ? `${shown.join(", ")} and ${last}` : last;
}
