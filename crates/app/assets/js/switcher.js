// <convene-switcher>: Ctrl/Cmd+K goes to a group by a few letters of its title.

import { h, icon } from "./dom.js";

class Switcher extends HTMLElement {
  /** @type {HTMLDialogElement | undefined} */
  dialog;
  field = h("input", {
    "aria-label": "Go to a group", placeholder: "Go to a group", autocomplete: "off", role: "combobox",
    "aria-expanded": "true", "aria-controls": "switcher-list", "aria-autocomplete": "list",
  });
  list = h("ul", { id: "switcher-list", role: "listbox", "aria-label": "Groups" });
  none = h("p", { class: "empty-line", hidden: true }, "No group of that name.");
  selected = 0;

  connectedCallback() {
    document.addEventListener("keydown", (event) => {
      if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "k") {
        event.preventDefault();
        this.open();
      }
    });
  }

  open() {
    if (!this.dialog) {
      this.dialog = h("dialog", { class: "dialog switcher", "aria-label": "Go to a group" }, this.field, this.list, this.none);
      this.append(this.dialog);
      this.field.addEventListener("input", () => this.show(0));
      this.field.addEventListener("keydown", (event) => this.key(event));
      this.dialog.addEventListener("click", (event) => {
        if (event.target === this.dialog) this.dialog?.close();
      });
    }
    this.field.value = "";
    this.show(0);
    if (!this.dialog.open) this.dialog.showModal();
    this.field.focus();
  }

  /** The groups of the page's own list whose titles have the words, best first. */
  candidates() {
    const words = this.field.value.toLowerCase().split(/\s+/).filter(Boolean);
    return [...document.querySelectorAll(".groups a")]
      .map((link) => ({
        href: link.getAttribute("href") ?? "",
        title: link.querySelector(".grow")?.textContent ?? "",
        isPrivate: link.querySelector('use[href$="#lock"]') !== null,
        archived: link.closest(".put-away") !== null,
      }))
      .filter(({ title }) => words.every((word) => title.toLowerCase().includes(word)))
      .sort((a, b) => Number(a.archived) - Number(b.archived) || Number(b.title.toLowerCase().startsWith(words[0] ?? "")) - Number(a.title.toLowerCase().startsWith(words[0] ?? "")));
  }

  /** @param {number} selected */
  show(selected) {
    const found = this.candidates();
    this.selected = Math.max(0, Math.min(selected, found.length - 1));
    this.list.replaceChildren(
      ...found.map((group, index) =>
        h(
          "li",
          {
            role: "option", id: `switcher-${index}`, "aria-selected": String(index === this.selected),
            onclick: () => location.assign(group.href),
          },
          icon(group.isPrivate ? "lock" : "group"),
          h("span", { class: "grow clip" }, group.title),
          group.archived && h("span", { class: "tag" }, "archived"),
        ),
      ),
    );
    this.none.hidden = found.length > 0;
    this.field.setAttribute("aria-activedescendant", found.length ? `switcher-${this.selected}` : "");
    this.list.children[this.selected]?.scrollIntoView({ block: "nearest" });
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.key === "ArrowDown") this.show(this.selected + 1);
    else if (event.key === "ArrowUp") this.show(this.selected - 1);
    else if (event.key === "Enter") {
      const group = this.candidates()[this.selected];
      if (group) location.assign(group.href);
    } else return;
    event.preventDefault();
  }
}

customElements.define("convene-switcher", Switcher);
