// <convene-group-settings>: the dialog that changes a group: its title, who may see it, its agents.
// What the reader may not change is shown and cannot be edited; the App decides in any case.

import { call, sentence } from "./api.js";
import { h } from "./dom.js";
import { archive, remove } from "./life.js";
import { pick } from "./picks.js";
import { room } from "./room.js";

/** @typedef {{title: string, is_private: boolean, can_manage: boolean, can_govern: boolean, paused: boolean, revisions: "keep" | "discard", history_mode: "internal" | "external"}} Detail */
/** @typedef {{agent_id: string, name: string, trigger: Trigger}} OrgAgent */
/** @typedef {{max_rounds: number | null, cooldown_secs: number | null}} Bounds how far and how often agents answer each other; null leaves it to the default */

/** @type {Record<Trigger, string>} */
const ANSWERS = { mention: "when mentioned", auto: "every message", discussion: "people and agents", off: "never" };

class GroupSettings extends HTMLElement {
  dialog = h("dialog", { class: "dialog", "aria-labelledby": "group-settings-title" });
  problem = h("p", { class: "note error", role: "alert", hidden: true });
  /** @type {Bounds} */
  bounds = { max_rounds: null, cooldown_secs: null };

  open() {
    if (this.dialog.open) return;
    if (!this.dialog.isConnected) this.append(this.dialog);
    this.dialog.replaceChildren(h("h2", { id: "group-settings-title" }, "Change the group"), h("p", { class: "hint" }, "Loading…"));
    this.dialog.showModal();
    void this.fill();
  }

  async fill() {
    const org = `/api/orgs/${room.group.org_id}`;
    try {
      /** @type {[Detail, Person[], Bounds & {agents: OrgAgent[], paused: boolean}, OrgAgent[], Person[]]} */
      const [detail, members, current, agents, people] = await Promise.all([
        call("GET", room.path),
        call("GET", `${room.path}/members`),
        call("GET", `${room.path}/agents`),
        call("GET", `${org}/agents`),
        call("GET", `${org}/members`),
      ]);
      this.bounds = current;
      this.show(detail, members, current.agents, agents, people);
    } catch (error) {
      this.dialog.lastElementChild?.replaceWith(h("p", { class: "note error", role: "alert" }, sentence(error)), this.actions(false));
    }
  }

  /**
   * @param {Detail} detail
   * @param {Person[]} members of the group
   * @param {OrgAgent[]} current agents of the group
   * @param {OrgAgent[]} agents of the workspace
   * @param {Person[]} people of the workspace
   */
  show(detail, members, current, agents, people) {
    const fixed = !detail.can_manage;
    const isMember = (/** @type {Person} */ person) => detail.is_private && members.some(({ user_id }) => user_id === person.user_id);
    const title = h("input", { name: "title", id: "group-settings-name", maxlength: "120", required: true, autocomplete: "off", disabled: fixed });
    title.value = detail.title;
    const open = h("input", { type: "radio", name: "access", value: "open", disabled: fixed });
    const closed = h("input", { type: "radio", name: "access", value: "private", disabled: fixed });
    (detail.is_private ? closed : open).checked = true;
    const others = people.filter(({ user_id }) => user_id !== room.me.id);
    const memberPart = h(
      "fieldset", { class: "field", hidden: !detail.is_private },
      h("legend", {}, "Members beside you"),
      h(
        "div", { class: "picks" },
        ...others.map((person) =>
          pick({
            name: "member", id: person.user_id, label: person.name, agent: false, checked: isMember(person),
            // Any member may add people; taking others out is for those who manage the group.
            disabled: fixed && isMember(person),
          }),
        ),
      ),
    );
    const paused = h("input", { type: "checkbox", name: "paused", disabled: fixed });
    paused.checked = detail.paused;
    const keep = h("input", { type: "checkbox", name: "keep", disabled: room.org.role === "member" });
    keep.checked = detail.revisions !== "discard";
    const form = h(
      "form", { class: "tall" },
      h("h2", { id: "group-settings-title" }, "Change the group"),
      h(
        "div", { class: "stack scroll" },
        fixed && h("p", { class: "note" }, "Only the group's maker and owners and admins of the workspace can change it."),
        h("div", { class: "field" }, h("label", { for: "group-settings-name" }, "Title"), title),
        h(
          "fieldset", { class: "field" },
          h("legend", {}, "Who may see it"),
          h("label", { class: "check" }, open, h("span", {}, `Everybody in ${room.org.name}`)),
          h("label", { class: "check" }, closed, h("span", {}, "Only chosen members")),
        ),
        memberPart,
        h(
          "fieldset", { class: "field" },
          h("legend", {}, "Agents"),
          h("div", { class: "picks" }, ...this.agentLines(current, agents, fixed)),
          h("label", { class: "check" }, paused, h("span", {}, "Pause all agents")),
          h(
            "div", { class: "field-row" },
            this.bound("max_rounds", "Answers to each other at most", { min: 0, max: 8, placeholder: "2" }, fixed),
            this.bound("cooldown_secs", "Seconds that an agent then rests", { min: 1, max: 3600, placeholder: "15" }, fixed),
          ),
        ),
        h(
          "fieldset", { class: "field" },
          h("legend", {}, "Edited messages"),
          h("label", { class: "check" }, keep, h("span", {}, "Keep former versions, for everybody to read")),
        ),
        detail.can_govern && this.life(detail.history_mode === "external"),
      ),
      this.problem,
      this.actions(),
    );
    this.problem.hidden = true;
    form.addEventListener("change", () => (memberPart.hidden = !closed.checked));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.save(form, detail, members, current, others);
    });
    this.dialog.replaceChildren(form);
    if (!fixed) title.focus();
  }

  /**
   * @param {OrgAgent[]} current
   * @param {OrgAgent[]} agents
   * @param {boolean} fixed
   */
  agentLines(current, agents, fixed) {
    const inGroup = new Map(current.map((agent) => [agent.agent_id, agent]));
    const ordered = [...current, ...agents.filter(({ agent_id }) => !inGroup.has(agent_id))];
    return ordered.map((agent) => {
      const select = h(
        "select", { name: `trigger-${agent.agent_id}`, "aria-label": `When ${agent.name} answers`, disabled: fixed },
        ...Object.entries(ANSWERS).map(([value, words]) => h("option", { value, selected: agent.trigger === value }, words)),
      );
      const line = pick({ name: "agent", id: agent.agent_id, label: agent.name, agent: true, checked: inGroup.has(agent.agent_id), disabled: fixed });
      return h("div", { class: "line" }, line, select);
    });
  }

  /**
   * A number that may be left to the default.
   * @param {keyof Bounds} name
   * @param {string} words
   * @param {Record<string, any>} limits
   * @param {boolean} fixed
   */
  bound(name, words, limits, fixed) {
    const field = h("input", { name, id: `group-settings-${name}`, type: "number", disabled: fixed, ...limits });
    field.value = String(this.bounds[name] ?? "");
    return h("div", { class: "field" }, h("label", { for: field.id }, words), field);
  }

  /** The ways to put the group away. @param {boolean} kept whether its history is with a service of the workspace */
  life(kept) {
    const way = (/** @type {string} */ words, /** @type {() => void} */ open, danger = false) =>
      h("button", { class: `button${danger ? " danger" : ""}`, type: "button", onclick: () => (this.dialog.close(), open()) }, words);
    return h(
      "fieldset", { class: "field put-away" },
      h("legend", {}, "When it is not needed any more"),
      kept && h("p", { class: "hint" }, `${room.org.name} keeps the history of this group in a service of its own, so the group is not archived.`),
      h("div", { class: "line" }, !room.readOnly && !kept && way("Archive…", archive), way("Delete…", remove, true)),
    );
  }

  /** @param {boolean} [saves] */
  actions(saves = true) {
    return h(
      "div", { class: "actions" },
      h("button", { class: "button", type: "button", onclick: () => this.dialog.close() }, saves ? "Cancel" : "Close"),
      saves && h("button", { class: "button primary", type: "submit" }, "Save"),
    );
  }

  /**
   * Sends what was changed, and nothing else.
   * @param {HTMLFormElement} form
   * @param {Detail} detail
   * @param {Person[]} members
   * @param {OrgAgent[]} current
   * @param {Person[]} others
   */
  async save(form, detail, members, current, others) {
    const data = new FormData(form);
    const button = form.querySelector("[type=submit]");
    if (button instanceof HTMLButtonElement) button.disabled = true;
    this.problem.hidden = true;
    try {
      const isPrivate = detail.can_manage ? data.get("access") === "private" : detail.is_private;
      const chosen = new Set(data.getAll("member").map(String));
      if (detail.can_manage) await this.saveGroup(data, detail, isPrivate, [...chosen], current);
      if (detail.is_private && isPrivate) {
        for (const { user_id } of others) {
          const was = members.some((person) => person.user_id === user_id);
          if (!was && chosen.has(user_id)) await call("PUT", `${room.path}/members/${user_id}`);
          if (was && !chosen.has(user_id) && detail.can_manage) await call("DELETE", `${room.path}/members/${user_id}`);
        }
      }
      location.reload();
    } catch (error) {
      this.problem.textContent = sentence(error);
      this.problem.hidden = false;
      if (button instanceof HTMLButtonElement) button.disabled = false;
    }
  }

  /**
   * @param {FormData} data
   * @param {Detail} detail
   * @param {boolean} isPrivate
   * @param {string[]} chosen members, where the group becomes private
   * @param {OrgAgent[]} current
   */
  async saveGroup(data, detail, isPrivate, chosen, current) {
    const title = String(data.get("title") ?? "").trim();
    /** @type {Record<string, unknown>} */
    const change = {};
    if (title !== detail.title) change.title = title;
    if (isPrivate !== detail.is_private) {
      change.is_private = isPrivate;
      if (isPrivate) change.member_ids = chosen;
    }
    const revisions = data.has("keep") ? "keep" : "discard";
    if (room.org.role !== "member" && revisions !== detail.revisions) change.revisions = revisions;
    if (Object.keys(change).length) await call("PATCH", room.path, change);
    const agents = data.getAll("agent").map((id) => ({ agent_id: String(id), trigger: String(data.get(`trigger-${id}`)) }));
    const paused = data.has("paused");
    const before = current.map(({ agent_id, trigger }) => ({ agent_id, trigger }));
    const bound = (/** @type {keyof Bounds} */ name) => (data.get(name) ? Number(data.get(name)) : null);
    const bounds = { max_rounds: bound("max_rounds"), cooldown_secs: bound("cooldown_secs") };
    const same = bounds.max_rounds === this.bounds.max_rounds && bounds.cooldown_secs === this.bounds.cooldown_secs;
    if (JSON.stringify(agents) !== JSON.stringify(before) || paused !== detail.paused || !same) {
      await call("PUT", `${room.path}/agents`, { agents, paused, ...bounds });
    }
  }
}

customElements.define("convene-group-settings", GroupSettings);
