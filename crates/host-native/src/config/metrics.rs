//! `[metrics]`: where the figures of a process are read, and by whom.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::ConfigError;

/// Characters that a token has at least, so that it cannot be guessed.
pub(super) const MIN_TOKEN_CHARS: usize = 16;

/// The figures of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// An address that serves `/metrics` and nothing else. Without a token whoever reaches it reads.
    pub listen: Option<SocketAddr>,
    /// A file with the token that a reader brings. With it the internal doors answer `/metrics` too.
    pub token_file: Option<PathBuf>,
}

impl MetricsConfig {
    /// The token, read from its file.
    ///
    /// # Errors
    /// [`ConfigError`] when the file cannot be read or the token is too short.
    pub fn token(&self) -> Result<Option<String>, ConfigError> {
        self.token_file.as_deref().map(read).transpose()
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let invalid = |problem: String| ConfigError::invalid("metrics.token_file", problem);
    let text = std::fs::read_to_string(path)
        .map_err(|error| invalid(format!("{} cannot be read: {error}", path.display())))?;
    let token = text.trim();
    if token.chars().count() < MIN_TOKEN_CHARS || !token.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(invalid(format!(
            "{} has no token of at least {MIN_TOKEN_CHARS} visible ASCII characters",
            path.display()
        )));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_files_text_and_long_enough() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let config = MetricsConfig { token_file: Some(file.clone()), ..MetricsConfig::default() };
        assert!(config.token().is_err(), "there is no such file");
        for refused in ["", "\n", "fifteen-letters", "sixteen letters with blanks"] {
            std::fs::write(&file, refused).unwrap();
            assert!(config.token().is_err(), "{refused:?}");
        }
        std::fs::write(&file, "sixteen-letters-\n").unwrap();
        assert_eq!(config.token().unwrap().as_deref(), Some("sixteen-letters-"));
        assert_eq!(MetricsConfig::default().token().unwrap(), None);
    }
}
