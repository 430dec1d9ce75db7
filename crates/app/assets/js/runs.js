// The runs of agents in a conversation, from the decision that wakes an agent to the end of its run:
// what comes of each is shown at its item, in the window of the timeline or out of it.

import { itemOfRun, showEnd } from "./item.js";
import { shell } from "./message.js";
import { room } from "./room.js";
import { Stream } from "./stream.js";
import { suppressed } from "./why.js";

/** @typedef {import("./items.js").Item} Item */
/** @typedef {Extract<GroupEvent, {kind: "trigger.decided" | `run.${string}` | `tool.${string}` | `approval.${string}`}>} RunEvent */

/**
 * What runs need of the conversation that they are in.
 * @typedef {object} Place
 * @property {import("./items.js").Items} items
 * @property {boolean} moreAfter whether the window ends before the newest message
 * @property {(change: () => void) => void} steady makes a change while what the reader looks at stays where it is
 * @property {() => void} emptiness says whether there is anything
 * @property {(words: string) => void} say says something to those who listen
 */

export class Runs {
  /** Those in progress by id, also those that are out of the window. @type {Map<string, Item>} */
  all = new Map();
  #frame = 0;

  /** @param {Place} place */
  constructor(place) {
    this.place = place;
    // Who may decide depends on what the reader is.
    room.on("people", () => {
      for (const { stream } of this.all.values()) for (const { ask, card } of stream?.asks.values() ?? []) card.show(ask);
    });
  }

  /**
   * The item of a run in progress.
   * @param {string} runId
   * @param {string} agentId
   * @param {number} at
   * @returns {Stream}
   */
  get(runId, agentId, at) {
    const known = this.all.get(runId)?.stream;
    if (known) return known;
    /** @type {Author} */
    const author = { kind: "agent", id: agentId };
    const el = shell(author, at, `r-${runId}`);
    const stream = new Stream(runId, el);
    const item = { key: `r-${runId}`, author, at, seq: Infinity, pending: false, el, stream };
    this.all.set(runId, item);
    if (!this.place.moreAfter) this.place.steady(() => this.place.items.append(item));
    this.place.emptiness();
    return stream;
  }

  /** @param {RunEvent} event */
  event(event) {
    if (event.kind === "trigger.decided") return this.decided(event);
    if (event.kind === "run.started") {
      const stream = this.get(event.run_id, event.agent_id, event.at);
      stream.begin(event.attempt);
      return stream.show("thinking");
    }
    if (event.kind === "run.finished") return this.finished(event);
    const stream = this.all.get(event.run_id)?.stream;
    if (!stream) return;
    this.place.steady(() => this.#goesOn(stream, event));
  }

  /**
   * @param {Stream} stream
   * @param {Exclude<RunEvent, Decided | RunStarted | RunFinished>} event
   */
  #goesOn(stream, event) {
    switch (event.kind) {
      case "run.streaming":
        return stream.show("writing");
      case "tool.requested":
        stream.keep(event.said);
        stream.flush();
        for (const { call_id, tool, arguments: given } of event.calls) stream.call({ call_id, tool, arguments: given });
        return stream.show("thinking");
      case "tool.started":
        stream.call({ call_id: event.call_id, tool: event.tool, arguments: event.arguments });
        return stream.show("thinking");
      case "tool.finished": {
        const known = stream.tools.get(event.call_id);
        if (known) stream.call({ ...known, status: event.status, summary: event.summary });
        return stream.show("thinking");
      }
      case "approval.requested":
        stream.ask({ ...event, votes: [] });
        this.place.say(`${room.name({ kind: "agent", id: event.agent_id })} asks to use ${event.tool}.`);
        return stream.show("waiting");
      case "approval.voted": {
        const ask = stream.asks.get(event.approval_id)?.ask;
        if (ask) stream.ask({ ...ask, votes: [...ask.votes, event.user_id] });
        return;
      }
      case "approval.resolved":
        this.place.say(event.decision === "approve" ? "It was allowed." : "It was refused.");
        stream.settled(event.approval_id, event.decision === "approve" ? "approved" : "denied", event.user_id);
        return stream.show("queued");
      case "approval.expired":
        stream.settled(event.approval_id, "expired");
        return stream.show("queued");
    }
  }

  /** @param {Decided} event */
  decided(event) {
    const item = this.place.items.get(`m-${event.message_id}`);
    for (const candidate of event.candidates) {
      if (candidate.outcome === "accepted") {
        this.get(candidate.run_id, candidate.agent_id, event.at).show("queued");
        // Somebody has let it go on after all.
        item?.el.querySelector(`[data-why="${CSS.escape(candidate.agent_id)}"]`)?.remove();
      } else if (item) {
        this.place.steady(() => item.el.append(suppressed(event.message_id, candidate.agent_id, candidate.reason)));
      }
    }
  }

  /** @param {RunFinished} event */
  finished(event) {
    const { items } = this.place;
    const item = this.all.get(event.run_id) ?? items.get(`m-${event.message_id}`);
    this.all.delete(event.run_id);
    this.place.steady(() => {
      if (item) {
        const { stream } = item;
        stream?.end();
        const seen = stream && { tools: [...stream.tools.values()], approvals: stream.approvals };
        delete item.stream;
        if (!Number.isFinite(item.seq)) item.seq = event.seq;
        showEnd(item.el, { ...event, ...seen });
        items.set();
      } else if (!event.message_id && event.status !== "completed" && !this.place.moreAfter) {
        items.append(itemOfRun(event));
      }
    });
  }

  /**
   * The runs in progress when the connection was made; others that were shown have ended.
   * @param {{runs: RunView[], approvals: OpenApproval[]}} state
   */
  inProgress({ runs, approvals }) {
    for (const run of runs) {
      const stream = this.get(run.run_id, run.agent_id, Date.now());
      if (run.attempt > 0) stream.begin(run.attempt);
      this.place.steady(() => {
        for (const call of run.tools ?? []) stream.call(call);
        const open = approvals.filter(({ run_id }) => run_id === run.run_id);
        for (const id of stream.asks.keys()) if (!open.some(({ approval_id }) => approval_id === id)) stream.settled(id, "expired");
        for (const ask of open) stream.ask(ask);
        stream.show(run.phase);
      });
    }
  }

  /** @param {Delta} delta */
  delta(delta) {
    const stream = this.all.get(delta.run_id)?.stream;
    if (!stream?.take(delta)) return;
    stream.show("writing");
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.place.steady(() => {
        for (const item of this.all.values()) item.stream?.flush();
      });
    });
  }
}
