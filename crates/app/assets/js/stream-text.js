// The text of a reply while it is being written: appended as text, never rendered again. Blank
// lines begin paragraphs and fences begin code, so that the finished Markdown takes about the same
// room when it replaces this.

import { h } from "./dom.js";

const FENCE = /^\s{0,3}(```|~~~)/;

export class StreamText {
  /** What came after the last line break and cannot be placed yet. */
  #line = "";
  /** @type {HTMLElement | null} the paragraph or code that is open */
  #block = null;
  /** @type {Text | null} the text node of the line that is open */
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
      this.#add(part);
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
    if (!part) return;
    this.#line += part;
    // A line that may become a fence is held back until it is clear what it is.
    if (/^\s{0,3}[`~]/.test(this.#line) && this.#line.trim().length < 3) return;
    if (FENCE.test(this.#line)) return;
    if (this.#tail) {
      this.#tail.appendData(part);
      return;
    }
    if (!this.#block) {
      this.#block = h("p", { class: "raw" });
      this.root.append(this.#block);
    }
    this.#tail = document.createTextNode((this.#block.hasChildNodes() ? "\n" : "") + this.#line);
    this.#block.append(this.#tail);
  }

  #break() {
    const line = this.#line;
    this.#line = "";
    if (FENCE.test(line)) {
      this.#code = !this.#code;
      const code = h("code");
      this.#block = this.#code ? code : null;
      if (this.#code) this.root.append(h("pre", {}, code));
    } else if (!line.trim() && !this.#code) {
      this.#block = null;
    } else if (!this.#tail && this.#block) {
      this.#block.append("\n" + line);
    }
    this.#tail = null;
  }
}
