//! `convene chat`: a group's conversation in a terminal, over the public App API and nothing else.
//!
//! ```text
//! keys ──▶ screen ──▶ room (what is known of the group) ──▶ view ──▶ terminal
//!             │  ▲
//!        frames  frames, connection state
//!             ▼  │
//!             link ══WebSocket══ App        api ──HTTP── App
//! ```
//!
//! Owns how a person reads and writes at a terminal, and the bearer token that it keeps for that.
//! Never reads a data directory or a configuration of the server: it works against any Convene.

mod account;
mod api;
mod command;
mod editor;
mod link;
mod markdown;
mod picker;
mod plain;
mod room;
mod runs_view;
mod screen;
mod terminal;
mod text;
mod theme;
mod view;

use std::io::IsTerminal;

use clap::{Args, Subcommand};

use crate::{
    account::{Account, Store},
    api::{Api, ApiError},
};

/// How `convene chat` is called.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ChatArgs {
    #[command(subcommand)]
    command: Option<ChatCommand>,
    /// Where Convene serves [default: the last one used, or http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", env = "CONVENE_URL", global = true)]
    url: Option<String>,
    /// The group: its id, or its title or a part of it
    #[arg(long, value_name = "ID|TITLE")]
    group: Option<String>,
    /// Write standard input as one message to the group, and end
    #[arg(long, requires = "group", conflicts_with = "tail")]
    post: bool,
    /// Print the group's messages as they come, one a line
    #[arg(long, requires = "group")]
    tail: bool,
    /// With --tail, begin with this many messages that are there already
    #[arg(long, value_name = "COUNT", default_value_t = 10, requires = "tail")]
    lines: usize,
    /// With --tail print events as JSON, with --post the answer
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum ChatCommand {
    /// Sign in, and keep a token for the next time.
    SignIn,
    /// Give the kept token back and forget it.
    SignOut,
}

/// What ends `convene chat`, for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The App refused, or could not be reached.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The terminal or a file failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Something else, in words.
    #[error("{0}")]
    Said(String),
}

impl ChatError {
    pub(crate) fn said(text: impl Into<String>) -> Self {
        Self::Said(text.into())
    }
}

/// Runs the terminal client to its end.
///
/// # Errors
/// [`ChatError`] in words for the person at the terminal, which is in order again.
pub async fn run(args: ChatArgs) -> Result<(), ChatError> {
    // A second installation happens only where a process embeds the client; the first holds.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store = Store::open()?;
    let url = account::choose_url(args.url.as_deref(), &store)?;
    match args.command {
        Some(ChatCommand::SignOut) => return account::sign_out(store, &url).await,
        Some(ChatCommand::SignIn) => {
            let account = account::sign_in(store, &url).await?;
            println!("Signed in to {url} as {}.", account.name);
            return Ok(());
        }
        None => {}
    }
    let plain = args.post || args.tail;
    let has_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if !plain && !has_terminal {
        return Err(ChatError::said(
            "the conversation needs a terminal; in a pipe use --post or --tail with --group",
        ));
    }
    let account = enter(store, &url, !args.post).await?;
    let api = Api::new(&url, Some(account.token.clone()))?;
    if args.post {
        return plain::post(&api, args.group.as_deref().unwrap_or_default(), args.json).await;
    }
    if args.tail {
        let wanted = args.group.as_deref().unwrap_or_default();
        return plain::tail(&api, wanted, args.lines, args.json).await;
    }
    screen::run(api, account, args.group.as_deref()).await
}

/// The account to go on with: the kept one where its token still holds, else a new sign-in.
async fn enter(store: Store, url: &url::Url, may_ask: bool) -> Result<Account, ChatError> {
    if let Some(token) = std::env::var("CONVENE_TOKEN").ok().filter(|token| !token.is_empty()) {
        let me = Api::new(url, Some(token.clone()))?.me().await?;
        return Ok(Account { token, user_id: me.user.id, name: me.user.name });
    }
    if let Some(account) = store.account(url) {
        match Api::new(url, Some(account.token.clone()))?.me().await {
            Ok(me) => {
                let Account { token, .. } = account;
                return Ok(Account { token, user_id: me.user.id, name: me.user.name });
            }
            Err(error) if error.is_unauthorized() => {}
            Err(error) => return Err(error.into()),
        }
    }
    if may_ask && std::io::stdin().is_terminal() {
        return account::sign_in(store, url).await;
    }
    let hint = "run `convene chat sign-in`, or set CONVENE_TOKEN";
    Err(ChatError::said(format!("you are not signed in to {url}: {hint}")))
}
