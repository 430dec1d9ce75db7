// <convene-run state>: what a run of an agent is doing, and the button that stops it.

import { h } from "./dom.js";
import { room } from "./room.js";

/** @typedef {"queued" | "thinking" | "writing" | "waiting" | "done" | "failed" | "stopped" | "interrupted"} RunState */

/** @type {Record<RunState, string>} */
const WORDS = {
  queued: "queued",
  thinking: "thinking…",
  writing: "writing…",
  waiting: "waiting for approval",
  done: "done",
  failed: "failed",
  stopped: "stopped",
  interrupted: "interrupted by a restart",
};

export class Run extends HTMLElement {
  /**
   * @param {RunState} state
   * @param {string} runId
   * @param {string} [sentence] says it in other words
   */
  set(state, runId, sentence) {
    if (this.getAttribute("state") === state && !sentence) return;
    this.setAttribute("state", state);
    // A button that goes away must not take the focus with it.
    if (this.contains(document.activeElement)) this.closest("article")?.focus({ preventScroll: true });
    this.replaceChildren(h("span", { class: "run-text" }, sentence ?? WORDS[state]));
    if (state === "queued" || state === "thinking" || state === "writing" || state === "waiting") {
      this.append(h("button", { class: "stop", type: "button", onclick: (/** @type {Event} */ event) => this.stop(runId, event) }, "Stop"));
    }
  }

  /**
   * @param {string} runId
   * @param {Event} event
   */
  async stop(runId, event) {
    const button = /** @type {HTMLButtonElement} */ (event.currentTarget);
    button.disabled = true;
    try {
      await room.cancel(runId);
    } catch {
      // The run may have ended on its own; otherwise the button can be pressed again.
      button.disabled = false;
    }
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
