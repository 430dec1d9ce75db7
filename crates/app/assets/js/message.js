// Makes the element of a message: the same markup as `templates/message.html`.

import { avatar, fragment, h, icon } from "./dom.js";
import { quotation } from "./quote.js";
import { pills } from "./reactions.js";
import { room } from "./room.js";
import { clock, full } from "./time.js";

/**
 * @param {Author} author
 * @param {number} at
 * @param {string} id of the element
 * @returns {HTMLElement}
 */
export function shell(author, at, id) {
  const agent = author.kind === "agent";
  const name = room.name(author);
  const element = h(
    "article",
    { class: `msg${agent ? " agent" : ""}`, id, tabindex: "-1" },
    avatar(agent, author.id, name),
    h("header", { class: "msg-head" }, h("span", { class: "msg-name" }, name), agent && h("span", { class: "tag" }, "agent")),
    h("time", { class: "msg-time" }),
    h("div", { class: "msg-body prose" }),
  );
  setTime(element, name, at);
  return element;
}

/**
 * Puts the reader's own time on a message.
 * @param {HTMLElement} element
 * @param {string} name
 * @param {number} at
 */
export function setTime(element, name, at) {
  const time = element.querySelector(".msg-time");
  if (!(time instanceof HTMLTimeElement)) return;
  time.dateTime = new Date(at).toISOString();
  time.textContent = clock(at);
  time.title = full(at);
  element.setAttribute("aria-label", `${name}, ${clock(at)}`);
}

/**
 * Puts the finished text into a message.
 * @param {HTMLElement} element
 * @param {Message} message
 */
export function fill(element, message) {
  const body = element.querySelector(".msg-body");
  if (!body) return;
  if (message.deleted) body.replaceChildren(h("p", { class: "quiet" }, "This message was deleted."));
  else if (message.html !== undefined) body.replaceChildren(fragment(message.html));
  else body.replaceChildren(h("p", { class: "raw" }, message.text));
  dress(element, message);
}

/**
 * What stands below a message's text: that it was edited, that it is pinned, the reactions.
 * @param {HTMLElement} element
 * @param {Message} message
 */
export function foot(element, message) {
  const parts = [];
  if (!message.deleted) {
    if (message.edited_at !== undefined) {
      parts.push(h("button", { class: "edited", type: "button", title: `Edited ${full(message.edited_at)}` }, "edited"));
    }
    if (room.isPinned(message.message_id)) parts.push(h("span", { class: "pinned" }, icon("pin"), "pinned"));
    parts.push(...pills(message));
  }
  const old = element.querySelector(".msg-foot");
  if (!parts.length) return old?.remove();
  // The reader may be on one of the buttons.
  const focused = old?.contains(document.activeElement) ? [...old.children].findIndex((part) => part === document.activeElement) : -1;
  const line = h("div", { class: "msg-foot" }, ...parts);
  if (old) old.replaceWith(line);
  else element.querySelector(".msg-body")?.after(line);
  if (focused >= 0) {
    const next = line.children[Math.min(focused, line.children.length - 1)];
    (next instanceof HTMLButtonElement ? next : element).focus({ preventScroll: true });
  }
}

/**
 * Says below a message what a command about it was refused with.
 * @param {HTMLElement} element
 * @param {string} sentence
 * @param {() => void} [again]
 */
export function complain(element, sentence, again) {
  element.querySelector(".complaint")?.remove();
  const link = (/** @type {string} */ words, /** @type {() => void} */ act) =>
    h("button", { class: "link", type: "button", onclick: () => (box.remove(), element.focus({ preventScroll: true }), act()) }, words);
  const box = h(
    "div", { class: "msg-note bad complaint", role: "alert" },
    h("span", {}, sentence), again && link("Try again", again), link("Dismiss", () => {}),
  );
  element.append(box);
}

/**
 * What the script adds to a message beside its text, also to one that came with the page.
 * @param {HTMLElement} element
 * @param {Message} message
 */
export function dress(element, message) {
  const toMe = message.author.id !== room.me.id && message.mentions?.includes(room.me.id);
  element.classList.toggle("to-me", toMe ?? false);
  element.classList.toggle("deleted", message.deleted ?? false);
  if (message.reply_to && !message.deleted) {
    const quote = quotation(message.reply_to);
    const old = element.querySelector(".quote");
    if (old) old.replaceWith(quote);
    else element.querySelector(".msg-body")?.before(quote);
  } else element.querySelector(".quote")?.remove();
  foot(element, message);
  const body = element.querySelector(".msg-body");
  if (body) markMentions(body);
  for (const pre of element.querySelectorAll(".msg-body pre")) {
    const button = h("button", { type: "button" }, "Copy");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(pre.textContent ?? "");
        button.textContent = "Copied";
      } catch {
        getSelection()?.selectAllChildren(pre);
        button.textContent = "Press Ctrl C";
      }
      setTimeout(() => (button.textContent = "Copy"), 2_000);
    });
    const box = h("div", { class: "codebox" });
    pre.replaceWith(box);
    box.append(pre, button);
  }
}

/**
 * Marks the names after `@`, outside of code and links.
 * @param {Element} body
 */
function markMentions(body) {
  const walker = document.createTreeWalker(body, NodeFilter.SHOW_TEXT, (node) =>
    node.nodeValue?.includes("@") && !node.parentElement?.closest("code, a, .mention") ? NodeFilter.FILTER_ACCEPT : NodeFilter.FILTER_REJECT,
  );
  const texts = /** @type {Text[]} */ ([]);
  while (walker.nextNode()) texts.push(/** @type {Text} */ (walker.currentNode));
  for (const text of texts) {
    // From the end, so that the positions of earlier ones hold.
    for (const { start, end, id } of room.mentionsIn(text.data).reverse()) {
      const rest = text.splitText(start);
      rest.splitText(end - start);
      const mark = h("span", { class: id === room.me.id ? "mention me" : "mention" });
      rest.replaceWith(mark);
      mark.append(rest);
    }
  }
}

/**
 * The element of a message that is on its way.
 * @param {import("./outbox.js").Unsent} entry
 */
export function unsent(entry) {
  const element = shell({ kind: "user", id: room.me.id }, entry.at, `m-${entry.message_id}`);
  element.classList.add("pending");
  const body = element.querySelector(".msg-body");
  body?.append(h("p", { class: "raw" }, entry.text));
  if (entry.reply_to) body?.before(quotation(entry.reply_to));
  return element;
}

/**
 * Says below a message that is on its way how it stands.
 * @param {HTMLElement} element
 * @param {import("./outbox.js").Unsent} entry
 */
export function note(element, entry) {
  const old = element.querySelector(".msg-note");
  // A button that goes away must not take the focus with it.
  if (old?.contains(document.activeElement)) element.focus({ preventScroll: true });
  old?.remove();
  const id = entry.message_id;
  const takeBack = h("button", { class: "link", type: "button", onclick: () => room.takeBack(id) }, "Take back");
  const retry = h("button", { class: "link", type: "button", onclick: () => room.retry(id) }, "Try again");
  if (entry.problem) {
    element.append(h("div", { class: "msg-note bad", role: "alert" }, h("span", {}, `Not sent. ${entry.problem}`), retry, takeBack));
  } else if (!room.isSending(id)) {
    const waiting = { refused: "Not sent.", held: "Not sent yet." }[String(room.state)] ?? "Waiting for the connection";
    element.append(h("div", { class: "msg-note" }, icon("clock"), h("span", {}, waiting), room.state !== "refused" && retry, takeBack));
  }
}
