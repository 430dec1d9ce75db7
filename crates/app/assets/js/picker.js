// The box that a reaction is chosen in: a row of common ones, and a field for any other, by itself or by name.

import { h } from "./dom.js";
import { pop } from "./popup.js";

/** Emoji with the name that is shown, and others that people type; the first seven stand ready. */
const KNOWN = [
  ["👍", "thumbs up", "+1 yes"], ["❤️", "heart", "love"], ["😄", "laughing", "smile happy"], ["🎉", "party", "tada hooray"],
  ["👀", "eyes", "look"], ["✅", "done", "check yes"], ["🙏", "thanks", "pray please"],
  ["👎", "thumbs down", "-1 no"], ["😂", "joy", "tears lol"], ["🤔", "thinking", "hmm"], ["🚀", "rocket", "ship"], ["🔥", "fire", "hot"],
  ["💯", "hundred", "100"], ["👏", "clapping", "applause bravo"], ["🙌", "raised hands", "hooray"], ["💪", "strong", "muscle"],
  ["😢", "crying", "sad"], ["😮", "surprised", "wow"], ["😍", "in love", "hearts"], ["😅", "phew", "sweat"], ["😉", "wink", ""],
  ["🙂", "smiling", ""], ["😎", "cool", "sunglasses"], ["😕", "confused", ""], ["😡", "angry", ""], ["🤷", "shrug", ""],
  ["🤝", "handshake", "deal"], ["👋", "waving", "hello bye"], ["👌", "ok", "fine"], ["⭐", "star", ""], ["💡", "idea", "bulb"],
  ["❓", "question", ""], ["❗", "important", "exclamation"], ["⚠️", "warning", ""], ["❌", "cross", "no x"], ["⏳", "waiting", "hourglass"],
  ["🐛", "bug", ""], ["🔒", "locked", ""], ["📈", "growth", "chart up"], ["📉", "decline", "chart down"], ["☕", "coffee", "break"],
  ["🎂", "birthday", "cake"], ["🏆", "trophy", "win"], ["✨", "sparkles", "new"], ["💔", "broken heart", ""], ["🌱", "seedling", "plant"],
];
const READY = 7;
const EMOJI = /\p{Emoji_Presentation}|\p{Extended_Pictographic}|\p{Regional_Indicator}|\u20e3/u;

/** Those of which a name, or a word of one, begins like that. @param {string} typed */
function named(typed) {
  const words = typed.toLowerCase().replaceAll(":", "").replaceAll("_", " ").trim();
  return KNOWN.filter(([, name = "", others = ""]) => name.startsWith(words) || `${name} ${others}`.split(" ").some((word) => word.startsWith(words)));
}

/**
 * @param {Element} at
 * @param {(emoji: string) => void} choose
 */
export function pick(at, choose) {
  const take = (/** @type {string} */ emoji) => (box.hidePopover(), choose(emoji));
  const row = h("div", { class: "emojis" });
  const offer = (/** @type {string[][]} */ found) =>
    row.replaceChildren(
      ...found.slice(0, READY).map(([emoji = "", name]) =>
        h("button", { type: "button", class: "emoji", "aria-label": name, title: name, onclick: () => take(emoji) }, emoji),
      ),
    );
  offer(KNOWN);
  const none = h("p", { class: "quiet", role: "status" });
  const field = h("input", { "aria-label": "Another emoji", placeholder: "Another emoji, or its name", autocomplete: "off", maxlength: "40" });
  field.addEventListener("input", () => {
    const found = EMOJI.test(field.value) ? KNOWN : named(field.value);
    none.textContent = found.length ? "" : "No emoji is called that here.";
    offer(found);
  });
  const form = h("form", { class: "line" }, field, h("button", { class: "button" }, "React"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const typed = field.value.trim();
    const emoji = EMOJI.test(typed) ? typed : named(typed)[0]?.[0];
    if (typed && emoji) take(emoji);
  });
  const box = h("div", { role: "dialog", "aria-label": "React", class: "picker" }, row, form, none);
  pop(box, at, /** @type {HTMLElement | null} */ (row.firstElementChild));
}
