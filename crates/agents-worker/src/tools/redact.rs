//! Takes secrets out of texts that come back from services, before a model or people see them.
//!
//! Pure. A secret is found as it is and in the forms in which services repeat what they were sent:
//! escaped in JSON, percent-encoded, in base64 at any alignment, in hexadecimal digits. What is
//! short is taken out wherever it stands, also where that makes a text hard to read.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// What stands in a secret's place.
pub(crate) const REDACTED: &str = "[redacted]";
/// Bytes of a secret from which on its encoded forms are looked for; those of a shorter one would
/// be found everywhere.
const MIN_ENCODED: usize = 6;

/// The secrets of one attempt, in all their forms.
#[derive(Clone, Default)]
pub(crate) struct Redaction {
    /// Longest first, so that a form is not cut by a shorter one in it.
    forms: Vec<String>,
    plain: Vec<String>,
}

impl Redaction {
    /// Takes these out.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut plain = Vec::new();
        for secret in secrets {
            plain.push(secret.to_owned());
            plain.extend(parts(secret));
        }
        plain.retain(|secret| !secret.trim().is_empty());
        plain.sort();
        plain.dedup();
        let mut forms: Vec<_> = plain.iter().flat_map(|secret| forms(secret)).collect();
        forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        forms.dedup();
        Self { forms, plain }
    }

    /// The text without the secrets.
    pub(crate) fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for form in &self.forms {
            if text.contains(form.as_str()) {
                text = text.replace(form.as_str(), REDACTED);
            }
        }
        // Percent-encoding can be mixed as one likes: what still shows a secret when it is taken
        // off is not passed on.
        if text.contains('%') {
            let decoded = percent_decoded(&text);
            if self.plain.iter().any(|secret| contains(&decoded, secret.as_bytes())) {
                return REDACTED.to_owned();
            }
        }
        text
    }
}

/// What of a header's value is a secret by itself: the credentials behind `Bearer` or `Basic`.
fn parts(secret: &str) -> Vec<String> {
    let Some((_, credentials)) = secret.trim().split_once(' ') else { return Vec::new() };
    let credentials = credentials.trim();
    let mut parts = vec![credentials.to_owned()];
    let decoded = STANDARD.decode(credentials).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some(decoded) = decoded {
        if let Some((_, password)) = decoded.split_once(':') {
            parts.push(password.to_owned());
        }
        parts.push(decoded);
    }
    parts
}

fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    let json = serde_json::Value::from(secret).to_string();
    let json = json[1..json.len() - 1].to_owned();
    forms.push(json.replace('/', "\\/"));
    forms.push(json);
    if secret.len() < MIN_ENCODED {
        return forms;
    }
    for upper in [true, false] {
        forms.push(percent_encoded(secret, upper));
        forms.push(percent_encoded(secret, upper).replace("%20", "+"));
        let digit = |byte: u8| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") };
        forms.push(secret.bytes().map(digit).collect());
    }
    for skipped in 0..3 {
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let mut bytes = vec![0; skipped];
            bytes.extend_from_slice(secret.as_bytes());
            let encoded = engine.encode(&bytes);
            // The first and the last digits also depend on what stands beside the secret.
            let from = (skipped * 8).div_ceil(6);
            let to = bytes.len() * 8 / 6;
            forms.push(encoded[from..to].to_owned());
        }
    }
    forms
}

fn percent_encoded(text: &str, upper: bool) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ if upper => format!("%{byte:02X}"),
        _ => format!("%{byte:02x}"),
    };
    text.bytes().map(encode).collect()
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|_| bytes[at] == b'%') {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    decoded
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "p/ss \"wörd\"+1";

    fn hidden(secret: &str, text: &str) {
        let shown = Redaction::new([secret]).apply(text);
        assert!(shown.contains(REDACTED), "{text}: {shown}");
        assert!(!shown.contains(secret), "{text}: {shown}");
    }

    #[test]
    fn a_secret_is_taken_out_in_every_form_that_services_send_back() {
        hidden(SECRET, &format!("you sent {SECRET}!"));
        hidden(SECRET, &serde_json::json!({"echo": SECRET}).to_string());
        hidden(SECRET, &serde_json::json!({"echo": SECRET}).to_string().replace('/', "\\/"));
        hidden(SECRET, &format!("q={}", percent_encoded(SECRET, true)));
        hidden(SECRET, &format!("q={}", percent_encoded(SECRET, false)));
        hidden(SECRET, &format!("q={}", percent_encoded(SECRET, true).replace("%20", "+")));
        hidden(SECRET, &SECRET.bytes().map(|byte| format!("{byte:02x}")).collect::<String>());
        let everything: String = SECRET.bytes().map(|byte| format!("%{byte:02X}")).collect();
        hidden(SECRET, &everything);
    }

    #[test]
    fn a_secret_is_taken_out_of_base64_wherever_it_stands_in_it() {
        let redaction = Redaction::new([SECRET]);
        for before in ["", "a", "ab", "user:", "x-key=abc:"] {
            for after in ["", "!", "??", " and more"] {
                let text = format!("{before}{SECRET}{after}");
                for encoded in [STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
                    let shown = redaction.apply(&format!("authorization: {encoded}"));
                    assert!(shown.contains(REDACTED), "{before:?} {after:?} {shown}");
                }
            }
        }
    }

    #[test]
    fn the_credentials_in_a_header_are_secrets_by_themselves() {
        let redaction = Redaction::new(["Bearer tok-123456"]);
        assert_eq!(redaction.apply("token tok-123456 expired"), "token [redacted] expired");
        let basic = format!("Basic {}", STANDARD.encode("ana:hunter22"));
        let redaction = Redaction::new([basic.as_str()]);
        assert_eq!(redaction.apply("wrong password hunter22"), "wrong password [redacted]");
    }

    #[test]
    fn a_short_secret_is_taken_out_as_it_is_and_what_is_none_stays() {
        assert_eq!(Redaction::new(["ab"]).apply("cab"), "c[redacted]");
        let text = "100% of /path?q=a%20b";
        assert_eq!(Redaction::new(["other-secret", " ", ""]).apply(text), text);
        assert_eq!(Redaction::default().apply(text), text);
    }
}
