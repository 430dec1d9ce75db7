// The group in view: who takes part, what was received, what is on its way. It speaks the group
// protocol and tells the elements of the page; it never touches the document.

import { call, Problem } from "./api.js";
import { Connection, Refusal } from "./connection.js";
import { Outbox } from "./outbox.js";

/** @typedef {import("./wire.js").Event} GroupEvent */
/** @typedef {import("./wire.js").Author} Author */
/** @typedef {import("./wire.js").Page} Page */
/** @typedef {import("./outbox.js").Unsent} Unsent */
/** @typedef {"connecting" | "live" | "waiting" | "offline" | "refused"} State */

/**
 * What elements listen for:
 * - `event`: an event of the group; `delta`: more text of a run; `runs`: the runs in progress
 * - `unsent`: a message was written, sent, refused or taken back (its id)
 * - `reset`: the history was read anew; with `lost` what was in progress may have ended unseen
 * - `people`: members, agents or names changed
 * - `state`: the connection's state changed
 * @typedef {object} Topics
 * @property {GroupEvent} event
 * @property {import("./wire.js").Delta} delta
 * @property {import("./wire.js").RunView[]} runs
 * @property {string} unsent
 * @property {{page: Page, lost: boolean}} reset
 * @property {null} people
 * @property {State} state
 */

/** Refusals after which trying the same again makes sense. */
const PASSING = new Set([
  "disconnected", "overloaded", "rate_limited", "unavailable", "group_controller_unavailable", "not_attached", "token_expired",
]);

/** What a name may not touch: `@Ada` is nobody in `@Adam` or in `x@Ada`. */
const WORD = /[\p{L}\p{N}_]/u;

class Room {
  /** @type {Map<keyof Topics, Set<(value: any) => void>>} */
  #listeners = new Map();
  /** @type {Map<string, string>} */
  #names = new Map();
  /** @type {Set<string>} messages on the wire, by id */
  #sending = new Set();
  #retryTimer = 0;
  /** @type {Set<string>} people of whom the member list is being asked, by id */
  #asking = new Set();
  /** @type {Set<string>} people whom a member list fetched for their sake did not have, by id */
  #gone = new Set();
  /** @type {State} */
  state = "connecting";
  /** Why there will be no further attempt, as a sentence. */
  refusal = "";
  /** Whether the history has been read at least once. */
  loaded = false;

  /** @param {import("./wire.js").Bootstrap} start */
  constructor(start) {
    this.me = start.me;
    this.org = start.org;
    this.group = start.group;
    this.members = start.members;
    this.agents = start.agents;
    this.paused = start.paused;
    this.readOnly = start.read_only;
    this.page = start.page;
    this.seq = start.page?.head ?? 0;
    this.history = start.page?.history ?? "";
    this.loaded = start.page !== null;
    for (const [id, name] of Object.entries(start.former)) this.#names.set(id, name);
    this.#learn();
    this.outbox = new Outbox(this.me.id, this.group.group_id);
    for (const message of start.page?.messages ?? []) this.outbox.remove(message.message_id);
    this.path = `/api/groups/${encodeURIComponent(this.group.group_id)}`;
    this.connection = new Connection(`${this.path}/ws`, {
      open: () => void this.#attach(),
      frame: (frame) => this.#receive(frame),
      status: (status) => this.#become(status === "open" ? "connecting" : status),
      check: () => this.#whyRefused(),
    });
  }

  /**
   * @template {keyof Topics} T
   * @param {T} topic
   * @param {(value: Topics[T]) => void} listener
   */
  on(topic, listener) {
    let listeners = this.#listeners.get(topic);
    if (!listeners) this.#listeners.set(topic, (listeners = new Set()));
    listeners.add(listener);
  }

  /**
   * @template {keyof Topics} T
   * @param {T} topic
   * @param {Topics[T]} value
   */
  #tell(topic, value) {
    for (const listener of this.#listeners.get(topic) ?? []) listener(value);
  }

  start() {
    this.connection.open();
  }

  /**
   * Somebody unknown has perhaps just joined: until the member list answers, they are `…`; then
   * `people` is told. Agents need no asking, since the group tells of each change to them.
   * @param {Author} author
   */
  name(author) {
    const name = this.#names.get(author.id);
    if (name !== undefined) return name;
    if (author.kind === "agent") return "Former agent";
    if (this.#gone.has(author.id)) return "Former member";
    void this.#askWho(author.id);
    return "…";
  }

  /** Everybody who can be mentioned, agents first. */
  participants() {
    return [
      ...this.agents.map((agent) => ({ id: agent.agent_id, name: agent.name, agent: true })),
      ...this.members
        .filter((person) => person.user_id !== this.me.id)
        .map((person) => ({ id: person.user_id, name: person.name, agent: false })),
    ];
  }

  /**
   * Who is named after `@` in a text. Where several names begin alike, the longest counts.
   * @param {string} text
   * @returns {{id: string, start: number, end: number}[]} in the order of the text
   */
  mentionsIn(text) {
    const named = [...this.participants(), { id: this.me.id, name: this.me.name }].sort((a, b) => b.name.length - a.name.length);
    const lower = text.toLowerCase();
    const found = [];
    for (let start = lower.indexOf("@"); start >= 0; start = lower.indexOf("@", start + 1)) {
      if (start > 0 && WORD.test(lower[start - 1] ?? "")) continue;
      const who = named.find(({ name }) => {
        const end = start + 1 + name.length;
        return lower.startsWith(name.toLowerCase(), start + 1) && !WORD.test(lower[end] ?? "");
      });
      if (who) found.push({ id: who.id, start, end: start + 1 + who.name.length });
    }
    return found;
  }

  /**
   * A page of history.
   * @param {{before?: number, after?: number}} where
   * @returns {Promise<Page>}
   */
  read(where) {
    const query = new URLSearchParams({ limit: "50", render: "html" });
    for (const [key, value] of Object.entries(where)) query.set(key, String(value));
    return call("GET", `${this.path}/messages?${query}`);
  }

  /**
   * @param {string} text
   * @param {string[]} mentions ids; none leaves it to the group to find names in the text
   */
  post(text, mentions) {
    /** @type {Unsent} */
    const entry = { message_id: newId(), text, at: Date.now() };
    if (mentions.length) entry.mentions = mentions;
    this.outbox.put(entry);
    this.#tell("unsent", entry.message_id);
    this.#flush();
  }

  /** @param {string} messageId */
  retry(messageId) {
    const entry = this.outbox.entries.get(messageId);
    if (!entry) return;
    delete entry.problem;
    this.outbox.put(entry);
    this.#tell("unsent", messageId);
    this.connection.retry();
    this.#flush();
  }

  /** @param {string} messageId */
  takeBack(messageId) {
    this.outbox.remove(messageId);
    this.#tell("unsent", messageId);
  }

  /** @param {string} messageId */
  isSending(messageId) {
    return this.#sending.has(messageId);
  }

  /**
   * Stops a run.
   * @param {string} runId
   * @throws {Refusal}
   */
  cancel(runId) {
    return this.connection.ask({ type: "cancel", run_id: runId });
  }

  /**
   * Reads the newest page anew.
   * @param {boolean} [lost] whether events were missed that will not be replayed
   */
  async reload(lost = false) {
    const page = await this.read({});
    this.seq = page.head;
    this.history = page.history;
    this.loaded = true;
    for (const message of page.messages) this.outbox.remove(message.message_id);
    this.#tell("reset", { page, lost });
  }

  async #attach() {
    try {
      if (!this.loaded) await this.reload(true);
      // A group that has never been used has no numbering yet; then there is nothing to miss.
      const resume = this.history ? { after: this.seq, history: this.history } : {};
      const answer = await this.connection.ask({ type: "attach", render: "html", ...resume });
      if (answer.type === "reset") {
        await this.reload(true);
        return void this.#attach();
      }
    } catch (error) {
      const code = error instanceof Refusal || error instanceof Problem ? error.code : "unknown";
      if (code === "too_old") {
        this.loaded = false;
        return void this.#attach();
      }
      if (code === "access_revoked" || code === "forbidden" || code === "group_deleted") {
        return this.#refuse("You no longer have access to this group.");
      }
      this.connection.restart();
    }
  }

  /** @param {import("./wire.js").Frame} frame */
  #receive(frame) {
    switch (frame.type) {
      case "attached":
        this.history = frame.history;
        this.agents = frame.state.agents;
        this.paused = frame.state.paused;
        this.#learn();
        this.connection.sound();
        this.#become("live");
        this.#tell("people", null);
        this.#tell("runs", frame.state.runs);
        this.#flush();
        return;
      case "event":
        return this.#happened(frame);
      case "delta":
        return this.#tell("delta", frame);
      case "detached":
        if (frame.user_id && frame.user_id !== this.me.id) return;
        if (frame.reason === "revoked") this.#refuse("You no longer have access to this group.");
        else if (frame.reason !== "requested") this.connection.restart();
        return;
      case "ok":
      case "error":
      case "reset":
        return;
    }
  }

  /** @param {GroupEvent} event */
  #happened(event) {
    if (event.seq <= this.seq) return;
    this.seq = event.seq;
    if (event.kind === "group.configured") {
      this.agents = event.agents;
      this.paused = event.paused ?? false;
      this.#learn();
      this.#tell("people", null);
    } else if (event.kind === "message.posted") {
      this.outbox.remove(event.message_id);
      this.#sending.delete(event.message_id);
    }
    this.#tell("event", event);
  }

  /** Sends what waits. */
  #flush() {
    clearTimeout(this.#retryTimer);
    if (this.state !== "live") return;
    for (const entry of this.outbox.entries.values()) {
      if (!entry.problem && !this.#sending.has(entry.message_id)) void this.#send(entry);
    }
  }

  /** @param {Unsent} entry */
  async #send(entry) {
    const { message_id, text, mentions } = entry;
    this.#sending.add(message_id);
    this.#tell("unsent", message_id);
    try {
      const answer = await this.connection.ask({ type: "post", message_id, text, ...(mentions ? { mentions } : {}) });
      // The event, which comes before or after this answer, takes it out of the outbox; one that
      // came long ago will not come again.
      if (answer.seq <= this.seq && this.outbox.remove(message_id)) this.#tell("unsent", message_id);
    } catch (error) {
      this.#sending.delete(message_id);
      const current = this.outbox.entries.get(message_id);
      if (!current || !(error instanceof Refusal)) return;
      if (PASSING.has(error.code)) {
        this.#retryTimer = setTimeout(() => this.#flush(), error.retryAfter ?? 2_000);
      } else {
        current.problem = error.message;
        this.outbox.put(current);
      }
      this.#tell("unsent", message_id);
    }
  }

  /** @param {State} state */
  #become(state) {
    if (state !== "live") this.#sending.clear();
    this.state = state;
    this.#tell("state", state);
  }

  /** @param {string} reason */
  #refuse(reason) {
    this.refusal = reason;
    this.connection.stop();
  }

  /** Why the socket is refused, if the App says so over HTTP. */
  async #whyRefused() {
    try {
      await call("GET", this.path);
    } catch (error) {
      if (error instanceof Problem) {
        if (error.status === 401) this.refusal = "You are signed out.";
        if (error.status === 403 || error.status === 404 || error.status === 410) {
          this.refusal = "You no longer have access to this group.";
        }
      }
    }
    return this.refusal || null;
  }

  #learn() {
    for (const agent of this.agents) this.#names.set(agent.agent_id, agent.name);
    for (const person of this.members) this.#names.set(person.user_id, person.name);
    this.#names.set(this.me.id, this.me.name);
  }

  /** @param {string} id of a person without a name */
  async #askWho(id) {
    if (this.#asking.has(id)) return;
    this.#asking.add(id);
    try {
      this.members = await call("GET", `${this.path}/members`);
    } catch {
      // Whoever needs the name next asks again.
      return;
    } finally {
      this.#asking.delete(id);
    }
    this.#learn();
    if (!this.#names.has(id)) this.#gone.add(id);
    this.#tell("people", null);
  }
}

/** An id for a message; `randomUUID` exists only where the page came over HTTPS or from this machine. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const bootstrap = document.getElementById("bootstrap")?.textContent;
if (!bootstrap) throw new Error("no bootstrap on this page");

/** The group of this page. */
export const room = new Room(JSON.parse(bootstrap));
