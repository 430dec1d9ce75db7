// Calls of the App's JSON API: CSRF proof on what changes something, problems as errors.

const csrf = document.querySelector('meta[name="csrf-token"]')?.getAttribute("content") ?? "";

/** An error that the App explained, or that kept its answer from arriving (`code` `unreachable`). */
export class Problem extends Error {
  /**
   * @param {number} status 0 when there was no answer
   * @param {string} code
   * @param {string} message a sentence for people
   * @param {any} [figures] what else the App said, by name
   */
  constructor(status, code, message, figures = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.figures = figures;
    /** Which field of a form it is about. @type {string | undefined} */
    this.field = figures.field;
  }
}

/**
 * @param {string} method
 * @param {string} path
 * @param {any} [body] sent as JSON
 * @returns {Promise<any>} the answer's JSON, or null when it has none
 * @throws {Problem}
 */
export async function call(method, path, body) {
  /** @type {Record<string, string>} */
  const headers = { accept: "application/json" };
  if (method !== "GET") headers["x-csrf-token"] = csrf;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  let text;
  try {
    response = await fetch(path, {
      method,
      headers,
      credentials: "same-origin",
      body: body === undefined ? null : JSON.stringify(body),
    });
    text = await response.text();
  } catch {
    throw new Problem(0, "unreachable", "Convene cannot be reached. Check the connection and try again.");
  }
  const json = parse(text);
  if (!response.ok) {
    const sentence = json?.detail ?? json?.title ?? `The request failed (${response.status}).`;
    throw new Problem(response.status, json?.code ?? "unknown", sentence, json ?? {});
  }
  return json;
}

/** @param {string} text */
function parse(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}

/** What a thrown thing says to people. @param {unknown} error */
export const sentence = (error) => (error instanceof Error ? error.message : "Something failed.");
