// <convene-keys>: `?` shows the keys.

import { isEditable } from "./dom.js";

class Keys extends HTMLElement {
  connectedCallback() {
    document.addEventListener("keydown", (event) => {
      if (event.key !== "?" || event.ctrlKey || event.metaKey || event.altKey || isEditable(event.target)) return;
      event.preventDefault();
      this.open();
    });
  }

  open() {
    const dialog = this.querySelector("dialog");
    if (dialog && !dialog.open) dialog.showModal();
  }
}

customElements.define("convene-keys", Keys);
