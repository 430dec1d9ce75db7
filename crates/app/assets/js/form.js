// <convene-form method action>: sends the form inside as JSON to the API and says what came of it.
//
// auto           sends on change instead of on submit
// confirm="…"    asks first
// done="reload"  shows the page anew after success
// result="key"   shows that member of the answer, to be copied, with note="…" beside it
//
// A field with data-omit is left out when empty; one with data-null is then sent as null.

import { call, sentence } from "./api.js";
import { h } from "./dom.js";

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
    const question = this.getAttribute("confirm");
    if (question && !window.confirm(question)) return;
    const method = this.getAttribute("method") ?? "POST";
    const buttons = [...form.querySelectorAll("button")];
    for (const button of buttons) button.disabled = true;
    this.say("");
    try {
      const body = method === "DELETE" ? undefined : read(form);
      const answer = await call(method, this.getAttribute("action") ?? "", body);
      if (this.getAttribute("done") === "reload") return location.reload();
      const key = this.getAttribute("result");
      if (key) this.show(String(answer?.[key] ?? ""), this.getAttribute("note"));
      else this.say("Saved.", "done");
    } catch (error) {
      this.say(sentence(error), "error");
      if (this.hasAttribute("auto")) form.reset();
    } finally {
      for (const button of buttons) button.disabled = false;
    }
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

/**
 * @param {HTMLFormElement} form
 * @returns {Record<string, unknown>}
 */
function read(form) {
  /** @type {Record<string, unknown>} */
  const body = {};
  for (const field of form.elements) {
    if (field instanceof HTMLInputElement && field.type === "checkbox" && field.name) {
      body[field.name] = field.checked;
    } else if (
      (field instanceof HTMLInputElement || field instanceof HTMLTextAreaElement || field instanceof HTMLSelectElement) &&
      field.name
    ) {
      if (!field.value && field.dataset.omit !== undefined) continue;
      body[field.name] = !field.value && field.dataset.null !== undefined ? null : field.value;
    }
  }
  return body;
}

customElements.define("convene-form", Form);
