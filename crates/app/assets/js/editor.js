// <convene-editor>: where the reader edits a message of their own, in its place. What was begun
// survives a reload and a page of history that is read anew.

import { h } from "./dom.js";
import { room } from "./room.js";
import { load, save } from "./storage.js";

/** @typedef {import("./items.js").Item} Item */

const KEY = `edit.${room.me.id}.${room.group.group_id}`;

class Editor extends HTMLElement {
  /**
   * @param {Item} item
   * @param {string} text
   */
  begin(item, text) {
    const id = item.message?.message_id;
    const field = h("textarea", { "aria-label": "Edit the message", rows: "1", dir: "auto" });
    field.value = text;
    const problem = h("p", { class: "msg-note bad", role: "alert", hidden: true });
    const button = h("button", { class: "button primary" }, "Save");
    const cancel = h("button", { class: "button", type: "button", onclick: () => this.end(item) }, "Cancel");
    const form = h("form", {}, field, problem, h("div", { class: "actions" }, cancel, button));
    const keep = () => save(KEY, { id, text: field.value });
    form.addEventListener("input", keep);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const now = field.value.trim();
      if (!now || button.disabled) return;
      if (now === item.message?.text) return this.end(item);
      button.disabled = true;
      try {
        await room.ask({ type: "edit", message_id: id, text: now });
        this.end(item);
      } catch (error) {
        problem.textContent = `Not saved. ${error instanceof Error ? error.message : ""}`;
        problem.hidden = false;
        button.textContent = "Try again";
      } finally {
        button.disabled = false;
      }
    });
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.isComposing) return;
      if (event.key === "Escape") this.end(item);
      else if (event.key === "Enter" && !event.shiftKey && !matchMedia("(pointer: coarse) and (hover: none)").matches) form.requestSubmit();
      else return;
      event.preventDefault();
    });
    this.replaceChildren(form);
    item.el.classList.add("editing");
    item.el.querySelector(".msg-body")?.after(this);
    keep();
    return field;
  }

  /** @param {Item} item */
  end(item) {
    const had = this.contains(document.activeElement);
    this.remove();
    item.el.classList.remove("editing");
    save(KEY, undefined);
    if (had) item.el.focus({ preventScroll: true });
  }
}

customElements.define("convene-editor", Editor);

/** Edits a message, or goes on with it. @param {Item} item */
export function edit(item) {
  const { message, el } = item;
  if (!message || message.deleted) return;
  const open = el.querySelector("convene-editor textarea");
  const field = open instanceof HTMLTextAreaElement ? open : new Editor().begin(item, message.text);
  field.focus();
  field.setSelectionRange(field.value.length, field.value.length);
  el.scrollIntoView({ block: "nearest" });
}

/** Goes on with what was being edited before the page was left or read anew. @param {{get(key: string): Item | undefined}} items */
export function goOn(items) {
  const begun = load(KEY);
  const item = begun && items.get(`m-${begun.id}`);
  if (!item?.message || item.message.deleted || item.message.text === begun.text) return;
  // The reader may be elsewhere by now: neither the focus nor the view goes there.
  if (!item.el.querySelector("convene-editor")) new Editor().begin(item, begun.text);
}

/** Ends the editing of a message that was deleted meanwhile. @param {Item} item */
export function giveUp(item) {
  const editor = item.el.querySelector("convene-editor");
  if (editor instanceof Editor) editor.end(item);
}
