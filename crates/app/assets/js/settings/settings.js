// What the pages of the settings have beside forms: a model that fits its provider, a test run, and
// fields that follow what is chosen.

import "./form.js";
import "./notices.js";
import "./values.js";
import { call, sentence } from "../api.js";
import { find, h } from "../dom.js";
import { dollars } from "../money.js";

// On a phone the tabs are wider than the screen: the one that is open is in sight.
document.querySelector(".tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

/** <convene-model>: the provider's models are offered; the built-in one has no name. */
class Model extends HTMLElement {
  connectedCallback() {
    const provider = find("select", HTMLSelectElement, this);
    const model = find("input", HTMLInputElement, this);
    const show = () => {
      find("[data-model]", HTMLElement, this).hidden = !provider.value;
      model.required = Boolean(provider.value);
      model.setAttribute("list", `models-${provider.value}`);
    };
    provider.addEventListener("change", () => {
      model.value = "";
      show();
    });
    show();
  }
}

/** <convene-kind>: the address of a service that has only one is filled in. */
class Kind extends HTMLElement {
  connectedCallback() {
    const kind = find("select", HTMLSelectElement, this);
    const url = find("input[type=url]", HTMLInputElement, this);
    const key = find("input[type=password]", HTMLInputElement, this);
    const homes = [...kind.options].map((option) => option.dataset.home ?? "");
    const show = () => {
      const chosen = kind.selectedOptions[0];
      if (!url.value || homes.includes(url.value)) url.value = chosen?.dataset.home ?? "";
      key.required = chosen?.dataset.key !== undefined;
      key.placeholder = key.required ? "" : "only if the service wants one";
    };
    kind.addEventListener("change", show);
    show();
  }
}

/** <convene-try action>: asks an agent one question and shows what comes of it. */
class Try extends HTMLElement {
  connectedCallback() {
    const form = find("form", HTMLFormElement, this);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.ask(form);
    });
  }

  /** @param {HTMLFormElement} form */
  async ask(form) {
    const out = find("[data-answer]", HTMLElement, this);
    const button = find("button", HTMLButtonElement, form);
    const question = find("textarea", HTMLTextAreaElement, form).value;
    button.disabled = true;
    out.replaceChildren(h("p", { class: "note wait" }, "Asking…"));
    try {
      const answer = await call("POST", this.getAttribute("action") ?? "", { text: question });
      if (answer.status === "reply") {
        /** @type {Usage | undefined} */
        const used = answer.usage;
        const cost = used?.cost_micro_usd === undefined || used.tokens_unknown ? "cost unknown" : dollars(used.cost_micro_usd);
        const usage = used && h("p", { class: "hint" }, `${used.input_tokens} tokens read, ${used.output_tokens} written, ${cost}`);
        out.replaceChildren(h("div", { class: "note answer" }, answer.text), usage ?? "");
      } else {
        out.replaceChildren(h("p", { class: "note error" }, answer.detail));
      }
    } catch (error) {
      out.replaceChildren(h("p", { class: "note error" }, sentence(error)));
    } finally {
      button.disabled = false;
    }
  }
}

/** <convene-owner>: the fields that fit whose a secret is. */
class Owner extends HTMLElement {
  connectedCallback() {
    const scope = find("select", HTMLSelectElement, this);
    const show = () => {
      for (const part of this.querySelectorAll("[data-for]")) {
        const hidden = part.getAttribute("data-for") !== scope.value;
        part.toggleAttribute("hidden", hidden);
        for (const field of part.querySelectorAll("select, input, convene-choice")) {
          field.toggleAttribute("disabled", hidden);
        }
      }
    };
    scope.addEventListener("change", show);
    show();
  }
}

customElements.define("convene-model", Model);
customElements.define("convene-kind", Kind);
customElements.define("convene-try", Try);
customElements.define("convene-owner", Owner);
