// A run in progress: its attempt, how far its text has come, the tools that it uses, what it asks for,
// and its state line.

import { Ask } from "./approval.js";
import { showCalls } from "./calls.js";
import { Run } from "./run.js";
import { StreamText } from "./stream-text.js";

const utf8 = new TextEncoder();

export class Stream {
  attempt = 0;
  /** UTF-8 bytes that stand. */
  bytes = 0;
  /** What it does beside using tools. @type {RunView["phase"]} */
  phase = "queued";
  /** The calls of its tools by id, in their order. @type {Map<string, ToolView>} */
  tools = new Map();
  /** The cards of what it asks for, by the approval's id. @type {Map<string, {ask: OpenApproval, card: Ask}>} */
  asks = new Map();
  /** What became of what it asked for. @type {PastApproval[]} */
  approvals = [];
  /** Text that came and waits for the next frame. */
  #waiting = "";
  /** Whether what was said stays when another attempt begins. */
  #kept = false;

  /**
   * @param {string} runId
   * @param {HTMLElement} el the message's element
   */
  constructor(runId, el) {
    this.runId = runId;
    this.el = el;
    const body = el.querySelector(".msg-body");
    if (!(body instanceof HTMLElement)) throw new Error("a message without a body");
    this.text = new StreamText(body);
    this.state = new Run();
    el.append(this.state);
  }

  /** Whether there is anything to be seen of it but that it is there. */
  get said() {
    return this.bytes > 0 || this.tools.size > 0 || this.asks.size > 0;
  }

  /**
   * An attempt begins, perhaps after another that was lost.
   * @param {number} attempt
   */
  begin(attempt) {
    if (attempt <= this.attempt) return;
    this.attempt = attempt;
    if (this.#kept) return;
    this.bytes = 0;
    this.#waiting = "";
    this.text.clear();
  }

  /**
   * An attempt handed calls of tools over: the next one goes on where it stopped.
   * @param {string} said the text so far
   */
  keep(said) {
    this.#kept = true;
    const bytes = utf8.encode(said);
    if (bytes.length > this.bytes) {
      this.#waiting += new TextDecoder().decode(bytes.subarray(this.bytes));
      this.bytes = bytes.length;
    }
  }

  /** Says what it does. @param {RunView["phase"]} [phase] */
  show(phase = this.phase) {
    this.phase = phase;
    const asked = new Set([...this.asks.values()].map(({ ask }) => ask.call_id));
    const using = [...this.tools.values()].find(({ status, call_id }) => !status && !asked.has(call_id))?.tool;
    if (this.asks.size) this.state.set("waiting", this.runId);
    else if (using && phase !== "queued") this.state.set("using", this.runId, undefined, using);
    else this.state.set(phase, this.runId);
  }

  /**
   * A call of a tool, as far as it is known.
   * @param {ToolView} call
   */
  call(call) {
    this.tools.set(call.call_id, { ...this.tools.get(call.call_id), ...call });
    this.#showCalls();
  }

  #showCalls() {
    // What is asked for stands on its card.
    const asked = new Set([...this.asks.values()].map(({ ask }) => ask.call_id));
    showCalls(this.el, [...this.tools.values()].filter(({ call_id }) => !asked.has(call_id)), this.approvals);
  }

  /** It asks for leave, or somebody has given theirs. @param {OpenApproval} ask */
  ask(ask) {
    const known = this.asks.get(ask.approval_id);
    const card = known?.card ?? new Ask();
    if (!known) this.state.before(card);
    this.asks.set(ask.approval_id, { ask, card });
    card.show(ask);
    this.#note({ call_id: ask.call_id, outcome: "open" });
  }

  /**
   * It was decided, or nobody will.
   * @param {string} id of the approval
   * @param {PastApproval["outcome"]} outcome
   * @param {string} [userId] whose decision was the last
   */
  settled(id, outcome, userId) {
    const { ask, card } = this.asks.get(id) ?? {};
    if (!ask || !card) return;
    this.asks.delete(id);
    if (card.contains(document.activeElement)) this.el.focus({ preventScroll: true });
    card.remove();
    const others = outcome === "approved" ? ask.votes.filter((voter) => voter !== userId) : [];
    this.#note({ call_id: ask.call_id, outcome, by: userId ? [...others, userId] : [] });
  }

  /** @param {PastApproval} approval */
  #note(approval) {
    this.approvals = [...this.approvals.filter(({ call_id }) => call_id !== approval.call_id), approval];
    this.#showCalls();
  }

  /** Its text is about to be shown as a whole: what still waited for a frame is part of that. */
  whole() {
    this.#waiting = "";
  }

  /** The run has ended: nothing is asked and nothing is under way any more. */
  end() {
    this.flush();
    for (const id of [...this.asks.keys()]) this.settled(id, "expired");
  }

  /**
   * Takes what a delta adds; what is known already is left out. After a gap nothing more is shown
   * until the reply is whole.
   * @param {Delta} delta
   * @returns {boolean} whether it added anything
   */
  take(delta) {
    if (delta.attempt < this.attempt) return false;
    this.begin(delta.attempt);
    const known = this.bytes - delta.offset;
    if (known < 0) return false;
    const bytes = utf8.encode(delta.text);
    if (bytes.length <= known) return false;
    this.#waiting += known ? new TextDecoder().decode(bytes.subarray(known)) : delta.text;
    this.bytes = delta.offset + bytes.length;
    return true;
  }

  /** Shows what was taken. */
  flush() {
    if (!this.#waiting) return;
    this.text.append(this.#waiting);
    this.#waiting = "";
  }
}
