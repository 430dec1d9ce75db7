//! Rules for what people type, each limit by name; a broken rule is a problem that names the field.

use convene_model::{
    Code, Problem,
    limits::{MAX_NAME_CHARS, MAX_TITLE_CHARS},
};
use serde::{Deserialize, Deserializer};
use url::Url;

/// Characters of a password at least.
pub const MIN_PASSWORD_CHARS: usize = 10;
/// Characters of a password at most.
pub const MAX_PASSWORD_CHARS: usize = 1000;
/// Bytes of a mail address at most (RFC 5321, section 4.5.3.1.3).
pub const MAX_EMAIL_BYTES: usize = 254;
/// Bytes of a system prompt at most.
pub const MAX_SYSTEM_PROMPT_BYTES: usize = 16 * 1024;
/// Characters of an agent's name at most: it is mentioned as `@name`.
pub const MAX_AGENT_NAME_CHARS: usize = 32;
/// Characters of a model's name at most.
pub const MAX_MODEL_CHARS: usize = 200;
/// Bytes of a provider's base URL at most.
pub const MAX_BASE_URL_BYTES: usize = 500;
/// Bytes of a provider's key at most.
pub const MAX_API_KEY_BYTES: usize = 4096;

/// Characters of a secret's name at most.
pub const MAX_SECRET_NAME_CHARS: usize = 64;
/// Bytes of a secret's value at most.
pub const MAX_SECRET_BYTES: usize = 16 * 1024;
/// Characters of a note at most.
pub const MAX_NOTE_CHARS: usize = 300;

/// A broken rule: which field, and a sentence for people.
pub(crate) fn invalid(field: &str, sentence: impl Into<String>) -> Problem {
    Problem::new(Code::ValidationFailed).detail(sentence).with("field", field)
}

/// A display name: trimmed, 1 to [`MAX_NAME_CHARS`] characters on one line.
pub(crate) fn name(field: &str, text: &str) -> Result<String, Problem> {
    line(field, text, MAX_NAME_CHARS, "A name")
}

/// A group's title: trimmed, 1 to [`MAX_TITLE_CHARS`] characters on one line.
pub(crate) fn title(field: &str, text: &str) -> Result<String, Problem> {
    line(field, text, MAX_TITLE_CHARS, "A title")
}

fn line(field: &str, text: &str, max: usize, what: &str) -> Result<String, Problem> {
    let text = text.trim();
    let count = text.chars().count();
    if count == 0 || count > max || text.chars().any(char::is_control) {
        return Err(invalid(field, format!("{what} has 1 to {max} characters on one line.")));
    }
    Ok(text.to_owned())
}

/// A mail address in the form in which it is kept: trimmed and in lower case.
pub(crate) fn email(field: &str, text: &str) -> Result<String, Problem> {
    let email = text.trim().to_lowercase();
    let well_formed = email.len() <= MAX_EMAIL_BYTES
        && !email
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || "<>()[],;:\"\\".contains(c))
        && email.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty()
                && local.len() <= 64
                && !domain.contains('@')
                && domain.split('.').all(|label| !label.is_empty())
        });
    if well_formed { Ok(email) } else { Err(invalid(field, "This is not a mail address.")) }
}

/// A new password: [`MIN_PASSWORD_CHARS`] to [`MAX_PASSWORD_CHARS`] characters, whatever they are.
pub(crate) fn new_password(field: &str, text: &str) -> Result<(), Problem> {
    let count = text.chars().count();
    if (MIN_PASSWORD_CHARS..=MAX_PASSWORD_CHARS).contains(&count) {
        return Ok(());
    }
    let sentence =
        format!("A password has {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters.");
    Err(invalid(field, sentence))
}

/// An agent's name: letters, digits, `_` and `-`, beginning with a letter, so that `@name` ends
/// where a reader expects it to.
pub(crate) fn agent_name(field: &str, text: &str) -> Result<String, Problem> {
    let name = text.trim();
    let well_formed = (1..=MAX_AGENT_NAME_CHARS).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if well_formed {
        return Ok(name.to_owned());
    }
    let sentence = format!(
        "An agent's name has 1 to {MAX_AGENT_NAME_CHARS} letters, digits, _ or -, and begins with a letter."
    );
    Err(invalid(field, sentence))
}

/// A system prompt of at most [`MAX_SYSTEM_PROMPT_BYTES`].
pub(crate) fn system_prompt(field: &str, text: &str) -> Result<(), Problem> {
    if text.len() <= MAX_SYSTEM_PROMPT_BYTES && !text.contains('\0') {
        return Ok(());
    }
    Err(invalid(field, format!("A system prompt has at most {MAX_SYSTEM_PROMPT_BYTES} bytes.")))
}

/// A model's name: needed with a provider, dropped for the built-in model.
pub(crate) fn model(field: &str, text: &str, has_provider: bool) -> Result<String, Problem> {
    if has_provider {
        line(field, text, MAX_MODEL_CHARS, "A model's name")
    } else {
        Ok(String::new())
    }
}

/// A provider's URL, without a slash at its end.
pub(crate) fn base_url(field: &str, text: &str) -> Result<String, Problem> {
    endpoint(field, text.trim().trim_end_matches('/'))
}

/// The URL of a service, as it stands.
pub(crate) fn endpoint(field: &str, text: &str) -> Result<String, Problem> {
    let text = text.trim();
    let well_formed = text.len() <= MAX_BASE_URL_BYTES
        && Url::parse(text).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        });
    if well_formed {
        return Ok(text.to_owned());
    }
    Err(invalid(
        field,
        "This is not an http or https URL, or it has a user, a query or a fragment.",
    ))
}

/// A provider's key: visible ASCII, since it travels in a header.
pub(crate) fn api_key(field: &str, text: &str) -> Result<(), Problem> {
    let well_formed =
        (1..=MAX_API_KEY_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if well_formed {
        return Ok(());
    }
    Err(invalid(field, format!("A key has 1 to {MAX_API_KEY_BYTES} visible ASCII characters.")))
}

/// A secret's name, of the form of a variable: letters, digits and `_`, not beginning with a digit.
pub(crate) fn secret_name(field: &str, text: &str) -> Result<String, Problem> {
    let name = text.trim();
    let well_formed = (1..=MAX_SECRET_NAME_CHARS).contains(&name.len())
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if well_formed {
        return Ok(name.to_owned());
    }
    let sentence = format!(
        "This name has 1 to {MAX_SECRET_NAME_CHARS} letters, digits or _, and does not begin with a digit."
    );
    Err(invalid(field, sentence))
}

/// A secret's value: any text without NUL of at most [`MAX_SECRET_BYTES`].
pub(crate) fn secret(field: &str, text: &str) -> Result<(), Problem> {
    if (1..=MAX_SECRET_BYTES).contains(&text.len()) && !text.contains('\0') {
        return Ok(());
    }
    Err(invalid(field, format!("A value has 1 to {MAX_SECRET_BYTES} bytes.")))
}

/// A note: trimmed, at most [`MAX_NOTE_CHARS`] characters.
pub(crate) fn note(field: &str, text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if text.chars().count() <= MAX_NOTE_CHARS && !text.contains('\0') {
        return Ok(text.to_owned());
    }
    Err(invalid(field, format!("A note has at most {MAX_NOTE_CHARS} characters.")))
}

/// For members of a change that may be absent, `null` or a value: absent is `None`, `null` is
/// `Some(None)`.
pub(crate) fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

/// For members that must be there and may be `null`.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_titles_are_held_to_their_limits_on_both_sides() {
        assert_eq!(name("name", "  Ada  ").as_deref(), Ok("Ada"));
        assert!(name("name", &"ä".repeat(MAX_NAME_CHARS)).is_ok());
        assert!(name("name", &"ä".repeat(MAX_NAME_CHARS + 1)).is_err());
        assert!(title("title", &"ä".repeat(MAX_TITLE_CHARS)).is_ok());
        assert!(title("title", &"ä".repeat(MAX_TITLE_CHARS + 1)).is_err());
        for bad in ["", "   ", "a\nb", "a\u{0}"] {
            let problem = name("name", bad).unwrap_err();
            assert_eq!(
                (problem.code, &problem.extra["field"]),
                (Code::ValidationFailed, &"name".into())
            );
        }
    }

    #[test]
    fn passwords_are_counted_in_characters() {
        assert!(new_password("password", &"ä".repeat(MIN_PASSWORD_CHARS)).is_ok());
        assert!(new_password("password", &"ä".repeat(MIN_PASSWORD_CHARS - 1)).is_err());
        assert!(new_password("password", &"ä".repeat(MAX_PASSWORD_CHARS)).is_ok());
        assert!(new_password("password", &"ä".repeat(MAX_PASSWORD_CHARS + 1)).is_err());
    }

    #[test]
    fn mail_addresses_are_kept_in_lower_case_and_must_look_like_one() {
        assert_eq!(email("email", " Ada@Example.ORG ").as_deref(), Ok("ada@example.org"));
        assert!(email("email", "a@localhost").is_ok());
        let long = format!("a@{}", "b".repeat(MAX_EMAIL_BYTES - 2));
        assert!(email("email", &long).is_ok());
        assert!(email("email", &format!("{long}b")).is_err());
        for bad in ["", "a", "@b", "a@", "a@b@c", "a b@c", "a@b..c", "a@b.", "<a@b>", "a@b\nc"] {
            assert!(email("email", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_agents_name_can_be_mentioned() {
        for good in ["A", "Guide", "a-b_9", &"x".repeat(MAX_AGENT_NAME_CHARS)] {
            assert!(agent_name("name", good).is_ok(), "{good}");
        }
        for bad in ["", "9a", "-a", "a b", "ä", "a.b", "@a", &"x".repeat(MAX_AGENT_NAME_CHARS + 1)]
        {
            assert!(agent_name("name", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_base_url_is_plain_http_and_keeps_no_slash_at_its_end() {
        assert_eq!(
            base_url("base_url", "http://localhost:11434/v1/").as_deref(),
            Ok("http://localhost:11434/v1")
        );
        let long = format!("https://a/{}", "b".repeat(MAX_BASE_URL_BYTES - 10));
        assert!(base_url("base_url", &long).is_ok());
        assert!(base_url("base_url", &format!("{long}b")).is_err());
        for bad in [
            "",
            "localhost",
            "ftp://a",
            "file:///etc",
            "http://",
            "https://u:p@a",
            "https://a?b",
            "https://a#b",
        ] {
            assert!(base_url("base_url", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_and_notes_are_held_to_their_limits_on_both_sides() {
        for good in ["A", "_a1", "GITHUB_TOKEN", &"x".repeat(MAX_SECRET_NAME_CHARS)] {
            assert!(secret_name("name", good).is_ok(), "{good}");
        }
        for bad in ["", "1A", "A-B", "A B", "ä", &"x".repeat(MAX_SECRET_NAME_CHARS + 1)] {
            assert!(secret_name("name", bad).is_err(), "{bad}");
        }
        assert!(secret("value", &"v".repeat(MAX_SECRET_BYTES)).is_ok());
        assert!(secret("value", &"v".repeat(MAX_SECRET_BYTES + 1)).is_err());
        assert!(secret("value", "").is_err() && secret("value", "a\0").is_err());
        assert!(note("note", &"ä".repeat(MAX_NOTE_CHARS)).is_ok());
        assert!(note("note", &"ä".repeat(MAX_NOTE_CHARS + 1)).is_err());
    }

    #[test]
    fn keys_prompts_and_models_are_held_to_their_limits_on_both_sides() {
        assert!(api_key("k", &"k".repeat(MAX_API_KEY_BYTES)).is_ok());
        assert!(api_key("k", &"k".repeat(MAX_API_KEY_BYTES + 1)).is_err());
        assert!(
            api_key("k", "").is_err() && api_key("k", "a b").is_err() && api_key("k", "ä").is_err()
        );
        assert!(system_prompt("p", &"p".repeat(MAX_SYSTEM_PROMPT_BYTES)).is_ok());
        assert!(system_prompt("p", &"p".repeat(MAX_SYSTEM_PROMPT_BYTES + 1)).is_err());
        assert!(model("m", &"m".repeat(MAX_MODEL_CHARS), true).is_ok());
        assert!(model("m", &"m".repeat(MAX_MODEL_CHARS + 1), true).is_err());
        assert_eq!(model("m", "anything", false).as_deref(), Ok(""));
        assert!(model("m", "", true).is_err());
    }
}
