// Why agents answer a message or do not: the quiet note below a message that did not wake an agent, and
// the whole account of a message, with its runs.

import { call, sentence } from "./api.js";
import { showCalls } from "./calls.js";
import { avatar, h } from "./dom.js";
import { spent } from "./money.js";
import { dialog } from "./popup.js";
import { room } from "./room.js";
import { ending, USED_UP } from "./run.js";
import { clock, full } from "./time.js";

/** @typedef {{run_id: string, status: "queued" | "running" | RunStatus, attempt: number, code?: string, detail?: string, usage?: Usage,
 *   started_at?: number, finished_at?: number, tools?: ToolView[], approvals?: PastApproval[]}} WhyRun */
/** @typedef {{agent_id: string, name?: string, outcome: "accepted" | "suppressed" | "not_mentioned", reason?: string, run?: WhyRun}} Account */

/** @type {Record<string, (name: string) => string>} */
const SUPPRESSED = {
  cooldown: (name) => `${name} answered here a moment ago and waits before other agents or auto-answers wake it again.`,
  max_rounds: () => "Agents have answered each other as often as they may without a person.",
  budget: () => USED_UP,
  policy: (name) => `${name} is switched off in this group.`,
  paused: () => "All agents of this group are paused.",
  queue_full: () => "Too many runs wait in this group already.",
  already_queued: (name) => `A run of ${name} waits already, and will be shown this message too.`,
};
/** @type {Record<string, string>} */
const WOKEN = {
  mention: "It was mentioned.",
  reply: "The message answers one of its own.",
  auto: "It answers every message of a person.",
  discussion: "Another agent mentioned it, or it takes part in discussions.",
  continue: "Somebody let it answer.",
  retry: "Somebody let it try again.",
};
/** What stops an agent only until somebody lets it go on. */
const BOUNDS = new Set(["cooldown", "max_rounds"]);

/** @param {string} agentId */
const nameOf = (agentId) => room.name({ kind: "agent", id: agentId });

/**
 * A quiet note below a message that did not wake an agent.
 * @param {string} messageId
 * @param {string} agentId
 * @param {string} reason
 */
export function suppressed(messageId, agentId, reason) {
  const name = nameOf(agentId);
  return h(
    "details", { class: "why", "data-why": agentId },
    h("summary", {}, `${name} does not answer. Why?`),
    h("p", {}, SUPPRESSED[reason]?.(name) ?? `The group decided so (${reason}).`),
    h(
      "div", { class: "line" }, ...letAnswer(messageId, agentId, reason),
      h("button", { class: "link", type: "button", onclick: () => void explain(messageId) }, "More about it"),
    ),
  );
}

/**
 * The button that lets an agent answer where only a bound stopped it, and why it was refused.
 * @param {string} messageId
 * @param {string} agentId
 * @param {string} [reason]
 */
function letAnswer(messageId, agentId, reason) {
  if (!reason || !BOUNDS.has(reason) || room.readOnly) return [];
  const problem = h("span", { class: "bad", role: "alert" });
  const button = h("button", { class: "run-button", type: "button" }, "Let it answer");
  button.addEventListener("click", async () => {
    button.disabled = true;
    problem.textContent = "";
    try {
      await room.ask({ type: "continue", message_id: messageId, agent_id: agentId });
      button.closest("dialog")?.close();
    } catch (error) {
      button.disabled = false;
      problem.textContent = sentence(error);
    }
  });
  return [button, problem];
}

/** Shows the whole account of a message. @param {string} messageId */
export async function explain(messageId) {
  const before = document.activeElement;
  const list = h("ul", { class: "accounts" }, h("li", { class: "quiet" }, "Loading…"));
  const close = h("button", { class: "button", type: "button", onclick: () => box.close() }, "Close");
  const box = dialog("Who answers this message, and why", list, h("div", { class: "actions" }, close));
  box.addEventListener("close", () => before instanceof HTMLElement && before.focus({ preventScroll: true }));
  try {
    /** @type {{agents: Account[]}} */
    const { agents } = await call("GET", `${room.path}/messages/${encodeURIComponent(messageId)}/why`);
    const lines = agents.map((account) => line(messageId, account));
    list.replaceChildren(...(lines.length ? lines : [h("li", { class: "quiet" }, "There were no agents in the group.")]));
  } catch (error) {
    list.replaceChildren(h("li", { class: "note error", role: "alert" }, sentence(error)));
  }
}

/**
 * @param {string} messageId
 * @param {Account} account
 */
function line(messageId, { agent_id, name = nameOf(agent_id), outcome, reason = "", run }) {
  const why = {
    accepted: WOKEN[reason] ?? "It was woken.",
    suppressed: SUPPRESSED[reason]?.(name) ?? `The group decided so (${reason}).`,
    not_mentioned: "It was not mentioned.",
  }[outcome];
  const part = h("div", { class: "grow" }, h("strong", {}, name), h("p", {}, why), run && h("p", { class: "quiet" }, runLine(run)));
  if (run?.tools) {
    part.append(h("div", { class: "msg-body" }));
    showCalls(part, run.tools, run.approvals);
  }
  if (outcome === "suppressed") part.append(h("div", { class: "line" }, ...letAnswer(messageId, agent_id, reason)));
  return h("li", {}, avatar(true, agent_id, name), part);
}

/** `done at 14:05 in 3 s, 1,204 tokens` @param {WhyRun} run */
function runLine(run) {
  const { status, started_at: from, finished_at: to, attempt, usage } = run;
  const words =
    status === "queued" ? "It is queued" : status === "running" ? "It is at work" : sentenceOf(ending(/** @type {any} */ (run)).sentence);
  const times = [to ? `at ${clock(to)}` : from ? `since ${clock(from)}` : "", from && to ? `after ${seconds(to - from)}` : "", attempt > 1 ? `in attempt ${attempt}` : ""];
  const parts = [[words, ...times.filter(Boolean)].join(" "), spent(usage)].filter(Boolean);
  return h("span", { title: to ? full(to) : null }, `${parts.join("; ")}.`);
}

/** @param {string} words */
const sentenceOf = (words) => `${words.charAt(0).toUpperCase()}${words.slice(1)}`.replace(/\.$/, "");

/** @param {number} millis */
const seconds = (millis) => (millis < 10_000 ? `${(millis / 1000).toFixed(1)} s` : millis < 120_000 ? `${Math.round(millis / 1000)} s` : `${Math.round(millis / 60_000)} min`);
