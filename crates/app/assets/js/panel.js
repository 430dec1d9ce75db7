// <convene-panel>: the people and agents of the group, kept current; the switch that pauses all agents,
// and what they have used.

import { call, sentence } from "./api.js";
import { avatar, find, h } from "./dom.js";
import { heads } from "./heads.js";
import { number, sum } from "./money.js";
import { room } from "./room.js";
import { load, save } from "./storage.js";

/** @type {Record<Trigger, string>} */
const TRIGGERS = { off: "off", mention: "answers when mentioned", auto: "answers every message", discussion: "takes part in discussions" };

/** How long after the end of a run it is asked what was used: the group reports that by and by. */
const USED_AFTER = 2_000;

class Panel extends HTMLElement {
  pause = find("#pause", HTMLInputElement, this);
  problem = find("#pause-problem", HTMLElement, this);
  used = find("#used", HTMLElement, this);
  mute = find("#mute", HTMLInputElement, this);
  #timer = 0;

  connectedCallback() {
    room.on("people", () => this.show());
    room.on("presence", () => this.show());
    room.on("life", () => this.show());
    document.addEventListener("person", (event) => {
      /** @type {Person} */
      const { user_id, name } = /** @type {CustomEvent} */ (event).detail;
      room.rename(user_id, name);
    });
    document.addEventListener("missed", () => void room.meet());
    room.on("event", ({ kind }) => kind === "run.finished" && this.askUsed(USED_AFTER));
    this.pause.addEventListener("change", () => void this.setPaused());
    this.mute.addEventListener("change", () => void this.setMuted());
    document.addEventListener("heads", () => (this.mute.checked = heads.get(room.group.group_id)?.muted ?? this.mute.checked));
    this.askUsed(0);
    this.showPause();
    const toggle = find("#panel-toggle", HTMLButtonElement);
    const set = (/** @type {boolean} */ open) => {
      document.documentElement.dataset.panel = open ? "open" : "closed";
      toggle.setAttribute("aria-expanded", String(open));
    };
    set(load("panel") !== false);
    toggle.addEventListener("click", () => {
      const open = document.documentElement.dataset.panel !== "open";
      set(open);
      save("panel", open ? undefined : false);
    });
  }

  async setPaused() {
    this.problem.textContent = "";
    const paused = this.pause.checked;
    this.pause.disabled = true;
    try {
      await call("PUT", `${room.path}/agents`, { paused });
      room.paused = paused;
    } catch (error) {
      this.problem.textContent = sentence(error);
    }
    this.show();
  }

  async setMuted() {
    const problem = find("#mute-problem", HTMLElement, this);
    problem.textContent = "";
    try {
      await call("PUT", `${room.path}/preferences`, { muted: this.mute.checked });
    } catch (error) {
      this.mute.checked = !this.mute.checked;
      problem.textContent = sentence(error);
    }
  }

  /** Asks what the group's agents have used, once for what happens at the same time. @param {number} after */
  askUsed(after) {
    this.#timer ||= setTimeout(async () => {
      this.#timer = 0;
      try {
        const { months } = await call("GET", `${room.path}/usage`);
        const [month] = months;
        const tokens = month ? month.input_tokens + month.output_tokens : 0;
        const parts = month?.runs ? [`${number.format(month.runs)} ${month.runs === 1 ? "run" : "runs"}`, `${number.format(tokens)} tokens`] : [];
        if (tokens) parts.push(sum(month.cost_micro_usd, month.cost_unknown));
        this.used.textContent = parts.length ? `This month: ${parts.join(", ")}` : "";
      } catch {
        this.used.textContent = "";
      }
    }, after);
  }

  showPause() {
    this.pause.checked = room.paused;
    this.pause.disabled = !room.canManage || room.readOnly || !room.agents.length;
    this.pause.title = room.canManage ? "" : "For the group's maker and owners and admins of the workspace";
  }

  show() {
    this.showPause();
    find('[data-list="agents"]', HTMLElement, this).replaceChildren(
      ...room.agents.map((agent) =>
        h(
          "li", {}, avatar(true, agent.agent_id, agent.name),
          h("span", { class: "grow" }, h("span", { class: "clip" }, agent.name), h("span", { class: "clip quiet" }, room.paused ? "paused" : TRIGGERS[agent.trigger])),
        ),
      ),
    );
    if (!room.agents.length) find('[data-list="agents"]', HTMLElement, this).append(h("li", { class: "quiet" }, "No agents in this group."));
    const here = (/** @type {string} */ id) => room.present.has(id) || (id === room.me.id && room.state === "live");
    // Whoever is here stands first, else the order holds.
    const people = [...room.members].sort((a, b) => Number(here(b.user_id)) - Number(here(a.user_id)));
    find('[data-list="people"]', HTMLElement, this).replaceChildren(
      ...people.map((person) =>
        h(
          "li", {}, avatar(false, person.user_id, person.name),
          h("span", { class: "grow clip" }, person.name, person.user_id === room.me.id && h("span", { class: "quiet" }, " (you)")),
          !room.readOnly && h("span", { class: `presence${here(person.user_id) ? " here" : ""}` }, here(person.user_id) ? "here" : "away"),
        ),
      ),
    );
    find("#people-count", HTMLElement).textContent = room.readOnly ? String(people.length) : `${Math.max(1, room.presentCount)} of ${people.length} here`;
  }
}

customElements.define("convene-panel", Panel);
