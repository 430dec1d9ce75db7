// What the browser remembers: theme, drafts, unsent messages, how far somebody has read.
// Storage may be full, blocked or absent; then things are forgotten, and nothing else breaks.

const PREFIX = "convene.";

/**
 * @param {string} key
 * @returns {any} undefined when there is nothing that can be read
 */
export function load(key) {
  try {
    const text = localStorage.getItem(PREFIX + key);
    return text === null ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * Keeps a value; `undefined` removes it.
 * @param {string} key
 * @param {any} value
 */
export function save(key, value) {
  try {
    if (value === undefined) localStorage.removeItem(PREFIX + key);
    else localStorage.setItem(PREFIX + key, JSON.stringify(value));
  } catch {
    // Forgotten, as said above.
  }
}

/**
 * The keys that begin with `prefix`.
 * @param {string} prefix
 * @returns {string[]}
 */
export function keys(prefix) {
  try {
    return Object.keys(localStorage)
      .filter((key) => key.startsWith(PREFIX + prefix))
      .map((key) => key.slice(PREFIX.length));
  } catch {
    return [];
  }
}

/** Forgets everything but the theme; for signing out. */
export function forget() {
  for (const key of keys("")) if (key !== "theme") save(key, undefined);
}
