//! Every limit of the protocol, by name. Each is checked at the edge where the value enters and is
//! listed in the operations guide.

use std::time::Duration;

/// Characters in an id.
pub const MAX_ID_LEN: usize = 64;
/// Bytes of a message's text (UTF-8).
pub const MAX_TEXT_BYTES: usize = 32 * 1024;
/// Bytes of one frame from a client or an upstream.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;
/// Bytes of an HTTP request's body, unless a route says less.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// Bytes of a request to the Agents Worker: a whole context, each byte of which JSON may have to
/// escape as six, and a continuation.
pub const MAX_INVOKE_BYTES: usize = 1024 * 1024;
/// Bytes of a reaction's emoji (UTF-8): one emoji, with its modifiers.
pub const MAX_EMOJI_BYTES: usize = 64;
/// Different emojis on one message.
pub const MAX_EMOJIS_PER_MESSAGE: usize = 20;
/// Authors whom a page of history names for one emoji on one message; the count goes on beyond it.
pub const MAX_REACTORS_LISTED: usize = 100;
/// Pinned messages of one group.
pub const MAX_PINS: usize = 50;
/// Former versions of one message that can be read; the oldest ones are left out beyond it.
pub const MAX_REVISIONS_LISTED: usize = 50;
/// Users whom `attached` names as present; the count goes on beyond it.
pub const MAX_PRESENT_LISTED: usize = 200;
/// How long changes of presence are gathered before they are sent as one frame.
pub const PRESENCE_PAUSE: Duration = Duration::from_secs(1);
/// How long a user whose last connection ended still counts as present, so that a reconnect is not
/// seen by everybody.
pub const PRESENCE_GRACE: Duration = Duration::from_secs(10);
/// How long `typing` holds.
pub const TYPING_TTL: Duration = Duration::from_secs(6);
/// A user's `typing` is passed on at most this often.
pub const TYPING_PAUSE: Duration = Duration::from_secs(2);
/// Characters of a search query.
pub const MAX_QUERY_CHARS: usize = 200;
/// Words of a search query.
pub const MAX_QUERY_WORDS: usize = 16;
/// Hits in one page of search results at most.
pub const MAX_HITS: usize = 50;
/// Hits in one page of search results when nothing is said.
pub const DEFAULT_HITS: usize = 20;
/// Characters of a message's excerpt, where another message answers it.
pub const EXCERPT_CHARS: usize = 200;
/// Mentions in one message.
pub const MAX_MENTIONS: usize = 20;
/// Agents in one group.
pub const MAX_AGENTS_PER_GROUP: usize = 32;
/// Characters of a display name (a person's, an agent's, a workspace's).
pub const MAX_NAME_CHARS: usize = 60;
/// Characters of a group's title.
pub const MAX_TITLE_CHARS: usize = 120;
/// Messages in one page of history at most.
pub const MAX_PAGE: usize = 200;
/// Messages in one page of history when nothing is said.
pub const DEFAULT_PAGE: usize = 50;
/// Events replayed to one connection at an attach; beyond it the answer is `too_old`.
pub const MAX_REPLAY_EVENTS: u64 = 1000;
/// Connections of one upstream.
pub const MAX_CONNS_PER_UPSTREAM: usize = 10_000;
/// Upstreams of one group.
pub const MAX_UPSTREAMS_PER_GROUP: usize = 64;
/// Runs that work at the same time in one group; later ones queue.
pub const MAX_RUNS_AT_ONCE: usize = 4;
/// Runs that wait in one group; a trigger beyond it is suppressed as `queue_full`.
pub const MAX_QUEUED_RUNS: usize = 64;
/// Attempts of one run.
pub const MAX_ATTEMPTS: u32 = 3;
/// Bytes of an agent's reply; a longer one ends the run as failed with `reply_too_long`.
pub const MAX_REPLY_BYTES: usize = 64 * 1024;
/// Bytes of a reply at which its text so far is stored first; from then on each time it has doubled.
pub const CHECKPOINT_BYTES: usize = 2 * 1024;
/// How long after a reply's first text that is stored at the latest, if more text comes; from then on
/// each time four times as long has passed.
pub const CHECKPOINT_AFTER: Duration = Duration::from_secs(8);
/// How often the text so far of one reply is stored at most: with the events around it that makes at
/// most five writes for the first thousand tokens, and one for each doubling after that.
pub const MAX_CHECKPOINTS: u32 = 6;
/// How far agents may answer each other after a human message.
pub const MAX_ROUNDS: u32 = 2;
/// How long an agent that ran in a group is not woken there by anything but a human's mention.
pub const AGENT_COOLDOWN: Duration = Duration::from_secs(15);
/// How far a group's own setting may let agents answer each other.
pub const MAX_ROUNDS_SETTING: u32 = 8;
/// What a group's own setting of the cooldown may be, in seconds.
pub const COOLDOWN_SETTING_SECS: std::ops::RangeInclusive<u64> = 1..=3600;
/// Runs that agents may wake along one chain of messages, until a person lets it go on.
pub const MAX_CHAIN_RUNS: u32 = 64;
/// Messages older than those that a model is shown that are kept for runs which may be retried.
pub const MAX_RETRYABLE: usize = 8;
/// How long a run may take in all before it ends as failed with `timeout`.
pub const RUN_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Tokens that a run may use, in all its rounds and attempts: a question that does not fit into what is left
/// of them is not asked, and the run fails with `tokens_used_up`; the answer to one that fits is limited to
/// the rest. Where the organization has a budget a run reserves them before it starts, and anew after an
/// attempt that was cut off, since nobody knows what that one used.
pub const RUN_TOKENS: u64 = 200_000;
/// How long triggers are suppressed after a run found no budget.
pub const EXHAUSTED_FOR: Duration = Duration::from_secs(60);
/// How long an agent's own process may take to take a run on before the run ends as failed. One that is
/// not connected has it anew when it comes.
pub const OUTSIDE_CLAIM_WITHIN: Duration = Duration::from_secs(20);
/// Frames about runs that the processes of one agent may send in a minute, over all its groups: as many
/// at once, earned again evenly.
pub const OUTSIDE_FRAMES_PER_MINUTE: u32 = 3_000;
/// Characters of the sentence by which an agent's own process says why it failed.
pub const MAX_FAILURE_CHARS: usize = 500;
/// Rounds of tool calls in one run; a model that asks for more ends it as failed.
pub const MAX_TOOL_ROUNDS: u32 = 12;
/// Calls in one round.
pub const MAX_TOOL_CALLS: usize = 16;
/// Bytes of a call's arguments (JSON).
pub const MAX_ARGUMENT_BYTES: usize = 8 * 1024;
/// Bytes of what is recorded of a call's result.
pub const MAX_SUMMARY_BYTES: usize = 2 * 1024;
/// Bytes of a call's result that a model is shown; the rest is cut.
pub const MAX_RESULT_BYTES: usize = 16 * 1024;
/// Bytes of a continuation.
pub const MAX_CONTINUATION_BYTES: usize = 96 * 1024;
/// Bytes of the arguments of all calls of one round that are handed over.
pub const MAX_ROUND_ARGUMENT_BYTES: usize = 32 * 1024;
/// Bytes of a tool's JSON schema; a tool of an MCP server with a longer one is not offered.
pub const MAX_TOOL_SCHEMA_BYTES: usize = 16 * 1024;
/// Characters of a tool's description that a model is shown.
pub const MAX_TOOL_DESCRIPTION_CHARS: usize = 1024;
/// Tools that are read of one MCP server.
pub const MAX_MCP_TOOLS: usize = 256;
/// Tools that a model is offered at a time; later ones are left out.
pub const MAX_OFFERED_TOOLS: usize = 128;
/// Models of a provider that are listed.
pub const MAX_LISTED_MODELS: usize = 500;
/// How long a call of a tool may take at most, whatever its configuration says.
pub const MAX_TOOL_TIMEOUT: Duration = Duration::from_secs(2 * 60);
/// Calls of one run that `attached` lists; older ones are left out.
pub const MAX_TOOLS_LISTED: usize = 32;
/// Bytes of a call's arguments and of its summary there.
pub const MAX_TOOL_EXCERPT_BYTES: usize = 512;
/// Approvals that a group remembers as decided or expired.
pub const MAX_CLOSED_APPROVALS: usize = 64;
/// How long a run may take at least once it was permitted what it waited for.
pub const TIME_AFTER_APPROVAL: Duration = Duration::from_secs(150);
/// How long a permission can be given.
pub const APPROVAL_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Messages that a model is shown at most, beside the summary of those before them.
pub const CONTEXT_MESSAGES: usize = 90;
/// Tokens of messages that a model is shown at most, as the controller estimates them: four ASCII
/// characters are one, any other character is one, and each message has [`MESSAGE_TOKENS`] more.
pub const CONTEXT_TOKENS: usize = 12_000;
/// Tokens that a message costs beside its text.
pub const MESSAGE_TOKENS: usize = 8;
/// Messages of the window beyond which the oldest are summarized.
pub const COMPACT_MESSAGES: usize = 60;
/// Tokens of the window beyond which the oldest messages are summarized.
pub const COMPACT_TOKENS: usize = 8_000;
/// Messages that stay in the window then, at most; so the window moves in steps, and what a provider
/// has cached of a prompt holds in between.
pub const KEEP_MESSAGES: usize = 30;
/// Tokens that stay in the window then, at most.
pub const KEEP_TOKENS: usize = 4_000;
/// Bytes of a summary; a longer one is cut.
pub const MAX_SUMMARY_TEXT_BYTES: usize = 8 * 1024;
/// Characters of a message that a summary without a model repeats.
pub const EXTRACT_CHARS: usize = 160;
/// Tokens that a summary may use at most: the messages that fall out of a window, a token for each byte, and
/// [`SUMMARY_OUTPUT_TOKENS`]. Where the organization has a budget a summary reserves what it may use, by the
/// messages that it is of.
pub const SUMMARY_TOKENS: u64 = 100_000;
/// Tokens that a model may write for a summary, its reasoning included.
pub const SUMMARY_OUTPUT_TOKENS: u64 = 8_192;
/// How long a model may take for a summary; afterwards the messages' beginnings stand in.
pub const SUMMARY_TIMEOUT: Duration = Duration::from_secs(60);
/// Entries in one request to an organization's own history service.
pub const MAX_HISTORY_ENTRIES: usize = 100;
/// Bytes of texts in one such request, about.
pub const MAX_HISTORY_APPEND_BYTES: usize = 512 * 1024;
/// How long what happened in a group is gathered before it is sent there.
pub const HISTORY_PAUSE: Duration = Duration::from_millis(500);
/// How long such a service may take for an answer.
pub const HISTORY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long clocks of two services may differ.
pub const CLOCK_LEEWAY: Duration = Duration::from_secs(5);
/// How long a connection goes on after its routing token has expired.
pub const EXPIRED_TOKEN_GRACE: Duration = Duration::from_secs(30);
/// Lifetime of a routing token.
pub const ROUTING_TOKEN_TTL: Duration = Duration::from_secs(5 * 60);
/// Lifetime of every token between services.
pub const SERVICE_TOKEN_TTL: Duration = Duration::from_secs(60);
/// How long a run's agent-access token is honoured for look-ups on the run's behalf.
pub const RUN_TOKEN_TTL: Duration = Duration::from_secs(15 * 60);
/// Used `jti` values remembered by one process; beyond it tokens are refused until some expire.
pub const MAX_REMEMBERED_JTIS: usize = 1_000_000;
/// Bytes of exported lines in one answer of a group's controller; at least one line, however long. Each
/// answer has its price, two tokens and their signatures, so there are few of them; none is larger than the
/// longest line may be.
pub const MAX_EXPORT_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of event lines in one request of an import.
pub const MAX_IMPORT_BYTES: usize = 2 * 1024 * 1024;
/// Bytes of one line of a snapshot.
pub const MAX_ARCHIVE_LINE_BYTES: usize = 4 * 1024 * 1024;
/// Uncompressed bytes of one gzip member of a snapshot; a longer line is a member of its own.
pub const MAX_MEMBER_BYTES: usize = 1024 * 1024;
/// Bytes of a snapshot's manifest.
pub const MAX_MANIFEST_BYTES: usize = 64 * 1024 * 1024;

/// When a call is to be repeated that found the database of the App or the Orchestrator gone, in
/// milliseconds.
pub const DATABASE_RETRY_MS: u64 = 1_000;
