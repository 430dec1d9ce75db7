//! The tools that every worker has: the time, sums, a search in the agent's own group.
//!
//! None of them changes anything. A search is for the group of the run's token; no argument says
//! which group.

use bytes::Bytes;
use convene_model::{
    GroupId, Problem, Timestamp,
    agents::BuiltinTool,
    claims::{WorkerClaims, service},
    event::Author,
    history::{SearchPage, SearchRequest},
    limits::{MAX_HITS, MAX_QUERY_CHARS},
    token,
};
use http::{Request, StatusCode, header};
use serde_json::{Map, Value, json};

use super::ToolFailure;
use crate::{Config, arithmetic, dialogue::ToolSpec};

/// Hits of a search that a model is shown when it does not say how many.
const HITS: usize = 10;
/// Characters of one hit's text.
const HIT_CHARS: usize = 600;
/// The largest offset from UTC, in minutes.
const MAX_OFFSET: i64 = 14 * 60;

/// Who speaks in a group, and what they are called.
pub(crate) type Names = [(Author, String)];

/// What a model is told of a tool.
pub(crate) fn spec(tool: BuiltinTool) -> ToolSpec {
    let (description, parameters) = match tool {
        BuiltinTool::CurrentTime => (
            "Tells the current date and time, in UTC and at an offset from it.",
            json!({
                "type": "object",
                "properties": {"offset": {
                    "type": "string",
                    "description": "An offset from UTC such as +02:00. UTC when absent.",
                }},
                "additionalProperties": false,
            }),
        ),
        BuiltinTool::Calculator => (
            "Evaluates an arithmetic expression with + - * / ^ % and parentheses.",
            json!({
                "type": "object",
                "properties": {"expression": {
                    "type": "string",
                    "description": "For example (12 + 30) * 1.19 or 17% of 300.",
                }},
                "required": ["expression"],
                "additionalProperties": false,
            }),
        ),
        BuiltinTool::SearchHistory => (
            "Searches the messages of this group, also those that are not shown to you. Newest \
             first.",
            json!({
                "type": "object",
                "properties": {
                    "query": {
                        "type": "string",
                        "description": "Words that must all occur; \"…\" is a phrase, word* a \
                                        beginning.",
                    },
                    "author": {
                        "type": "string",
                        "description": "Only messages of the person or agent with this name.",
                    },
                    "before": {
                        "type": "integer",
                        "description": "Only messages with a smaller number than this.",
                    },
                    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_HITS},
                },
                "required": ["query"],
                "additionalProperties": false,
            }),
        ),
    };
    ToolSpec { name: tool.as_str().to_owned(), description: description.to_owned(), parameters }
}

/// What a search needs of the run that it is made for.
pub(crate) struct Run<'a> {
    pub(crate) config: &'a Config,
    pub(crate) group_id: &'a GroupId,
    /// The agent-access token.
    pub(crate) token: &'a str,
    pub(crate) names: &'a Names,
}

/// Makes a call.
///
/// # Errors
/// [`ToolFailure`].
pub(crate) async fn call(
    run: Run<'_>,
    tool: BuiltinTool,
    arguments: &Map<String, Value>,
) -> Result<String, ToolFailure> {
    match tool {
        BuiltinTool::CurrentTime => current_time((run.config.clock)(), arguments),
        BuiltinTool::Calculator => calculator(arguments),
        BuiltinTool::SearchHistory => search_history(run, arguments).await,
    }
}

fn current_time(now: Timestamp, arguments: &Map<String, Value>) -> Result<String, ToolFailure> {
    let offset = match arguments.get("offset") {
        None | Some(Value::Null) => 0,
        Some(value) => value
            .as_str()
            .and_then(offset_minutes)
            .ok_or_else(|| invalid("`offset` must be like +02:00, at most 14 hours."))?,
    };
    let secs = i64::try_from(now.secs()).unwrap_or(i64::MAX);
    let mut told = json!({"utc": civil(secs, 0), "weekday": weekday(secs), "unix": secs});
    if offset != 0 {
        let local = secs + offset * 60;
        told["local"] = civil(local, offset).into();
        told["weekday"] = weekday(local).into();
    }
    Ok(told.to_string())
}

/// The minutes of `Z`, `+02:00`, `-0330` or `+2`.
fn offset_minutes(text: &str) -> Option<i64> {
    let text = text.trim().trim_start_matches("UTC").trim_start_matches("GMT");
    if matches!(text, "" | "Z" | "z") {
        return Some(0);
    }
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-" | "−", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some(both) => both,
        None if digits.len() <= 2 => (digits, "0"),
        None => digits.split_at_checked(digits.len() - 2)?,
    };
    let number = |text: &str| {
        let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|_| fits)
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let all = hours.checked_mul(60)?.checked_add(minutes)?;
    (minutes < 60 && all <= MAX_OFFSET).then_some(sign * all)
}

/// Date and time as RFC 3339 has them; `secs` is the time on the clock there.
fn civil(secs: i64, offset: i64) -> String {
    let (days, rest) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let zone = if offset == 0 {
        "Z".to_owned()
    } else {
        let sign = if offset < 0 { '-' } else { '+' };
        format!("{sign}{:02}:{:02}", offset.abs() / 60, offset.abs() % 60)
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{zone}")
}

/// The Gregorian date of a number of days since 1970-01-01, by eras of 400 years that begin on the
/// first of March.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn weekday(secs: i64) -> &'static str {
    const DAYS: [&str; 7] =
        ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    DAYS[usize::try_from(secs.div_euclid(86_400).rem_euclid(7)).unwrap_or_default()]
}

fn calculator(arguments: &Map<String, Value>) -> Result<String, ToolFailure> {
    let expression = text(arguments, "expression")?;
    match arithmetic::evaluate(expression) {
        Some(Some(value)) => Ok(arithmetic::show(value)),
        Some(None) => Err(invalid("The expression has no finite value.")),
        None => Err(invalid("The expression cannot be read; use numbers, + - * / ^ % and ( ).")),
    }
}

async fn search_history(
    run: Run<'_>,
    arguments: &Map<String, Value>,
) -> Result<String, ToolFailure> {
    let query = text(arguments, "query")?;
    if query.chars().count() > MAX_QUERY_CHARS {
        return Err(invalid(format!("`query` has more than {MAX_QUERY_CHARS} characters.")));
    }
    let author = match arguments.get("author").and_then(Value::as_str) {
        Some(name) => {
            let wanted = name.trim().trim_start_matches('@').to_lowercase();
            let found = run.names.iter().find(|(_, name)| name.to_lowercase() == wanted);
            let unknown = || invalid(format!("Nobody in the group is called `{name}`."));
            Some(found.ok_or_else(unknown)?.0.clone())
        }
        None => None,
    };
    let limit = match arguments.get("limit") {
        None | Some(Value::Null) => HITS,
        Some(limit) => limit
            .as_u64()
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| (1..=MAX_HITS).contains(limit))
            .ok_or_else(|| invalid(format!("`limit` must be 1 to {MAX_HITS}.")))?,
    };
    let request = SearchRequest {
        query: query.to_owned(),
        before: arguments.get("before").and_then(Value::as_u64),
        author,
        limit: Some(limit),
    };
    let page = ask(&run, &request).await?;
    Ok(shown(&page, run.names))
}

async fn ask(run: &Run<'_>, search: &SearchRequest) -> Result<SearchPage, ToolFailure> {
    let failed = |why: &str| ToolFailure::new("search_failed", why);
    let path = format!("/groups/{}/search", run.group_id);
    let body = serde_json::to_vec(search).map_err(|_| failed("The search cannot be asked."))?;
    let body = Bytes::from(body);
    let claims = WorkerClaims {
        htm: "POST".to_owned(),
        htu: path.clone(),
        bh: token::body_hash(&body),
        act: run.token.to_owned(),
    };
    let config = run.config;
    let signing = config.signing.signing();
    let now = (config.clock)();
    let token = token::mint(&signing, service::ORCHESTRATOR, claims, now, (config.jti)());
    let request = Request::post(path)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(|_| failed("The search cannot be asked."))?;
    let answer = config.orchestrator.call(request).await.map_err(|error| {
        tracing::warn!(%error, group_id = %run.group_id, "a group cannot be searched");
        failed("The group cannot be searched at the moment.")
    })?;
    if answer.status() != StatusCode::OK {
        let problem = serde_json::from_slice::<Problem>(answer.body()).ok();
        let why = problem.map(|problem| problem.detail.unwrap_or(problem.title));
        return Err(match (answer.status().is_client_error(), why) {
            (true, Some(why)) => failed(&format!("The search was refused: {why}")),
            _ => failed("The group cannot be searched at the moment."),
        });
    }
    serde_json::from_slice(answer.body()).map_err(|_| failed("The search's answer is malformed."))
}

fn shown(page: &SearchPage, names: &Names) -> String {
    if page.hits.is_empty() {
        return "No message was found.".to_owned();
    }
    let mut lines = Vec::new();
    for hit in &page.hits {
        let message = &hit.message;
        let at = i64::try_from(message.at.secs()).unwrap_or(i64::MAX);
        let found = names.iter().find(|(author, _)| *author == message.posted.author);
        let name = found.map_or("A former member", |(_, name)| name.as_str());
        let text = &message.posted.text;
        let text = match text.char_indices().nth(HIT_CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.clone(),
        };
        lines.push(format!("[{}, {}] {name}: {text}", message.seq, civil(at, 0)));
    }
    if page.more {
        let last = page.hits.last().map_or(0, |hit| hit.message.seq);
        lines.push(format!("(There are older ones: ask again with before={last}.)"));
    }
    lines.join("\n")
}

fn text<'a>(arguments: &'a Map<String, Value>, name: &str) -> Result<&'a str, ToolFailure> {
    let text = arguments.get(name).and_then(Value::as_str).map(str::trim);
    text.filter(|text| !text.is_empty())
        .ok_or_else(|| invalid(format!("`{name}` must be a text that is not empty.")))
}

fn invalid(why: impl Into<String>) -> ToolFailure {
    ToolFailure::new("invalid_arguments", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_time_is_told_in_utc_and_at_an_offset() {
        let now = Timestamp::from_secs(1_709_164_805);
        let told = |arguments| -> Value {
            serde_json::from_str(&current_time(now, &object(arguments)).unwrap()).unwrap()
        };
        let utc = told(json!({}));
        assert_eq!(utc["utc"], "2024-02-29T00:00:05Z");
        assert_eq!((&utc["weekday"], &utc["unix"]), (&json!("Thursday"), &json!(1_709_164_805)));
        let local = told(json!({"offset": "-03:30"}));
        assert_eq!(local["local"], "2024-02-28T20:30:05-03:30");
        assert_eq!(local["weekday"], "Wednesday");
        for offset in ["+14:01", "2", "+2:60", "+", "Berlin", "+é"] {
            let wrong = current_time(now, &object(json!({"offset": offset})));
            assert_eq!(wrong.unwrap_err().code, "invalid_arguments", "{offset}");
        }
        for (offset, minutes) in [("+14:00", 840), ("+0545", 345), ("UTC+2", 120), ("Z", 0)] {
            assert_eq!(offset_minutes(offset), Some(minutes), "{offset}");
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (secs, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(civil(secs, 0), date);
        }
    }

    #[test]
    fn a_sum_is_done_or_refused_with_a_reason() {
        let sum = |text: &str| calculator(&object(json!({"expression": text})));
        assert_eq!(sum("(12 + 30) * 1.5").unwrap(), "63");
        assert_eq!(sum("17% of 300").unwrap(), "51");
        for text in ["", "1 +", "two", "1/0", &"1+".repeat(200)] {
            assert_eq!(sum(text).unwrap_err().code, "invalid_arguments", "{text}");
        }
    }
}
