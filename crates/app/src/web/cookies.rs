//! The two cookies of the App: the session, and the one behind forms of people not signed in.

use http::{HeaderMap, HeaderValue, header};

/// The session's cookie.
pub(crate) const SESSION: &str = "convene_session";
/// The cookie behind forms of people who are not signed in.
pub(crate) const FORM: &str = "convene_form";

/// The value of a cookie, if the request has it exactly once.
pub(crate) fn read<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut found = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    let first = found.next()?;
    // Two cookies of one name mean that somebody else, on a sibling host, set one of them.
    if found.next().is_some() { None } else { Some(first) }
}

/// A `set-cookie` value; without `max_age_secs` the cookie lives as long as the browser's session.
pub(crate) fn set(name: &str, value: &str, max_age_secs: Option<u64>, secure: bool) -> HeaderValue {
    let age = max_age_secs.map(|secs| format!("; Max-Age={secs}")).unwrap_or_default();
    let secure = if secure { "; Secure" } else { "" };
    HeaderValue::from_str(&format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{age}{secure}"))
        .expect("names and values of ours are visible ASCII")
}

/// A `set-cookie` value that takes a cookie away.
pub(crate) fn clear(name: &str, secure: bool) -> HeaderValue {
    set(name, "", Some(0), secure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (header::COOKIE, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_cookie_is_found_among_others_and_doubt_finds_none() {
        assert_eq!(read(&cookies(&["a=1; convene_session=x; b=2"]), SESSION), Some("x"));
        assert_eq!(read(&cookies(&["a=1", "convene_session=x"]), SESSION), Some("x"));
        assert_eq!(read(&cookies(&["xconvene_session=x"]), SESSION), None);
        assert_eq!(read(&cookies(&["convene_session=x; convene_session=y"]), SESSION), None);
        assert_eq!(read(&cookies(&[]), SESSION), None);
    }

    #[test]
    fn a_cookie_is_kept_from_scripts_and_other_sites() {
        let value = set(SESSION, "x", Some(60), true);
        assert_eq!(value, "convene_session=x; Path=/; HttpOnly; SameSite=Lax; Max-Age=60; Secure");
        assert_eq!(clear(FORM, false), "convene_form=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0");
    }
}
