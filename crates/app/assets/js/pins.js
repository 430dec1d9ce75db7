// <convene-pins>: the pinned messages of the group, the latest first.

import { sentence } from "./api.js";
import { h, icon } from "./dom.js";
import { complain } from "./message.js";
import { quotation } from "./quote.js";
import { room } from "./room.js";

/** Pins that are shown before the reader asks for all. */
const FIRST = 5;

class Pins extends HTMLElement {
  #all = false;

  connectedCallback() {
    room.on("pins", () => this.show());
    room.on("people", () => this.show());
  }

  show() {
    const pins = [...room.pins].reverse();
    this.hidden = !pins.length;
    const shown = this.#all ? pins : pins.slice(0, FIRST);
    const rest = pins.length - shown.length;
    // Whoever takes a pin off stays in the list.
    const focused = this.contains(document.activeElement);
    const list = h("ul", { class: "panel-list pins", tabindex: "-1" }, ...shown.map((pin) => this.line(pin)));
    this.replaceChildren(
      h(
        "section", { "aria-labelledby": "panel-pins" },
        h("div", { class: "panel-heading" }, h("h2", { id: "panel-pins" }, "Pinned"), h("span", { class: "quiet" }, String(pins.length))),
        list,
        rest > 0 && h("button", { class: "button", type: "button", onclick: () => ((this.#all = true), this.show()) }, `Show ${rest} more`),
      ),
    );
    if (focused) list.focus();
  }

  /** @param {Pin} pin */
  line(pin) {
    const link = quotation(pin.message_id, "pin");
    const off = h("button", { class: "icon-button small", type: "button", "aria-label": "Take off the pins", title: "Take off the pins" }, icon("close"));
    off.addEventListener("click", async () => {
      try {
        await room.ask({ type: "pin", message_id: pin.message_id, on: false });
      } catch (error) {
        complain(line, sentence(error));
      }
    });
    const line = h("li", { tabindex: "-1" }, link, !room.readOnly && off);
    return line;
  }
}

customElements.define("convene-pins", Pins);
