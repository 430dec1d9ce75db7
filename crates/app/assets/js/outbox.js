// Messages that were written and are not known to be in the group yet. Each is kept under its own
// key, so that tabs of the same group do not overwrite each other; sending one twice is harmless,
// since the group knows a message by its id.

import { keys, load, save } from "./storage.js";

/**
 * @typedef {object} Unsent
 * @property {string} message_id
 * @property {string} text
 * @property {string[]} [mentions]
 * @property {string} [reply_to]
 * @property {number} at epoch milliseconds
 * @property {string} [problem] why the group refused it, as a sentence
 */

export class Outbox {
  /** @type {Map<string, Unsent>} in the order of writing */
  entries = new Map();

  /**
   * @param {string} user
   * @param {string} group
   */
  constructor(user, group) {
    this.prefix = `out.${user}.${group}.`;
    const stored = keys(this.prefix).map((key) => /** @type {Unsent} */ (load(key)));
    for (const entry of stored.filter((entry) => entry?.message_id).sort((a, b) => a.at - b.at)) {
      this.entries.set(entry.message_id, entry);
    }
  }

  /** @param {Unsent} entry */
  put(entry) {
    this.entries.set(entry.message_id, entry);
    save(this.prefix + entry.message_id, entry);
  }

  /**
   * @param {string} messageId
   * @returns {boolean} whether it was there
   */
  remove(messageId) {
    save(this.prefix + messageId, undefined);
    return this.entries.delete(messageId);
  }
}
