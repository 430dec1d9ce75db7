// Makes the items of a conversation from what history and events tell.

import { showCalls } from "./calls.js";
import { fill, shell } from "./message.js";
import { spent } from "./money.js";
import { room } from "./room.js";
import { ending, Run } from "./run.js";

/** @typedef {import("./items.js").Item} Item */

/**
 * A message.
 * @param {Message} message
 * @param {number} asOf the last event that it has taken in
 * @param {FinishedRun} [run] that wrote it
 * @param {HTMLElement} [existing] element that came with the page
 * @returns {Item}
 */
export function itemOf(message, asOf, run, existing) {
  const key = `m-${message.message_id}`;
  const el = existing ?? shell(message.author, message.at, key);
  if (existing) localise(existing, message.author, message.at);
  else fill(el, message);
  if (run) showEnd(el, run);
  return { key, author: message.author, at: message.at, seq: message.seq, pending: false, el, message, asOf };
}

/**
 * A run that ended without a message.
 * @param {FinishedRun} run
 * @param {HTMLElement} [existing] element that came with the page
 * @returns {Item}
 */
export function itemOfRun(run, existing) {
  const key = `r-${run.run_id}`;
  /** @type {Author} */
  const author = { kind: "agent", id: run.agent_id };
  const el = existing ?? shell(author, run.at, key);
  if (existing) localise(existing, author, run.at);
  showEnd(el, run);
  return { key, author, at: run.at, seq: run.seq, pending: false, el };
}

/**
 * The items of a page that are not there yet, oldest first.
 * @param {Page} page
 * @param {{get(key: string): Item | undefined}} there
 * @returns {Item[]}
 */
export function itemsOf(page, there) {
  const byMessage = new Map(page.runs.filter((run) => run.message_id).map((run) => [run.message_id, run]));
  const items = page.messages
    .filter((message) => !there.get(`m-${message.message_id}`))
    .map((message) => itemOf(message, Math.max(page.head, room.seq), byMessage.get(message.message_id)));
  for (const run of page.runs) {
    if (run.message_id || run.status === "completed" || there.get(`r-${run.run_id}`)) continue;
    items.push(itemOfRun(run));
  }
  return items.sort((a, b) => a.seq - b.seq);
}

/**
 * Says at an item's element how its run ended.
 * @param {HTMLElement} el
 * @param {FinishedRun} run
 */
export function showEnd(el, run) {
  const old = el.querySelector("convene-run");
  const line = old instanceof Run ? old : new Run();
  if (line !== old) el.append(line);
  el.dataset.trigger = run.trigger;
  const { state, sentence } = ending(run);
  line.set(state, run.run_id, sentence, "", run.tools?.length ? "" : spent(run.usage));
  if (run.tools) showCalls(el, run.tools, run.approvals, run.usage, true);
}

/**
 * Puts the reader's own time where the page has UTC.
 * @param {HTMLElement} el
 * @param {Author} author
 * @param {number} at
 */
function localise(el, author, at) {
  const local = shell(author, at, el.id);
  el.querySelector(".msg-time")?.replaceWith(local.querySelector(".msg-time") ?? "");
  el.setAttribute("aria-label", local.getAttribute("aria-label") ?? "");
}
