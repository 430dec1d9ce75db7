// <convene-form method action>: sends the form inside as JSON to the API and says what came of it.
//
// auto           sends on change instead of on submit
// confirm="…"    asks first and says what would follow, with ask="…" as the question and verb="…" on the
//                button that does it
// said="…"       what is said after success, in place of "Saved."
// clears         empties the form after success
// gone="…"       takes out what that selector finds after success
// done="reload"  shows the page anew after success
// go="/…/{}"     goes there after success, with the answer's member key="…" in place of {}
// check="/…/{}"  after success calls this too, so that what was saved is tried at once
// result="key"   shows that member of the answer, to be copied, with note="…" beside it
//
// A field with data-omit is left out when empty; one with data-null is then sent as null. A name
// with dots is a member of a member. data-as says what a text stands for: number, seconds, kib,
// json, lines. One with data-same must be filled in like the field of that name. Boxes with data-list are gathered into a list. An element with data-value has a
// `value` of its own, and the fields within it are its affair.

import { Problem, call, sentence } from "../api.js";
import { h } from "../dom.js";
import { agreed } from "../popup.js";

class Form extends HTMLElement {
  connectedCallback() {
    const form = this.querySelector("form");
    if (!form || this.querySelector(".outcome")) return;
    this.outcome = h("div", { class: "outcome", role: "status" });
    form.after(this.outcome);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.submit(form);
    });
    if (this.hasAttribute("auto")) form.addEventListener("change", () => void this.submit(form));
  }

  /** @param {HTMLFormElement} form */
  async submit(form) {
    const method = this.getAttribute("method") ?? "POST";
    const words = this.getAttribute("confirm");
    const [ask, verb] = [this.getAttribute("ask") ?? "", this.getAttribute("verb") ?? ""];
    if (words !== null && !(await agreed(ask, words, verb, method === "DELETE"))) return;
    const buttons = [...form.querySelectorAll("button")];
    const pressed = buttons.find((button) => button === document.activeElement);
    for (const field of form.querySelectorAll("input[data-same]")) {
      const model = form.querySelector(`[name="${field.getAttribute("data-same")}"]`);
      if (!(field instanceof HTMLInputElement) || !(model instanceof HTMLInputElement) || field.value === model.value) continue;
      field.setAttribute("aria-invalid", "true");
      field.focus();
      return this.say(`${label(field)}: this is not the same.`, "error");
    }
    for (const button of buttons) button.disabled = true;
    this.say("");
    for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
    try {
      const body = method === "DELETE" ? undefined : read(form);
      const answer = await call(method, this.getAttribute("action") ?? "", body);
      follow(form, answer);
      if (!(await this.checked(answer))) return;
      const go = this.getAttribute("go");
      if (go) return location.assign(this.filled(go, answer));
      if (this.getAttribute("done") === "reload") return location.reload();
      const key = this.getAttribute("result");
      if (key) this.show(String(answer?.[key] ?? ""), this.getAttribute("note"));
      else this.say(this.getAttribute("said") ?? "Saved.", "done");
      if (this.hasAttribute("clears")) form.reset();
      for (const stale of document.querySelectorAll(this.getAttribute("gone") ?? "#none")) stale.remove();
    } catch (error) {
      this.say(sentence(error), "error");
      if (error instanceof Problem) point(form, error.field);
      if (this.hasAttribute("auto")) form.reset();
    } finally {
      for (const button of buttons) button.disabled = false;
      // A button that was disabled has lost the focus, unless something else has it by now.
      if (document.activeElement === document.body) pressed?.focus({ preventScroll: true });
    }
  }

  /**
   * Tries what was saved; whether all is said that there is to say.
   * @param {any} answer
   */
  async checked(answer) {
    const check = this.getAttribute("check");
    if (!check) return true;
    this.say("Saved. Trying it out…", "wait");
    try {
      await call("POST", this.filled(check, answer), {});
      return true;
    } catch (error) {
      // What is saved must not be sent a second time.
      const go = this.getAttribute("go");
      const next = h("a", { href: go ? this.filled(go, answer) : location.pathname }, "Go on");
      const note = h("p", { class: "note error" }, `Saved, but not tried out: ${sentence(error)} `, next);
      this.outcome?.replaceChildren(note);
      return false;
    }
  }

  /**
   * @param {string} path
   * @param {any} answer
   */
  filled(path, answer) {
    return path.replace("{}", encodeURIComponent(String(answer?.[this.getAttribute("key") ?? ""] ?? "")));
  }

  /**
   * @param {string} text
   * @param {string} [kind]
   */
  say(text, kind) {
    this.outcome?.replaceChildren(...(text ? [h("p", { class: `note ${kind}` }, text)] : []));
  }

  /**
   * @param {string} value
   * @param {string | null} note
   */
  show(value, note) {
    const field = h("input", { readonly: true, "aria-label": "Result" });
    field.value = value;
    field.addEventListener("focus", () => field.select());
    const button = h("button", { class: "button", type: "button" }, "Copy");
    button.addEventListener("click", async () => {
      field.select();
      try {
        await navigator.clipboard.writeText(value);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Press Ctrl C";
      }
    });
    this.outcome?.replaceChildren(
      h("div", { class: "note done" }, note, h("div", { class: "copyable" }, field, button)),
    );
  }
}

/** @typedef {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} Field */

/**
 * @param {HTMLFormElement} form
 * @returns {Record<string, unknown>}
 */
function read(form) {
  /** @type {Record<string, unknown>} */
  const body = {};
  for (const element of form.querySelectorAll("input, textarea, select, [data-value]")) {
    const name = element.getAttribute("name");
    if (!name || element.hasAttribute("disabled") || element.parentElement?.closest("form [data-value]")) continue;
    if (element.matches("[data-value]")) {
      put(body, name, /** @type {any} */ (element).value);
      continue;
    }
    const field = /** @type {Field} */ (element);
    if (field instanceof HTMLInputElement && field.dataset.list !== undefined) {
      const list = /** @type {unknown[]} */ (get(body, name) ?? []);
      put(body, name, field.checked ? [...list, field.value] : list);
    } else if (field instanceof HTMLInputElement && field.type === "radio") {
      if (field.checked) put(body, name, meaning(field));
    } else if (field instanceof HTMLInputElement && field.type === "checkbox") {
      put(body, name, field.checked);
    } else if (field.value || field.dataset.omit === undefined) {
      put(body, name, !field.value && field.dataset.null !== undefined ? null : meaning(field));
    }
  }
  return body;
}

/** @param {Field} field */
function meaning(field) {
  const text = field.value;
  switch (field.dataset.as) {
    case "flag":
      return text === "true";
    case "number":
      return Number(text);
    case "seconds":
      return Math.round(Number(text) * 1000);
    case "kib":
      return Math.round(Number(text) * 1024);
    case "lines":
      return text.split("\n").map((line) => line.trim()).filter(Boolean);
    case "json":
      try {
        return JSON.parse(text || "{}");
      } catch {
        field.setAttribute("aria-invalid", "true");
        field.focus();
        throw new Error(`${label(field)} is not JSON: check brackets, commas and quotation marks.`);
      }
    default:
      return text;
  }
}

/** @param {Field} field */
const label = (field) => field.labels?.[0]?.textContent?.trim() ?? field.name;

/**
 * @param {Record<string, any>} body
 * @param {string} name
 * @param {unknown} value
 */
function put(body, name, value) {
  const parts = name.split(".");
  const last = /** @type {string} */ (parts.pop());
  let at = body;
  for (const part of parts) at = at[part] ??= {};
  at[last] = value;
}

/**
 * @param {Record<string, any>} body
 * @param {string} name
 * @returns {unknown}
 */
function get(body, name) {
  return name.split(".").reduce((at, part) => at?.[part], /** @type {any} */ (body));
}

/**
 * The next change of the same form is one of what was just saved.
 * @param {HTMLFormElement} form
 * @param {any} answer
 */
function follow(form, answer) {
  const field = form.querySelector("input[name=version]");
  if (field instanceof HTMLInputElement && answer?.version) field.value = String(answer.version);
}

/**
 * Leads to the field that a refusal names.
 * @param {HTMLFormElement} form
 * @param {string | undefined} name
 */
function point(form, name) {
  if (!name) return;
  const found = form.querySelector(`[name="${CSS.escape(name)}"], [name$=".${CSS.escape(name)}"]`);
  const field = found?.matches("[data-value]") ? found.querySelector("input, select, textarea, button") : found;
  if (!(field instanceof HTMLElement)) return;
  field.setAttribute("aria-invalid", "true");
  field.focus();
}

customElements.define("convene-form", Form);
