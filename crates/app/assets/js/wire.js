// The shapes of the App's JSON, as types only, which every file knows: no page loads this one.

/**
 * @typedef {{kind: "user" | "agent", id: string}} Author
 * @typedef {"off" | "mention" | "auto" | "discussion"} Trigger
 * @typedef {{agent_id: string, name: string, trigger: Trigger}} Agent
 * @typedef {{user_id: string, name: string}} Person
 * @typedef {{user_id: string, name: string, email: string, role: string}} Member
 * @typedef {{org_id: string, name: string, role: string}} Org
 * @typedef {"active" | "archiving" | "archived" | "restoring"} GroupLife
 * @typedef {{group_id: string, org_id: string, title: string, is_private: boolean, created_at: number,
 *   status: GroupLife, status_at: number | null, head: number, nth: number,
 *   unread: number, mentions: number, muted: boolean, read_up_to: number, last_at: number | null}} Group
 *
 * @typedef {object} Message
 * @property {number} seq
 * @property {number} at epoch milliseconds
 * @property {string} message_id
 * @property {Author} author
 * @property {string} [run_id]
 * @property {string} [reply_to]
 * @property {string[]} [mentions]
 * @property {string} text
 * @property {string} [html] a sanitised fragment, safe to insert
 * @property {number} [edited_at]
 * @property {boolean} [deleted]
 * @property {Reactions[]} [reactions]
 *
 * @typedef {{emoji: string, count: number, authors: Author[]}} Reactions
 * @typedef {{message_id: string, seq: number, author: Author, text: string, deleted?: boolean}} Excerpt
 * @typedef {{seq: number, at: number, text: string}} Revision
 * @typedef {{message: Message, revisions: Revision[]}} Detail
 * @typedef {{message: Message, snippet: {text: string, hit?: boolean}[]}} Hit
 * @typedef {{message_id: string, message_seq: number, author: Author, at: number}} Pin
 *
 * @typedef {{input_tokens: number, output_tokens: number, cost_micro_usd?: number, excess_tokens?: number, tokens_unknown?: boolean}} Usage
 * @typedef {"completed" | "failed" | "cancelled" | "interrupted"} RunStatus
 *
 * @typedef {object} FinishedRun
 * @property {number} seq
 * @property {number} at
 * @property {string} run_id
 * @property {number} attempt
 * @property {string} agent_id
 * @property {string} trigger the message that woke the agent
 * @property {RunStatus} status
 * @property {string} [message_id]
 * @property {string} [code]
 * @property {string} [detail]
 * @property {Usage} [usage]
 * @property {ToolView[]} [tools]
 * @property {PastApproval[]} [approvals]
 *
 * @typedef {{messages: Message[], runs: FinishedRun[], answered?: Excerpt[], more_before: boolean, more_after?: boolean,
 *   head: number, history: string}} Page
 *
 * @typedef {"ok" | "failed" | "timeout" | "denied" | "unknown"} ToolStatus
 * @typedef {{call_id: string, tool: string, arguments: string, status?: ToolStatus, summary?: string}} ToolView `status` is absent while the call runs
 * @typedef {{run_id: string, agent_id: string, trigger: string, attempt: number, phase: "queued" | "thinking" | "writing" | "waiting",
 *   tools?: ToolView[]}} RunView
 *
 * @typedef {{kind: "initiator"} | {kind: "role", role: string} | {kind: "n_of_m", n: number, users: string[]}} Approvers
 * @typedef {{approval_id: string, run_id: string, agent_id: string, call_id: string, tool: string, arguments: string, hash: string,
 *   who: Approvers, initiator?: string, expires_at: number}} Approval
 * @typedef {Approval & {votes: string[]}} OpenApproval
 * @typedef {{call_id: string, outcome: "open" | "approved" | "denied" | "expired", by?: string[]}} PastApproval
 *
 * @typedef {{agent_id: string, outcome: "accepted", reason: string, run_id: string}
 *   | {agent_id: string, outcome: "suppressed", reason: string}} Candidate
 *
 * @typedef {{type: "event", seq: number, at: number}} EventBase
 * @typedef {EventBase & Message & {kind: "message.posted"}} Posted
 * @typedef {EventBase & {kind: "message.edited", message_id: string, author: Author, text: string, html?: string}} Edited
 * @typedef {EventBase & {kind: "message.deleted", message_id: string, author: Author}} Deleted
 * @typedef {EventBase & {kind: "message.pinned" | "message.unpinned", message_id: string, message_seq: number, author: Author}} Pinned
 * @typedef {EventBase & {kind: "reaction.added" | "reaction.removed", message_id: string, author: Author, emoji: string}} Reacted
 * @typedef {Edited | Deleted | Reacted} Change
 * @typedef {EventBase & {kind: "trigger.decided", message_id: string, candidates: Candidate[], by?: string}} Decided
 * @typedef {EventBase & {kind: "run.started", run_id: string, attempt: number, agent_id: string, trigger: string}} RunStarted
 * @typedef {EventBase & {kind: "run.streaming", run_id: string, attempt: number}} RunStreaming
 * @typedef {EventBase & FinishedRun & {kind: "run.finished"}} RunFinished
 * @typedef {EventBase & {kind: "tool.requested", run_id: string, attempt: number, said: string,
 *   calls: {call_id: string, tool: string, arguments: string, hash: string, approvers?: Approvers}[]}} ToolsRequested
 * @typedef {EventBase & {kind: "tool.started", run_id: string, attempt: number, call_id: string, tool: string, arguments: string}} ToolStarted
 * @typedef {EventBase & {kind: "tool.finished", run_id: string, attempt: number, call_id: string, status: ToolStatus, summary: string}} ToolFinished
 * @typedef {EventBase & Approval & {kind: "approval.requested"}} ApprovalRequested
 * @typedef {EventBase & {kind: "approval.voted", approval_id: string, run_id: string, user_id: string, missing: number}} ApprovalVoted
 * @typedef {EventBase & {kind: "approval.resolved", approval_id: string, run_id: string, decision: "approve" | "deny", user_id: string}} ApprovalResolved
 * @typedef {EventBase & {kind: "approval.expired", approval_id: string, run_id: string}} ApprovalExpired
 * @typedef {EventBase & {kind: "group.configured", version: number, agents: Agent[], paused?: boolean}} Configured
 * @typedef {EventBase & {kind: "group.activated" | "group.epoch_raised" | "group.adopted" | "group.frozen" | "group.thawed" | "group.restored" | "access.revoked"}} Other
 * @typedef {Posted | Change | Pinned | Decided | RunStarted | RunStreaming | RunFinished | ToolsRequested | ToolStarted | ToolFinished
 *   | ApprovalRequested | ApprovalVoted | ApprovalResolved | ApprovalExpired | Configured | Other} GroupEvent
 *
 * @typedef {{type: "delta", run_id: string, attempt: number, offset: number, text: string}} Delta
 * @typedef {{type: "attached", ref: string, seq: number, epoch: number, history: string,
 *   state: {version: number, agents: Agent[], paused: boolean, runs: RunView[], approvals: OpenApproval[], pins: Pin[], present: string[], present_count: number}}} Attached
 * @typedef {{type: "ok", ref: string, seq?: number, message_id?: string}} Ok
 * @typedef {{type: "error", ref?: string, code: string, detail?: string, retry_after_ms?: number, start?: number}} Refused
 * @typedef {{type: "reset", ref: string, seq: number, history: string}} Reset
 * @typedef {{type: "detached", reason: "requested" | "token_expired" | "revoked" | "epoch_raised" | "group_archived", user_id?: string}} Detached
 * @typedef {{type: "presence", joined?: string[], left?: string[], count: number}} Presence
 * @typedef {{type: "typing", user_id: string}} Typing
 * @typedef {GroupEvent | Delta | Presence | Typing | Attached | Ok | Refused | Reset | Detached} Frame
 *
 * @typedef {object} Bootstrap
 * @property {{id: string, name: string, email: string}} me
 * @property {Org} org
 * @property {Group} group
 * @property {Group[]} groups
 * @property {Person[]} members
 * @property {Agent[]} agents
 * @property {boolean} paused
 * @property {boolean} can_manage whether the reader may change the group
 * @property {Record<string, string>} former names of authors who have left, by id
 * @property {Page | null} page null when the history could not be read
 * @property {string} csrf
 * @property {string | null} target the message that the page was opened at
 */
