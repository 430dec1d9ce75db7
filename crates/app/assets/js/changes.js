// What becomes of a message after it was posted: edits, its deletion, reactions.

/** Authors whom a page of history names for one emoji; the count goes on beyond it. */
const MAX_LISTED = 100;

/**
 * @param {GroupEvent} event
 * @returns {event is Change}
 */
export const isChange = (event) =>
  event.kind === "message.edited" || event.kind === "message.deleted" ||
  event.kind === "reaction.added" || event.kind === "reaction.removed";

/**
 * Brings a message up to an event.
 * @param {Message} message
 * @param {Change} event
 */
export function apply(message, event) {
  switch (event.kind) {
    case "message.edited":
      message.text = event.text;
      message.edited_at = event.at;
      if (event.html === undefined) delete message.html;
      else message.html = event.html;
      return;
    case "message.deleted":
      message.text = "";
      message.deleted = true;
      delete message.html;
      delete message.edited_at;
      delete message.reactions;
      return;
    case "reaction.added":
    case "reaction.removed":
      return react(message, event);
  }
}

/**
 * @param {Message} message
 * @param {Reacted} event
 */
function react(message, event) {
  const all = (message.reactions ??= []);
  let one = all.find(({ emoji }) => emoji === event.emoji);
  if (event.kind === "reaction.added") {
    if (!one) all.push((one = { emoji: event.emoji, count: 0, authors: [] }));
    one.count += 1;
    if (one.authors.length < MAX_LISTED) one.authors.push(event.author);
  } else if (one) {
    one.count -= 1;
    one.authors = one.authors.filter(({ id }) => id !== event.author.id);
    if (one.count < 1) message.reactions = all.filter((other) => other !== one);
  }
}
