// <convene-groups org me>: the list of groups, with what is unread, muted and begun in each; and how
// much is unread, in the title of the page and on the button that opens the list on a phone.

import { call } from "./api.js";
import { find, h, icon } from "./dom.js";
import { heads, listen } from "./heads.js";
import { keys } from "./storage.js";

class Groups extends HTMLElement {
  #title = document.title;
  #org = this.getAttribute("org") ?? "";
  #drafts = `draft.${this.getAttribute("me")}.`;
  /** Groups that are not in the list and were asked for. @type {Set<string>} */
  #asked = new Set();

  connectedCallback() {
    listen(this.getAttribute("me") ?? "", (gone) => {
      if (gone) for (const link of this.links(gone)) link.closest("li")?.remove();
      this.show();
      document.dispatchEvent(new Event("heads"));
    });
    for (const kind of ["reading", "draft"]) document.addEventListener(kind, () => this.show());
    addEventListener("storage", () => this.show());
    this.show();
  }

  /** The links to a group on this page. @param {string} id */
  links(id) {
    return document.querySelectorAll(`[data-group="${CSS.escape(id)}"]`);
  }

  show() {
    const drafts = new Set(keys(this.#drafts).map((key) => key.slice(this.#drafts.length)));
    let unread = 0;
    for (const link of document.querySelectorAll("[data-group]")) {
      const id = link.getAttribute("data-group") ?? "";
      const current = link.getAttribute("aria-current") === "page";
      // Whoever sees the end of a group has read it, whatever the App says a moment ago.
      const seen = current && "reading" in document.documentElement.dataset;
      this.mark(link, heads.get(id), seen, !current && drafts.has(id));
    }
    for (const head of heads.values()) {
      if (head.org_id !== this.#org) continue;
      const seen = "reading" in document.documentElement.dataset && location.pathname === `/g/${head.group_id}`;
      if (!seen && head.status === "active") unread += head.muted ? head.mentions : head.unread;
      if (!this.links(head.group_id).length && !this.#asked.has(head.group_id)) void this.find(head.group_id);
    }
    document.title = unread ? `(${unread}) ${this.#title}` : this.#title;
    const button = document.querySelector('[popovertarget="nav"]');
    button?.setAttribute("aria-label", `Workspace and groups${unread ? `, ${unread} unread` : ""}`);
    button?.toggleAttribute("data-unread", unread > 0);
  }

  /**
   * @param {Element} link
   * @param {Group | undefined} head
   * @param {boolean} seen
   * @param {boolean} draft
   */
  mark(link, head, seen, draft) {
    const muted = head?.muted ?? false;
    const mentions = seen || !head ? 0 : head.mentions;
    // In a muted group what mentions nobody is not counted.
    const unread = seen || !head || muted ? 0 : head.unread;
    const state = [unread, mentions, muted, draft, head?.status, head?.title].join();
    if (link.getAttribute("data-state") === state) return;
    link.setAttribute("data-state", state);
    link.classList.toggle("has-unread", unread > 0);
    link.classList.toggle("muted", muted);
    if (head) for (const title of link.querySelectorAll(".group-title")) title.textContent = head.title;
    if (head && this.contains(link)) this.place(link, head.status);
    const marks = link.querySelector(".marks") ?? h("span", { class: "marks" });
    const mark = (/** @type {string} */ kind, /** @type {import("./dom.js").Child} */ shown, /** @type {string} */ words) =>
      h("span", { class: `mark ${kind}`, title: words }, h("span", { "aria-hidden": "true" }, shown), h("span", { class: "sr-only" }, `, ${words}`));
    marks.replaceChildren(
      ...[
        draft && mark("draft", icon("edit"), "a draft"),
        muted && mark("mute", icon("muted"), "muted"),
        mentions > 0 && mark("mention", `@${mentions > 1 ? count(mentions) : ""}`, `${mentions} ${mentions > 1 ? "mentions" : "mention"} of you`),
        unread > 0 && mark("count", count(unread), `${unread} unread`),
      ].filter((part) => part !== false),
    );
    link.append(marks);
  }

  /**
   * Puts a link among the groups in use or among the archived ones, which are folded away.
   * @param {Element} link
   * @param {GroupLife} status
   */
  place(link, status) {
    const list = find(`[data-list="${status === "active" ? "active" : "archived"}"]`, HTMLElement, this);
    const line = link.closest("li");
    if (line && line.parentElement !== list) list.append(line);
    const archived = find('[data-list="archived"]', HTMLElement, this);
    const fold = find(".put-away", HTMLDetailsElement, this);
    fold.hidden = !archived.childElementCount;
    if (archived.querySelector("[aria-current]")) fold.open = true;
    find("[data-count]", HTMLElement, fold).textContent = String(archived.childElementCount);
  }

  /** Adds a group that was made or opened to the reader since the page came. @param {string} id */
  async find(id) {
    this.#asked.add(id);
    /** @type {Group[]} */
    const groups = await call("GET", `/api/groups?org_id=${this.#org}`).catch(() => []);
    const list = this.querySelector("ul");
    list?.querySelector(".nav-empty")?.remove();
    for (const group of groups) {
      if (this.links(group.group_id).length) continue;
      const link = h(
        "a", { href: `/g/${group.group_id}`, "data-group": group.group_id },
        icon(group.is_private ? "lock" : "group"), h("span", { class: "grow group-title" }, group.title),
        group.is_private && h("span", { class: "sr-only" }, " (private)"),
      );
      list?.append(h("li", {}, link));
      this.place(link, group.status);
    }
    this.show();
  }
}

/** @param {number} n */
const count = (n) => (n > 99 ? "99+" : String(n));

customElements.define("convene-groups", Groups);
