// <convene-new-group org me>: the dialog that makes a group.

import { call, sentence } from "./api.js";
import { find, h } from "./dom.js";
import { pick } from "./picks.js";

/** @typedef {{agent_id: string, name: string, is_default: boolean}} OrgAgent */

class NewGroup extends HTMLElement {
  get org() {
    return this.getAttribute("org") ?? "";
  }

  connectedCallback() {
    const form = find("form", HTMLFormElement, this);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.submit(form);
    });
    form.addEventListener("change", () => {
      find('[data-part="members"]', HTMLElement, this).hidden = !this.isPrivate(form);
    });
    find("[data-close]", HTMLElement, this).addEventListener("click", () => find("dialog", HTMLDialogElement, this).close());
  }

  open() {
    const dialog = find("dialog", HTMLDialogElement, this);
    if (dialog.open) return;
    this.fail("");
    dialog.showModal();
    find("[name=title]", HTMLInputElement, this).focus();
    void this.fill();
  }

  async fill() {
    const agentList = find('[data-list="agents"]', HTMLElement, this);
    const memberList = find('[data-list="members"]', HTMLElement, this);
    try {
      /** @type {[OrgAgent[], Member[]]} */
      const [agents, members] = await Promise.all([
        call("GET", `/api/orgs/${this.org}/agents`),
        call("GET", `/api/orgs/${this.org}/members`),
      ]);
      agentList.replaceChildren(
        ...agents.map((agent) => pick({ name: "agent", id: agent.agent_id, label: agent.name, agent: true, checked: agent.is_default })),
      );
      if (!agents.length) agentList.append(h("p", { class: "hint" }, "This workspace has no agents. Make one in the settings."));
      const others = members.filter((member) => member.user_id !== this.getAttribute("me"));
      memberList.replaceChildren(...others.map((member) =>
          pick({ name: "member", id: member.user_id, label: member.name, agent: false, checked: false }),
        ));
      if (!others.length) memberList.append(h("p", { class: "hint" }, "Nobody else is here yet. Invite somebody in the settings."));
    } catch (error) {
      agentList.replaceChildren(h("p", { class: "hint" }, "The agents could not be listed; the group begins with the default ones."));
      memberList.replaceChildren(h("p", { class: "hint" }, "The members could not be listed."));
      this.fail(sentence(error));
    }
  }

  /** @param {HTMLFormElement} form */
  isPrivate(form) {
    return new FormData(form).get("access") === "private";
  }

  /** @param {HTMLFormElement} form */
  async submit(form) {
    const data = new FormData(form);
    const button = find("[type=submit]", HTMLButtonElement, form);
    button.disabled = true;
    this.fail("");
    try {
      /** @type {Record<string, unknown>} */
      const body = { org_id: this.org, title: String(data.get("title") ?? "").trim(), is_private: this.isPrivate(form) };
      // Without a list of agents the App takes the default ones.
      if (form.querySelector("[name=agent]")) body.agent_ids = data.getAll("agent");
      if (body.is_private) body.member_ids = data.getAll("member");
      const group = await call("POST", "/api/groups", body);
      location.assign(`/g/${group.group_id}`);
    } catch (error) {
      this.fail(sentence(error));
      button.disabled = false;
    }
  }

  /** @param {string} text */
  fail(text) {
    const note = find(".note.error", HTMLElement, this);
    note.textContent = text;
    note.hidden = !text;
  }
}

customElements.define("convene-new-group", NewGroup);
