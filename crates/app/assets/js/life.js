// <convene-life>: the bar below the conversation of a group that is archived, or on its way into the
// archive or back: why nothing can be written, and the one way back. Also the dialogs that put a
// group away or delete it.

import { call, Problem, sentence } from "./api.js";
import { find, h, icon } from "./dom.js";
import { heads } from "./heads.js";
import { dialog } from "./popup.js";
import { room } from "./room.js";
import { dayName } from "./time.js";

/** How often it is asked how a task stands. */
const ASK_EVERY = 1_000;
const manages = () => room.org.role !== "member";

class Life extends HTMLElement {
  #problem = h("p", { class: "bad", role: "alert" });
  /** Whether the reader's own call is on its way. */
  #busy = false;
  #asking = 0;

  connectedCallback() {
    room.on("life", () => this.show());
    // The list of groups hears where each of them stands.
    document.addEventListener("heads", () => this.heard());
    this.show();
    this.heard();
  }

  heard() {
    const head = heads.get(room.group.group_id);
    if (head) room.stands(head.status, head.status_at);
    // Without a connection only the list tells that it is gone.
    else if (heads.size && room.readOnly && !room.gone) void room.whyRefused();
  }

  show() {
    const { status, status_at: at } = room.group;
    const active = status === "active" && !room.gone;
    const had = this.contains(document.activeElement);
    this.hidden = active;
    find("convene-composer", HTMLElement).hidden = !active;
    const search = find('[data-open="search"]', HTMLButtonElement);
    search.disabled = !active;
    search.title = active ? "Search (/)" : "An archived group cannot be searched";
    if (active) {
      this.#problem.textContent = "";
      if (had) find("#composer-text", HTMLTextAreaElement).focus();
      return;
    }
    if (room.gone) {
      const leave = h("a", { class: "button", href: `/o/${room.group.org_id}` }, "Leave");
      return this.replaceChildren(icon("remove"), h("span", { class: "grow", role: "alert" }, room.refusal), leave);
    }
    const words = {
      archiving: "This group is on its way into the archive.",
      archived: `This group was archived${at ? ` ${when(at)}` : ""}. It can be read${manages() ? "" : "; an owner or admin of the workspace can restore it"}.`,
      restoring: "This group is on its way back from the archive.",
      active: "",
    }[status];
    const restore = h("button", { class: "button", type: "button", disabled: this.#busy, onclick: () => void this.restore() }, this.#busy ? "Restoring…" : "Restore");
    const ways = manages() ? [h("button", { class: "link", type: "button", onclick: () => remove() }, "Delete…"), restore] : [];
    const end = status === "archived" ? ways : [h("progress", { "aria-label": "How far it is" })];
    this.replaceChildren(icon("archive"), h("span", { class: "grow", role: "status" }, words), ...end, this.#problem);
    if (had) restore.focus();
    if (status !== "archived" && !this.#asking) this.#asking = setTimeout(() => void this.ask(), ASK_EVERY);
  }

  async restore() {
    this.#busy = true;
    this.#problem.textContent = "";
    this.show();
    try {
      const { status } = await call("POST", `${room.path}/restore`);
      room.stands(status, Date.now());
    } catch (error) {
      const full = error instanceof Problem && error.code === "active_group_limit_exceeded";
      const list = h("a", { href: `/o/${room.group.org_id}?status=active` }, "Show the groups in use");
      this.#problem.replaceChildren(explain(error), ...(full ? [" ", list] : []));
    }
    this.#busy = false;
    this.show();
  }

  /** Asks how it stands until the group is at rest. */
  async ask() {
    try {
      const { status, status_at, task_id } = await call("GET", room.path);
      room.stands(status, status_at);
      const task = task_id && (await call("GET", `${room.path}/tasks/${task_id}`));
      const bar = this.querySelector("progress");
      if (task?.total > 0 && bar) [bar.max, bar.value] = [task.total, task.done];
      if (task?.problem) this.#problem.textContent = explain(task.problem);
    } catch {
      // It is asked again.
    }
    this.#asking = 0;
    const { status } = room.group;
    if (status === "archiving" || status === "restoring") this.#asking = setTimeout(() => void this.ask(), ASK_EVERY);
  }
}

customElements.define("convene-life", Life);

/** `today`, or `on Friday, 20 November 2026`. @param {number} at epoch milliseconds */
function when(at) {
  const day = dayName(at);
  return day.includes(" ") ? `on ${day}` : day.toLowerCase();
}

/**
 * Why a step of a group's life was refused, and what to do.
 * @param {any} error a problem, thrown or as a document
 */
function explain(error) {
  switch (error.code) {
    case "active_group_limit_exceeded": {
      const { limit, active } = error instanceof Problem ? error.figures : error;
      return `The workspace has ${active} of ${limit} groups in use. Archive or delete another one first, or ask your operator for a higher limit.`;
    }
    case "snapshot_corrupt":
      return "The snapshot of this group does not pass its checks, so nothing was changed. An operator has to look at it.";
    case "archive_store_unavailable":
      return "The archive cannot be reached at the moment. Nothing was changed; try again shortly.";
    case "snapshot_too_large":
      return "This group is larger than what may be archived. It stays as it is.";
    default:
      return error instanceof Error ? sentence(error) : (error.detail ?? error.title);
  }
}

/**
 * A dialog whose one button makes a call and says what came of it.
 * @param {string} title
 * @param {string} verb
 * @param {string} busy
 * @param {() => Promise<void>} act
 * @param {...import("./dom.js").Child} content
 */
function step(title, verb, busy, act, ...content) {
  const problem = h("p", { class: "note error", role: "alert", hidden: true });
  const no = h("button", { class: "button", type: "button", onclick: () => box.close() }, "Cancel");
  const yes = h("button", { class: "button danger", type: "button" }, verb);
  yes.addEventListener("click", async () => {
    [yes.disabled, no.disabled, problem.hidden] = [true, true, true];
    yes.textContent = busy;
    try {
      await act();
      box.close();
    } catch (error) {
      problem.textContent = explain(error);
      problem.hidden = false;
      yes.textContent = "Try again";
    }
    yes.disabled = no.disabled = false;
    if (box.open) yes.focus();
  });
  const box = dialog(title, ...content, problem, h("div", { class: "actions" }, no, yes));
  no.focus();
  return yes;
}

/** Asks whether the group is to be archived. */
export function archive() {
  const act = async () => {
    const { status } = await call("POST", `${room.path}/archive`);
    room.stands(status, Date.now());
  };
  step(
    "Archive this group?", "Archive the group", "Archiving…", act,
    h("p", {}, "Nobody can write in it until it is restored, and agents that are at work are stopped. What was said stays readable."),
  );
}

/** Asks whether the group is to be deleted; its title has to be written for that. */
export function remove() {
  const { title } = room.group;
  const field = h("input", { id: "delete-title", autocomplete: "off" });
  const act = async () => {
    await call("DELETE", room.path);
    location.assign(`/o/${room.group.org_id}`);
  };
  const yes = step(
    "Delete this group?", "Delete for good", "Deleting…", act,
    h("p", {}, "All of its messages are erased for everybody, in the archive too. This cannot be undone."),
    h("div", { class: "field" }, h("label", { for: "delete-title" }, "Write ", h("strong", {}, title), " to confirm"), field),
  );
  const check = () => (yes.disabled = field.value.trim() !== title);
  field.addEventListener("input", check);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !yes.disabled) yes.click();
  });
  check();
  field.focus();
}
