//! The connection string of a PostgreSQL server: read, checked, and never shown with its password.

use std::{fmt, path::PathBuf, str::FromStr};

use tokio_postgres::config::{Host, SslMode};

/// Where a PostgreSQL server is and how to sign in there:
/// `postgres://user:password@host:port/database?sslmode=verify-full`.
///
/// `sslmode` means what it means to PostgreSQL's own programs: `disable`; `prefer` (the default) and
/// `require` encrypt without asking who the server is; `verify-full` also checks its certificate
/// and name, against `sslrootcert` (a file of PEM certificates) or the roots that the system and
/// browsers trust. The other parameters are those of `tokio-postgres`.
#[derive(Clone)]
pub struct PostgresUrl {
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: Tls,
}

/// How the server proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tls {
    /// It need not.
    Unverified,
    /// By a certificate for its name.
    Verified {
        /// Whose certificates count, in PEM; those that the system trusts when not set.
        roots: Option<PathBuf>,
    },
}

impl FromStr for PostgresUrl {
    type Err = String;

    /// # Errors
    /// One sentence that repeats nothing of what may be the password.
    fn from_str(url: &str) -> Result<Self, String> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err("it does not begin with postgres://".to_owned());
        }
        if url.matches('@').count() > 1 {
            return Err("it has more than one @: in a password it is written as %40".to_owned());
        }
        let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
        let mut ssl_mode = "prefer";
        let mut roots = None;
        let mut others = Vec::new();
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", value)) => ssl_mode = value,
                Some(("sslrootcert", value)) => {
                    roots = Some(PathBuf::from(value.replace("%2F", "/").replace("%2f", "/")));
                }
                Some(_) | None => others.push(parameter),
            }
        }
        let mut config: tokio_postgres::Config = format!("{address}?{}", others.join("&"))
            .parse()
            .map_err(|error: tokio_postgres::Error| super::super::with_causes(&error))?;
        let tls = match ssl_mode {
            "disable" | "prefer" | "require" => Tls::Unverified,
            "verify-full" => Tls::Verified { roots: roots.clone() },
            "verify-ca" => return Err("sslmode=verify-ca is not supported: use verify-full".into()),
            _ => {
                return Err("sslmode is one of disable, prefer, require and verify-full".into());
            }
        };
        if roots.is_some() && tls == Tls::Unverified {
            return Err("sslrootcert needs sslmode=verify-full".into());
        }
        config.ssl_mode(match ssl_mode {
            "disable" => SslMode::Disable,
            "prefer" => SslMode::Prefer,
            _ => SslMode::Require,
        });
        if config.get_hosts().is_empty() {
            return Err("it names no host".into());
        }
        if config.get_user().is_none() {
            return Err("it names no user".into());
        }
        Ok(Self { config, tls })
    }
}

/// Where it is, for people: without user, password and parameters.
impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgreSQL at ")?;
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match host {
                Host::Tcp(name) => f.write_str(name)?,
                Host::Unix(path) => write!(f, "{}", path.display())?,
            }
        }
        match self.config.get_dbname() {
            Some(name) => write!(f, ", database {name}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_shown_without_its_password() {
        let url: PostgresUrl =
            "postgres://convene:s3cr%40t@db.example.org:6432/convene?sslmode=verify-full\
             &sslrootcert=/etc/ca.pem&connect_timeout=3"
                .parse()
                .unwrap();
        assert_eq!(url.to_string(), "PostgreSQL at db.example.org, database convene");
        assert!(!format!("{url:?}").contains("s3cr"));
        assert_eq!(url.config.get_password(), Some(&b"s3cr@t"[..]));
        assert_eq!(url.config.get_ports(), [6432]);
        assert_eq!(url.config.get_ssl_mode(), SslMode::Require);
        assert_eq!(url.tls, Tls::Verified { roots: Some("/etc/ca.pem".into()) });

        let url: PostgresUrl = "postgresql://u@%2Frun%2Fpostgresql/c".parse().unwrap();
        assert_eq!(url.to_string(), "PostgreSQL at /run/postgresql, database c");
        assert_eq!((url.config.get_ssl_mode(), url.tls), (SslMode::Prefer, Tls::Unverified));
    }

    #[test]
    fn what_is_refused_is_refused_without_repeating_it() {
        for url in [
            "mysql://u:s3cret@h/d",
            "postgres://u:s3cret@ss@h/d",
            "postgres://u:s3cret@h:port/d",
            "postgres://u:s3cret@h/d?sslmode=verify-ca",
            "postgres://u:s3cret@h/d?sslmode=s3cret",
            "postgres://u:s3cret@h/d?sslrootcert=/ca.pem",
            "postgres://u:s3cret@h/d?unheard=of",
            "postgres://u:s3cret@/d",
            "postgres://h/d",
        ] {
            let problem = url.parse::<PostgresUrl>().unwrap_err();
            assert!(!problem.contains("s3cret"), "{problem}");
        }
    }
}
