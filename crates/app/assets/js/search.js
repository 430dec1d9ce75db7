// <convene-search>: full-text search in the group. It stands in the place of the panel on a desk and
// is a drawer on narrow screens; `/` opens it.

import { call, sentence } from "./api.js";
import { find, h, isEditable } from "./dom.js";
import { bare } from "./quote.js";
import { room } from "./room.js";
import { clock, dayName, full } from "./time.js";

/** How long the reader must pause for the search to begin by itself. */
const PAUSE = 300;
const SHOW_LOADING_AFTER = 200;

class Search extends HTMLElement {
  box = find("#search", HTMLElement);
  field = find("input", HTMLInputElement, this);
  status = find("[role=status]", HTMLElement, this);
  list = find("ol", HTMLElement, this);
  hint = this.status.textContent ?? "";
  #timer = 0;
  #turn = 0;
  /** Where the focus was. @type {Element | null} */
  #before = null;

  connectedCallback() {
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || isEditable(event.target)) return;
      if (document.querySelector("dialog[open]")) return;
      event.preventDefault();
      this.open();
    });
    find("form", HTMLFormElement, this).addEventListener("submit", (event) => {
      event.preventDefault();
      void this.search();
    });
    this.field.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => void this.search(), PAUSE);
    });
    this.box.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.close();
    });
    find("[data-close]", HTMLElement, this.box).addEventListener("click", () => this.close());
  }

  open() {
    const wide = matchMedia("(min-width: 1100px)").matches;
    if (!this.box.contains(document.activeElement)) this.#before = document.activeElement;
    if (wide) document.documentElement.dataset.aside = "search";
    else if (!this.box.matches(":popover-open")) this.box.showPopover();
    this.field.focus();
    this.field.select();
  }

  close() {
    delete document.documentElement.dataset.aside;
    if (this.box.matches(":popover-open")) this.box.hidePopover();
    if (this.#before instanceof HTMLElement) this.#before.focus();
  }

  /** Looks for what stands in the field. @param {number} [before] only older hits, which are added */
  async search(before) {
    clearTimeout(this.#timer);
    const turn = ++this.#turn;
    const words = this.field.value.trim();
    this.box.querySelector(".older")?.remove();
    if (before === undefined) this.list.replaceChildren();
    if (!words) return void (this.status.textContent = this.hint);
    const loading = setTimeout(() => (this.status.textContent = "Searching…"), SHOW_LOADING_AFTER);
    const query = new URLSearchParams({ q: words });
    if (before !== undefined) query.set("before", String(before));
    try {
      /** @type {{hits: Hit[], more: boolean}} */
      const { hits, more } = await call("GET", `${room.path}/search?${query}`);
      if (turn !== this.#turn) return;
      this.list.append(...hits.map(hit));
      const count = this.list.childElementCount;
      this.status.textContent = count ? `${count}${more ? " newest" : ""} ${count === 1 ? "message" : "messages"}` : "No message has all of these words.";
      const last = hits.at(-1);
      if (more && last) this.older("Older messages", last.message.seq);
    } catch (error) {
      if (turn !== this.#turn) return;
      this.status.textContent = sentence(error);
      this.older("Try again", before);
    } finally {
      clearTimeout(loading);
    }
  }

  /**
   * @param {string} words
   * @param {number | undefined} before
   */
  older(words, before) {
    this.list.after(h("button", { class: "button older", type: "button", onclick: () => void this.search(before) }, words));
  }
}

/** @param {Hit} hit */
function hit({ message, snippet }) {
  return h(
    "li", { tabindex: "-1" },
    h(
      "a", { class: "hit", href: `${room.link}/m/${message.message_id}`, "data-seq": message.seq },
      h("span", { class: "hit-head" }, h("b", { class: "clip" }, room.name(message.author)), h("time", { class: "quiet", title: full(message.at), datetime: new Date(message.at).toISOString() }, `${dayName(message.at)}, ${clock(message.at)}`)),
      h("span", { class: "snippet" }, ...snippet.map(({ text, hit }) => (hit ? h("mark", {}, text) : bare(text)))),
    ),
  );
}

customElements.define("convene-search", Search);
