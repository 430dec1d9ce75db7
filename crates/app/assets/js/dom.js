// Small helpers to make elements, and the one place where HTML enters the document.

/** @typedef {Node | string | null | undefined | false} Child */

const trusted = /** @type {any} */ (globalThis).trustedTypes?.createPolicy("convene", {
  createHTML: (/** @type {string} */ html) => html,
});

/**
 * Makes an element. Keys that begin with `on` are listeners, other values become attributes;
 * `false`, `null` and `undefined` leave the attribute out, `true` sets it empty.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [props]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children) if (child) element.append(child);
  return element;
}

/**
 * Parses a fragment that the App has sanitised. Nothing else may be passed.
 * @param {string} html
 * @returns {DocumentFragment}
 */
export function fragment(html) {
  const template = document.createElement("template");
  template.innerHTML = trusted ? trusted.createHTML(html) : html;
  return template.content;
}

const sprite = new URL("../img/icons.svg", import.meta.url).pathname;
const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {string} name
 * @returns {SVGSVGElement}
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `${sprite}#${name}`);
  svg.append(use);
  return svg;
}

/**
 * Up to two letters that stand for a name; the same rule as `initials` of the templates.
 * @param {string} name
 */
export function initials(name) {
  const words = name.split(/\s+/).filter(Boolean);
  const first = [...(words[0] ?? "?")][0] ?? "?";
  const last = words.length > 1 ? ([...(words[words.length - 1] ?? "")][0] ?? "") : "";
  return (first + last).toUpperCase();
}

const utf8 = new TextEncoder();

/**
 * One of eight shades, from the id alone; the same rule as `shade` of the templates.
 * @param {string} id
 */
function shade(id) {
  let hash = 7;
  for (const byte of utf8.encode(id)) hash = (Math.imul(hash, 31) + byte) >>> 0;
  return hash % 8;
}

/**
 * A round avatar with initials for people, a square one with a glyph for agents.
 * @param {boolean} agent
 * @param {string} id
 * @param {string} name
 */
export function avatar(agent, id, name) {
  const classes = `avatar${agent ? " square" : ""} s${shade(id)}`;
  return h("span", { class: classes, "aria-hidden": "true" }, agent ? icon("agent") : initials(name));
}

/**
 * The element with that id, of that class; absent only if template and script do not fit.
 * @template {HTMLElement} T
 * @param {string} selector
 * @param {new () => T} type
 * @param {ParentNode} [root]
 * @returns {T}
 */
export function find(selector, type, root = document) {
  const element = root.querySelector(selector);
  if (!(element instanceof type)) throw new Error(`no ${selector} on this page`);
  return element;
}

/** @param {EventTarget | null} target */
export function isEditable(target) {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable || target.matches("input, textarea, select, [role=option]"))
  );
}
