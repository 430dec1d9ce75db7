//! How a run that has ended is shown: how it ended, and the tools that it used. The script has the
//! same words (`assets/js/run.js`, `assets/js/calls.js`).

use convene_model::{
    UserId,
    agents::failure,
    event::{Author, RunStatus},
    history::{ApprovalOutcome, FinishedRun, PastApproval},
    tools::{ToolStatus, ToolView},
};

use super::{money, view::Names};

/// The tools that a run used, which fold out below it.
#[derive(Debug, PartialEq, Eq)]
pub struct Calls {
    /// Which, in one line.
    pub line: String,
    /// How many tokens the run took and what they cost; empty where nobody has said anything.
    pub spent: String,
    /// Each call, in order.
    pub list: Vec<CallLine>,
}

/// A call of a tool.
#[derive(Debug, PartialEq, Eq)]
pub struct CallLine {
    /// The tool's name.
    pub tool: String,
    /// Who allowed it, and how it ended.
    pub how: String,
    /// Whether it did not do what it was to do.
    pub bad: bool,
    /// Its arguments, where it has any.
    pub arguments: String,
    /// What came of it.
    pub summary: String,
}

/// What people learn, and can do, when there is no budget left.
const USED_UP: &str = "The workspace's budget for this month is used up. It begins anew with the next month, and an operator can raise it.";

/// What a run took, where no fold of its tools says so.
pub(super) fn spent(run: &FinishedRun) -> String {
    if run.tools.is_empty() {
        run.finished.usage.map(money::spent).unwrap_or_default()
    } else {
        String::new()
    }
}

/// How a run ended, as a CSS class and a sentence.
pub(super) fn state(run: &FinishedRun) -> (&'static str, String) {
    match run.finished.status {
        RunStatus::Completed => ("done", "done".to_owned()),
        RunStatus::Failed => (
            "failed",
            match &run.finished.detail {
                _ if run.finished.code.as_deref() == Some(failure::BUDGET_EXHAUSTED) => {
                    format!("not made: {}", lower_first(USED_UP))
                }
                Some(detail) => format!("failed because {}", lower_first(detail)),
                None => "failed".to_owned(),
            },
        ),
        RunStatus::Cancelled => ("stopped", "stopped".to_owned()),
        RunStatus::Interrupted => ("interrupted", "interrupted by a restart".to_owned()),
    }
}

/// A sentence as it stands after "because": `The provider…` becomes `the provider…`, `HTTP…` stays.
fn lower_first(sentence: &str) -> String {
    let mut letters = sentence.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(sentence.chars().skip(1)).collect()
        }
        (Some(_) | None, _) => sentence.to_owned(),
    }
}

/// The tools of a run; `None` for one that used none.
pub(super) fn calls(run: &FinishedRun, names: &Names) -> Option<Calls> {
    if run.tools.is_empty() {
        return None;
    }
    let how = |call: &ToolView| {
        let ended = call.status.map_or("not finished", status);
        match run.approvals.iter().find(|approval| approval.call_id == call.call_id) {
            None => ended.to_owned(),
            Some(approval) if approval.outcome == ApprovalOutcome::Approved => {
                format!("{}, {ended}", decided(approval, names))
            }
            // Without leave there was no call that could end.
            Some(approval) => decided(approval, names),
        }
    };
    let line = |call: &ToolView| CallLine {
        tool: call.tool.clone(),
        how: how(call),
        bad: call.status != Some(ToolStatus::Ok),
        arguments: if call.arguments == "{}" { String::new() } else { call.arguments.clone() },
        summary: call.summary.clone().unwrap_or_default(),
    };
    let spent = run.finished.usage.map(money::spent).unwrap_or_default();
    Some(Calls {
        line: one_line(&run.tools, how),
        spent,
        list: run.tools.iter().map(line).collect(),
    })
}

/// `Used http_request, calculator (2): 1 of 3 without success`, or of one call
/// `restart: refused by Ana`.
fn one_line(calls: &[ToolView], how: impl Fn(&ToolView) -> String) -> String {
    if let [call] = calls
        && call.status != Some(ToolStatus::Ok)
    {
        return format!("{}: {}", call.tool, how(call));
    }
    let mut tools: Vec<(&str, usize)> = Vec::new();
    for call in calls {
        match tools.iter_mut().find(|(tool, _)| *tool == call.tool) {
            Some((_, count)) => *count += 1,
            None => tools.push((&call.tool, 1)),
        }
    }
    let names = tools.iter().map(|(tool, count)| match count {
        1 => (*tool).to_owned(),
        count => format!("{tool} ({count})"),
    });
    let names = names.collect::<Vec<_>>().join(", ");
    match calls.iter().filter(|call| call.status != Some(ToolStatus::Ok)).count() {
        0 => format!("Used {names}"),
        wrong => format!("Used {names}: {wrong} of {} without success", calls.len()),
    }
}

const fn status(status: ToolStatus) -> &'static str {
    match status {
        ToolStatus::Ok => "done",
        ToolStatus::Failed => "failed",
        ToolStatus::Timeout => "took too long",
        ToolStatus::Denied => "not allowed",
        ToolStatus::Unknown => "cut off: nobody knows whether it took effect",
    }
}

fn decided(approval: &PastApproval, names: &Names) -> String {
    let name = |user: &UserId| names.of(&Author::User(user.clone())).2;
    let by = match approval.by.as_slice() {
        [] => String::new(),
        by => format!(" by {}", by.iter().map(name).collect::<Vec<_>>().join(", ")),
    };
    match approval.outcome {
        ApprovalOutcome::Open => "waits for approval".to_owned(),
        ApprovalOutcome::Approved => format!("allowed{by}"),
        ApprovalOutcome::Denied => format!("refused{by}"),
        ApprovalOutcome::Expired => "nobody decided in time".to_owned(),
    }
}

/// A number with its digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_groups_of_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1_204, "1,204"), (12_345_678, "12,345,678")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
