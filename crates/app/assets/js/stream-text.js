// The text of a reply while it is being written: appended as text, never rendered again. What
// begins a line decides where the line goes (a paragraph, a list, a heading, code), so that the
// finished Markdown takes about the same room when it replaces this. Everything within a line stays
// as it was written.

import { h } from "./dom.js";

/** A line so far that may still become something else: its text is held back. */
const UNDECIDED = /^\s{0,6}([-*+]|\d{1,9}[.)]?|#{1,6})?$/;
/** A fence, or what may become one; its line is never shown. */
const FENCE = /^\s{0,3}(`{1,3}$|~{1,3}$|```|~~~)/;
const ITEM = /^\s*(?:[-*+]|(\d{1,9})[.)]) /;
const HEADING = /^\s{0,3}(#{1,6}) /;

export class StreamText {
  /** The line that is open, as it was written. */
  #line = "";
  /** What the open line is added to. @type {HTMLElement | null} */
  #block = null;
  /** The open line's text; null while it is held back. @type {Text | null} */
  #tail = null;
  #code = false;

  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
  }

  /** @param {string} text */
  append(text) {
    const lines = text.split("\n");
    lines.forEach((part, index) => {
      if (part) this.#add(part);
      if (index < lines.length - 1) this.#break();
    });
  }

  clear() {
    this.root.replaceChildren();
    this.#line = "";
    this.#block = this.#tail = null;
    this.#code = false;
  }

  /** @param {string} part of a line */
  #add(part) {
    this.#line += part;
    if (this.#tail) this.#tail.appendData(part);
    else if (!FENCE.test(this.#line) && (this.#code || !UNDECIDED.test(this.#line))) this.#place();
  }

  #break() {
    const line = this.#line;
    if (/^\s{0,3}(```|~~~)/.test(line)) {
      this.#code = !this.#code;
      this.#block = this.#code ? h("code") : null;
      if (this.#block) this.root.append(h("pre", {}, this.#block));
    } else if (!line.trim() && !this.#code) {
      this.#block = null;
    } else if (!this.#tail) {
      this.#place();
    }
    if (this.#block?.matches("h3, h4, h5, h6")) this.#block = null;
    this.#line = "";
    this.#tail = null;
  }

  /** Begins to show the open line. */
  #place() {
    let text = this.#line;
    const item = this.#code ? null : ITEM.exec(text);
    const heading = this.#code ? null : HEADING.exec(text);
    if (item) {
      text = text.slice(item[0].length);
      this.#block = this.#listItem(item[1]);
    } else if (heading) {
      text = text.slice(heading[0].length);
      const level = Math.min(6, (heading[1]?.length ?? 1) + 2);
      this.#block = h(/** @type {"h3"} */ (`h${level}`), { class: "raw" });
      this.root.append(this.#block);
    } else if (!this.#block) {
      this.#block = h("p", { class: "raw" });
      this.root.append(this.#block);
    } else if (this.#block.hasChildNodes()) {
      text = `\n${text}`;
    }
    this.#tail = document.createTextNode(text);
    this.#block.append(this.#tail);
  }

  /**
   * Another item of the list that stands last, or of a new one.
   * @param {string | undefined} number of an ordered list
   */
  #listItem(number) {
    const kind = number === undefined ? "ul" : "ol";
    let list = this.root.lastElementChild;
    if (!list?.matches(kind)) {
      list = number === undefined ? h("ul") : h("ol", { start: number });
      this.root.append(list);
    }
    const item = h("li", { class: "raw" });
    list.append(item);
    return item;
  }
}
