//! View structs to whole pages.
//!
//! Each function renders one template of `templates/` and returns HTML, to be sent as `text/html`
//! with [`super::CSP`]. None fails: a template that cannot be rendered is a bug, which the tests
//! render every page to find.

use askama::Template;
use convene_model::{
    MessageId, Timestamp,
    event::{GroupAgent, TriggerPolicy},
};
use serde::Serialize;

use super::{
    timeline::{self, Civil, Item},
    view::{
        AccountView, ErrorView, GroupFilter, GroupItem, GroupLife, GroupView, InviteView, Me,
        MembersView, Names, OrgView, PageView, Person, Shell, SignInView, SignUpView, StartView,
        TokensView, WorkspaceView,
    },
};

/// The sign-up form.
#[must_use]
pub fn sign_up(view: &SignUpView) -> String {
    let other = with_next("/sign-in", view.next.as_deref());
    html(&SignUp { csrf: &view.csrf, view, other })
}

/// The sign-in form.
#[must_use]
pub fn sign_in(view: &SignInView) -> String {
    let other = with_next("/sign-up", view.next.as_deref());
    html(&SignIn { csrf: &view.csrf, view, other })
}

/// What an invite link shows.
#[must_use]
pub fn invite(view: &InviteView) -> String {
    html(&Invite { csrf: &view.csrf, view })
}

/// The reader's workspaces.
#[must_use]
pub fn start(view: &StartView) -> String {
    html(&Start { csrf: &view.csrf, view })
}

/// A workspace and its groups.
#[must_use]
pub fn workspace(view: &WorkspaceView) -> String {
    let shell = &view.shell;
    let (listed, filter) = match view.filter {
        None => ([shell.in_service(), shell.put_away()].concat(), ""),
        Some(GroupFilter::Active) => (shell.in_service(), "active"),
        Some(GroupFilter::Archived) => (shell.put_away(), "archived"),
    };
    html(&Workspace { csrf: &shell.csrf, shell, current: None, settings: false, listed, filter })
}

/// The people of a workspace.
#[must_use]
pub fn settings_members(view: &MembersView) -> String {
    let shell = &view.shell;
    html(&Members {
        csrf: &shell.csrf,
        shell,
        current: None,
        settings: true,
        tab: "members",
        manages: shell.org.role.manages(),
        view,
    })
}

/// The reader's own account, within a workspace if they came from one.
#[must_use]
pub fn own_account(view: &AccountView) -> String {
    let csrf = &view.csrf;
    match &view.shell {
        Some(shell) => html(&OwnAccount { csrf, shell, current: None, settings: false, view }),
        None => html(&OwnAccountAlone { csrf, view }),
    }
}

/// The reader's API tokens.
#[must_use]
pub fn settings_tokens(view: &TokensView) -> String {
    let shell = &view.shell;
    html(&Tokens { csrf: &shell.csrf, shell, current: None, settings: true, tab: "tokens", view })
}

/// A group: its newest page as text, and everything that the script begins with.
#[must_use]
pub fn group(view: &GroupView) -> String {
    let names = Names::of_group(view);
    let items = view.page.as_ref().map(|page| timeline::items(page, &names)).unwrap_or_default();
    let bootstrap = Bootstrap {
        me: &view.shell.me,
        org: &view.shell.org,
        group: &view.group,
        groups: &view.shell.groups,
        members: &view.members,
        agents: &view.agents,
        paused: view.paused,
        can_manage: view.can_manage,
        former: &view.former,
        page: view.page.as_ref(),
        csrf: &view.shell.csrf,
        target: view.target.as_ref(),
    };
    // Within a script element only `<` could end it; in JSON it stands only inside strings.
    let bootstrap = serde_json::to_string(&bootstrap)
        .expect("views have only text keys")
        .replace('<', "\\u003c");
    html(&Group {
        csrf: &view.shell.csrf,
        shell: &view.shell,
        current: Some(view.group.group_id.to_string()),
        settings: false,
        view,
        items,
        bootstrap,
    })
}

/// What went wrong, and what to do.
#[must_use]
pub fn error(view: &ErrorView) -> String {
    html(&Failure { csrf: "", view })
}

/// A date as the pages show it, in UTC.
#[must_use]
pub fn date(at: &Timestamp) -> String {
    Civil::of(*at).date()
}

/// The time of day, `14:03`.
#[must_use]
pub fn clock(at: &Timestamp) -> String {
    Civil::of(*at).clock()
}

/// For a `datetime` attribute.
#[must_use]
pub fn iso(at: &Timestamp) -> String {
    Civil::of(*at).iso()
}

/// A page, or a part of one, as text.
pub(crate) fn html(template: &impl Template) -> String {
    template.render().expect("templates write to memory and call nothing that fails")
}

/// A link that keeps where to go afterwards.
fn with_next(path: &str, next: Option<&str>) -> String {
    match next {
        Some(next) => {
            let query: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
            format!("{path}?next={query}")
        }
        None => path.to_owned(),
    }
}

#[derive(Template)]
#[template(path = "sign_up.html")]
struct SignUp<'a> {
    csrf: &'a str,
    view: &'a SignUpView,
    other: String,
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn<'a> {
    csrf: &'a str,
    view: &'a SignInView,
    other: String,
}

#[derive(Template)]
#[template(path = "invite.html")]
struct Invite<'a> {
    csrf: &'a str,
    view: &'a InviteView,
}

#[derive(Template)]
#[template(path = "start.html")]
struct Start<'a> {
    csrf: &'a str,
    view: &'a StartView,
}

#[derive(Template)]
#[template(path = "error.html")]
struct Failure<'a> {
    csrf: &'a str,
    view: &'a ErrorView,
}

#[derive(Template)]
#[template(path = "workspace.html")]
struct Workspace<'a> {
    csrf: &'a str,
    shell: &'a Shell,
    current: Option<String>,
    settings: bool,
    listed: Vec<&'a GroupItem>,
    filter: &'static str,
}

impl Workspace<'_> {
    /// Whether it is these groups that are listed.
    fn lists(&self, filter: &str) -> bool {
        self.filter == filter
    }
}

#[derive(Template)]
#[template(path = "settings_members.html")]
struct Members<'a> {
    csrf: &'a str,
    shell: &'a Shell,
    current: Option<String>,
    settings: bool,
    tab: &'static str,
    manages: bool,
    view: &'a MembersView,
}

#[derive(Template)]
#[template(path = "own_account.html")]
struct OwnAccount<'a> {
    csrf: &'a str,
    shell: &'a Shell,
    current: Option<String>,
    settings: bool,
    view: &'a AccountView,
}

#[derive(Template)]
#[template(path = "own_account_alone.html")]
struct OwnAccountAlone<'a> {
    csrf: &'a str,
    view: &'a AccountView,
}

#[derive(Template)]
#[template(path = "settings_tokens.html")]
struct Tokens<'a> {
    csrf: &'a str,
    shell: &'a Shell,
    current: Option<String>,
    settings: bool,
    tab: &'static str,
    view: &'a TokensView,
}

#[derive(Template)]
#[template(path = "group.html")]
struct Group<'a> {
    csrf: &'a str,
    shell: &'a Shell,
    current: Option<String>,
    settings: bool,
    view: &'a GroupView,
    items: Vec<Item>,
    bootstrap: String,
}

impl Group<'_> {
    /// Why nothing can be written in the group, where that is so.
    fn life_line(&self) -> &'static str {
        match self.view.group.status {
            GroupLife::Active => "",
            GroupLife::Archiving => "This group is on its way into the archive.",
            GroupLife::Archived => "This group is archived. It can be read.",
            GroupLife::Restoring => "This group is on its way back from the archive.",
        }
    }

    /// When an agent answers, in one line.
    fn trigger_line(&self, agent: &GroupAgent) -> &'static str {
        if self.view.paused {
            return "paused";
        }
        match agent.trigger {
            TriggerPolicy::Off => "off",
            TriggerPolicy::Mention => "answers when mentioned",
            TriggerPolicy::Auto => "answers every message",
            TriggerPolicy::Discussion => "takes part in discussions",
        }
    }
}

/// What the script of a group page begins with.
#[derive(Serialize)]
struct Bootstrap<'a> {
    me: &'a Me,
    org: &'a OrgView,
    group: &'a GroupItem,
    groups: &'a [GroupItem],
    members: &'a [Person],
    agents: &'a [GroupAgent],
    paused: bool,
    can_manage: bool,
    former: &'a std::collections::HashMap<String, String>,
    page: Option<&'a PageView>,
    csrf: &'a str,
    target: Option<&'a MessageId>,
}
