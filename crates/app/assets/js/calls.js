// What an agent used for an answer: the calls of its tools, which fold out below it, with arguments,
// status and what came of each; and what it took.

import { h } from "./dom.js";
import { spent } from "./money.js";
import { room } from "./room.js";

/** JSON that is so short stands in one line. */
const ONE_LINE = 56;

/** @type {Record<ToolStatus, string>} */
const STATUS = { ok: "done", failed: "failed", timeout: "took too long", denied: "not allowed", unknown: "cut off: nobody knows whether it took effect" };

/**
 * Shows the calls of a run below its text, and keeps what is folded out as it is.
 * @param {HTMLElement} el the message's element
 * @param {ToolView[]} tools
 * @param {PastApproval[]} [approvals]
 * @param {Usage} [usage]
 * @param {boolean} [over] whether the run has ended
 */
export function showCalls(el, tools, approvals = [], usage, over = false) {
  const old = el.querySelector(".calls");
  if (!tools.length) return old?.remove();
  const fold = old ?? h("details", { class: "calls" }, h("summary"), h("ol"));
  const [summary, list] = fold.children;
  const how = (/** @type {ToolView} */ call) => outcome(call, approvals.find(({ call_id }) => call_id === call.call_id), over);
  summary?.replaceChildren(h("span", { class: "clip" }, line(tools, how, over)), h("span", {}, spent(usage)));
  list?.replaceChildren(...tools.map((call) => callLine(call, how(call), over)));
  if (!old) el.querySelector(".msg-body")?.after(fold);
}

/**
 * `Used http_request, calculator (2): 1 of 3 without success`, or of one call `restart: refused by Ana`.
 * @param {ToolView[]} tools
 * @param {(call: ToolView) => string} how
 * @param {boolean} over
 */
function line(tools, how, over) {
  const counts = new Map();
  for (const { tool } of tools) counts.set(tool, (counts.get(tool) ?? 0) + 1);
  if (!over && tools.some(({ status }) => !status)) return tools.length === 1 ? "1 call of a tool" : `${tools.length} calls of tools`;
  const names = [...counts].map(([name, count]) => (count > 1 ? `${name} (${count})` : name)).join(", ");
  const wrong = tools.filter(({ status }) => status !== "ok").length;
  if (wrong && tools[0] && tools.length === 1) return `${tools[0].tool}: ${how(tools[0])}`;
  return `Used ${names}${wrong ? `: ${wrong} of ${tools.length} without success` : ""}`;
}

/**
 * What became of a call: whose leave it had, and how it ended.
 * @param {ToolView} call
 * @param {PastApproval | undefined} approval
 * @param {boolean} over
 */
function outcome({ status }, approval, over) {
  const leave = decided(approval);
  // Without leave there was no call that could end.
  if (approval && approval.outcome !== "approved") return leave;
  return [leave, status ? STATUS[status] : over ? "not finished" : "under way"].filter(Boolean).join(", ");
}

/**
 * @param {ToolView} call
 * @param {string} how
 * @param {boolean} over
 */
function callLine({ tool, arguments: given, status, summary }, how, over) {
  return h(
    "li", { class: (status ?? (over ? "" : "ok")) === "ok" ? "call" : "call bad" },
    h("p", {}, h("code", {}, tool), " ", h("span", { class: "quiet" }, how)),
    given && given !== "{}" && h("pre", { role: "group", tabindex: "0", "aria-label": "Arguments" }, indent(given)),
    summary && h("p", { class: "raw" }, summary),
  );
}

/** @param {PastApproval | undefined} approval */
function decided(approval) {
  const by = approval?.by?.length ? ` by ${approval.by.map((id) => room.name({ kind: "user", id })).join(", ")}` : "";
  switch (approval?.outcome) {
    case "open":
      return "waits for approval";
    case "approved":
      return `allowed${by}`;
    case "denied":
      return `refused${by}`;
    case "expired":
      return "nobody decided in time";
  }
  return "";
}

/**
 * JSON over several lines. What stands in it is not read and written anew, which could change it: only
 * the space between its parts is.
 * @param {string} json
 */
export function indent(json) {
  if (json.length <= ONE_LINE) return json;
  let out = "";
  let depth = 0;
  const begin = () => `\n${"  ".repeat(depth)}`;
  for (const [part] of json.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s"{}[\],:]+/gs)) {
    if (part === "}" || part === "]") {
      depth = Math.max(0, depth - 1);
      out += /[{[]$/.test(out) ? part : begin() + part;
    } else {
      if (/[{[,]$/.test(out)) out += begin();
      out += part === ":" ? ": " : part;
      if (part === "{" || part === "[") depth += 1;
    }
  }
  // What is no JSON at all is shown as it is.
  return out.replace(/\s/g, "") === json.replace(/\s/g, "") ? out : json;
}
