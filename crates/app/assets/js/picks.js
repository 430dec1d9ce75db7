// Lists to tick people and agents in, as dialogs have them.

import { avatar, h } from "./dom.js";

/**
 * A line with a box, an avatar and a name.
 * @param {object} what
 * @param {string} what.name of the field
 * @param {string} what.id
 * @param {string} what.label
 * @param {boolean} what.agent
 * @param {boolean} what.checked
 * @param {boolean} [what.disabled]
 */
export function pick({ name, id, label, agent, checked, disabled }) {
  const box = h("input", { type: "checkbox", name, value: id });
  box.checked = checked;
  box.disabled = disabled ?? false;
  return h("label", { class: "check grow" }, box, avatar(agent, id, label), h("span", { class: "grow clip" }, label));
}
