// Parts of the settings' forms with a value of their own, which `form.js` asks for.

import { find } from "../dom.js";

/** @typedef {HTMLInputElement | HTMLSelectElement} Field */

/**
 * The field of a part of a row.
 * @param {ParentNode} row
 * @param {string} part
 * @returns {string}
 */
function text(row, part) {
  const field = row.querySelector(`[data-part="${part}"]`);
  return field instanceof HTMLInputElement || field instanceof HTMLSelectElement ? field.value : "";
}

/**
 * <convene-rows>: rows of named values, each made from the template inside. A row has the parts
 * `name`, `kind` (where the value comes from), one part for each kind, and perhaps `prefix`.
 */
class Rows extends HTMLElement {
  connectedCallback() {
    this.list = find("[data-rows]", HTMLElement, this);
    for (const row of this.list.children) this.prepare(row);
    this.querySelector("[data-add]")?.addEventListener("click", () => this.add());
  }

  add() {
    const template = find("template", HTMLTemplateElement, this);
    const row = template.content.firstElementChild?.cloneNode(true);
    if (!(row instanceof HTMLElement) || !this.list) return;
    this.list.append(row);
    this.prepare(row);
    row.querySelector("input")?.focus();
  }

  /** @param {Element} row */
  prepare(row) {
    const kind = row.querySelector("[data-part=kind]");
    const show = () => {
      for (const part of row.querySelectorAll("[data-for]")) {
        const kinds = (part.getAttribute("data-for") ?? "").split(" ");
        part.toggleAttribute("hidden", !kinds.includes(text(row, "kind")));
      }
    };
    kind?.addEventListener("change", show);
    show();
    row.querySelector("[data-remove]")?.addEventListener("click", () => {
      const next = row.nextElementSibling ?? row.previousElementSibling ?? this;
      row.remove();
      const field = next.querySelector("input, [data-add]");
      if (field instanceof HTMLElement) field.focus();
    });
  }

  /** @returns {unknown} */
  get value() {
    return [...(this.list?.children ?? [])].map((row) => {
      const kind = text(row, "kind");
      const prefix = kind === "plain" ? "" : text(row, "prefix").trim();
      const value = { [kind]: text(row, kind) };
      return { name: text(row, "name").trim(), value, ...(prefix && { prefix }) };
    });
  }
}

/** The most that a million tokens cost, in dollars; the App has the same limit. */
const MAX_PRICE = 10_000;

/**
 * A price in millionths of a dollar: the whole number that it is, nothing for an empty field.
 * @param {string} text
 * @returns {number | null | undefined} undefined where it is no price
 */
function price(text) {
  if (!text.trim()) return null;
  const [, whole, rest = ""] = /^\s*\$?\s*(\d+)(?:[.,](\d{1,6}))?\s*$/.exec(text) ?? [];
  if (whole === undefined) return undefined;
  const micro = Number(whole) * 1_000_000 + Number(rest.padEnd(6, "0"));
  return micro <= MAX_PRICE * 1_000_000 ? micro : undefined;
}

/** <convene-prices>: what models cost, by name; each row says at once what is wrong with it. */
class Prices extends Rows {
  /** @param {Element} row */
  prepare(row) {
    super.prepare(row);
    row.addEventListener("change", () => this.wrong(row, false));
    // Whoever corrects a field sees at once that it is right.
    row.addEventListener("input", () => {
      if (row.querySelector("[aria-invalid]")) this.wrong(row, false);
    });
  }

  /**
   * What is wrong with a row, said below it.
   * @param {Element} row
   * @param {boolean} whole whether nothing may be missing any more
   * @returns {HTMLElement | undefined} the first field that is wrong
   */
  wrong(row, whole) {
    const names = [...(this.list?.children ?? [])].map((other) => text(other, "model").trim());
    let sentence = "";
    let first;
    for (const field of row.querySelectorAll("input")) {
      const part = field.dataset.part ?? "";
      const value = field.value.trim();
      let why = "";
      if (part === "model") {
        if (whole && !value) why = "Which model is it?";
        else if (value && names.filter((name) => name === value).length > 1) why = `${value} has two prices.`;
      } else if (price(value) === undefined) why = "A price is a number of dollars from 0 to 10,000, with six decimals at most.";
      else if (whole && !value && (part === "input" || part === "output")) why = "What do tokens that are read cost, and those that are written?";
      if (why) field.setAttribute("aria-invalid", "true");
      else field.removeAttribute("aria-invalid");
      if (why && !first) [first, sentence] = [field, why];
    }
    const said = row.querySelector("[role=alert]");
    if (said && said.textContent !== sentence) said.textContent = sentence;
    return first;
  }

  get value() {
    const rows = [...(this.list?.children ?? [])];
    for (const row of rows) {
      const first = this.wrong(row, true);
      first?.focus();
      if (first) throw new Error(row.querySelector("[role=alert]")?.textContent ?? "");
    }
    return Object.fromEntries(rows.map((row) => {
      const parts = ["input", "output", "cached_input", "cache_write"].map((part) => [part, price(text(row, part))]);
      return [text(row, "model").trim(), Object.fromEntries(parts.filter(([, value]) => value !== null))];
    }));
  }
}

/**
 * <convene-choice all="all">: everything, or what is ticked. `all` is what stands for everything;
 * without it that is null.
 */
class Choice extends HTMLElement {
  connectedCallback() {
    this.addEventListener("change", () => this.show());
    this.show();
  }

  show() {
    this.querySelector("[data-some]")?.toggleAttribute("hidden", this.everything);
  }

  get everything() {
    const all = this.querySelector("input[value=all]");
    return all instanceof HTMLInputElement && all.checked;
  }

  /** @returns {string | string[] | null} */
  get value() {
    if (this.everything) return this.getAttribute("all");
    return ticked(this.querySelector("[data-some]") ?? this);
  }
}

/** @param {ParentNode} root */
function ticked(root) {
  const boxes = [...root.querySelectorAll("input[type=checkbox]")];
  return boxes.filter((box) => box instanceof HTMLInputElement && box.checked).map((box) => /** @type {HTMLInputElement} */ (box).value);
}

/** <convene-servers>: for each MCP server whether it is used, and which of its tools. */
class Servers extends HTMLElement {
  connectedCallback() {
    this.addEventListener("change", () => this.show());
    this.show();
  }

  show() {
    for (const server of this.querySelectorAll("[data-server]")) {
      server.querySelector("convene-choice")?.toggleAttribute("hidden", !used(server));
    }
  }

  get value() {
    return [...this.querySelectorAll("[data-server]")].filter(used).map((server) => {
      const choice = server.querySelector("convene-choice");
      return { server_id: server.getAttribute("data-server"), tools: choice instanceof Choice ? choice.value : null };
    });
  }
}

/** @param {Element} server */
function used(server) {
  const box = server.querySelector("[data-use]");
  return box instanceof HTMLInputElement && box.checked;
}

/** <convene-approvers>: who permits a call. */
class Approvers extends HTMLElement {
  connectedCallback() {
    this.addEventListener("change", () => this.show());
    this.show();
  }

  show() {
    for (const part of this.querySelectorAll("[data-for]")) {
      part.toggleAttribute("hidden", part.getAttribute("data-for") !== text(this, "kind"));
    }
  }

  get value() {
    switch (text(this, "kind")) {
      case "role":
        return { kind: "role", role: text(this, "role") };
      case "n_of_m":
        return { kind: "n_of_m", n: Number(text(this, "n")), users: ticked(this) };
      default:
        return { kind: "initiator" };
    }
  }
}

/** <convene-hosts>: every host, which is null, or those of a list. */
class Hosts extends Choice {
  get value() {
    if (this.everything) return null;
    const list = find("textarea", HTMLTextAreaElement, this);
    return list.value.split("\n").map((line) => line.trim()).filter(Boolean);
  }
}

customElements.define("convene-hosts", Hosts);
customElements.define("convene-rows", Rows);
customElements.define("convene-prices", Prices);
customElements.define("convene-choice", Choice);
customElements.define("convene-servers", Servers);
customElements.define("convene-approvers", Approvers);
