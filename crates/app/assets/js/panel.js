// <convene-panel>: the people and agents of the group, kept current.

import { avatar, find, h } from "./dom.js";
import { room } from "./room.js";
import { load, save } from "./storage.js";

/** @type {Record<import("./wire.js").Trigger, string>} */
const TRIGGERS = { off: "off", mention: "answers when mentioned", auto: "answers every message" };

class Panel extends HTMLElement {
  connectedCallback() {
    room.on("people", () => this.show());
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
    find('[data-list="people"]', HTMLElement, this).replaceChildren(
      ...room.members.map((person) =>
        h(
          "li", {}, avatar(false, person.user_id, person.name),
          h("span", { class: "grow" }, h("span", { class: "clip" }, person.name, person.user_id === room.me.id && h("span", { class: "quiet" }, " (you)"))),
        ),
      ),
    );
  }
}

customElements.define("convene-panel", Panel);
