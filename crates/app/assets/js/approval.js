// <convene-approval>: an agent asks whether it may call a tool. A card with the exact arguments, who
// may decide, how many have, until when, and two buttons for those who may.

import { indent } from "./calls.js";
import { h, icon } from "./dom.js";
import { complain } from "./message.js";
import { room } from "./room.js";
import { full } from "./time.js";

/** How often the time that is left is said anew. */
const TICK = 20_000;
const RANKS = ["agent", "member", "admin", "owner"];

export class Ask extends HTMLElement {
  #timer = 0;

  disconnectedCallback() {
    clearInterval(this.#timer);
  }

  /** @param {OpenApproval} ask */
  show(ask) {
    const name = room.name({ kind: "agent", id: ask.agent_id });
    const left = h("time", { datetime: new Date(ask.expires_at).toISOString(), title: full(ask.expires_at) });
    const tick = () => (left.textContent = remaining(ask.expires_at));
    const voted = (ask.votes).includes(room.me.id);
    const decide = (/** @type {"approve" | "deny"} */ decision, /** @type {string} */ words, /** @type {string} */ kind) =>
      h("button", { class: `button ${kind}`, type: "button", onclick: () => void this.decide(ask, decision) }, words);
    const may = admits(ask) && !room.readOnly;
    // A vote that comes in must not take the focus from whoever is about to give theirs.
    const focused = [...this.querySelectorAll("button")].findIndex((button) => button === document.activeElement);
    this.setAttribute("role", "group");
    this.setAttribute("aria-label", `${name} asks to use ${ask.tool}`);
    this.replaceChildren(
      h("p", { class: "ask-head" }, icon("key"), h("span", {}, h("strong", {}, name), " asks to use ", h("code", {}, ask.tool))),
      h("pre", { role: "group", tabindex: "0", "aria-label": "Arguments" }, indent(ask.arguments)),
      h("p", { class: "quiet" }, whoDecides(ask), " ", left),
      h(
        "div", { class: "actions" },
        voted && h("span", { class: "quiet grow" }, "You have allowed it."),
        may && decide("deny", "Refuse", ""),
        may && !voted && decide("approve", "Allow", "primary"),
      ),
    );
    tick();
    clearInterval(this.#timer);
    this.#timer = setInterval(tick, TICK);
    if (focused >= 0) (this.querySelectorAll("button")[focused] ?? this.closest("article"))?.focus({ preventScroll: true });
  }

  /**
   * @param {OpenApproval} ask
   * @param {"approve" | "deny"} decision
   */
  async decide(ask, decision) {
    const buttons = [...this.querySelectorAll("button")];
    const pressed = buttons.find((button) => button === document.activeElement);
    // A button that is disabled must not take the focus with it.
    if (pressed) this.closest("article")?.focus({ preventScroll: true });
    for (const button of buttons) button.disabled = true;
    try {
      await room.ask({ type: "approve", approval_id: ask.approval_id, decision });
    } catch (error) {
      for (const button of buttons) button.disabled = false;
      pressed?.focus({ preventScroll: true });
      const el = this.closest("article");
      if (el) complain(el, error instanceof Error ? error.message : "It was not accepted.");
    }
  }
}

customElements.define("convene-approval", Ask);

/** Whether the reader may decide; the group checks it in any case. @param {OpenApproval} ask */
function admits({ who, initiator }) {
  switch (who.kind) {
    case "initiator":
      return initiator === room.me.id;
    case "role":
      return RANKS.indexOf(room.org.role) >= RANKS.indexOf(who.role);
    case "n_of_m":
      return who.users.includes(room.me.id);
  }
}

/** @param {OpenApproval} ask */
function whoDecides({ who, initiator, votes }) {
  const person = (/** @type {string} */ id) => (id === room.me.id ? "you" : room.name({ kind: "user", id }));
  switch (who.kind) {
    case "initiator":
      return initiator ? `For ${person(initiator)} to decide.` : "Nobody is left to decide.";
    case "role":
      return who.role === "member" ? "For anybody here to decide." : `For ${who.role === "owner" ? "owners" : "owners and admins"} to decide.`;
    case "n_of_m":
      return `${votes.length} of ${who.n} have allowed it, of ${who.users.map(person).join(", ")}.`;
  }
}

/** `Refused by itself in 4 minutes.` @param {number} at epoch milliseconds */
function remaining(at) {
  const minutes = Math.ceil((at - Date.now()) / 60_000);
  if (minutes <= 0) return "Its time is over.";
  if (minutes === 1) return "Refused by itself within a minute.";
  if (minutes < 120) return `Refused by itself in ${minutes} minutes.`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `Refused by itself in ${hours} hours.` : `Refused by itself in ${Math.round(hours / 24)} days.`;
}
