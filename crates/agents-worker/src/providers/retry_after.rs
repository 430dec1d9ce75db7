//! When a provider that refused wants to be asked again.

use std::time::{Duration, UNIX_EPOCH};

use convene_model::Timestamp;
use http::{HeaderMap, header};
use serde_json::Value;

/// The longest wait that is believed; a provider that says more is treated as if it had said this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The milliseconds of `retry-after-ms` or of `retry-after`, which has seconds or an HTTP date
/// (RFC 9110, section 10.2.3).
pub(crate) fn millis(headers: &HeaderMap, now: Timestamp) -> Option<u64> {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let exact = value("retry-after-ms").and_then(|text| text.parse().ok()).and_then(from_millis);
    let wait = exact.or_else(|| {
        let text = value(header::RETRY_AFTER.as_str())?;
        match text.parse::<f64>() {
            Ok(seconds) => from_millis(seconds * 1000.0),
            Err(_) => {
                let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
                Some(Timestamp::from_secs(at.as_secs()).since(now))
            }
        }
    })?;
    Some(wait.min(MAX_RETRY_AFTER).as_millis() as u64)
}

/// The milliseconds that Google's services name in the body of a refusal: a `retryDelay` such as
/// `20s` among its details.
pub(crate) fn millis_in(body: &Value) -> Option<u64> {
    let details = body.pointer("/error/details")?.as_array()?;
    let delay = details.iter().find_map(|detail| detail["retryDelay"].as_str())?;
    let seconds: f64 = delay.strip_suffix('s')?.parse().ok()?;
    Some(from_millis(seconds * 1000.0)?.min(MAX_RETRY_AFTER).as_millis() as u64)
}

fn from_millis(millis: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(millis / 1000.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &'static str, value: &'static str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        // 2015-10-21T07:27:30Z
        millis(&headers, Timestamp::from_secs(1_445_412_450))
    }

    #[test]
    fn seconds_and_dates_are_understood() {
        assert_eq!(of("retry-after", "20"), Some(20_000));
        assert_eq!(of("retry-after", "0.5"), Some(500));
        assert_eq!(of("retry-after-ms", "250"), Some(250));
        assert_eq!(of("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), Some(30_000));
    }

    #[test]
    fn a_date_in_the_past_means_now_and_a_far_one_a_day() {
        assert_eq!(of("retry-after", "Wed, 21 Oct 2015 07:27:00 GMT"), Some(0));
        assert_eq!(of("retry-after", "1e9"), Some(86_400_000));
    }

    #[test]
    fn a_delay_in_the_body_is_understood() {
        let body = |delay: &str| serde_json::json!({"error": {"details": [{"reason": "x"}, {"retryDelay": delay}]}});
        assert_eq!(millis_in(&body("20s")), Some(20_000));
        assert_eq!(millis_in(&body("1.5s")), Some(1_500));
        assert_eq!(millis_in(&body("1e9s")), Some(86_400_000));
        assert_eq!(millis_in(&body("soon")), None);
        assert_eq!(millis_in(&serde_json::json!({"error": "x"})), None);
    }

    #[test]
    fn nonsense_says_nothing() {
        for value in ["soon", "-1", "", "NaN", "inf"] {
            assert_eq!(of("retry-after", value), None, "{value:?}");
        }
    }
}
