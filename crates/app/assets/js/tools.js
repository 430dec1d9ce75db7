// <convene-tools>: what can be done with a message. There is one of it, which goes to the message
// under the pointer, that has the focus, or that was tapped.

import { Problem, sentence } from "./api.js";
import { find, h, icon } from "./dom.js";
import { edit } from "./editor.js";
import { complain } from "./message.js";
import { pick } from "./picker.js";
import { agreed, dialog, menu } from "./popup.js";
import { seqOf } from "./quote.js";
import { isMine } from "./reactions.js";
import { room } from "./room.js";
import { full } from "./time.js";
import { explain } from "./why.js";

/** @typedef {import("./items.js").Item} Item */
/** @typedef {Item & {message: Message}} Told */

class Tools extends HTMLElement {
  /** @type {Told | undefined} */
  item;
  /** @type {(item: Told) => void} makes a message unread */
  unread = () => {};

  connectedCallback() {
    if (this.childElementCount) return;
    const tool = (/** @type {string} */ name, /** @type {string} */ label, /** @type {(at: HTMLElement) => void} */ act) =>
      h(
        "button",
        { class: "icon-button", type: "button", "aria-label": label, title: label, onclick: (/** @type {Event} */ e) => act(/** @type {HTMLElement} */ (e.currentTarget)) },
        icon(name),
      );
    const more = tool("more", "More", (at) => this.menu(at));
    more.setAttribute("aria-haspopup", "menu");
    this.append(
      tool("smile", "React", (at) => this.react(at)),
      tool("reply", "Reply", () => this.item && room.tell("answer", this.item.message)),
      more,
    );
    this.setAttribute("role", "group");
    this.setAttribute("aria-label", "What can be done with the message");
  }

  /** @param {Item | undefined} item */
  goTo(item) {
    if (item === this.item && this.isConnected) return;
    if (document.querySelector(".pop:popover-open")) return;
    if (this.contains(document.activeElement)) this.item?.el.focus({ preventScroll: true });
    this.remove();
    this.item = told(item);
    if (this.item && !room.readOnly) item?.el.append(this);
  }

  /** @param {Element} at */
  react(at) {
    const item = this.item;
    if (item) pick(at, (emoji) => void react(item, emoji, true));
  }

  /** @param {Element} at */
  menu(at) {
    const item = this.item;
    if (!item) return;
    const { message, el } = item;
    const mine = message.author.id === room.me.id;
    const pinned = room.isPinned(message.message_id);
    const choices = [
      { icon: "smile", words: "React…", act: () => this.react(at) },
      { icon: "reply", words: "Reply", act: () => room.tell("answer", message) },
      mine && { icon: "edit", words: "Edit", act: () => edit(item) },
      { icon: "pin", words: pinned ? "Take off the pins" : "Pin to the group", act: () => void command(el, { type: "pin", message_id: message.message_id, on: !pinned }) },
      { icon: "link", words: "Copy link", act: () => void copyLink(item) },
      { icon: "agent", words: el.dataset.trigger ? "How it came about" : "Who answers, and why", act: () => void explain(el.dataset.trigger ?? message.message_id) },
      { icon: "unread", words: "Mark unread from here", act: () => this.unread(item) },
      (mine || room.org.role === "owner" || room.org.role === "admin") && { icon: "remove", words: "Delete…", danger: true, act: () => void remove(item) },
    ];
    menu(`Message of ${room.name(message.author)}`, choices.filter((choice) => choice !== false), at);
  }
}

customElements.define("convene-tools", Tools);

/**
 * @param {Item | undefined} item
 * @returns {Told | undefined} the item, if there is something to be done with it
 */
const told = (item) => (item?.message && !item.message.deleted && !item.stream ? /** @type {Told} */ (item) : undefined);

/**
 * Gives a command about a message; a refusal is said below it.
 * @param {HTMLElement} el
 * @param {Record<string, unknown>} frame
 */
async function command(el, frame) {
  el.querySelector(".complaint")?.remove();
  try {
    await room.ask(frame);
  } catch (error) {
    complain(el, sentence(error), () => void command(el, frame));
  }
}

/**
 * @param {Told} item
 * @param {string} emoji
 * @param {boolean} on
 */
const react = (item, emoji, on) => command(item.el, { type: "react", message_id: item.message.message_id, emoji, on });

/** @param {Told} item */
async function remove({ el, message }) {
  const words = "Its text is erased for everybody, with its former versions. This cannot be undone.";
  const sure = await agreed("Delete this message?", words, "Delete the message");
  el.focus({ preventScroll: true });
  if (sure) await command(el, { type: "delete", message_id: message.message_id });
}

/** @param {Told} item */
async function copyLink({ el, message }) {
  const link = new URL(`${room.link}/m/${message.message_id}`, location.href).href;
  try {
    await navigator.clipboard.writeText(link);
    say("The link was copied.");
  } catch {
    // Without leave to use the clipboard the link is shown to be copied by hand.
    const field = h("input", { readonly: true, "aria-label": "Link" });
    field.value = link;
    const box = dialog("Link to the message", field, h("div", { class: "actions" }, h("button", { class: "button", type: "button", onclick: () => box.close() }, "Close")));
    box.addEventListener("close", () => el.focus({ preventScroll: true }));
    field.select();
  }
}

/** Says something that was done, for a moment. @param {string} words */
export function say(words) {
  document.querySelector(".toast")?.remove();
  const toast = h("div", { class: "toast", role: "status" }, words);
  find("main", HTMLElement).append(toast);
  setTimeout(() => toast.remove(), 3_000);
}

/** Shows the former versions of a message. @param {Told} item */
async function versions({ el, message }) {
  const list = h("ol", { class: "versions" }, h("li", { class: "quiet" }, "Loading…"));
  const close = h("button", { class: "button", type: "button", onclick: () => box.close() }, "Close");
  const box = dialog("Former versions", list, h("div", { class: "actions" }, close));
  box.addEventListener("close", () => el.focus({ preventScroll: true }));
  try {
    const { revisions } = await room.detail(message.message_id);
    const lines = revisions.map(({ at, text }) => h("li", {}, h("time", { class: "quiet", datetime: new Date(at).toISOString() }, full(at)), h("p", { class: "raw" }, text)));
    list.replaceChildren(...(lines.length ? lines : [h("li", { class: "quiet" }, "This group does not keep former versions.")]));
  } catch (error) {
    list.replaceChildren(h("li", { class: "note error", role: "alert" }, sentence(error)));
  }
}

/**
 * Goes to a message; what keeps it from being shown is said where it was asked for.
 * @param {string} id
 * @param {HTMLElement} link
 * @param {HTMLElement} el where it stands
 */
async function go(id, link, el) {
  el.querySelector(".complaint")?.remove();
  try {
    await room.go(id, Number(link.dataset.seq) || seqOf(id));
    const drawer = link.closest(":popover-open");
    if (drawer instanceof HTMLElement) drawer.hidePopover();
  } catch (error) {
    complain(el, error instanceof Problem && error.status === 404 ? "That message is not there any more." : sentence(error));
  }
}

/**
 * Lets the tools follow the reader through a list of messages.
 * @param {HTMLElement} list
 * @param {(el: Element) => Item | undefined} itemOf
 * @param {(item: Told) => void} unread
 */
export function follow(list, itemOf, unread) {
  const tools = new Tools();
  tools.unread = unread;
  const itemAt = (/** @type {EventTarget | null} */ target) => {
    const el = target instanceof Element ? target.closest(".msg") : null;
    return el ? itemOf(el) : undefined;
  };
  // Only where the mouse is moved: one that lies still disturbs nobody at the keyboard.
  list.addEventListener("pointermove", (event) => event.pointerType === "mouse" && tools.goTo(itemAt(event.target)));
  list.addEventListener("pointerleave", () => tools.goTo(itemAt(document.activeElement)));
  list.addEventListener("focusin", (event) => tools.goTo(itemAt(event.target)));
  /** @param {EventTarget | null} target */
  const open = (target) => {
    const item = itemAt(target);
    tools.goTo(item);
    if (item && tools.item === item && tools.isConnected) tools.menu(tools);
  };
  list.addEventListener("contextmenu", (event) => {
    // Mouse and finger keep the browser's menu, which copies text; the menu key has this one.
    if (/** @type {PointerEvent} */ (event).pointerType || !(event.target instanceof HTMLElement) || !event.target.matches(".msg")) return;
    event.preventDefault();
    open(event.target);
  });
  list.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.target instanceof HTMLElement) || !event.target.matches(".msg")) return;
    event.preventDefault();
    open(event.target);
  });
  list.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target.closest("button, a, summary, .msg") : null;
    const item = told(itemAt(target));
    if (!target || !item || room.readOnly) return;
    if (target instanceof HTMLElement && target.matches(".reaction")) {
      const emoji = target.dataset.emoji ?? "";
      void react(item, emoji, !isMine(item.message, emoji));
    } else if (target.matches(".edited")) void versions(item);
    else if (target.matches(".msg")) tools.goTo(item);
  });
  const ours = `${location.origin}${room.link}/m/`;
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a[href]") : null;
    if (!(link instanceof HTMLAnchorElement) || !link.href.startsWith(ours)) return;
    const el = link.closest(".msg, li");
    if (event.ctrlKey || event.metaKey || event.shiftKey || !(el instanceof HTMLElement)) return;
    event.preventDefault();
    void go(link.href.slice(ours.length), link, el);
  });
}
