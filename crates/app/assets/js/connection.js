// One WebSocket to a group that comes back by itself: exponential backoff with jitter, at once when
// the network returns or when the App closed it because this client was too slow.

import { moment } from "./time.js";

/** @typedef {"connecting" | "open" | "waiting" | "held" | "offline" | "refused"} Status */

const SUBPROTOCOL = "convene.v1";
const TOO_SLOW = 4008;
const FIRST_WAIT = 500;
const LONGEST_WAIT = 30_000;
/** How long an answer may take before the connection counts as dead. */
const ANSWER_WITHIN = 20_000;

/** What codes mean where the group says nothing more. @type {Record<string, string>} */
const WORDS = {
  access_revoked: "You no longer have access to this group.",
  disconnected: "The connection is gone.",
  egress_exhausted: "This group has sent as much as it may for now.",
  agents_paused: "All agents of this group are paused.",
  approval_decided: "Somebody else has decided already.",
  approval_expired: "It can be decided no longer.",
  forbidden: "You may not do this.",
  group_archived: "The group is archived.",
  message_not_found: "The message is not there any more.",
  not_continuable: "Nothing stops the agent there any more, or the message is too old.",
  not_permitted: "This is for somebody else to decide.",
  not_retryable: "This cannot be tried again: it goes on, or is too long ago.",
  org_blocked: "This workspace is blocked by its operator.",
  overloaded: "The group is overloaded.",
  rate_limited: "That was too much at once.",
  run_not_found: "The run has ended already.",
  too_large: "The message is too long.",
};

/**
 * @param {string} code
 * @param {number} [retryAfter] milliseconds
 */
function words(code, retryAfter) {
  if (code === "egress_exhausted" && retryAfter) {
    return `This group has sent as much as it may until ${moment(Date.now() + retryAfter)}.`;
  }
  return WORDS[code] ?? `The group refused it (${code}).`;
}

/** A command that the group refused, or whose fate is unknown (`code` `disconnected`). */
export class Refusal extends Error {
  /**
   * @param {string} code
   * @param {string} [detail]
   * @param {number} [retryAfter] milliseconds
   */
  constructor(code, detail, retryAfter) {
    const said = detail ?? words(code, retryAfter);
    super(said.charAt(0).toUpperCase() + said.slice(1));
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

export class Connection {
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {Map<string, {resolve: (frame: any) => void, reject: (error: Refusal) => void, timer: number}>} */
  #asked = new Map();
  #refs = 0;
  #failures = 0;
  #timer = 0;
  #stopped = false;
  /** Closed until it is opened again. */
  #resting = false;
  /** @type {Status} */
  status = "connecting";
  /** When the next attempt begins, in epoch milliseconds. */
  nextAt = 0;

  /**
   * @param {string} path
   * @param {object} on
   * @param {() => void} on.open
   * @param {(frame: Frame) => void} on.frame every frame that answers nothing
   * @param {(status: Status) => void} on.status
   * @param {(refusal: Refusal) => void} on.refused why it is about to be closed
   * @param {() => Promise<string | null>} on.check asks why it fails; a sentence ends the attempts
   */
  constructor(path, on) {
    this.url = new URL(path, location.href.replace(/^http/, "ws")).href;
    this.on = on;
    addEventListener("online", () => this.retry());
    addEventListener("offline", () => this.restart());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.retry();
    });
  }

  open() {
    clearTimeout(this.#timer);
    if (this.#socket || this.#stopped) return;
    this.#resting = false;
    this.#become("connecting");
    const socket = new WebSocket(this.url, SUBPROTOCOL);
    this.#socket = socket;
    let opened = false;
    socket.addEventListener("open", () => {
      if (this.#socket !== socket) return;
      opened = true;
      this.#become("open");
      this.on.open();
    });
    socket.addEventListener("message", (event) => {
      if (this.#socket === socket) this.#receive(event.data);
    });
    socket.addEventListener("close", (event) => {
      if (this.#socket === socket) this.#lost(opened, event.code);
    });
  }

  /** Tries at once if it is waiting to try. */
  retry() {
    if (!this.#resting && (this.status === "waiting" || this.status === "held" || this.status === "offline")) {
      this.#failures = 0;
      this.open();
    }
  }

  /** Counts the connection as sound: the next failure begins with a short wait again. */
  sound() {
    this.#failures = 0;
  }

  /** Ends it for good. */
  stop() {
    this.#stopped = true;
    this.#resting = false;
    clearTimeout(this.#timer);
    this.#socket?.close();
    this.#become("refused");
  }

  /** Closes it until it is opened again. */
  rest() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    for (const [ref] of this.#asked) this.#answer(ref, new Refusal("disconnected"));
    socket?.close();
    this.#failures = 0;
    this.#resting = true;
  }

  /** Closes it, since what it is refused for lasts, and looks again later. @param {number} wait milliseconds */
  hold(wait) {
    this.rest();
    this.#resting = false;
    this.#become("held");
    this.#timer = setTimeout(() => this.open(), wait);
  }

  /** Drops the socket, which may be dead without knowing it, and begins anew. */
  restart() {
    const socket = this.#socket;
    if (socket) {
      this.#lost(true, 0);
      socket.close();
    } else if (!navigator.onLine && !this.#stopped && !this.#resting) {
      clearTimeout(this.#timer);
      this.#become("offline");
    }
  }

  /**
   * Sends a frame and waits for its answer.
   * @param {Record<string, unknown>} frame without `ref`
   * @returns {Promise<any>} the answering frame
   * @throws {Refusal}
   */
  ask(frame) {
    const socket = this.#socket;
    if (socket?.readyState !== WebSocket.OPEN) return Promise.reject(new Refusal("disconnected"));
    const ref = String(++this.#refs);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#answer(ref, new Refusal("disconnected"));
        this.restart();
      }, ANSWER_WITHIN);
      this.#asked.set(ref, { resolve, reject, timer });
      socket.send(JSON.stringify({ ...frame, ref }));
    });
  }

  /** Sends a frame that is not answered. @param {Record<string, unknown>} frame */
  send(frame) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  /** @param {unknown} data */
  #receive(data) {
    if (typeof data !== "string") return;
    /** @type {Frame} */
    const frame = JSON.parse(data);
    if (frame.type === "error") {
      const refusal = new Refusal(frame.code, frame.detail, frame.retry_after_ms);
      if (frame.ref === undefined) this.on.refused(refusal);
      else this.#answer(frame.ref, refusal);
    } else if (frame.type === "ok" || frame.type === "attached" || frame.type === "reset") {
      // What follows an attach is to be understood in its light: the frame goes first.
      this.on.frame(frame);
      this.#answer(frame.ref, frame);
    } else {
      this.on.frame(frame);
    }
  }

  /**
   * @param {string} ref
   * @param {Refusal | Frame} answer
   */
  #answer(ref, answer) {
    const asked = this.#asked.get(ref);
    if (!asked) return;
    this.#asked.delete(ref);
    clearTimeout(asked.timer);
    if (answer instanceof Refusal) asked.reject(answer);
    else asked.resolve(answer);
  }

  /**
   * @param {boolean} opened
   * @param {number} code
   */
  #lost(opened, code) {
    this.#socket = null;
    for (const [ref] of this.#asked) this.#answer(ref, new Refusal("disconnected"));
    void this.#again(opened, code);
  }

  /**
   * @param {boolean} opened whether the socket that closed had been open
   * @param {number} code
   */
  async #again(opened, code) {
    if (this.#stopped || this.#resting) return;
    if (!navigator.onLine) return this.#become("offline");
    if (!opened && this.#failures > 0) {
      const reason = await this.on.check();
      if (reason) return this.stop();
      if (this.#socket || this.#resting) return;
    }
    const wait =
      code === TOO_SLOW && this.#failures === 0
        ? 0
        : Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#failures) * (0.5 + Math.random() / 2);
    this.#failures += 1;
    this.nextAt = Date.now() + wait;
    this.#become("waiting");
    this.#timer = setTimeout(() => this.open(), wait);
  }

  /** @param {Status} status */
  #become(status) {
    this.status = status;
    this.on.status(status);
  }
}
