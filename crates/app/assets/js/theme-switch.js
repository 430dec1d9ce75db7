// <convene-theme>: one button that goes through system, light and dark.

import { h, icon } from "./dom.js";
import { save } from "./storage.js";

const THEMES = /** @type {const} */ (["system", "light", "dark"]);
const ICONS = { system: "half", light: "sun", dark: "moon" };
const KEY = "theme";

/** @returns {typeof THEMES[number]} */
function chosen() {
  // Kept as bare text, since the script that runs before the first paint reads it too.
  try {
    const theme = localStorage.getItem("convene.theme");
    return theme === "light" || theme === "dark" ? theme : "system";
  } catch {
    return "system";
  }
}

class Theme extends HTMLElement {
  connectedCallback() {
    const button = h("button", { class: "icon-button small", type: "button" });
    button.addEventListener("click", () => {
      const next = THEMES[(THEMES.indexOf(chosen()) + 1) % THEMES.length] ?? "system";
      if (next === "system") {
        save(KEY, undefined);
        delete document.documentElement.dataset.theme;
      } else {
        try {
          localStorage.setItem("convene.theme", next);
        } catch {
          // The theme holds until the page is left.
        }
        document.documentElement.dataset.theme = next;
      }
      show();
    });
    const show = () => {
      const theme = chosen();
      const label = `Theme: ${theme === "system" ? "as the system has it" : theme}`;
      button.replaceChildren(icon(ICONS[theme]));
      button.setAttribute("aria-label", label);
      button.title = label;
    };
    show();
    this.replaceChildren(button);
  }
}

customElements.define("convene-theme", Theme);
