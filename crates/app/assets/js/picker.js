// The box that a reaction is chosen in: a row of common ones, and a field for any other.

import { h } from "./dom.js";
import { pop } from "./popup.js";

const COMMON = [
  ["👍", "thumbs up"], ["❤️", "heart"], ["😄", "laughing"], ["🎉", "party"], ["👀", "eyes"], ["✅", "done"], ["🙏", "thanks"],
];

/**
 * @param {Element} at
 * @param {(emoji: string) => void} choose
 */
export function pick(at, choose) {
  const take = (/** @type {string} */ emoji) => (box.hidePopover(), choose(emoji));
  const common = COMMON.map(([emoji = "", name]) =>
    h("button", { type: "button", class: "emoji", "aria-label": name, title: name, onclick: () => take(emoji) }, emoji),
  );
  const field = h("input", { "aria-label": "Another emoji", placeholder: "Another emoji", autocomplete: "off", maxlength: "40" });
  const form = h("form", { class: "line" }, field, h("button", { class: "button" }, "React"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const emoji = field.value.trim();
    if (emoji) take(emoji);
  });
  const box = h("div", { role: "dialog", "aria-label": "React", class: "picker" }, h("div", { class: "emojis" }, ...common), form);
  pop(box, at, common[0]);
}
