//! The script, style and pictures, compiled into the binary and served under `/assets`.
//!
//! Pages link to `/assets/{version}/…` with the version of this build, which may be kept for ever;
//! relative imports between modules stay within the version. Any other version still serves the
//! current file, but must be asked for again. No file is read from disk at run time.
//!
//! Script and style are sent without the lines that hold nothing but comments, which is a quarter of
//! them; the other lines keep their numbers, so that what a browser reports can be found.

use std::{borrow::Cow, collections::HashMap, sync::LazyLock};

use axum::{
    Router,
    body::Bytes,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use rust_embed::Embed;
use sha2::{Digest, Sha256};
use tower_http::compression::CompressionLayer;

/// Every file that a page may ask for.
#[derive(Embed)]
#[folder = "assets"]
struct Assets;

/// Hexadecimal digits of the version in URLs.
const VERSION_DIGITS: usize = 12;

/// The version of all assets together: it changes when any of them does.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut paths: Vec<Cow<'static, str>> = Assets::iter().collect();
    paths.sort_unstable();
    let mut hash = Sha256::new();
    for path in paths {
        if let Some(file) = Assets::get(&path) {
            hash.update(path.as_bytes());
            hash.update([0]);
            hash.update(file.metadata.sha256_hash());
        }
    }
    hex(&hash.finalize())[..VERSION_DIGITS].to_owned()
});

/// Script and style as they are sent.
static BARE: LazyLock<HashMap<String, Bytes>> = LazyLock::new(|| {
    let texts = Assets::iter().filter(|path| path.ends_with(".js") || path.ends_with(".css"));
    let bare = texts.filter_map(|path| {
        let file = Assets::get(&path)?;
        let text = std::str::from_utf8(&file.data).ok()?;
        Some((path.into_owned(), without_comments(text).into()))
    });
    bare.collect()
});

/// The folder of what only the settings load.
const SETTINGS: &str = "js/settings/";

/// The modules that a group's page loads, so that the browser can fetch them all at once.
static MODULES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut modules: Vec<String> = Assets::iter()
        .filter(|path| path.starts_with("js/") && !path.starts_with(SETTINGS))
        .filter(|path| !NOT_MODULES.contains(&path.as_ref()))
        .map(|path| url(path.as_ref()))
        .collect();
    modules.sort_unstable();
    modules
});

/// A script that holds only types: browsers never load it.
const TYPES: &str = "js/wire.js";
/// Scripts that are no modules of a page.
const NOT_MODULES: &[&str] = &["js/theme.js", TYPES];

/// The URL of an asset, for instance `url("css/base.css")`.
#[must_use]
pub fn url(path: &str) -> String {
    format!("/assets/{}/{path}", *VERSION)
}

/// The URLs of all modules.
#[must_use]
pub fn modules() -> &'static [String] {
    &MODULES
}

/// Serves `/assets/{version}/{path}` with `GET` and `HEAD`, compressed where the client takes it.
///
/// It needs no state: merge it into the app's router.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/assets/{version}/{*path}", get(serve))
        .layer(CompressionLayer::new().gzip(true))
}

async fn serve(Path((version, path)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let (Some(kind), Some(file)) = (kind(&path), Assets::get(&path)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let etag = format!("W/\"{}\"", &hex(&file.metadata.sha256_hash())[..32]);
    let cache = if version == *VERSION {
        HeaderValue::from_static("public, max-age=31536000, immutable")
    } else {
        HeaderValue::from_static("no-cache")
    };
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| tag.trim() == etag || tag.trim() == "*");
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(kind))];
        match BARE.get(&path) {
            Some(bare) => (kind, bare.clone()).into_response(),
            None => (kind, file.data).into_response(),
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, cache);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

/// A text with empty lines in the place of those that hold nothing but a comment. A comment beside
/// code stays, and so does one that code follows.
fn without_comments(text: &str) -> String {
    let mut bare = String::with_capacity(text.len());
    let mut within = false;
    for line in text.lines() {
        let trimmed = line.trim();
        let begins = trimmed.starts_with("/*");
        let ends = trimmed.find("*/").map(|at| at + 2 == trimmed.len());
        let is_comment = within || trimmed.starts_with("//") || (begins && ends != Some(false));
        within = (within || begins) && ends.is_none();
        if !is_comment {
            bare.push_str(line);
        }
        bare.push('\n');
    }
    bare
}

/// The content type of a file that browsers may ask for; `None` for what only lies beside them.
fn kind(path: &str) -> Option<&'static str> {
    match path.rsplit_once('.')?.1 {
        "js" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn ask(path: &str, name: &str, value: &str) -> Response {
        let request = Request::get(path).header(name, value).body(Body::empty()).unwrap();
        router::<()>().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn a_versioned_file_may_be_kept_for_ever_and_another_version_may_not() {
        let response = ask(&url("css/base.css"), "x-none", "1").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/css; charset=utf-8");
        assert!(response.headers()[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
        let response = ask("/assets/0/css/base.css", "x-none", "1").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache");
    }

    #[tokio::test]
    async fn a_known_file_is_not_sent_again_and_a_missing_one_is_not_found() {
        let first = ask(&url("js/main.js"), "x-none", "1").await;
        let etag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        let again = ask(&url("js/main.js"), "if-none-match", &etag).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert!(again.into_body().collect().await.unwrap().to_bytes().is_empty());
        for missing in ["js/none.js", "jsconfig.json", "../Cargo.toml", "js/..%2f..%2fCargo.toml"] {
            assert_eq!(
                ask(&url(missing), "x-none", "1").await.status(),
                StatusCode::NOT_FOUND,
                "{missing}"
            );
        }
    }

    #[tokio::test]
    async fn files_come_compressed_to_those_who_take_it() {
        let response = ask(&url("css/base.css"), "accept-encoding", "gzip").await;
        assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
    }

    #[test]
    fn lines_of_comments_are_left_out_and_the_others_keep_their_numbers() {
        let text = "// one\n/** two\n * three */\nlet x = 1; // four\n  /* five */\n/** @type {X} */ (x).y();\n";
        let bare = "\n\n\nlet x = 1; // four\n\n/** @type {X} */ (x).y();\n";
        assert_eq!(without_comments(text), bare);
        for path in Assets::iter().filter(|path| kind(path).is_some() && !path.ends_with(".svg")) {
            let file = Assets::get(&path).unwrap();
            let mut within = false;
            for line in std::str::from_utf8(&file.data).unwrap().lines().map(str::trim) {
                // Code behind the end of a comment of several lines would be lost.
                assert!(!within || !line.contains("*/") || line.ends_with("*/"), "{path}: {line}");
                within = (within || line.starts_with("/*")) && !line.contains("*/");
            }
        }
    }

    #[tokio::test]
    async fn the_script_and_the_style_stay_within_their_budgets() {
        for (folder, budget) in [("js/", 60_000), (SETTINGS, 10_000), ("css/", 30_000)] {
            let mut sum = 0;
            // What holds only types is never asked for, and a group asks for nothing of the settings.
            let apart =
                |path: &str| path == TYPES || (path.starts_with(SETTINGS) && folder != SETTINGS);
            let sent = |path: &str| path.starts_with(folder) && !apart(path);
            for path in Assets::iter().filter(|path| sent(path)) {
                let response = ask(&url(&path), "accept-encoding", "gzip").await;
                sum += response.into_body().collect().await.unwrap().to_bytes().len();
            }
            assert!(sum > 0 && sum <= budget, "{folder} has {sum} bytes compressed");
        }
    }

    #[test]
    fn no_script_asks_or_says_anything_in_a_window_of_the_browsers_own() {
        for path in Assets::iter().filter(|path| path.ends_with(".js")) {
            let file = Assets::get(&path).unwrap();
            let text = without_comments(std::str::from_utf8(&file.data).unwrap());
            for call in ["confirm(", "alert(", "prompt("] {
                let found = text.match_indices(call).find(|(at, _)| {
                    !text[..*at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
                });
                assert!(found.is_none(), "{path} calls {call}");
            }
        }
    }

    #[test]
    fn every_module_that_a_page_names_is_there() {
        assert!(modules().iter().any(|module| module.ends_with("js/group.js")));
        for module in modules() {
            let path = module.splitn(4, '/').nth(3).unwrap();
            assert!(Assets::get(path).is_some(), "{module}");
        }
    }
}
