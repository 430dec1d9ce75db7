// <convene-typing>: who is writing at the moment. It is no live region: it would speak all the time.

import { h } from "./dom.js";
import { room } from "./room.js";

/** How long a person counts as writing after the last word about it. */
const HOLDS = 6_000;

class Typing extends HTMLElement {
  /** @type {Map<string, number>} when it ends, by person */
  #writing = new Map();

  #line = h("span");

  connectedCallback() {
    this.append(this.#line);
    room.on("typing", (id) => {
      this.#writing.set(id, setTimeout(() => this.stop(id), HOLDS, clearTimeout(this.#writing.get(id))));
      this.show();
    });
    room.on("event", (event) => event.kind === "message.posted" && this.stop(event.author.id));
    room.on("people", () => this.show());
  }

  /** @param {string} id */
  stop(id) {
    clearTimeout(this.#writing.get(id));
    if (this.#writing.delete(id)) this.show();
  }

  show() {
    const [first = "", second = "", ...more] = [...this.#writing.keys()].map((id) => room.name({ kind: "user", id }));
    if (more.length) this.#line.textContent = "Several people are writing…";
    else if (second) this.#line.textContent = `${first} and ${second} are writing…`;
    else this.#line.textContent = first && `${first} is writing…`;
  }
}

customElements.define("convene-typing", Typing);
