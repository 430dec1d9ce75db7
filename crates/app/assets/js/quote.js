// What is known of messages that others answer, and how they are quoted above the answer.

import { h, icon } from "./dom.js";
import { room } from "./room.js";

/** @type {Map<string, Excerpt>} */
const known = new Map();
/** Messages that were asked for. @type {Set<string>} */
const asked = new Set();
const MAX_CHARS = 200;
const MAX_KNOWN = 2_000;

/** A part of a text without the marks that only matter when it is set. @param {string} text */
export const bare = (text) => text.replace(/```\S*|`|\*\*/g, "");

/** A text in one line, without the marks that only matter when it is set; `timeline.rs` does the same. @param {string} text */
export const plain = (text) => text.replace(/```\S*|`|\*\*|^[#>\s]+/gm, "").replace(/\s+/g, " ").trim();

/** @param {string} text */
const excerpt = (text) => plain([...text.slice(0, 2 * MAX_CHARS)].slice(0, MAX_CHARS).join(""));

/** Keeps what a page brought. @param {Page} page */
export function learn(page) {
  for (const one of page.answered ?? []) keep(one);
  page.messages.forEach(note);
}

/** Keeps a message, and shows it wherever it is quoted. @param {Message} message */
export function note({ message_id, seq, author, text, deleted }) {
  const one = { message_id, seq, author, text: text.slice(0, 2 * MAX_CHARS), deleted: deleted ?? false };
  keep(one);
  for (const quote of document.querySelectorAll(`[data-quote="${CSS.escape(message_id)}"]`)) quote.replaceChildren(...words(one, quote.className));
}

room.on("people", () => {
  for (const quote of document.querySelectorAll("[data-quote]")) {
    const one = known.get(quote.getAttribute("data-quote") ?? "");
    if (one) quote.replaceChildren(...words(one, quote.className));
  }
});

/** @param {Excerpt} one */
function keep(one) {
  known.set(one.message_id, one);
  const [oldest] = known.keys();
  if (known.size > MAX_KNOWN && oldest) known.delete(oldest);
}

/** @param {string} messageId */
export const seqOf = (messageId) => known.get(messageId)?.seq;

/**
 * The name and the words of a message in a line that leads to it.
 * @param {string} messageId
 * @param {"quote" | "pin"} [kind]
 */
export function quotation(messageId, kind = "quote") {
  const one = known.get(messageId);
  if (!one && !asked.has(messageId)) {
    asked.add(messageId);
    room.detail(messageId).then(({ message }) => note(message), () => asked.delete(messageId));
  }
  const link = h("a", { class: kind, href: `${room.link}/m/${messageId}`, "data-quote": messageId });
  link.append(...(one ? words(one, kind) : ["…"]));
  return link;
}

/**
 * @param {Excerpt} one
 * @param {string} kind
 */
function words(one, kind) {
  const name = h("b", { class: "clip" }, room.name(one.author));
  const text = h("span", { class: "clip" }, one.deleted ? "This message was deleted." : excerpt(one.text));
  return kind === "pin" ? [name, text] : [icon("reply"), h("span", { class: "sr-only" }, "In answer to "), name, text];
}
