// <convene-timeline>: the conversation. It holds a window of at most MAX_ITEMS messages of the
// history, loads more at either end, follows the newest only while the reader is there, and keeps
// the reading position whatever is added or taken off elsewhere.
//
// The scroller is a reversed column: 0 is its lower end, and positions above are negative. What is
// added above therefore moves nothing; changes below the reader are evened out by `steady`.

import { sentence } from "./api.js";
import { apply } from "./changes.js";
import { find, fragment, h, icon } from "./dom.js";
import { edit, giveUp, goOn } from "./editor.js";
import { itemOf, itemOfRun, itemsOf } from "./item.js";
import { Items } from "./items.js";
import { complain, dress, fill, foot, note, unsent } from "./message.js";
import { learn, note as quoted } from "./quote.js";
import { room } from "./room.js";
import { Runs } from "./runs.js";
import { words } from "./states.js";
import { follow, say } from "./tools.js";

/** @typedef {import("./items.js").Item} Item */

/** Messages in the document at most, however long the history is. */
const MAX_ITEMS = 600;
/** How near the lower end counts as being there. */
const NEAR = 32;
/** How far ahead of the reader the next page is asked for. */
const AHEAD = "800px";
/** How long a page may take before a skeleton stands in for it. */
const SKELETON_AFTER = 200;
/** Messages older than this are caught up with in silence. */
const LATELY = 60_000;

class Timeline extends HTMLElement {
  inner = find(".timeline-inner", HTMLElement, this);
  top = find(".timeline-top", HTMLElement, this);
  list = find(".timeline-list", HTMLElement, this);
  pill = find("#pill", HTMLButtonElement);
  /** Parts of a pixel that the timeline is off its place. */
  owed = 0;
  announcer = find("#announce", HTMLElement);
  items = new Items(this.list, room.me.id);
  first = h("div", { class: "sentinel" });
  last = h("div", { class: "sentinel" });
  watcher = new IntersectionObserver((entries) => this.near(entries), { root: this, rootMargin: `${AHEAD} 0px` });
  runs = new Runs(this);
  moreBefore = false;
  moreAfter = false;
  /** @type {"before" | "after" | null} */
  loading = null;
  /** Messages of others that came while the reader was elsewhere. */
  unseen = 0;
  /** Whether the reader made messages unread and has not gone on since. */
  held = false;

  connectedCallback() {
    this.list.before(this.first);
    this.list.after(this.last);

    if (room.page) this.adopt(room.page);
    else this.state("skeleton");
    this.appendTail();

    room.on("event", (event) => this.event(event));
    room.on("delta", (delta) => this.runs.delta(delta));
    room.on("runs", (runs) => this.runs.inProgress(runs));
    room.on("unsent", (id) => this.unsent(id));
    room.on("reset", ({ page, lost }) => this.reset(page, lost));
    room.on("people", () => this.names());
    room.on("pins", () => this.pins());
    room.on("reading", () => this.read());
    room.on("state", () => this.connection());
    room.go = (id, seq) => this.go(id, seq);
    follow(this.list, (el) => this.items.get(el.id), (item) => void this.unread(item));
    document.addEventListener("edit-last", () => this.editLast());

    this.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.addEventListener("keydown", (event) => this.key(event));
    this.pill.addEventListener("click", () => void this.toEnd());
    document.addEventListener("visibilitychange", () => this.read());
    for (const kind of ["focus", "blur"]) addEventListener(kind, () => this.read());

    this.watcher.observe(this.first);
    this.watcher.observe(this.last);
  }

  /** @param {IntersectionObserverEntry[]} entries */
  near(entries) {
    for (const entry of entries) {
      if (entry.isIntersecting) void this.more(entry.target === this.first ? "before" : "after");
    }
  }

  // Where the reader is

  get atEnd() {
    return !this.moreAfter && Math.abs(this.scrollTop) < NEAR;
  }

  /**
   * Makes a change while what the reader looks at stays where it is.
   * @param {() => void} change
   */
  steady(change) {
    if (this.atEnd) return change();
    const edge = this.getBoundingClientRect().top;
    const anchor = this.items.list.find((item) => item.el.isConnected && item.el.getBoundingClientRect().bottom > edge)?.el;
    const before = anchor?.getBoundingClientRect().top ?? 0;
    change();
    if (!anchor?.isConnected) return;
    // Browsers round where they scroll to. What is lost by that is added the next time, so that many
    // changes move nothing either.
    const wanted = this.scrollTop + anchor.getBoundingClientRect().top - before + this.owed;
    this.scrollTop = wanted;
    this.owed = Math.abs(wanted - this.scrollTop) < 1 ? wanted - this.scrollTop : 0;
  }

  scrolled() {
    if (this.atEnd) this.read();
    this.showPill();
  }

  /** Says that the newest message was seen, if it was. */
  read() {
    const reading = this.atEnd && !this.held && !document.hidden && document.hasFocus();
    const root = document.documentElement;
    if (reading !== "reading" in root.dataset) {
      root.toggleAttribute("data-reading", reading);
      document.dispatchEvent(new Event("reading"));
    }
    if (!reading) return;
    this.unseen = 0;
    this.showPill();
    room.seen();
    if (location.pathname !== room.link && room.loaded) history.replaceState(null, "", room.link);
  }

  /** Makes a message and all after it unread. @param {Item} item */
  async unread(item) {
    try {
      await room.unsee(item.seq);
    } catch (error) {
      return complain(item.el, sentence(error), () => void this.unread(item));
    }
    this.held = true;
    this.items.unreadAfter = item.seq - 1;
    this.items.set();
    this.read();
    say("Marked as unread.");
  }

  /**
   * Shows a message, whatever part of the history is in view.
   * @param {string} id
   * @param {number} [seq]
   * @throws {Error} when it cannot be read
   */
  async go(id, seq) {
    if (!this.items.get(`m-${id}`)) {
      const around = seq ?? (await room.detail(id)).message.seq;
      this.show(await room.read({ around }));
    }
    const el = this.items.get(`m-${id}`)?.el;
    if (!el) throw new Error("That message is not there any more.");
    el.scrollIntoView({ block: "center" });
    el.focus({ preventScroll: true });
    el.classList.remove("found");
    // Reading the layout begins the animation anew.
    void el.offsetWidth;
    el.classList.add("found");
    this.scrolled();
  }

  /** Lets the reader edit the last message of their own that is in view. */
  editLast() {
    const mine = [...this.items.list].reverse().find(({ message, author }) => message && !message.deleted && author.id === room.me.id);
    if (mine) edit(mine);
  }

  showPill() {
    const far = this.moreAfter || this.scrollTop < -this.clientHeight;
    this.pill.hidden = this.unseen === 0 && !far;
    this.pill.classList.toggle("plain", this.unseen === 0);
    const text = this.unseen === 0 ? "Jump to latest" : this.unseen === 1 ? "1 new message" : `${this.unseen} new messages`;
    this.pill.replaceChildren(icon("down"), text);
  }

  /** Goes to the newest message. */
  async toEnd() {
    if (this.moreAfter) {
      try {
        await room.reload();
      } catch (error) {
        return this.fail("after", sentence(error));
      }
    }
    this.scrollTop = 0;
    this.held = false;
    this.read();
  }

  // Pages of history

  /**
   * Takes over the messages that came with the page.
   * @param {Page} page
   */
  adopt(page) {
    learn(page);
    if (room.readUpTo > 0 && room.readUpTo < page.head) this.items.unreadAfter = room.readUpTo;
    const messages = new Map(page.messages.map((message) => [`m-${message.message_id}`, message]));
    const runs = new Map(page.runs.map((run) => [run.message_id ? `m-${run.message_id}` : `r-${run.run_id}`, run]));
    for (const el of [...this.list.children]) {
      if (!(el instanceof HTMLElement) || !el.classList.contains("msg")) continue;
      const message = messages.get(el.id);
      const run = runs.get(el.id);
      if (message) {
        dress(el, message);
        this.items.adopt(itemOf(message, page.head, run, el));
      } else if (run) {
        this.items.adopt(itemOfRun(run, el));
      }
    }
    this.moreBefore = page.more_before;
    this.moreAfter = page.more_after ?? false;
    this.finishPage();
    goOn(this.items);
    if (room.target) {
      this.go(room.target).catch((error) => this.fail("after", sentence(error)));
      return;
    }
    const first = this.items.firstUnread();
    if (first && first.el.offsetTop < this.inner.offsetHeight - this.clientHeight) {
      // Of one that is taller than the view the beginning.
      first.el.scrollIntoView({ block: first.el.offsetHeight < this.clientHeight / 2 ? "center" : "start" });
    }
    this.read();
  }

  /**
   * @param {Page} page
   * @param {boolean} lost
   */
  reset(page, lost) {
    // After a loss the attach that follows brings the runs in progress, with their text so far.
    if (lost) this.runs.all.clear();
    this.show(page);
    this.scrollTop = 0;
    this.read();
  }

  /** Shows a page in the place of what is in view. @param {Page} page */
  show(page) {
    learn(page);
    this.items.clear();
    this.moreBefore = page.more_before;
    this.moreAfter = page.more_after ?? false;
    this.state(null);
    this.items.prepend(itemsOf(page, this.items));
    for (const run of page.runs) this.runs.all.delete(run.run_id);
    if (!this.moreAfter) this.catchUp(page);
    this.finishPage();
    goOn(this.items);
  }

  /** Adds what came since a page at the end was read, and what lies below it. @param {Page} page */
  catchUp(page) {
    for (const event of room.since(page.head)) {
      if (event.kind === "message.posted" && !this.items.get(`m-${event.message_id}`)) this.items.append(itemOf(event, room.seq));
    }
    this.appendTail();
  }

  /** Below the newest message: runs in progress, and what waits to be sent. */
  appendTail() {
    for (const run of this.runs.all.values()) if (!this.items.has(run)) this.items.append(run);
    for (const entry of room.outbox.entries.values()) this.unsent(entry.message_id);
  }

  /** What is said above the first message. */
  finishPage() {
    this.items.set();
    this.top.replaceChildren();
    if (!this.moreBefore && this.items.length) {
      this.top.append(h("div", { class: "beginning" }, h("p", {}, h("strong", {}, room.group.title), " begins here.")));
    }
    this.emptiness();
  }

  /** @param {"before" | "after"} where */
  async more(where) {
    if (this.loading || !(where === "before" ? this.moreBefore : this.moreAfter) || !this.items.length) return;
    this.loading = where;
    const bones = h("div", { class: "skeleton", "aria-hidden": "true" }, h("i"), h("i"), h("i"));
    const timer = setTimeout(() => {
      this.steady(() => (where === "before" ? this.top.replaceChildren(bones) : this.list.after(bones)));
    }, SKELETON_AFTER);
    try {
      const { first, last } = this.items.range;
      const page = await room.read(where === "before" ? { before: first } : { after: last });
      clearTimeout(timer);
      this.steady(() => {
        bones.remove();
        if (where === "before") this.older(page);
        else this.newer(page);
      });
    } catch (error) {
      clearTimeout(timer);
      bones.remove();
      this.fail(where, sentence(error));
      return;
    } finally {
      this.loading = null;
    }
    // What is still within reach, or came into it meanwhile, is not reported again by itself.
    for (const end of [this.first, this.last]) {
      this.watcher.unobserve(end);
      this.watcher.observe(end);
    }
  }

  /** @param {Page} page */
  older(page) {
    learn(page);
    this.moreBefore = page.more_before && page.messages.length > 0;
    this.items.prepend(itemsOf(page, this.items));
    const over = this.items.length - MAX_ITEMS;
    if (over > 0) {
      this.items.trim(-over);
      this.moreAfter = true;
    }
    this.finishPage();
  }

  /** @param {Page} page */
  newer(page) {
    learn(page);
    for (const item of itemsOf(page, this.items)) this.items.append(item);
    if (!page.more_after) {
      this.moreAfter = false;
      this.catchUp(page);
    }
    this.trimTop();
    goOn(this.items);
  }

  trimTop() {
    const over = this.items.length - MAX_ITEMS;
    if (over <= 0) return;
    this.items.trim(over);
    this.moreBefore = true;
    this.finishPage();
  }

  /**
   * @param {"before" | "after"} where
   * @param {string} text
   */
  fail(where, text) {
    const retry = h("button", { class: "link", type: "button" }, "Try again");
    const box = h("div", { class: "note error", role: "alert" }, h("span", {}, text), retry);
    retry.addEventListener("click", () => {
      box.remove();
      void (where === "before" ? this.more("before") : this.toEnd());
    });
    if (where === "before") this.top.replaceChildren(box);
    else this.list.after(box);
  }

  // What happens

  /** @param {GroupEvent} event */
  event(event) {
    switch (event.kind) {
      case "message.posted":
        return this.posted(event);
      case "message.edited":
      case "message.deleted":
      case "reaction.added":
      case "reaction.removed":
        return this.changed(event);
      case "trigger.decided":
      case "run.started":
      case "run.streaming":
      case "run.finished":
      case "tool.requested":
      case "tool.started":
      case "tool.finished":
      case "approval.requested":
      case "approval.voted":
      case "approval.resolved":
      case "approval.expired":
        return this.runs.event(event);
      case "message.pinned":
      case "message.unpinned":
      case "group.configured":
      case "group.activated":
      case "group.epoch_raised":
      case "group.adopted":
      case "group.frozen":
      case "group.thawed":
      case "group.restored":
      case "access.revoked":
        return;
    }
  }

  /** @param {Message} message */
  posted(message) {
    const mine = message.author.id === room.me.id;
    quoted(message);
    if (mine) {
      this.items.unreadAfter = null;
      this.held = false;
    } else this.arrived(message);
    const run = message.run_id ? this.runs.all.get(message.run_id) : undefined;
    const item = run ?? this.items.get(`m-${message.message_id}`);
    this.steady(() => {
      if (item?.stream && !this.items.has(item)) {
        // It lies below the window, and will come with its page.
      } else if (item?.stream) {
        // The run becomes its message: the text is replaced once, in place.
        this.items.rename(item, `m-${message.message_id}`);
        item.seq = item.asOf = message.seq;
        item.message = message;
        item.stream.whole();
        fill(item.el, message);
      } else if (item?.pending) {
        const had = item.el.contains(document.activeElement);
        this.items.remove(item);
        const sent = itemOf(message, message.seq);
        this.items.append(sent);
        if (had) sent.el.focus({ preventScroll: true });
      } else if (!item && !this.moreAfter) {
        this.items.append(itemOf(message, message.seq));
      }
      this.items.set();
    });
    if (this.atEnd) this.trimTop();
    this.emptiness();
    this.read();
    if (!mine && Date.now() - message.at < LATELY) this.announce(message);
  }

  /**
   * Counts a message of somebody else, if the reader is not looking.
   * @param {Message} message
   */
  arrived(message) {
    const looking = this.atEnd && !document.hidden && document.hasFocus();
    if (looking) return;
    if (this.unseen === 0 && !this.held) this.items.unreadAfter = message.seq - 1;
    this.unseen += 1;
    this.showPill();
  }

  /** @param {Change} event */
  changed(event) {
    const item = this.items.get(`m-${event.message_id}`);
    const message = item?.message;
    if (!item || !message || event.seq <= (item.asOf ?? 0)) return;
    apply(message, event);
    const reacted = event.kind === "reaction.added" || event.kind === "reaction.removed";
    this.steady(() => (reacted ? foot : fill)(item.el, message));
    if (!reacted) quoted(message);
    if (!message.deleted) return;
    giveUp(item);
    const tools = item.el.querySelector("convene-tools");
    if (tools?.contains(document.activeElement)) item.el.focus({ preventScroll: true });
    tools?.remove();
  }

  /** Says again who is who. */
  names() {
    this.steady(() => {
      this.items.rechristen((author) => room.name(author));
      for (const { el, message } of this.items.list) if (message?.reactions?.length) foot(el, message);
    });
  }

  /** Says at each message whether it is pinned. */
  pins() {
    this.steady(() => {
      for (const { el, message } of this.items.list) {
        const marked = el.querySelector(".pinned") !== null;
        if (message && marked !== (room.isPinned(message.message_id) && !message.deleted)) foot(el, message);
      }
    });
  }

  /**
   * Shows a message of the reader as it stands in the outbox, or takes it away.
   * @param {string} id
   */
  unsent(id) {
    const entry = room.outbox.entries.get(id);
    const item = this.items.get(`m-${id}`);
    if (!entry) {
      if (item?.pending) {
        if (item.el.contains(document.activeElement)) find("#composer-text", HTMLElement).focus({ preventScroll: true });
        this.steady(() => this.items.remove(item));
      }
      return this.emptiness();
    }
    if (this.moreAfter) return void (item ?? this.toEnd());
    const el = item?.el ?? unsent(entry);
    if (!item) {
      this.items.append({
        key: `m-${id}`, author: { kind: "user", id: room.me.id }, at: entry.at, seq: Infinity, pending: true, el,
      });
      this.scrollTop = 0;
    }
    note(el, entry);
    this.emptiness();
  }

  /** Waiting messages say what they wait for. */
  connection() {
    for (const entry of room.outbox.entries.values()) {
      const item = this.items.get(`m-${entry.message_id}`);
      if (item?.pending) note(item.el, entry);
    }
    if (room.state === "live" || room.state === "archived") this.read();
    if (!room.loaded && (room.state === "refused" || room.state === "held" || room.state === "offline")) this.state("failed");
  }

  /** Says a finished message to those who listen. @param {Message} message */
  announce(message) {
    const text = message.html === undefined ? message.text : fragment(message.html).textContent;
    this.say(`${room.name(message.author)}: ${text?.slice(0, 300)}`);
  }

  /** Says something to those who listen. @param {string} words */
  say(words) {
    this.announcer.textContent = words;
  }

  // States of the whole

  emptiness() {
    const empty = room.loaded && this.items.length === 0 && !this.moreBefore;
    this.state(empty ? "empty" : null);
  }

  /** @param {"empty" | "skeleton" | "failed" | null} state */
  state(state) {
    const old = this.inner.querySelector(".timeline-state");
    if (old?.getAttribute("data-state") === state) return;
    old?.remove();
    if (!state) return;
    this.inner.append(h("div", { class: "timeline-state", "data-state": state }, ...words(state)));
  }

  // Keys

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "End") {
      event.preventDefault();
      void this.toEnd();
      return;
    }
    const step = event.key === "ArrowUp" ? -1 : event.key === "ArrowDown" ? 1 : 0;
    if (!step || (event.target instanceof Element && event.target.matches("button, summary, a"))) return;
    event.preventDefault();
    const current = this.items.list.findIndex((item) => item.el === document.activeElement);
    const index = current < 0 ? this.items.length - 1 : current + step;
    const next = this.items.list[Math.max(0, Math.min(index, this.items.length - 1))]?.el;
    next?.focus({ preventScroll: true });
    next?.scrollIntoView({ block: "nearest" });
  }
}

customElements.define("convene-timeline", Timeline);
