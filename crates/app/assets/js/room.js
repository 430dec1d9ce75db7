// The group in view: who takes part, what was received, what is on its way. It speaks the group
// protocol and tells the elements of the page; it never touches the document.

import { call, Problem } from "./api.js";
import { apply, isChange } from "./changes.js";
import { Connection, Refusal } from "./connection.js";
import { Outbox } from "./outbox.js";

/** @typedef {import("./outbox.js").Unsent} Unsent */
/** @typedef {"connecting" | "live" | "waiting" | "held" | "offline" | "refused" | "archived"} State */

/**
 * What elements listen for:
 * - `event`: an event of the group; `delta`: more text of a run; `runs`: the runs in progress
 * - `unsent`: a message was written, sent, refused or taken back (its id)
 * - `reset`: the history was read anew; with `lost` what was in progress may have ended unseen
 * - `people`: members, agents or names changed; `presence`: who is here changed
 * - `pins`: messages were pinned or taken off; `typing`: somebody is writing (the person's id)
 * - `answer`: the reader wants to answer a message
 * - `reading`: it may be said again how far the reader has read
 * - `state`: the connection's state changed; `life`: the group was archived or restored
 * @typedef {object} Topics
 * @property {GroupEvent} event
 * @property {Delta} delta
 * @property {{runs: RunView[], approvals: OpenApproval[]}} runs
 * @property {string} unsent
 * @property {{page: Page, lost: boolean}} reset
 * @property {null} people
 * @property {null} presence
 * @property {null} reading
 * @property {null} pins
 * @property {string} typing
 * @property {Message} answer
 * @property {State} state
 * @property {null} life
 */

/** Refusals that last until a time, or until an operator lifts them. */
const LASTING = new Set(["egress_exhausted", "org_blocked"]);
/** How long a refusal says that it lasts, in milliseconds. @param {unknown} error */
function wait(error) {
  if (error instanceof Refusal) return error.retryAfter;
  const until = error instanceof Problem ? error.figures.resets_at : undefined;
  return until === undefined ? undefined : Math.max(0, until - Date.now());
}
/** How often a group is tried again that was refused for such a reason, at least. */
const LOOK_AGAIN = 60_000;
/** Refusals after which trying the same again makes sense. */
const PASSING = new Set([
  "disconnected", "overloaded", "rate_limited", "unavailable", "group_controller_unavailable", "not_attached", "token_expired",
]);

/** Events that are kept for pages that were read before they happened. */
const MAX_RECENT = 1_000;
/** How often it is said at most that the reader has seen the newest message. */
const READ_EVERY = 1_000;

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
  /** The last events, oldest first. @type {GroupEvent[]} */
  #recent = [];
  #readTimer = 0;
  /** The newest message's number. */
  newest = 0;
  /** The pinned messages, in the order of pinning. @type {Pin[]} */
  pins = [];
  /** Who is here, as far as they are listed. @type {Set<string>} */
  present = new Set();
  presentCount = 0;
  /**
   * Shows a message in the conversation; the timeline puts it here.
   * @type {(messageId: string, seq?: number) => Promise<void>}
   * @throws {Error} when the message cannot be read
   */
  go = async () => {};
  /** @type {State} */
  state = "connecting";
  /** Why there will be no further attempt, or none soon, as a sentence. */
  refusal = "";
  /** Whether it was deleted. */
  gone = false;
  /** Whether the history has been read at least once. */
  loaded = false;

  /** @param {Bootstrap} start */
  constructor(start) {
    this.me = start.me;
    this.org = start.org;
    this.group = start.group;
    this.members = start.members;
    this.agents = start.agents;
    this.paused = start.paused;
    this.canManage = start.can_manage;
    this.page = start.page;
    this.seq = start.page?.head ?? 0;
    this.history = start.page?.history ?? "";
    this.loaded = start.page !== null;
    this.readUpTo = start.group.read_up_to;
    this.target = start.target;
    this.#posted(start.page?.messages ?? []);
    for (const [id, name] of Object.entries(start.former)) this.#names.set(id, name);
    this.#learn();
    this.outbox = new Outbox(this.me.id, this.group.group_id);
    for (const message of start.page?.messages ?? []) this.outbox.remove(message.message_id);
    this.link = `/g/${this.group.group_id}`;
    this.path = `/api/groups/${encodeURIComponent(this.group.group_id)}`;
    this.connection = new Connection(`${this.path}/ws`, {
      open: () => void this.#attach(),
      frame: (frame) => this.#receive(frame),
      status: (status) => this.#connecting(status),
      refused: (refusal) => {
        if (LASTING.has(refusal.code)) this.#hold(refusal.code, refusal.retryAfter);
      },
      check: () => this.whyRefused(),
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
  tell(topic, value) {
    for (const listener of this.#listeners.get(topic) ?? []) listener(value);
  }

  start() {
    if (this.readOnly) this.#become("archived");
    else this.connection.open();
  }

  /** Whether the group can only be read. */
  get readOnly() {
    return this.group.status !== "active";
  }

  /**
   * Takes in where the group stands in its life.
   * @param {GroupLife} status
   * @param {number | null} at since when
   */
  stands(status, at) {
    const was = this.group.status;
    this.group.status_at = at;
    if (status === was) return;
    this.group.status = status;
    if (status !== "active") {
      // The connection is of no use until the group is back.
      this.connection.rest();
      this.present.clear();
      this.#become("archived");
      this.tell("presence", null);
    } else this.connection.open();
    this.tell("life", null);
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
   * A page of history, with what has happened to its messages since it was read.
   * @param {{before?: number, after?: number, around?: number}} where
   * @returns {Promise<Page>}
   */
  async read(where) {
    const query = new URLSearchParams({ limit: "50", render: "html" });
    for (const [key, value] of Object.entries(where)) query.set(key, String(value));
    /** @type {Page} */
    const page = await call("GET", `${this.path}/messages?${query}`);
    const messages = new Map(page.messages.map((message) => [message.message_id, message]));
    for (const event of this.since(page.head)) {
      const message = isChange(event) && messages.get(event.message_id);
      if (message) apply(message, event);
    }
    return page;
  }

  /** The last events above a number. @param {number} seq */
  since(seq) {
    return this.#recent.filter((event) => event.seq > seq);
  }

  /**
   * A message and its former versions.
   * @param {string} messageId
   * @returns {Promise<Detail>}
   */
  detail(messageId) {
    return call("GET", `${this.path}/messages/${encodeURIComponent(messageId)}?render=html`);
  }

  /**
   * Gives the group a command.
   * @param {Record<string, unknown>} frame without `ref`
   * @throws {Refusal}
   */
  ask(frame) {
    return this.connection.ask(frame);
  }

  /** Says that the reader is writing. */
  writing() {
    if (this.state === "live") this.connection.send({ type: "typing" });
  }

  /** Says that the reader has seen everything so far: at once, or when it was just said, a little later. */
  seen() {
    if (this.#readTimer || this.newest <= this.readUpTo || (this.state !== "live" && this.state !== "archived")) return;
    const before = this.readUpTo;
    const upTo = (this.readUpTo = this.seq);
    this.#readTimer = setTimeout(() => {
      this.#readTimer = 0;
      this.tell("reading", null);
    }, READ_EVERY);
    const said = this.readOnly ? call("PUT", `${this.path}/read`, { up_to: upTo }) : this.ask({ type: "read", up_to: upTo });
    said.catch(() => {
      // It is said again when the reader next looks.
      if (this.readUpTo === upTo) this.readUpTo = before;
    });
  }

  /** Makes a message and what follows it unread again. @param {number} seq */
  async unsee(seq) {
    clearTimeout(this.#readTimer);
    this.#readTimer = 0;
    await call("PUT", `${this.path}/read`, { up_to: seq - 1, back: true });
    this.readUpTo = seq - 1;
  }

  /** @param {string} messageId */
  isPinned(messageId) {
    return this.pins.some((pin) => pin.message_id === messageId);
  }

  /**
   * @param {string} text
   * @param {string[]} mentions ids; none leaves it to the group to find names in the text
   * @param {string} [replyTo] the message that it answers
   */
  post(text, mentions, replyTo) {
    /** @type {Unsent} */
    const entry = { message_id: newId(), text, at: Date.now() };
    if (mentions.length) entry.mentions = mentions;
    if (replyTo) entry.reply_to = replyTo;
    this.outbox.put(entry);
    this.tell("unsent", entry.message_id);
    this.#flush();
  }

  /** @param {string} messageId */
  retry(messageId) {
    const entry = this.outbox.entries.get(messageId);
    if (!entry) return;
    delete entry.problem;
    this.outbox.put(entry);
    this.tell("unsent", messageId);
    this.connection.retry();
    this.#flush();
  }

  /** @param {string} messageId */
  takeBack(messageId) {
    this.outbox.remove(messageId);
    this.tell("unsent", messageId);
  }

  /** @param {string} messageId */
  isSending(messageId) {
    return this.#sending.has(messageId);
  }

  /**
   * Reads the newest page anew.
   * @param {boolean} [lost] whether events were missed that will not be replayed
   */
  async reload(lost = false) {
    const page = await this.read({});
    // While events arrive, the page may be older than the last of them.
    this.seq = lost ? page.head : Math.max(this.seq, page.head);
    if (lost) this.#recent = [];
    this.#posted(page.messages);
    this.history = page.history;
    this.loaded = true;
    for (const message of page.messages) this.outbox.remove(message.message_id);
    this.tell("reset", { page, lost });
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
      if (code === "group_archived") return this.#archived();
      if (LASTING.has(code)) return this.#hold(code, wait(error));
      if (code === "group_deleted") return void this.#shownOut();
      if (code === "access_revoked" || code === "forbidden") {
        return this.#refuse("You no longer have access to this group.");
      }
      this.connection.restart();
    }
  }

  /** @param {Frame} frame */
  #receive(frame) {
    switch (frame.type) {
      case "attached":
        this.history = frame.history;
        this.agents = frame.state.agents;
        this.paused = frame.state.paused;
        this.pins = frame.state.pins;
        this.present = new Set(frame.state.present);
        this.presentCount = frame.state.present_count;
        this.#learn();
        this.#greet(frame.state.present);
        this.connection.sound();
        this.#become("live");
        this.tell("people", null);
        this.tell("presence", null);
        this.tell("pins", null);
        this.tell("runs", { runs: frame.state.runs, approvals: frame.state.approvals ?? [] });
        this.#flush();
        return;
      case "event":
        return this.#happened(frame);
      case "delta":
        return this.tell("delta", frame);
      case "presence":
        for (const id of frame.joined ?? []) this.present.add(id);
        for (const id of frame.left ?? []) this.present.delete(id);
        this.presentCount = frame.count;
        this.#greet(frame.joined ?? []);
        return this.tell("presence", null);
      case "typing":
        if (frame.user_id !== this.me.id) this.tell("typing", frame.user_id);
        return;
      case "detached":
        if (frame.user_id && frame.user_id !== this.me.id) return;
        if (frame.reason === "revoked") void this.#shownOut();
        else if (frame.reason === "group_archived") this.#archived();
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
    this.#recent.push(event);
    if (this.#recent.length > MAX_RECENT) this.#recent.shift();
    if (event.kind === "group.configured") {
      this.agents = event.agents;
      this.paused = event.paused ?? false;
      this.#learn();
      this.tell("people", null);
    } else if (event.kind === "message.posted") {
      this.outbox.remove(event.message_id);
      this.#sending.delete(event.message_id);
      this.#posted([event]);
    } else if (event.kind === "message.pinned" || event.kind === "message.unpinned" || event.kind === "message.deleted") {
      const others = this.pins.filter((pin) => pin.message_id !== event.message_id);
      const changed = event.kind === "message.pinned" || others.length < this.pins.length;
      this.pins = event.kind === "message.pinned" ? [...others, event] : others;
      this.tell("event", event);
      if (changed) this.tell("pins", null);
      return;
    }
    if (event.kind === "access.revoked") void this.#mayNow();
    this.tell("event", event);
  }

  /** Somebody was removed or has another role: what the reader may do is asked anew. */
  async #mayNow() {
    try {
      const { role, can_manage } = await call("GET", this.path);
      this.org.role = role;
      this.canManage = can_manage;
      this.tell("people", null);
      this.tell("life", null);
    } catch {
      // Whoever has no access any more is told so by the connection.
    }
  }

  /** @param {Message[]} messages */
  #posted(messages) {
    for (const { seq } of messages) this.newest = Math.max(this.newest, seq);
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
    const { message_id, text, mentions, reply_to } = entry;
    this.#sending.add(message_id);
    this.tell("unsent", message_id);
    try {
      const answer = await this.connection.ask({ type: "post", message_id, text, ...(mentions ? { mentions } : {}), ...(reply_to ? { reply_to } : {}) });
      // The event, which comes before or after this answer, takes it out of the outbox; one that
      // came long ago will not come again.
      if (answer.seq <= this.seq && this.outbox.remove(message_id)) this.tell("unsent", message_id);
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
      this.tell("unsent", message_id);
    }
  }

  /** @param {import("./connection.js").Status} status */
  #connecting(status) {
    // What is held stays so while it is looked whether it still is.
    if (this.state === "held" && (status === "connecting" || status === "open")) return;
    this.#become(status === "open" ? "connecting" : status);
  }

  /**
   * The group is refused for a reason that lasts.
   * @param {string} code
   * @param {number} [retryAfter] milliseconds
   */
  #hold(code, retryAfter = LOOK_AGAIN) {
    this.refusal = new Refusal(code, undefined, retryAfter).message;
    // Not everybody comes at the same moment.
    this.connection.hold(Math.min(retryAfter, LOOK_AGAIN) * (1 + Math.random() / 4));
  }

  /** @param {State} state */
  #become(state) {
    if (state !== "live") this.#sending.clear();
    this.state = state;
    this.tell("state", state);
  }

  /** The group is archived, or about to be; the list of groups tells how it goes on. */
  #archived() {
    if (!this.readOnly) this.stands("archiving", Date.now());
  }

  async #shownOut() {
    this.#refuse((await this.whyRefused()) ?? "You no longer have access to this group.");
  }

  /** @param {string} reason */
  #refuse(reason) {
    this.refusal = reason;
    this.connection.stop();
  }

  #deleted() {
    this.refusal = "This group was deleted.";
    this.gone = true;
    this.tell("life", null);
  }

  /** Why the socket is refused, if the App says so over HTTP. */
  async whyRefused() {
    try {
      await call("GET", this.path);
    } catch (error) {
      if (error instanceof Problem) {
        if (error.status === 401) this.refusal = "You are signed out.";
        if (error.status === 410) this.#deleted();
        if (error.status === 403 || error.status === 404) this.refusal = "You no longer have access to this group.";
      }
    }
    return this.refusal || null;
  }

  #learn() {
    for (const agent of this.agents) this.#names.set(agent.agent_id, agent.name);
    for (const person of this.members) this.#names.set(person.user_id, person.name);
    this.#names.set(this.me.id, this.me.name);
  }

  /**
   * Somebody is called something else.
   * @param {string} id
   * @param {string} name
   */
  rename(id, name) {
    if (!this.#names.has(id) || this.#names.get(id) === name) return;
    if (id === this.me.id) this.me.name = name;
    for (const person of this.members) if (person.user_id === id) person.name = name;
    this.#names.set(id, name);
    this.tell("people", null);
  }

  /** Asks who the members are, and what they are called. */
  async meet() {
    try {
      this.members = await call("GET", `${this.path}/members`);
    } catch {
      // Whoever needs a name next asks again.
      return false;
    }
    const me = this.members.find((person) => person.user_id === this.me.id);
    if (me) this.me.name = me.name;
    this.#learn();
    this.tell("people", null);
    return true;
  }

  /** Whoever is here and in no list has just joined the workspace: then who the members are is asked anew. @param {string[]} ids */
  #greet(ids) {
    const listed = new Set([...this.members.map(({ user_id }) => user_id), ...this.agents.map(({ agent_id }) => agent_id)]);
    const stranger = ids.find((id) => !listed.has(id));
    if (stranger) void this.#askWho(stranger);
  }

  /** @param {string} id of a person without a name */
  async #askWho(id) {
    if (this.#asking.has(id)) return;
    this.#asking.add(id);
    const known = await this.meet();
    this.#asking.delete(id);
    if (!known || this.#names.has(id)) return;
    this.#gone.add(id);
    this.tell("people", null);
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
