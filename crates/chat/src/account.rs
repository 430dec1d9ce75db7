//! Signing in and out, and the file with the bearer tokens: readable by its owner only.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, IsTerminal, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::PathBuf,
};

use convene_model::UserId;
use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use crate::{ChatError, api::Api, text};

/// Where Convene serves when nothing else is said.
const DEFAULT_URL: &str = "http://127.0.0.1:8080/";

/// Somebody who is signed in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Account {
    /// The bearer token.
    pub(crate) token: String,
    /// Who.
    pub(crate) user_id: UserId,
    /// The display name.
    pub(crate) name: String,
}

/// The file of kept accounts, one for each Convene.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    kept: Kept,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// The Convene that was used last.
    #[serde(default)]
    last: Option<String>,
    #[serde(default)]
    accounts: BTreeMap<String, Account>,
}

impl Store {
    /// Reads the file in the user's configuration folder; without one nothing is kept yet.
    pub(crate) fn open() -> Result<Self, ChatError> {
        let folders = etcetera::choose_base_strategy()
            .map_err(|error| ChatError::said(format!("there is no home folder: {error}")))?;
        Self::at(folders.config_dir().join("convene").join("chat.json"))
    }

    fn at(path: PathBuf) -> Result<Self, ChatError> {
        let shown = path.display();
        let kept = match fs::File::open(&path) {
            Ok(file) => {
                if file.metadata()?.permissions().mode() & 0o077 != 0 {
                    let hint = format!("others may read {shown}; run `chmod 600` on it");
                    return Err(ChatError::said(hint));
                }
                serde_json::from_reader(io::BufReader::new(file)).map_err(|error| {
                    ChatError::said(format!("{shown} cannot be read ({error}); remove it"))
                })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(ChatError::said(format!("{shown}: {error}"))),
        };
        Ok(Self { path, kept })
    }

    pub(crate) fn account(&self, url: &Url) -> Option<Account> {
        self.kept.accounts.get(url.as_str()).cloned()
    }

    fn keep(&mut self, url: &Url, account: Option<&Account>) -> io::Result<()> {
        match account {
            Some(account) => {
                self.kept.accounts.insert(url.to_string(), account.clone());
                self.kept.last = Some(url.to_string());
            }
            None => {
                self.kept.accounts.remove(url.as_str());
            }
        }
        if let Some(folder) = self.path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        // Under another name first, so that a crash leaves no half a file.
        let fresh = self.path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(&serde_json::to_vec_pretty(&self.kept)?)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)
    }
}

/// The Convene that is meant: the one that was named, the last one, or the one on this machine.
pub(crate) fn choose_url(named: Option<&str>, store: &Store) -> Result<Url, ChatError> {
    let text = named.or(store.kept.last.as_deref()).unwrap_or(DEFAULT_URL);
    let with_scheme =
        if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = Url::parse(&with_scheme).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https") && url.host().is_some() && url.path() == "/"
    });
    url.ok_or_else(|| ChatError::said(format!("{text} is not the address of a Convene")))
}

/// Asks for address and password, and keeps the token.
pub(crate) async fn sign_in(mut store: Store, url: &Url) -> Result<Account, ChatError> {
    if url.scheme() == "http" && !is_local(url) {
        eprintln!("Note: the connection to {url} is not encrypted.");
    }
    eprintln!("Sign in to {url}");
    let email = ask("Mail address: ")?;
    let password = if io::stdin().is_terminal() {
        Zeroizing::new(rpassword::prompt_password("Password: ")?)
    } else {
        Zeroizing::new(ask("")?)
    };
    let (me, token) = Api::new(url, None)?.sign_in(&email, &password).await?;
    let account = Account { token, user_id: me.id, name: me.name };
    store.keep(url, Some(&account)).map_err(|error| {
        ChatError::said(format!("{} cannot be written: {error}", store.path.display()))
    })?;
    Ok(account)
}

/// Deletes the token on the server and here.
pub(crate) async fn sign_out(mut store: Store, url: &Url) -> Result<(), ChatError> {
    let Some(account) = store.account(url) else {
        println!("Nobody is signed in to {url} here.");
        return Ok(());
    };
    let answer = Api::new(url, Some(account.token.clone()))?.sign_out().await;
    store.keep(url, None)?;
    match answer {
        Ok(()) => println!("Signed out of {url}."),
        Err(error) if error.is_unauthorized() => println!("Signed out of {url}."),
        Err(error) => {
            let why = text::line(&error.to_string());
            println!("The token is forgotten here, but not deleted on the server: {why}");
        }
    }
    Ok(())
}

fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn ask(question: &str) -> Result<String, ChatError> {
    eprint!("{question}");
    io::stderr().flush()?;
    let mut line = String::new();
    if io::stdin().read_line(&mut line)? == 0 {
        return Err(ChatError::said("nothing was entered"));
    }
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        let user_id = UserId::new("u1").unwrap();
        Account { token: "cvt_secret".to_owned(), user_id, name: "Ana".to_owned() }
    }

    #[test]
    fn a_token_is_kept_for_its_own_convene_and_for_its_owners_eyes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config").join("chat.json");
        let url = Url::parse("https://convene.example.org/").unwrap();
        let mut store = Store::at(path.clone()).unwrap();
        store.keep(&url, Some(&account())).unwrap();
        let mode =
            |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));

        let mut store = Store::at(path.clone()).unwrap();
        assert_eq!(store.account(&url).unwrap().token, "cvt_secret");
        assert!(store.account(&Url::parse("https://other.example.org/").unwrap()).is_none());
        assert_eq!(choose_url(None, &store).unwrap(), url);
        store.keep(&url, None).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains("cvt_secret"));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chat.json");
        fs::write(&path, "{}").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Store::at(path.clone()).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Store::at(path).is_ok());
    }

    #[test]
    fn an_address_needs_no_scheme_and_may_have_no_path() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().join("chat.json")).unwrap();
        let chosen = |text| choose_url(text, &store).map(|url| url.to_string()).ok();
        assert_eq!(chosen(None).unwrap(), DEFAULT_URL);
        assert_eq!(chosen(Some("convene.example.org")).unwrap(), "https://convene.example.org/");
        assert_eq!(chosen(Some("http://localhost:1")).unwrap(), "http://localhost:1/");
        assert_eq!(chosen(Some("ftp://a")), None);
        assert_eq!(chosen(Some("http://a/path")), None);
    }
}
