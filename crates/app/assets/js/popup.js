// Menus and small boxes that open at an element and close when the reader goes elsewhere. They are
// popovers: Escape and a press elsewhere close them, and the focus goes back to where it was.

import { find, h, icon } from "./dom.js";

/** @typedef {{icon: string, words: string, act: () => void, danger?: boolean}} Choice */

/**
 * Opens a box at an element; on a phone at the lower edge.
 * @param {HTMLElement} box
 * @param {Element} at
 * @param {HTMLElement | null} [focus] what gets the focus
 */
export function pop(box, at, focus) {
  box.classList.add("pop");
  box.setAttribute("popover", "auto");
  box.addEventListener("toggle", (event) => {
    // Taken out only afterwards, since the focus goes back first.
    if (/** @type {ToggleEvent} */ (event).newState === "closed") setTimeout(() => box.remove());
  });
  // Within the landmark that it belongs to.
  find("main", HTMLElement).append(box);
  const place = at.getBoundingClientRect();
  box.showPopover();
  const { width, height } = box.getBoundingClientRect();
  if (!matchMedia("(max-width: 799px)").matches) {
    const below = place.bottom + 4 + height <= innerHeight;
    box.style.left = `${Math.max(8, Math.min(place.right - width, innerWidth - width - 8))}px`;
    box.style.top = `${Math.max(8, below ? place.bottom + 4 : place.top - 4 - height)}px`;
  }
  focus?.focus();
}

/**
 * @param {string} label
 * @param {Choice[]} choices
 * @param {Element} at
 */
export function menu(label, choices, at) {
  const items = choices.map((choice) =>
    h(
      "button",
      {
        type: "button", role: "menuitem", tabindex: "-1", class: choice.danger ? "danger" : null,
        onclick: () => (box.hidePopover(), choice.act()),
      },
      icon(choice.icon), choice.words,
    ),
  );
  const box = h("div", { role: "menu", "aria-label": label }, ...items);
  box.addEventListener("keydown", (event) => {
    const now = items.findIndex((item) => item === document.activeElement);
    const next = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: -1 }[event.key];
    if (event.key === "Tab") box.hidePopover();
    else if (next !== undefined) items.at(next % items.length)?.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  pop(box, at, items[0]);
}

/**
 * A dialog that goes away when it is closed.
 * @param {string} title
 * @param {...(import("./dom.js").Child)} content
 */
export function dialog(title, ...content) {
  const box = h("dialog", { class: "dialog", "aria-labelledby": "dialog-title" }, h("div", { class: "stack" }, h("h2", { id: "dialog-title" }, title), ...content));
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
  return box;
}

/**
 * Asks whether something is really to be done. What does no harm has the focus, Escape means no, and
 * afterwards the focus is where it was.
 * @param {string} title the question
 * @param {string} words what would follow
 * @param {string} verb of the button that does it
 * @param {boolean} [danger] whether it takes something away
 * @returns {Promise<boolean>}
 */
export function agreed(title, words, verb, danger = true) {
  return new Promise((resolve) => {
    const before = document.activeElement;
    const no = h("button", { class: "button", type: "button", onclick: () => box.close() }, "Cancel");
    const yes = h("button", { class: `button ${danger ? "danger" : "primary"}`, type: "button", onclick: () => box.close("yes") }, verb);
    const box = dialog(title, h("p", { id: "dialog-words" }, words), h("div", { class: "actions" }, no, yes));
    box.setAttribute("role", "alertdialog");
    box.setAttribute("aria-describedby", "dialog-words");
    no.focus();
    box.addEventListener("close", () => {
      if (before instanceof HTMLElement) before.focus({ preventScroll: true });
      resolve(box.returnValue === "yes");
    });
  });
}
