//! The client at the terminal: keys, what comes from the App, and when to draw.

mod actions;
mod keys;

use std::{collections::HashMap, time::Duration};

use convene_model::{
    GroupId, MessageId, Timestamp,
    event::Author,
    frame::ClientFrame,
    history::{HistoryPage, Hit, SearchPage},
};
use crossterm::event::{Event as TerminalEvent, EventStream};
use futures_util::StreamExt;
use ratatui::text::{Line, Span};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};

use crate::{
    ChatError,
    account::Account,
    api::{Agent, Api, ApiError, Group, Page, Person, Why},
    editor::Editor,
    link::{Link, LinkEvent},
    picker::{self, Picker},
    plain::encode,
    room::{Effect, Room},
    runs_view,
    terminal::Screen,
    text,
    theme::Theme,
    view::{self, Cache, Drawn, Scroll, Shown},
};

/// How often what depends on time (who is typing, a notice) is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long a notice stays.
const NOTICE: Duration = Duration::from_secs(8);
/// Frames that are taken in before the screen is drawn again.
const MAX_BATCH: usize = 512;
/// Messages in one page of history.
const PAGE: usize = 60;

/// Runs until the person leaves or the process is ended.
pub(crate) async fn run(api: Api, account: Account, wanted: Option<&str>) -> Result<(), ChatError> {
    let groups = api.groups().await?;
    let first = wanted.map(|wanted| picker::find(&groups, wanted)).transpose()?;
    let (reports, mut reported) = mpsc::channel(64);
    let mut session = Session {
        api,
        account,
        theme: Theme::from_environment(),
        picker: Some(Picker::new(groups)),
        open: None,
        drafts: HashMap::new(),
        focused: true,
        notice: None,
        reports,
        ended: None,
    };
    if let Some(group) = first {
        session.open(group);
    }
    let mut screen = Screen::enter()?;
    let mut keys = EventStream::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut drawn = Drawn::default();
    while session.ended.is_none() {
        session.draw(&mut screen, &mut drawn)?;
        tokio::select! {
            key = keys.next() => match key {
                Some(Ok(TerminalEvent::Key(key))) => session.key(key, drawn, &mut screen)?,
                Some(Ok(TerminalEvent::Paste(text))) => session.paste(&text),
                Some(Ok(TerminalEvent::FocusGained)) => session.focused = true,
                Some(Ok(TerminalEvent::FocusLost)) => session.focused = false,
                Some(Ok(TerminalEvent::Resize(..) | TerminalEvent::Mouse(_))) => {}
                // The terminal is gone.
                Some(Err(_)) | None => break,
            },
            event = next(&mut session.open) => session.happened(event),
            Some(report) = reported.recv() => session.reported(report),
            _ = tick.tick() => session.ticked(),
            _ = terminate.recv() => break,
            _ = hangup.recv() => break,
        }
    }
    drop(screen);
    match session.ended {
        Some(Some(why)) => Err(ChatError::Said(why)),
        Some(None) | None => Ok(()),
    }
}

async fn next(open: &mut Option<Open>) -> LinkEvent {
    if let Some(open) = open
        && let Some(event) = open.events.recv().await
    {
        return event;
    }
    std::future::pending().await
}

/// Everything that there is while the client runs.
struct Session {
    api: Api,
    account: Account,
    theme: Theme,
    /// The list of groups, while it is shown.
    picker: Option<Picker>,
    open: Option<Open>,
    drafts: HashMap<GroupId, String>,
    focused: bool,
    notice: Option<(String, Instant)>,
    reports: mpsc::Sender<Report>,
    /// Set when the client ends, with what the person should know.
    ended: Option<Option<String>>,
}

/// The group that is open.
struct Open {
    group: Group,
    room: Room,
    link: Link,
    events: mpsc::Receiver<LinkEvent>,
    connection: Connection,
    editor: Editor,
    purpose: Purpose,
    chosen: Option<u64>,
    scroll: Scroll,
    over: Over,
    loading: bool,
    resend_at: Option<Instant>,
    completion: Option<Completion>,
    typed_at: Option<Instant>,
    cache: Cache,
}

enum Connection {
    Opening,
    /// The socket is open; whether the group is attached the room knows.
    Open,
    Lost {
        why: String,
        again_at: Instant,
    },
}

/// What the composer is for.
enum Purpose {
    New,
    Reply(MessageId),
    Edit(MessageId),
}

/// What lies over the conversation.
enum Over {
    Nothing,
    Help,
    Hits {
        query: String,
        hits: Vec<Hit>,
        chosen: usize,
    },
    /// Why agents answered a message, or did not.
    Why(Why),
    /// Whether this message should really be taken back.
    Delete(MessageId),
}

/// The names that Tab goes through.
struct Completion {
    from: usize,
    candidates: Vec<String>,
    next: usize,
}

/// What a request in the background came to.
enum Report {
    Groups(Result<Vec<Group>, ApiError>),
    Names(GroupId, Vec<Person>, Vec<Agent>),
    Page(GroupId, Wanted, Result<HistoryPage, ApiError>),
    Hits(GroupId, String, Result<SearchPage, ApiError>),
    Why(GroupId, Result<Why, ApiError>),
}

/// Why a page was asked for.
#[derive(Clone, Copy)]
enum Wanted {
    /// To begin with.
    Start,
    /// To go back to the newest.
    Newest,
    Older,
    /// To see this message.
    Around(u64),
}

fn now() -> Timestamp {
    let millis = jiff::Timestamp::now().as_millisecond();
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
}

impl Session {
    fn say(&mut self, text: impl Into<String>) {
        self.notice = Some((text.into(), Instant::now()));
    }

    /// Opens a group in place of the one that is open.
    fn open(&mut self, group: Group) {
        self.close();
        let (events, receiver) = mpsc::channel(256);
        let link = Link::open(&self.api, &group.group_id, events);
        let mut room = Room::new(self.account.user_id.clone(), group.read_up_to);
        room.learn_name(Author::User(self.account.user_id.clone()), &self.account.name);
        let mut editor = Editor::default();
        editor.set(&self.drafts.remove(&group.group_id).unwrap_or_default());
        let (api, reports, group_id) =
            (self.api.clone(), self.reports.clone(), group.group_id.clone());
        let org = group.org_id.clone();
        tokio::spawn(async move {
            let (people, agents) = tokio::join!(api.people(&org), api.agents(&org));
            let names =
                Report::Names(group_id, people.unwrap_or_default(), agents.unwrap_or_default());
            let _ = reports.send(names).await;
        });
        self.open = Some(Open {
            group,
            room,
            link,
            events: receiver,
            connection: Connection::Opening,
            editor,
            purpose: Purpose::New,
            chosen: None,
            scroll: Scroll::Bottom,
            over: Over::Nothing,
            loading: false,
            resend_at: None,
            completion: None,
            typed_at: None,
            cache: Cache::default(),
        });
        self.picker = None;
        self.notice = None;
        self.load(Wanted::Start);
    }

    /// Leaves the open group; what was not sent is kept as a draft.
    fn close(&mut self) {
        if let Some(open) = self.open.take()
            && !open.editor.is_empty()
        {
            self.drafts.insert(open.group.group_id, open.editor.text().to_owned());
        }
    }

    /// Asks for a page of history.
    fn load(&mut self, wanted: Wanted) {
        let Some(open) = &mut self.open else { return };
        if open.loading {
            return;
        }
        let page = match wanted {
            Wanted::Start | Wanted::Newest => Page::Newest,
            Wanted::Around(seq) => Page::Around(seq),
            Wanted::Older => match open.room.messages.keys().next() {
                Some(first) if open.room.more_before => Page::Before(*first),
                Some(_) | None => return,
            },
        };
        open.loading = true;
        let (api, reports) = (self.api.clone(), self.reports.clone());
        let group = open.group.group_id.clone();
        tokio::spawn(async move {
            let answer = api.history(&group, page, PAGE).await;
            let _ = reports.send(Report::Page(group, wanted, answer)).await;
        });
    }

    fn reported(&mut self, report: Report) {
        match report {
            Report::Groups(Ok(groups)) => {
                if let Some(picker) = &mut self.picker {
                    let mut fresh = Picker::new(groups);
                    fresh.filter = std::mem::take(&mut picker.filter);
                    *picker = fresh;
                }
            }
            Report::Groups(Err(error)) => self.failed(&error),
            Report::Names(group, people, agents) => {
                let Some(open) = self.open.as_mut().filter(|o| o.group.group_id == group) else {
                    return;
                };
                for person in people {
                    open.room.learn_name(Author::User(person.user_id), &person.name);
                }
                for agent in agents {
                    open.room.learn_name(Author::Agent(agent.agent_id), &agent.name);
                }
            }
            Report::Page(group, wanted, answer) => {
                let Some(open) = self.open.as_mut().filter(|o| o.group.group_id == group) else {
                    return;
                };
                open.loading = false;
                match answer {
                    Ok(page) => open.take_page(wanted, page),
                    Err(error) => {
                        if matches!(wanted, Wanted::Start) {
                            // Nothing can be attached before it is there.
                            open.resend_at = Some(Instant::now() + Duration::from_secs(2));
                        }
                        self.failed(&error);
                    }
                }
            }
            Report::Hits(group, query, answer) => {
                let Some(open) = self.open.as_mut().filter(|o| o.group.group_id == group) else {
                    return;
                };
                match answer {
                    Ok(page) => open.over = Over::Hits { query, hits: page.hits, chosen: 0 },
                    Err(error) => self.failed(&error),
                }
            }
            Report::Why(group, answer) => {
                let Some(open) = self.open.as_mut().filter(|o| o.group.group_id == group) else {
                    return;
                };
                match answer {
                    Ok(why) => open.over = Over::Why(why),
                    Err(error) => self.failed(&error),
                }
            }
        }
    }

    fn failed(&mut self, error: &ApiError) {
        if error.is_unauthorized() {
            let why = "you are signed out; run `convene chat sign-in`";
            self.ended = Some(Some(why.to_owned()));
        } else {
            self.say(error.to_string());
        }
    }

    /// Takes in what happened to the connection, and what else waits.
    fn happened(&mut self, event: LinkEvent) {
        let mut happened = event;
        // More than so many are taken in after the next drawing.
        for more in (0..MAX_BATCH).rev() {
            let Some(open) = &mut self.open else { return };
            let mut effects = Vec::new();
            match happened {
                LinkEvent::Open => {
                    open.connection = Connection::Open;
                    open.attach();
                }
                LinkEvent::Frame(frame) => effects = open.room.frame(&frame, now()),
                LinkEvent::Lost { why, again_at } => {
                    open.room.detached();
                    open.connection = Connection::Lost { why: text::line(&why), again_at };
                }
                LinkEvent::Ended(why) => self.ended = Some(Some(why)),
            }
            self.carry_out(effects);
            let next = self.open.as_mut().filter(|_| more > 0);
            let Some(next) = next.and_then(|open| open.events.try_recv().ok()) else { return };
            happened = next;
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let Some(open) = &mut self.open else { return };
            match effect {
                Effect::Send(frames) => open.send(&frames),
                Effect::Reload => self.load(Wanted::Start),
                Effect::ResendAfter(pause) => {
                    open.resend_at = Some(Instant::now() + Duration::from_millis(pause));
                }
                Effect::Say(said) => self.say(said),
                Effect::GiveBack(text) => {
                    if open.editor.is_empty() {
                        open.editor.set(&text);
                    }
                }
            }
        }
    }

    fn ticked(&mut self) {
        if self.notice.as_ref().is_some_and(|(_, since)| since.elapsed() > NOTICE) {
            self.notice = None;
        }
        let Some(open) = &mut self.open else { return };
        if open.resend_at.is_some_and(|at| Instant::now() >= at) {
            open.resend_at = None;
            if !open.room.is_loaded() {
                self.load(Wanted::Start);
            } else if open.room.attached {
                let frames = open.room.unacknowledged();
                open.send(&frames);
            } else if matches!(open.connection, Connection::Open) {
                open.attach();
            }
        }
    }

    fn draw(&mut self, screen: &mut Screen, drawn: &mut Drawn) -> Result<(), ChatError> {
        let theme = self.theme;
        if let Some(picker) = &self.picker {
            let said = self.notice.as_ref().map(|(said, _)| said.as_str());
            screen.terminal().draw(|frame| view::picker(frame, picker, said, theme))?;
            return Ok(());
        }
        let state = self.state_line();
        let Some(open) = &mut self.open else { return Ok(()) };
        open.room.watch(self.focused && open.scroll == Scroll::Bottom);
        let title = match open.room.marker {
            Some(marker) if !self.focused => {
                let count = open.room.messages.range(marker + 1..).count();
                if count > 0 {
                    format!("({count}) {}", open.group.title)
                } else {
                    open.group.title.clone()
                }
            }
            Some(_) | None => open.group.title.clone(),
        };
        screen.set_title(&title);
        let shown = open.shown(theme, state);
        let (room, over) = (&open.room, &open.over);
        screen.terminal().draw(|frame| {
            *drawn = view::conversation(frame, &shown);
            match over {
                Over::Nothing | Over::Delete(_) => {}
                Over::Help => view::help(frame, theme),
                Over::Why(why) => runs_view::why(frame, why, theme),
                Over::Hits { query, hits, chosen } => {
                    view::hits(frame, room, query, hits, *chosen, theme);
                }
            }
        })?;
        if self.focused
            && drawn.at_bottom
            && matches!(open.over, Over::Nothing)
            && let Some(read) = open.room.read()
        {
            open.send(&[read]);
        }
        Ok(())
    }

    /// The line above the composer: what is asked, what was said, who is at work, who is typing.
    fn state_line(&mut self) -> Line<'static> {
        let theme = self.theme;
        let Some(open) = &mut self.open else { return Line::default() };
        if let Over::Delete(_) = open.over {
            return Line::styled(" Take this message back? y: yes, any other key: no", theme.bad());
        }
        if let Some((said, _)) = &self.notice {
            return Line::styled(format!(" {}", text::line(said)), theme.new_line());
        }
        let mut spans = vec![Span::raw(" ")];
        let (mut writing, mut waiting) = (Vec::new(), Vec::new());
        for run in &open.room.runs {
            let name = open.room.name(&Author::Agent(run.agent_id.clone()));
            match (run.waits, run.attempt, run.uses(), run.text.is_empty()) {
                (true, ..) => waiting.push(format!("{name} waits for an approval")),
                (false, 0, ..) => waiting.push(format!("{name} is queued")),
                (false, _, Some(tool), _) => writing.push(format!("{name} uses {tool}")),
                (false, _, None, true) => writing.push(format!("{name} is thinking")),
                (false, _, None, false) => writing.push(format!("{name} is writing")),
            }
        }
        writing.append(&mut waiting);
        if !writing.is_empty() {
            spans.push(Span::styled(writing.join(", "), theme.good()));
            spans.push(Span::styled(" · Ctrl+X stops  ", theme.dim()));
        }
        let typing = open.room.typing(now());
        match &typing[..] {
            [] => {}
            [one] => spans.push(Span::styled(format!("{one} is typing"), theme.dim())),
            [one, two] => {
                spans.push(Span::styled(format!("{one} and {two} are typing"), theme.dim()));
            }
            _ => spans.push(Span::styled("several people are typing", theme.dim())),
        }
        if spans.len() == 1 && open.scroll != Scroll::Bottom {
            spans.push(Span::styled("End for the newest", theme.dim()));
        } else if spans.len() == 1 && open.editor.is_empty() {
            spans.push(Span::styled("/help · Tab completes @names · Ctrl+G groups", theme.dim()));
        }
        Line::from(spans)
    }
}

impl Open {
    fn send(&self, frames: &[ClientFrame]) {
        for frame in frames {
            self.link.send(encode(frame));
        }
    }

    /// Joins the group's stream as soon as there is a connection and a place to go on from.
    fn attach(&mut self) {
        if self.room.is_loaded() && matches!(self.connection, Connection::Open) {
            let attach = self.room.attach();
            self.send(&[attach]);
        }
    }

    fn take_page(&mut self, wanted: Wanted, page: HistoryPage) {
        match wanted {
            Wanted::Start => {
                self.room.restart(page);
                self.scroll = Scroll::Bottom;
                self.attach();
            }
            Wanted::Newest => {
                self.room.show(page, true);
                self.scroll = Scroll::Bottom;
                self.chosen = None;
            }
            Wanted::Older => self.room.prepend(page),
            Wanted::Around(seq) => {
                self.room.show(page, false);
                self.look_at(seq);
            }
        }
    }

    /// Brings a message that is here into view.
    fn look_at(&mut self, seq: u64) {
        self.chosen = Some(seq);
        // A few lines below it are shown as well.
        let below = self.room.messages.range(seq..).nth(2).map_or(seq, |(below, _)| *below);
        self.scroll = Scroll::At { seq: below, line: usize::MAX };
    }

    fn shown(&self, theme: Theme, state: Line<'static>) -> Shown<'_> {
        let connection = match &self.connection {
            Connection::Opening => ("connecting…".to_owned(), false),
            Connection::Open if self.room.attached => ("connected".to_owned(), true),
            Connection::Open => ("joining…".to_owned(), false),
            Connection::Lost { why, again_at } => {
                let wait = again_at.saturating_duration_since(Instant::now()).as_secs();
                let when = match wait {
                    0 => "now".to_owned(),
                    seconds => format!("in {seconds} s"),
                };
                (format!("reconnecting {when}: {}", text::excerpt(why, 40)), false)
            }
        };
        let purpose = match &self.purpose {
            Purpose::New => None,
            Purpose::Edit(_) => Some("rewording your message · Esc: not".to_owned()),
            Purpose::Reply(id) => self.room.message(id).map(|message| {
                let name = self.room.name(&message.posted.author);
                let said = text::excerpt(&message.posted.text, 30);
                format!("answering {name}: {said} · Esc: not")
            }),
        };
        Shown {
            title: &self.group.title,
            org: &self.group.org,
            connection,
            room: &self.room,
            chosen: self.chosen,
            editor: &self.editor,
            purpose,
            scroll: self.scroll,
            state,
            loading: self.loading,
            theme,
            cache: &self.cache,
        }
    }
}
