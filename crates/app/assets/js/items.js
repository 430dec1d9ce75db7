// The items of a conversation in their order, and how they are set: headers, days, the line at the
// first unread message. The same rules as `src/ui/timeline.rs`, in the reader's time zone.

import { avatar, h } from "./dom.js";
import { setTime } from "./message.js";
import { dayKey, dayName } from "./time.js";

/**
 * @typedef {object} Item
 * @property {string} key `m-` and the message's id, or `r-` and the run's
 * @property {Author} author
 * @property {number} at epoch milliseconds
 * @property {number} seq of the posting event; Infinity while there is none
 * @property {boolean} pending whether it is a message of the reader that is on its way
 * @property {HTMLElement} el
 * @property {Message} [message] absent for runs without a word and what waits
 * @property {number} [asOf] the last event that `message` has taken in
 * @property {string} [day]
 * @property {number} [headAt] when the message was posted that carries the header
 * @property {HTMLElement} [dayEl]
 * @property {import("./stream.js").Stream} [stream] while it is a run in progress
 */

/** How long a message goes on under the header of the one before it. */
const GROUP_MILLIS = 5 * 60 * 1000;

export class Items {
  /** @type {Item[]} */
  list = [];
  /** @type {Map<string, Item>} */
  #byKey = new Map();
  /** Messages above this number are unread; null while the reader keeps up. @type {number | null} */
  unreadAfter = null;
  #unreadEl = h("div", { class: "unread", role: "separator" }, "New");

  /**
   * @param {HTMLElement} root
   * @param {string} me
   */
  constructor(root, me) {
    this.root = root;
    this.me = me;
  }

  /** @param {string} key */
  get(key) {
    return this.#byKey.get(key);
  }

  /** @param {Item} item */
  has(item) {
    return this.list.includes(item);
  }

  get length() {
    return this.list.length;
  }

  /** The numbers of the first and the last message. */
  get range() {
    const seqs = this.list.map((item) => item.seq).filter(Number.isFinite);
    return { first: Math.min(...seqs), last: Math.max(0, ...seqs) };
  }

  /**
   * Takes over an item whose element is in its place already.
   * @param {Item} item
   */
  adopt(item) {
    this.list.push(item);
    this.#byKey.set(item.key, item);
    const before = item.el.previousElementSibling;
    if (before instanceof HTMLElement && before.classList.contains("day")) item.dayEl = before;
  }

  /**
   * Puts items before all others.
   * @param {Item[]} items oldest first
   */
  prepend(items) {
    this.list.unshift(...items);
    const elements = new DocumentFragment();
    for (const item of items) {
      this.#byKey.set(item.key, item);
      elements.append(item.el);
    }
    this.root.prepend(elements);
    this.set();
  }

  /**
   * Puts an item at the end; what waits to be sent and runs without a word yet stay below it.
   * @param {Item} item
   */
  append(item) {
    let index = this.list.length;
    while (index > 0) {
      const above = this.list[index - 1];
      const stays = above && (above.pending || (above.stream && !above.stream.said && !item.stream));
      if (!stays || item.pending) break;
      index -= 1;
    }
    const next = this.list[index];
    this.list.splice(index, 0, item);
    this.#byKey.set(item.key, item);
    this.root.insertBefore(item.el, next ? (next.dayEl ?? next.el) : null);
    this.set(index);
  }

  /** @param {Item} item */
  remove(item) {
    const index = this.list.indexOf(item);
    if (index < 0) return;
    this.list.splice(index, 1);
    this.#drop(item);
    this.set(index);
  }

  /**
   * Takes off the oldest (`count` positive) or the newest (`count` negative) items.
   * @param {number} count
   * @returns {Item[]} what was taken off
   */
  trim(count) {
    const gone = count > 0 ? this.list.splice(0, count) : this.list.splice(count);
    for (const item of gone) this.#drop(item);
    this.set();
    return gone;
  }

  clear() {
    this.list = [];
    this.#byKey.clear();
    this.root.replaceChildren();
  }

  /**
   * Gives an item another key, when a run becomes its message.
   * @param {Item} item
   * @param {string} key
   */
  rename(item, key) {
    this.#byKey.delete(item.key);
    item.key = item.el.id = key;
    this.#byKey.set(key, item);
  }

  /** @param {Item} item */
  #drop(item) {
    this.#byKey.delete(item.key);
    item.el.remove();
    item.dayEl?.remove();
    delete item.dayEl;
  }

  /**
   * Sets headers, days and the unread line from an index on.
   * @param {number} [from]
   */
  set(from = 0) {
    const unread = this.firstUnread();
    for (let index = from; index < this.list.length; index += 1) {
      const item = this.list[index];
      const before = this.list[index - 1];
      if (!item) break;
      item.day = dayKey(item.at);
      const newDay = before?.day !== item.day;
      const continued =
        !newDay && item !== unread && before?.author.id === item.author.id && !item.stream &&
        item.at - (before.headAt ?? before.at) <= GROUP_MILLIS;
      item.headAt = continued ? (before.headAt ?? before.at) : item.at;
      item.el.classList.toggle("cont", continued);
      if (newDay) {
        item.dayEl ??= h("div", { class: "day", role: "separator" }, h("time"));
        const time = item.dayEl.firstElementChild;
        if (time instanceof HTMLTimeElement && (time.dateTime !== item.day || time.textContent !== dayName(item.at))) {
          time.dateTime = item.day;
          time.textContent = dayName(item.at);
        }
        if (item.el.previousElementSibling !== item.dayEl) item.el.before(item.dayEl);
      } else if (item.dayEl) {
        item.dayEl.remove();
        delete item.dayEl;
      }
    }
    if (!unread) this.#unreadEl.remove();
    else if (unread.el.previousElementSibling !== this.#unreadEl) unread.el.before(this.#unreadEl);
  }

  /** The first message of others above the mark, if the reader has seen anything before it. */
  firstUnread() {
    const mark = this.unreadAfter;
    if (mark === null) return undefined;
    return this.list.find((item) => item.seq > mark && Number.isFinite(item.seq) && item.author.id !== this.me);
  }

  /**
   * Shows an author's name where another stood.
   * @param {(author: Author) => string} name
   */
  rechristen(name) {
    for (const item of this.list) {
      const place = item.el.querySelector(".msg-name");
      const right = name(item.author);
      if (!place || place.textContent === right) continue;
      place.textContent = right;
      const { kind, id } = item.author;
      item.el.querySelector(".avatar")?.replaceWith(avatar(kind === "agent", id, right));
      setTime(item.el, right, item.at);
    }
  }
}
