// <convene-composer>: the field that messages are written in, with completion of names after `@`.

import { avatar, find, h, icon } from "./dom.js";
import { plain } from "./quote.js";
import { room } from "./room.js";
import { load, save } from "./storage.js";

/** Bytes of a message at most; the group refuses more. */
const MAX_BYTES = 32 * 1024;
/** Mentions in a message at most. */
const MAX_MENTIONS = 20;
/** How often others are told that the reader is writing. */
const TYPING_EVERY = 3_000;
const utf8 = new TextEncoder();

class Composer extends HTMLElement {
  form = find("form", HTMLFormElement, this);
  field = find("textarea", HTMLTextAreaElement, this);
  button = find(".send", HTMLButtonElement, this);
  list = find(".completions", HTMLElement, this);
  hint = find(".composer-hint", HTMLElement, this);
  usualHint = [...this.hint.childNodes];
  /** @type {{id: string, name: string, agent: boolean}[]} */
  found = [];
  selected = 0;
  /** Where the name being completed begins, behind its `@`. */
  start = 0;
  #draftKey = `draft.${room.me.id}.${room.group.group_id}`;
  #timer = 0;
  #typed = 0;
  /** The message that is answered. @type {{message_id: string, name: string, text: string} | undefined} */
  answered;
  banner = h("div", { class: "answering", hidden: true });

  connectedCallback() {
    const draft = load(this.#draftKey);
    this.field.value = draft?.text ?? draft ?? "";
    this.form.before(this.banner);
    this.answer(draft?.answered);
    room.on("answer", ({ message_id, author, text }) => {
      this.answer({ message_id, name: room.name(author), text: plain(text).slice(0, 200) });
      this.field.focus();
    });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.field.addEventListener("keydown", (event) => this.key(event));
    this.field.addEventListener("input", () => {
      this.changed();
      if (!this.text.trim() || Date.now() - this.#typed < TYPING_EVERY) return;
      this.#typed = Date.now();
      room.writing();
    });
    this.field.addEventListener("click", () => this.complete());
    this.field.addEventListener("blur", () => this.close());
    addEventListener("pagehide", () => this.keep());
    document.addEventListener("keydown", (event) => this.stray(event));
    this.changed();
    if (!room.target && matchMedia("(pointer: fine)").matches) this.field.focus();
  }

  /** Letters typed nowhere in particular are meant for the message. @param {KeyboardEvent} event */
  stray(event) {
    const { target } = event;
    const nowhere = target === document.body || (target instanceof Element && target.matches(".msg, main, convene-timeline"));
    if (!nowhere || event.ctrlKey || event.metaKey || event.altKey || event.key.length !== 1) return;
    if (event.key === "?" || event.key === " " || event.key === "/") return;
    this.field.focus();
  }

  get text() {
    return this.field.value ?? "";
  }

  changed() {
    const { field, button, hint } = this;
    const size = utf8.encode(field.value.trim()).length;
    button.disabled = size === 0 || size > MAX_BYTES;
    hint.classList.toggle("bad", size > MAX_BYTES);
    if (size > MAX_BYTES) hint.textContent = `Too long by ${Math.ceil((size - MAX_BYTES) / 1024)} KB. Send it in parts.`;
    else hint.replaceChildren(...this.usualHint);
    if (!CSS.supports("field-sizing", "content")) {
      field.style.height = "auto";
      field.style.height = `${field.scrollHeight}px`;
    }
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.keep(), 300);
    this.complete();
  }

  /** Keeps the draft. */
  keep() {
    clearTimeout(this.#timer);
    const { text, answered } = this;
    save(this.#draftKey, text || answered ? { text, answered } : undefined);
  }

  /**
   * Says above the field what is answered.
   * @param {{message_id: string, name: string, text: string}} [message] nothing in particular when absent
   */
  answer(message) {
    this.answered = message;
    this.banner.hidden = !message;
    if (message) {
      const end = h("button", { class: "icon-button", type: "button", "aria-label": "Cancel the reply", title: "Cancel the reply (Esc)" }, icon("close"));
      end.addEventListener("click", () => (this.answer(), this.field.focus()));
      this.banner.replaceChildren(icon("reply"), h("span", { class: "clip grow" }, "Answering ", h("b", {}, message.name), ` ${message.text}`), end);
    }
    this.keep();
  }

  send() {
    const { field, button } = this;
    const text = this.text.trim();
    if (!text || button.disabled) return;
    const mentions = new Set(room.mentionsIn(text).map(({ id }) => id));
    room.post(text, [...mentions].slice(0, MAX_MENTIONS), this.answered?.message_id);
    field.value = "";
    this.#typed = 0;
    this.changed();
    this.answer();
    field.focus();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.isComposing) return;
    if (!this.list.hidden) {
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        const step = event.key === "ArrowDown" ? 1 : -1;
        return this.show((this.selected + step + this.found.length) % this.found.length);
      }
      if (event.key === "Enter" || event.key === "Tab") {
        event.preventDefault();
        return this.choose(this.selected);
      }
      if (event.key === "Escape") {
        event.preventDefault();
        return this.close();
      }
    }
    if (event.key === "Escape") return this.answered ? this.answer() : this.field.blur();
    if (event.key === "ArrowUp" && !this.text) {
      event.preventDefault();
      return void document.dispatchEvent(new Event("edit-last"));
    }
    // On a phone there is no Shift to break a line with: there the button sends.
    const byButton = matchMedia("(pointer: coarse) and (hover: none)").matches;
    if (event.key === "Enter" && !event.shiftKey && !byButton) {
      event.preventDefault();
      this.send();
    }
  }

  /** Offers names for what stands between the last `@` and the caret. */
  complete() {
    const { field } = this;
    if (document.activeElement !== field) return this.close();
    const caret = field.selectionStart;
    const match = /(^|[^\p{L}\p{N}])@([\p{L}\p{N}_.-]*(?: [\p{L}\p{N}_.-]*)?)$/u.exec(field.value.slice(0, caret));
    if (!match || caret !== field.selectionEnd) return this.close();
    const typed = (match[2] ?? "").toLowerCase();
    this.start = caret - typed.length;
    this.found = room
      .participants()
      .filter(({ name }) => {
        const lower = name.toLowerCase();
        return lower.startsWith(typed) || lower.split(" ").some((word) => typed && word.startsWith(typed));
      })
      .slice(0, 8);
    // A name that stands there whole needs no completion.
    if (!this.found.length || this.found.some(({ name }) => name.toLowerCase() === typed.trimEnd() && typed.endsWith(" "))) {
      return this.close();
    }
    this.show(0);
  }

  /** @param {number} selected */
  show(selected) {
    this.selected = selected;
    this.list.replaceChildren(
      ...this.found.map((person, index) =>
        h(
          "li",
          {
            role: "option", id: `completion-${index}`, "aria-selected": String(index === selected),
            // On press, since the field loses the focus before a click is one.
            onpointerdown: (/** @type {Event} */ event) => {
              event.preventDefault();
              this.choose(index);
            },
          },
          avatar(person.agent, person.id, person.name),
          h("span", { class: "grow clip" }, person.name),
          person.agent && h("span", { class: "tag" }, "agent"),
        ),
      ),
    );
    this.list.hidden = false;
    this.field.setAttribute("aria-activedescendant", `completion-${selected}`);
    this.list.children[selected]?.scrollIntoView({ block: "nearest" });
  }

  /** @param {number} index */
  choose(index) {
    const person = this.found[index];
    const { field } = this;
    if (!person) return;
    field.setRangeText(`${person.name} `, this.start, field.selectionStart, "end");
    this.close();
    this.changed();
  }

  close() {
    this.list.hidden = true;
    this.field.removeAttribute("aria-activedescendant");
  }
}

customElements.define("convene-composer", Composer);
