// <convene-run state>: what a run of an agent is doing, and the button that stops it or tries it again.

import { h } from "./dom.js";
import { complain } from "./message.js";
import { room } from "./room.js";

/** @typedef {"queued" | "thinking" | "using" | "waiting" | "writing" | "done" | "failed" | "stopped" | "interrupted"} RunState */

/** @type {Record<RunState, string>} */
const WORDS = {
  queued: "queued",
  thinking: "thinking…",
  using: "using a tool…",
  waiting: "waiting for approval",
  writing: "writing…",
  done: "done",
  failed: "failed",
  stopped: "stopped",
  interrupted: "interrupted by a restart",
};
/** What people learn, and can do, when there is no budget left; `ui/runs.rs` has the same words. */
export const USED_UP = "The workspace's budget for this month is used up. It begins anew with the next month, and an operator can raise it.";
const OVER = new Set(["failed", "stopped", "interrupted"]);

export class Run extends HTMLElement {
  /**
   * @param {RunState} state
   * @param {string} runId
   * @param {string} [sentence] says it in other words
   * @param {string} [tool] that is used
   * @param {string} [spent] what it took, where nothing else says so
   */
  set(state, runId, sentence = WORDS[state], tool = "", spent = "") {
    const key = [state, sentence, tool, spent].join();
    if (this.dataset.key === key) return;
    this.dataset.key = key;
    this.setAttribute("state", state);
    // A button that goes away must not take the focus with it.
    if (this.contains(document.activeElement)) this.closest("article")?.focus({ preventScroll: true });
    this.replaceChildren(h("span", { class: "run-text" }, ...(tool ? ["using ", h("code", {}, tool), "…"] : [sentence])));
    this.classList.toggle("told", spent !== "");
    if (spent) this.append(h("span", { class: "run-spent", title: "What this answer took" }, spent));
    if (state === "done" || room.readOnly) return;
    if (!OVER.has(state)) this.append(this.button("Stop", "stop", () => room.ask({ type: "cancel", run_id: runId })));
    else this.append(this.button("Try again", "again", () => room.ask({ type: "retry", run_id: runId })));
  }

  /**
   * @param {string} words
   * @param {string} kind
   * @param {() => Promise<unknown>} act
   */
  button(words, kind, act) {
    const button = h("button", { class: `run-button ${kind}`, type: "button" }, words);
    button.addEventListener("click", async () => {
      const pressed = button === document.activeElement;
      if (pressed) this.closest("article")?.focus({ preventScroll: true });
      button.disabled = true;
      try {
        await act();
        // What comes of it is seen: the run stops, or another one stands at the end.
        if (kind === "again") button.remove();
      } catch (error) {
        button.disabled = false;
        if (pressed) button.focus({ preventScroll: true });
        const el = this.closest("article");
        // A run that has ended on its own need not be stopped.
        if (el && this.contains(button)) complain(el, error instanceof Error ? error.message : "It was refused.");
      }
    });
    return button;
  }
}

customElements.define("convene-run", Run);

/**
 * How a run ended, as a state and a sentence; the same words as the templates have.
 * @param {FinishedRun} run
 * @returns {{state: RunState, sentence: string}}
 */
export function ending(run) {
  switch (run.status) {
    case "completed":
      return { state: "done", sentence: WORDS.done };
    case "failed":
      if (run.code === "budget_exhausted") return { state: "failed", sentence: `not made: ${lowerFirst(USED_UP)}` };
      return { state: "failed", sentence: run.detail ? `failed because ${lowerFirst(run.detail)}` : WORDS.failed };
    case "cancelled":
      return { state: "stopped", sentence: WORDS.stopped };
    case "interrupted":
      return { state: "interrupted", sentence: WORDS.interrupted };
  }
}

/** `The provider…` becomes `the provider…`, `HTTP…` stays. @param {string} sentence */
function lowerFirst(sentence) {
  const [first = "", second = ""] = sentence;
  const acronym = second === second.toUpperCase() && second !== second.toLowerCase();
  return acronym ? sentence : first.toLowerCase() + sentence.slice(1);
}
