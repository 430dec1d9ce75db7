//! What the pages are made of: plain structs that a page handler fills.
//!
//! A view holds only what its reader may see. Ids are the model's types, so that nothing unchecked
//! reaches a URL; texts are raw and escaped by the templates.

use std::collections::{BTreeMap, HashMap};

use convene_model::{
    AgentId, GroupId, HistoryId, MessageId, OrgId, Role, Timestamp, UserId,
    event::{Author, GroupAgent, TriggerPolicy},
    history::{Excerpt, FinishedRun, Message},
    price::ModelPrice,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    agents::config::{AgentConfig, Visibility},
    probing::Seen,
    providers::kind::ProviderKind,
};

/// Who is signed in.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Me {
    /// The user's id.
    pub id: UserId,
    /// The user's display name.
    pub name: String,
    /// The user's mail address.
    pub email: String,
}

/// A workspace of the reader.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct OrgView {
    /// Which workspace.
    pub org_id: OrgId,
    /// Its name.
    pub name: String,
    /// The reader's role in it.
    pub role: Role,
}

/// A group in a list.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GroupItem {
    /// Which group.
    pub group_id: GroupId,
    /// Whose it is.
    pub org_id: OrgId,
    /// Its title.
    pub title: String,
    /// Whether only its members see it.
    pub is_private: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Where it stands in its life.
    pub status: GroupLife,
    /// Since when it stands there; absent for a group that was never archived.
    pub status_at: Option<Timestamp>,
    /// How it stands with the reader.
    #[serde(flatten)]
    pub standing: Standing,
}

/// Where a group stands in its life, as people see it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupLife {
    /// It can be written in, whether it is in use, sleeps or was never used.
    #[default]
    Active,
    /// It is on its way into the archive: it can be read only.
    Archiving,
    /// It is read from its snapshot, until it is restored.
    Archived,
    /// It is on its way back: it can be read only.
    Restoring,
}

impl GroupLife {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Active, Self::Archiving, Self::Archived, Self::Restoring];

    /// The name in rows, in JSON and in pages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Archiving => "archiving",
            Self::Archived => "archived",
            Self::Restoring => "restoring",
        }
    }

    /// Whether it can be written in.
    #[must_use]
    pub const fn is_active(self) -> bool {
        match self {
            Self::Active => true,
            Self::Archiving | Self::Archived | Self::Restoring => false,
        }
    }
}

/// How a group stands with its reader.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Standing {
    /// The number of the event that posted the last message; 0 when there is none.
    pub head: u64,
    /// How many messages there are, deleted ones included.
    pub nth: u64,
    /// How many of them came after what the reader has read.
    pub unread: u64,
    /// How many of those mention the reader.
    pub mentions: u64,
    /// Whether the reader wants no notice of it.
    pub muted: bool,
    /// The number of the last event that the reader has read; 0 before the first time.
    pub read_up_to: u64,
    /// When the last message was posted.
    pub last_at: Option<Timestamp>,
}

/// Somebody by name.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Person {
    /// The user's id.
    pub user_id: UserId,
    /// The user's display name.
    pub name: String,
}

/// What stands beside the content on every page of a workspace.
#[derive(Debug, Clone)]
pub struct Shell {
    /// The session's CSRF token.
    pub csrf: String,
    /// Who is signed in.
    pub me: Me,
    /// The workspace in view.
    pub org: OrgView,
    /// All workspaces of the reader, the one in view among them.
    pub orgs: Vec<OrgView>,
    /// The groups of the workspace that the reader may open, in the order of the list.
    pub groups: Vec<GroupItem>,
}

impl Shell {
    /// The groups that can be written in.
    #[must_use]
    pub fn in_service(&self) -> Vec<&GroupItem> {
        self.groups.iter().filter(|group| group.status.is_active()).collect()
    }

    /// The groups that are archived, or on their way into the archive or back.
    #[must_use]
    pub fn put_away(&self) -> Vec<&GroupItem> {
        self.groups.iter().filter(|group| !group.status.is_active()).collect()
    }

    /// The title of a group that the reader may open.
    #[must_use]
    pub fn title(&self, group: &str) -> Option<&str> {
        let found = self.groups.iter().find(|item| item.group_id.as_str() == group);
        found.map(|item| item.title.as_str())
    }

    /// Whether that group is one of those that are put away.
    #[must_use]
    pub fn is_put_away(&self, group: &Option<String>) -> bool {
        let is = |other: &&GroupItem| group.as_deref() == Some(other.group_id.as_str());
        self.put_away().iter().any(is)
    }
}

/// What is wrong with a form that comes back.
#[derive(Debug, Clone, Default)]
pub struct FormErrors {
    /// What is wrong with the whole, as a sentence.
    pub general: Option<String>,
    /// What is wrong with a field, by the field's name, as a sentence.
    pub fields: BTreeMap<String, String>,
}

impl FormErrors {
    /// One sentence about the whole form.
    #[must_use]
    pub fn general(sentence: impl Into<String>) -> Self {
        Self { general: Some(sentence.into()), fields: BTreeMap::new() }
    }

    /// Adds a sentence about one field.
    #[must_use]
    pub fn field(mut self, name: &str, sentence: impl Into<String>) -> Self {
        self.fields.insert(name.to_owned(), sentence.into());
        self
    }

    /// The sentence about a field.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }
}

/// `GET /sign-up`, and `POST /sign-up` when it is refused.
#[derive(Debug, Clone, Default)]
pub struct SignUpView {
    /// The CSRF token of the form.
    pub csrf: String,
    /// Where to go afterwards (a path of this site), as the hidden field `next`.
    pub next: Option<String>,
    /// The token of the invite that led here, as the hidden field `invite`.
    pub invite: Option<String>,
    /// The workspace that the invite is for.
    pub invite_org: Option<String>,
    /// What was entered.
    pub email: String,
    /// What was entered.
    pub name: String,
    /// What is wrong; fields `email`, `name`, `password`.
    pub errors: FormErrors,
}

/// `GET /sign-in`, and `POST /sign-in` when it is refused.
#[derive(Debug, Clone, Default)]
pub struct SignInView {
    /// The CSRF token of the form.
    pub csrf: String,
    /// Where to go afterwards (a path of this site), as the hidden field `next`.
    pub next: Option<String>,
    /// The workspace that an invite on the way is for.
    pub invite_org: Option<String>,
    /// What was entered.
    pub email: String,
    /// What is wrong; fields `email`, `password`.
    pub errors: FormErrors,
}

/// What an invite link is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteState {
    /// It can be accepted.
    Open,
    /// The reader belongs to the workspace already.
    AlreadyMember,
    /// It was used, has expired or never was; these look the same.
    Gone,
}

/// `GET /invite/{token}`.
#[derive(Debug, Clone)]
pub struct InviteView {
    /// The CSRF token of the form.
    pub csrf: String,
    /// The invite's token, as it stands in the URL.
    pub token: String,
    /// The workspace; `None` when the invite is gone.
    pub org: Option<(OrgId, String)>,
    /// Who made the invite.
    pub invited_by: Option<String>,
    /// Who is signed in.
    pub me: Option<Me>,
    /// What the link is worth.
    pub state: InviteState,
}

/// `GET /`: the workspaces of the reader, and the form for another.
#[derive(Debug, Clone)]
pub struct StartView {
    /// The session's CSRF token.
    pub csrf: String,
    /// Who is signed in.
    pub me: Me,
    /// The reader's workspaces; none for somebody who has just signed up.
    pub orgs: Vec<OrgView>,
    /// What was entered as the new workspace's name.
    pub name: String,
    /// What is wrong; field `name`.
    pub errors: FormErrors,
}

/// `GET /o/{org_id}`.
#[derive(Debug, Clone)]
pub struct WorkspaceView {
    /// What stands beside it.
    pub shell: Shell,
    /// Which groups are listed; all without it.
    pub filter: Option<GroupFilter>,
}

/// Which groups of a workspace are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupFilter {
    /// Those that can be written in.
    Active,
    /// Those that are put away.
    Archived,
}

/// A member of a workspace.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct MemberView {
    /// Which user.
    pub user_id: UserId,
    /// The display name.
    pub name: String,
    /// The mail address.
    pub email: String,
    /// The role in the workspace.
    pub role: Role,
}

/// An agent of a workspace.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AgentView {
    /// Which agent.
    pub agent_id: AgentId,
    /// Its name.
    pub name: String,
    /// Its system prompt.
    pub system_prompt: String,
    /// Its provider; `None` for the built-in demo model.
    pub provider_id: Option<String>,
    /// Its model's name at the provider; empty for the demo model.
    pub model: String,
    /// Whether new groups begin with it.
    pub is_default: bool,
    /// What wakes it where a group says nothing else.
    pub trigger: TriggerPolicy,
    /// Who may put it into groups.
    pub visibility: Visibility,
    /// Who made it; absent for the one that the workspace began with.
    pub made_by: Option<UserId>,
    /// What it may use.
    pub config: AgentConfig,
    /// Whether it is a process of somebody else's, with tokens of its own, rather than a model.
    pub outside: bool,
    /// Grows with each change.
    pub version: u64,
}

/// A model provider of a workspace.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ProviderView {
    /// Which provider.
    pub provider_id: String,
    /// Its name.
    pub name: String,
    /// What it speaks.
    pub kind: ProviderKind,
    /// The URL that its API begins with.
    pub base_url: String,
    /// Whether a key is kept for it.
    pub has_key: bool,
    /// The models that agents are offered; a name beside them is taken too.
    pub models: Vec<String>,
    /// Members of every request, such as `temperature`.
    pub options: Map<String, Value>,
    /// What models cost, by name; also of models that are not among those above.
    pub prices: BTreeMap<String, ModelPrice>,
    /// What a check last found; absent before the first one and after a change.
    pub seen: Option<Seen>,
    /// Grows with each change.
    pub version: u64,
}

/// An API token of the reader.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TokenView {
    /// Which token; not the token itself.
    pub token_id: String,
    /// What its owner calls it.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
}

/// Somewhere the reader is signed in.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SessionView {
    /// Which session; not its token.
    pub session_id: String,
    /// The browser and the system, as they call themselves; empty when they say nothing.
    pub device: String,
    /// Whether it is a program that was given a token, rather than a browser.
    pub is_program: bool,
    /// Whether it is what this was asked with.
    pub is_current: bool,
    /// Since when.
    pub created_at: Timestamp,
    /// When it was last used, to a few minutes.
    pub last_used_at: Option<Timestamp>,
}

impl SessionView {
    /// What to call it.
    #[must_use]
    pub fn title(&self) -> &str {
        match (self.is_program, self.device.as_str()) {
            (true, _) => "A program",
            (false, "") => "A browser",
            (false, device) => device,
        }
    }
}

/// `GET /account`, and `GET /o/{org_id}/account`.
#[derive(Debug, Clone)]
pub struct AccountView {
    /// The session's CSRF token.
    pub csrf: String,
    /// Who is signed in.
    pub me: Me,
    /// What stands beside it, where it is seen from a workspace.
    pub shell: Option<Shell>,
    /// Where the reader is signed in.
    pub sessions: Vec<SessionView>,
}

/// An invitation that can be accepted; its link is not shown again.
#[derive(Debug, Clone)]
pub struct OpenInvite {
    /// Which one.
    pub invite_id: String,
    /// What whoever made it is called.
    pub made_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it can be accepted.
    pub expires_at: Timestamp,
}

impl MembersView {
    /// Whether the reader is an owner and nobody else is.
    #[must_use]
    pub fn only_owner(&self) -> bool {
        let owners = self.members.iter().filter(|member| member.role == Role::Owner);
        self.shell.org.role == Role::Owner && owners.count() < 2
    }
}

/// `GET /o/{org_id}/settings/members`.
#[derive(Debug, Clone)]
pub struct MembersView {
    /// What stands beside it.
    pub shell: Shell,
    /// Everybody in the workspace.
    pub members: Vec<MemberView>,
    /// The invitations that can be accepted, for those who may take them back.
    pub invites: Vec<OpenInvite>,
    /// Whether a service of the workspace's own keeps what is written in its groups.
    pub keeps_history: bool,
}

/// `GET /o/{org_id}/settings/tokens`.
#[derive(Debug, Clone)]
pub struct TokensView {
    /// What stands beside it.
    pub shell: Shell,
    /// The reader's tokens.
    pub tokens: Vec<TokenView>,
}

/// A message and its fragment.
#[derive(Debug, Clone, Serialize)]
pub struct MessageView {
    /// The message.
    #[serde(flatten)]
    pub message: Message,
    /// What [`super::markdown`] made of its text; empty for a deleted message.
    pub html: String,
}

/// A page of history with its fragments.
#[derive(Debug, Clone, Serialize)]
pub struct PageView {
    /// The messages, oldest first.
    pub messages: Vec<MessageView>,
    /// The runs that ended within the page.
    pub runs: Vec<FinishedRun>,
    /// Messages outside the page that messages of the page answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answered: Vec<Excerpt>,
    /// Whether there are messages before the page.
    pub more_before: bool,
    /// Whether there are messages after the page.
    pub more_after: bool,
    /// The group's last event number at the time of reading.
    pub head: u64,
    /// The numbering.
    pub history: HistoryId,
}

/// `GET /g/{group_id}`.
#[derive(Debug, Clone)]
pub struct GroupView {
    /// What stands beside it.
    pub shell: Shell,
    /// The group.
    pub group: GroupItem,
    /// Who may take part: the members of a private group, else everybody in the workspace.
    pub members: Vec<Person>,
    /// The group's agents.
    pub agents: Vec<GroupAgent>,
    /// Whether all agents are paused.
    pub paused: bool,
    /// Whether the reader may change the group.
    pub can_manage: bool,
    /// Whether a service of the workspace's own keeps what is written in it.
    pub keeps_history: bool,
    /// Names of authors who are neither in `members` nor in `agents` any more, by id.
    pub former: HashMap<String, String>,
    /// The newest page of history; `None` when it could not be read (the script tries again).
    pub page: Option<PageView>,
    /// The message that the page is opened at; its page of history lies around it.
    pub target: Option<MessageId>,
}

/// A page that says what went wrong and what to do.
#[derive(Debug, Clone, Default)]
pub struct ErrorView {
    /// The HTTP status.
    pub status: u16,
    /// What happened, as a short sentence.
    pub title: String,
    /// What to do, as a sentence or two.
    pub detail: String,
    /// Where the one button leads; `/` when not said.
    pub href: Option<String>,
    /// What the button says; "Go to the start page" when not said.
    pub action: Option<String>,
}

/// Names of authors by id.
#[derive(Debug, Default)]
pub struct Names(HashMap<String, String>);

impl Names {
    /// Everybody whom a group page knows by name.
    #[must_use]
    pub fn of_group(view: &GroupView) -> Self {
        let mut names = view.former.clone();
        for person in &view.members {
            names.insert(person.user_id.to_string(), person.name.clone());
        }
        for agent in &view.agents {
            names.insert(agent.agent_id.to_string(), agent.name.clone());
        }
        names.insert(view.shell.me.id.to_string(), view.shell.me.name.clone());
        Self(names)
    }

    /// Whether the author is an agent, the author's id and name.
    #[must_use]
    pub fn of(&self, author: &Author) -> (bool, String, String) {
        let (agent, id, unknown) = match author {
            Author::User(id) => (false, id.as_str(), "Former member"),
            Author::Agent(id) => (true, id.as_str(), "Former agent"),
        };
        let name = self.0.get(id).map_or(unknown, String::as_str);
        (agent, id.to_owned(), name.to_owned())
    }
}
