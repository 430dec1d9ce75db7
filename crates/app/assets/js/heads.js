// The reader's groups as the App tells of them: how much is unread, what is muted. All tabs of a
// browser share one stream, since a browser opens only a few connections to one place: the tab that
// has the lock listens and tells the others.
//
// It tells the document too: `person` with whom and by which name when somebody is called something else,
// and `missed` when such words may have been lost.

import { load } from "./storage.js";

/** @type {Map<string, Group>} */
export const heads = new Map();
const FIRST_WAIT = 1_000;
const LONGEST_WAIT = 30_000;

/** How long a mention may be read where the reader is, before a notice tells of it. */
const NOTICED_AFTER = 2_000;

/**
 * Tells of a mention outside of the page, where the reader has asked for that and is elsewhere.
 * @param {Group} group as it stands now, before `heads` says so
 */
function noticed({ group_id, mentions }) {
  const before = heads.get(group_id)?.mentions ?? 0;
  if (mentions <= before || !load("notices")) return;
  setTimeout(() => {
    const group = heads.get(group_id);
    if (!group || group.mentions <= before || document.hasFocus()) return;
    try {
      const notice = new Notification(group.title, { body: "You were mentioned.", tag: group_id });
      notice.onclick = () => (focus(), location.assign(`/g/${group_id}`));
    } catch {
      // Some browsers have notices for installed pages only.
    }
  }, NOTICED_AFTER);
}

/**
 * @param {string} me
 * @param {(gone?: string) => void} changed
 */
export function listen(me, changed) {
  const name = `convene.groups.${me}`;
  const others = "BroadcastChannel" in globalThis ? new BroadcastChannel(name) : null;
  let wait = FIRST_WAIT;
  let leads = false;
  let opened = false;

  /**
   * @param {string} kind
   * @param {any} data
   */
  const take = (kind, data) => {
    if (kind === "person" || kind === "missed") return void document.dispatchEvent(new CustomEvent(kind, { detail: data }));
    if (kind === "groups") {
      heads.clear();
      for (const group of data.groups) heads.set(group.group_id, group);
    } else if (kind === "group") heads.set(data.group_id, data);
    else if (kind === "gone") heads.delete(data.group_id);
    changed(kind === "gone" ? data.group_id : undefined);
  };
  const open = () => {
    const source = new EventSource("/api/events");
    const tell = (/** @type {string} */ kind, /** @type {any} */ data) => {
      others?.postMessage({ kind, data });
      take(kind, data);
    };
    for (const kind of ["groups", "group", "gone", "person"]) {
      source.addEventListener(kind, (event) => {
        wait = FIRST_WAIT;
        const data = JSON.parse(event.data);
        if (kind === "group") noticed(data);
        tell(kind, data);
        if (kind !== "groups") return;
        if (opened) tell("missed", null);
        opened = true;
      });
    }
    source.addEventListener("error", () => {
      source.close();
      setTimeout(open, wait * (0.5 + Math.random() / 2));
      wait = Math.min(LONGEST_WAIT, wait * 2);
    });
  };
  if (!others || !navigator.locks) return open();
  others.addEventListener("message", ({ data: { kind, data } }) => {
    if (kind !== "ask") take(kind, data);
    else if (leads && heads.size) others.postMessage({ kind: "groups", data: { groups: [...heads.values()] } });
  });
  others.postMessage({ kind: "ask" });
  void navigator.locks.request(name, () => {
    leads = true;
    open();
    return new Promise(() => {});
  });
}
