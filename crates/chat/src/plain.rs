//! The conversation without a screen, for pipes: writing one message, and printing what comes.

use std::io::{self, Read, Write};

use convene_model::{
    GroupId, MessageId, Timestamp,
    event::{Author, Event, EventKind},
    frame::ClientFrame,
    history::Message,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    ChatError,
    api::{Api, ApiError, Group, Page},
    link::{Link, LinkEvent},
    picker,
    room::{Effect, Room},
    text, view,
};

/// How often a post is tried while the App cannot be reached.
const ATTEMPTS: u32 = 5;
/// The pause after a post that did not go through; it doubles each time.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// Writes standard input as one message.
pub(crate) async fn post(api: &Api, wanted: &str, as_json: bool) -> Result<(), ChatError> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let text = text.trim_end();
    if text.is_empty() {
        return Err(ChatError::said("there is nothing to write: standard input is empty"));
    }
    let group = group(api, wanted).await?;
    let room = with_names(api, &group).await?;
    let mentions = room.mentions(text);
    let message_id =
        MessageId::new(Uuid::now_v7().simple().to_string()).expect("hexadecimal digits are an id");
    let mut pause = PAUSE;
    let mut attempt = 1;
    let answer = loop {
        // The same id each time: what arrived before is not written twice.
        match api.post(&group.group_id, &message_id, text, mentions.as_deref()).await {
            Err(error) if error.is_passing() && attempt < ATTEMPTS => {
                eprintln!("convene: {error}; trying again");
                tokio::time::sleep(pause).await;
                pause *= 2;
                attempt += 1;
            }
            answer => break answer?,
        }
    };
    if as_json {
        println!("{answer}");
    }
    Ok(())
}

/// Prints messages as they come, until the process is ended.
pub(crate) async fn tail(
    api: &Api,
    wanted: &str,
    lines: usize,
    as_json: bool,
) -> Result<(), ChatError> {
    let group = group(api, wanted).await?;
    let mut room = with_names(api, &group).await?;
    let page = api.history(&group.group_id, Page::Newest, lines.clamp(1, 200)).await?;
    room.restart(page);
    if lines > 0 {
        for message in room.messages.values() {
            print_message(&room, message, as_json)?;
        }
    }
    let (events, mut happening) = mpsc::channel(64);
    let link = Link::open(api, &group.group_id, events);
    while let Some(event) = happening.recv().await {
        match event {
            LinkEvent::Open => link.send(encode(&room.attach())),
            LinkEvent::Frame(frame) => {
                let before = room.head();
                let effects = room.frame(&frame, Timestamp::ZERO);
                if room.head() > before {
                    print_frame(&room, &frame, as_json)?;
                }
                for effect in effects {
                    match effect {
                        Effect::Reload => {
                            reload(api, &group.group_id, &mut room, as_json).await?;
                            link.send(encode(&room.attach()));
                        }
                        Effect::ResendAfter(pause) => {
                            tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
                            link.send(encode(&room.attach()));
                        }
                        Effect::Say(said) => eprintln!("convene: {said}"),
                        // Nothing is written here that could wait or come back.
                        Effect::Send(_) | Effect::GiveBack(_) => {}
                    }
                }
            }
            LinkEvent::Lost { why, .. } => {
                room.detached();
                eprintln!("convene: {}; connecting again", text::line(&why));
            }
            LinkEvent::Ended(why) => return Err(ChatError::Said(why)),
        }
    }
    Ok(())
}

pub(crate) fn encode(frame: &ClientFrame) -> String {
    serde_json::to_string(frame).expect("frames have only text keys")
}

/// More was missed than is replayed: what can be read of it is printed.
async fn reload(
    api: &Api,
    group: &GroupId,
    room: &mut Room,
    as_json: bool,
) -> Result<(), ChatError> {
    let last = room.messages.keys().next_back().copied().unwrap_or(0);
    let page = api.history(group, Page::Newest, 200).await?;
    room.restart(page);
    for (_, message) in room.messages.range(last + 1..) {
        print_message(room, message, as_json)?;
    }
    Ok(())
}

async fn group(api: &Api, wanted: &str) -> Result<Group, ChatError> {
    picker::find(&api.groups().await?, wanted)
}

async fn with_names(api: &Api, group: &Group) -> Result<Room, ApiError> {
    let me = api.me().await?;
    let mut room = Room::new(me.user.id, None);
    for person in api.people(&group.org_id).await? {
        room.learn_name(Author::User(person.user_id), &person.name);
    }
    for agent in api.agents(&group.org_id).await? {
        room.learn_name(Author::Agent(agent.agent_id.clone()), &agent.name);
    }
    Ok(room)
}

fn print_message(room: &Room, message: &Message, as_json: bool) -> io::Result<()> {
    if as_json {
        let mut value = serde_json::to_value(message)?;
        value["author_name"] = json!(room.name(&message.posted.author));
        return line(&value.to_string());
    }
    if message.deleted {
        return Ok(());
    }
    line(&readable(room, message.at, &message.posted.author, "", &message.posted.text))
}

fn print_frame(room: &Room, frame: &str, as_json: bool) -> io::Result<()> {
    let Ok(mut value) = serde_json::from_str::<Value>(frame) else { return Ok(()) };
    if value["type"] != "event" {
        return Ok(());
    }
    let Ok(Event { at, kind, .. }) = serde_json::from_value::<Event>(value.clone()) else {
        return Ok(());
    };
    let (author, what, said) = match &kind {
        EventKind::MessagePosted(posted) => (&posted.author, "", posted.text.as_str()),
        EventKind::MessageEdited(edited) => (&edited.author, " (edited)", edited.text.as_str()),
        EventKind::MessageDeleted(deleted) => (&deleted.author, " took a message back", ""),
        EventKind::GroupActivated(_)
        | EventKind::GroupAdopted(_)
        | EventKind::GroupConfigured(_)
        | EventKind::EpochRaised { .. }
        | EventKind::GroupFrozen { .. }
        | EventKind::GroupThawed(_)
        | EventKind::GroupRestored(_)
        | EventKind::AccessRevoked { .. }
        | EventKind::MessagePinned(_)
        | EventKind::MessageUnpinned(_)
        | EventKind::ReactionAdded(_)
        | EventKind::ReactionRemoved(_)
        | EventKind::TriggerDecided(_)
        | EventKind::RunStarted(_)
        | EventKind::RunStreaming { .. }
        | EventKind::RunFinished(_)
        | EventKind::ToolsRequested(_)
        | EventKind::ToolStarted(_)
        | EventKind::ToolFinished(_)
        | EventKind::ApprovalRequested(_)
        | EventKind::ApprovalVoted(_)
        | EventKind::ApprovalResolved(_)
        | EventKind::ApprovalExpired(_)
        | EventKind::SummaryRecorded(_)
        | EventKind::HistoryExported { .. } => return Ok(()),
    };
    if as_json {
        value["author_name"] = json!(room.name(author));
        return line(&value.to_string());
    }
    line(&readable(room, at, author, what, said))
}

fn readable(room: &Room, at: Timestamp, author: &Author, what: &str, said: &str) -> String {
    let agent = match author {
        Author::User(_) => "",
        Author::Agent(_) => " [agent]",
    };
    let name = room.name(author);
    // Further lines of a message are indented, so that each message can be told from the next.
    let said = text::clean(said).replace('\n', "\n    ");
    format!("{} {} {name}{agent}{what}: {said}", view::day(at), view::clock(at))
}

/// Prints a line at once; a reader that has gone ends the process without a word, as usual.
fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written,
    }
}
