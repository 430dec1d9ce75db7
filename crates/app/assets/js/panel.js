// <convene-panel>: the people and agents of the group, kept current.

import { avatar, find, h } from "./dom.js";
import { room } from "./room.js";
import { load, save } from "./storage.js";

/** @type {Record<Trigger, string>} */
const TRIGGERS = { off: "off", mention: "answers when mentioned", auto: "answers every message", discussion: "takes part in discussions" };

class Panel extends HTMLElement {
  connectedCallback() {
    room.on("people", () => this.show());
    room.on("presence", () => this.show());
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

  show() {
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
          h("span", { class: `presence${here(person.user_id) ? " here" : ""}` }, here(person.user_id) ? "here" : "away"),
        ),
      ),
    );
    find("#people-count", HTMLElement).textContent = `${Math.max(1, room.presentCount)} of ${people.length} here`;
  }
}

customElements.define("convene-panel", Panel);
