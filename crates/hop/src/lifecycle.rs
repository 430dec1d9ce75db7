//! How lines about the life of groups, organizations and processes are told from other log lines.

/// The target of such a line. Its members are ids, states, numbers and an operator's reasons, never
/// what was said in a group: where logs are shipped, each of these lines is kept.
///
/// ```
/// tracing::info!(target: convene_hop::LIFECYCLE, group_id = "g1", from = "idle", to = "active", "group");
/// ```
pub const LIFECYCLE: &str = "convene::lifecycle";
