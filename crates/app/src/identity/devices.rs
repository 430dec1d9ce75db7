//! What a session is used from, in a few words, as its browser calls itself. It is for people who look
//! through their sessions, and nothing is ever decided by it: a browser may call itself anything.

use http::HeaderValue;

/// Characters that are kept of what a program calls itself.
const MAX_PROGRAM_CHARS: usize = 40;

/// Browsers by what only they say. Most claim to be others too, so the order matters.
const BROWSERS: &[(&str, &str)] = &[
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
];

/// Systems, in the same way.
const SYSTEMS: &[(&str, &str)] = &[
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
];

/// `Firefox on Windows`, or the name of a program; empty when nothing is said that could be understood.
pub(crate) fn describe(user_agent: Option<&HeaderValue>) -> String {
    let Some(text) = user_agent.and_then(|value| value.to_str().ok()) else { return String::new() };
    let named = |list: &[(&str, &'static str)]| {
        list.iter().find(|(sign, _)| text.contains(sign)).map(|(_, name)| *name)
    };
    match (named(BROWSERS), named(SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => {
            let program = text.split(['/', ' ']).next().unwrap_or_default();
            program.chars().take(MAX_PROGRAM_CHARS).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_known_by_what_only_they_say() {
        let chrome = "(KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";
        for (text, expected) in [
            (format!("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 {chrome}"), "Chrome on Windows"),
            (format!("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 {chrome} Edg/131.0"), "Edge on Windows"),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0".to_owned(), "Firefox on Linux"),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Mobile/15E148 Safari/604.1".to_owned(),
                "Safari on iPhone",
            ),
            (format!("Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 {chrome}"), "Chrome on Android"),
            ("curl/8.5.0".to_owned(), "curl"),
            ("x".repeat(MAX_PROGRAM_CHARS + 1), "x".repeat(MAX_PROGRAM_CHARS).as_str()),
            ("x".repeat(MAX_PROGRAM_CHARS), "x".repeat(MAX_PROGRAM_CHARS).as_str()),
            (String::new(), ""),
        ] {
            assert_eq!(describe(Some(&HeaderValue::from_str(&text).unwrap())), expected, "{text}");
        }
        assert_eq!(describe(None), "");
    }
}
