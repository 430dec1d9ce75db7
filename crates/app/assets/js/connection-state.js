// <convene-connection>: says when the page is not up to date, and nothing while it is.

import { h } from "./dom.js";
import { room } from "./room.js";

/** Short interruptions are not worth a word. */
const QUIET_FOR = 1_000;

class ConnectionState extends HTMLElement {
  #timer = 0;
  #ticker = 0;

  connectedCallback() {
    this.setAttribute("role", "status");
    room.on("state", () => this.changed());
    this.changed();
  }

  changed() {
    clearTimeout(this.#timer);
    clearInterval(this.#ticker);
    if (room.state === "live" || room.state === "archived" || room.state === "refused" || room.state === "held" || room.state === "offline") this.show();
    else this.#timer = setTimeout(() => this.show(), this.getAttribute("state") === "live" ? QUIET_FOR : 0);
  }

  show() {
    // That a group was deleted is said where something would be written.
    if (room.gone) return this.setAttribute("state", "archived");
    this.setAttribute("state", room.state);
    switch (room.state) {
      case "live":
      case "archived":
        return this.replaceChildren();
      case "connecting":
        return this.replaceChildren("Connecting…");
      case "offline":
        return this.replaceChildren("Offline");
      case "refused": {
        const signIn = room.refusal === "You are signed out.";
        const href = signIn ? `/sign-in?next=${encodeURIComponent(location.pathname)}` : "/";
        return this.replaceChildren(room.refusal, " ", h("a", { href }, signIn ? "Sign in" : "Leave"));
      }
      case "held":
        return this.replaceChildren(room.refusal, " ", h("button", { class: "link", type: "button", onclick: () => room.connection.retry() }, "Try now"));
      case "waiting": {
        const seconds = h("span");
        const count = () => (seconds.textContent = String(Math.max(0, Math.ceil((room.connection.nextAt - Date.now()) / 1000))));
        count();
        this.#ticker = setInterval(count, 1_000);
        const now = h("button", { class: "link", type: "button", onclick: () => room.connection.retry() }, "Try now");
        return this.replaceChildren("Reconnecting in ", seconds, " s ", now);
      }
    }
  }
}

customElements.define("convene-connection", ConnectionState);
