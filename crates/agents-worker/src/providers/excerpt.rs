//! What of a provider's own error message may be shown to people.
//!
//! A body is shown only as far as it is a message: one short line, without anything that looks like
//! a key. Pages of a proxy are not shown.

use serde_json::Value;

/// Characters shown at most.
const MAX_CHARS: usize = 200;
/// Characters of a key in a row that give it away.
const TELLING: usize = 6;

/// The message in an error's body, fit to be shown. `key` is the key that the request carried.
pub(crate) fn message(body: &str, key: Option<&str>) -> Option<String> {
    let text = match serde_json::from_str::<Value>(body) {
        Ok(json) => find(&json)?.to_owned(),
        Err(_) => body.to_owned(),
    };
    if text.trim_start().starts_with('<') {
        return None;
    }
    let words: Vec<_> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .map(|word| if gives_away(word, key) { "[redacted]" } else { word })
        .collect();
    let line = words.join(" ");
    if line.is_empty() {
        return None;
    }
    match line.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => Some(format!("{}…", &line[..end])),
        None => Some(line),
    }
}

/// Where services put the message: `error.message` (OpenAI), `error`, `message`, `detail`.
fn find(json: &Value) -> Option<&str> {
    ["/error/message", "/error", "/message", "/detail"]
        .iter()
        .find_map(|path| json.pointer(path)?.as_str())
}

fn gives_away(word: &str, key: Option<&str>) -> bool {
    if word.contains("sk-") {
        return true;
    }
    let Some(key) = key.filter(|key| !key.is_empty()) else {
        return false;
    };
    let key: Vec<char> = key.chars().collect();
    key.windows(TELLING.min(key.len())).any(|part| {
        let part: String = part.iter().collect();
        word.contains(&part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_found_where_services_put_it() {
        for body in [
            r#"{"error":{"message":"no such model","type":"x"}}"#,
            r#"{"error":"no such model"}"#,
            r#"{"message":"no such model"}"#,
            r#"{"detail":"no such model"}"#,
            "no such\n model",
        ] {
            assert_eq!(message(body, None).as_deref(), Some("no such model"), "{body}");
        }
    }

    #[test]
    fn pages_and_empty_bodies_are_not_shown() {
        for body in ["", "  ", "<html><body>502</body></html>", "{}", "[1]", r#"{"error":{}}"#] {
            assert_eq!(message(body, None), None, "{body}");
        }
    }

    #[test]
    fn a_key_is_not_shown_not_even_in_part() {
        let shown = |text: &str| message(text, Some("abcdefghij-klmno")).unwrap();
        assert_eq!(shown("key abcdefghij-klmno is bad"), "key [redacted] is bad");
        assert_eq!(shown("key abcdef**** is bad"), "key [redacted] is bad");
        assert_eq!(shown("key sk-proj-**** is bad"), "key [redacted] is bad");
        assert_eq!(message("key ab is bad", Some("ab")).unwrap(), "key [redacted] is bad");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = "é".repeat(MAX_CHARS);
        assert_eq!(message(&long, None).unwrap(), long);
        assert_eq!(message(&format!("{long}é"), None).unwrap(), format!("{long}…"));
    }
}
