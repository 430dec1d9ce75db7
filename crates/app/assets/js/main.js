// What every page has: the theme switch, dialogs and their keys.

import "./groups.js";
import "./keys.js";
import "./new-group.js";
import "./switcher.js";
import "./theme-switch.js";
import { initials } from "./dom.js";
import { forget } from "./storage.js";

/** @typedef {HTMLElement & {open(): void}} Openable */

document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("[data-open]") : null;
  if (!(button instanceof HTMLElement)) return;
  closeDrawers();
  const element = document.querySelector(`convene-${button.dataset.open}`);
  if (element) /** @type {Openable} */ (element).open();
});

function closeDrawers() {
  for (const drawer of document.querySelectorAll("[popover]:popover-open")) {
    if (drawer instanceof HTMLElement) drawer.hidePopover();
  }
}

// A drawer that is open while the window grows would stay above the column that it becomes.
for (const width of ["800px", "1100px"]) matchMedia(`(min-width: ${width})`).addEventListener("change", closeDrawers);

// Drafts and unsent messages are private: they leave with their owner.
document.addEventListener("submit", (event) => {
  if (event.target instanceof HTMLElement && event.target.dataset.forget !== undefined) forget();
});

// Whoever is called something else is so wherever the page names them.
document.addEventListener("person", (event) => {
  /** @type {Person} */
  const { user_id, name } = /** @type {CustomEvent} */ (event).detail;
  for (const place of document.querySelectorAll(`[data-person="${CSS.escape(user_id)}"]`)) {
    place.textContent = place.classList.contains("avatar") ? initials(name) : name;
  }
});

// What is cut off is told when the pointer rests on it.
document.addEventListener("pointerover", ({ target }) => {
  const cut = target instanceof Element && target.closest(".clip, .group-title, .nav .grow");
  if (cut instanceof HTMLElement && cut.scrollWidth > cut.clientWidth) cut.title = cut.textContent?.trim() ?? "";
});

// The workspace menu closes when the reader goes elsewhere.
const menu = document.querySelector(".workspace-menu");
if (menu instanceof HTMLDetailsElement) {
  document.addEventListener("click", (event) => {
    if (event.target instanceof Node && !menu.contains(event.target)) menu.open = false;
  });
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    menu.querySelector("summary")?.focus();
  });
}

if (/Mac|iPhone|iPad/.test(navigator.platform)) {
  for (const key of document.querySelectorAll("kbd")) {
    if (key.textContent?.includes("Ctrl")) key.textContent = key.textContent.replace("Ctrl", "⌘");
  }
}
