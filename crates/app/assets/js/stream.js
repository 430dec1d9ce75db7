// A run in progress: its attempt, how far its text has come, and its state line.

import { Run } from "./run.js";
import { StreamText } from "./stream-text.js";

const utf8 = new TextEncoder();

export class Stream {
  attempt = 0;
  /** UTF-8 bytes that stand. */
  bytes = 0;
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

  /** Whether there is any text. */
  get said() {
    return this.bytes > 0;
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

  /** Shows what was taken. */
  flush() {
    if (!this.#waiting) return;
    this.text.append(this.#waiting);
    this.#waiting = "";
  }
}
