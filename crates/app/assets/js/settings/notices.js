// <convene-notices>: whether this browser tells of mentions outside of the page. The browser has the last
// word; what it said no to, only its own settings can change.

import { find } from "../dom.js";
import { load, save } from "../storage.js";

class Notices extends HTMLElement {
  box = find("input", HTMLInputElement, this);
  words = find(".hint", HTMLElement, this);

  connectedCallback() {
    // Without https a browser has none.
    if (!("Notification" in globalThis)) return void (this.words.textContent = "This browser has none for this address.");
    this.box.disabled = false;
    this.show();
    this.box.addEventListener("change", async () => {
      save("notices", this.box.checked && (await Notification.requestPermission()) === "granted" ? true : undefined);
      this.show();
    });
  }

  show() {
    this.box.checked = load("notices") === true && Notification.permission === "granted";
    if (Notification.permission === "denied") this.words.textContent = "This browser does not permit it; its settings for this page can.";
  }
}

customElements.define("convene-notices", Notices);
