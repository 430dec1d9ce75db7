// What stands where there is no conversation to show.

import { h } from "./dom.js";
import { room } from "./room.js";

/**
 * @param {"empty" | "skeleton" | "failed"} state
 * @returns {HTMLElement[]}
 */
export function words(state) {
  switch (state) {
    case "skeleton":
      return [h("p", {}, "Reading the conversation…")];
    case "failed":
      return [
        h("h2", {}, "The conversation cannot be read"),
        h("p", {}, room.refusal || "The connection is gone. It comes back by itself once there is one."),
        h("button", { class: "button", type: "button", onclick: () => location.reload() }, "Try again"),
      ];
    case "empty": {
      const agent = room.agents[0];
      const hint = agent ? `Write the first message. Mention @${agent.name} and it answers.` : "Write the first message.";
      return [h("h2", {}, "Nothing has been said yet"), h("p", {}, hint)];
    }
  }
}
