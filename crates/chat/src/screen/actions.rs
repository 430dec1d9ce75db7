//! What a person does to the conversation: write, reword, answer, react, take back, look for.

use convene_model::{MessageId, frame::ClientFrame, history::Message, limits::MAX_TEXT_BYTES};
use uuid::Uuid;

use super::{Open, Over, Purpose, Report, Session, Wanted};
use crate::command::{self, SlashCommand};

impl Session {
    /// Sends what is in the composer, or does what it says.
    pub(super) fn submit(&mut self) {
        let Some(open) = &mut self.open else { return };
        if open.editor.text().trim().is_empty() {
            return;
        }
        if open.editor.text().len() > MAX_TEXT_BYTES {
            return self.say(format!("A message has at most {MAX_TEXT_BYTES} bytes."));
        }
        let text = open.editor.take();
        if matches!(open.purpose, Purpose::New)
            && let Some(command) = command::parse(&text)
        {
            return match command {
                Ok(command) => self.command(command),
                Err(said) => {
                    open.editor.set(&text);
                    self.say(said);
                }
            };
        }
        let text = match text.strip_prefix("//") {
            Some(rest) => format!("/{rest}"),
            None => text,
        };
        match std::mem::replace(&mut open.purpose, Purpose::New) {
            Purpose::New => self.post(text, None),
            Purpose::Reply(answered) => self.post(text, Some(answered)),
            Purpose::Edit(message_id) => self.edit(message_id, text),
        }
    }

    fn command(&mut self, command: SlashCommand) {
        let Some(open) = &mut self.open else { return };
        match command {
            SlashCommand::Edit(text) => {
                match open.chosen_or(|open, message| open.is_mine(message)) {
                    None => self.say("There is no message of yours here to reword."),
                    Some(id) if text.is_empty() => self.begin_edit(id),
                    Some(id) => self.edit(id, text),
                }
            }
            SlashCommand::Reply(text) => {
                match open.chosen_or(|open, message| !open.is_mine(message)) {
                    None => self.say("There is no message here to answer."),
                    Some(id) if text.is_empty() => open.purpose = Purpose::Reply(id),
                    Some(id) => self.post(text, Some(id)),
                }
            }
            SlashCommand::React(emoji) => match open.chosen_or(|_, _| true) {
                None => self.say("There is no message here to react to."),
                Some(message_id) => {
                    let on = !open.has_reacted(&message_id, &emoji);
                    self.send(|r#ref| ClientFrame::React { r#ref, message_id, emoji, on });
                }
            },
            SlashCommand::Delete => match open.chosen_or(|open, message| open.is_mine(message)) {
                None => self.say("There is no message of yours here to take back."),
                Some(id) => open.over = Over::Delete(id),
            },
            SlashCommand::Pin(on) => match open.chosen_or(|_, _| true) {
                None => self.say("There is no message here to pin."),
                Some(message_id) => {
                    self.send(|r#ref| ClientFrame::Pin { r#ref, message_id, on });
                }
            },
            SlashCommand::Search(query) => self.search(query),
            SlashCommand::Stop => self.stop_agents(),
            SlashCommand::Decide(decision) => match open.room.decide(decision) {
                Some(effect) => self.carry_out(vec![effect]),
                None => self.say("Nothing is asked that is for you to decide."),
            },
            SlashCommand::Why => match open.chosen_or(|_, _| true) {
                Some(message_id) => self.ask_why(message_id),
                None => self.say("There is no message here."),
            },
            SlashCommand::Continue => match open.room.let_continue() {
                Some(effect) => self.carry_out(vec![effect]),
                None => self.say("No agent was stopped by a bound here."),
            },
            SlashCommand::Retry => match open.room.retry() {
                Some(effect) => self.carry_out(vec![effect]),
                None => self.say("Nothing failed here."),
            },
            SlashCommand::Who => {
                let names: Vec<_> = open
                    .room
                    .present
                    .iter()
                    .map(|user| open.room.name(&convene_model::event::Author::User(user.clone())))
                    .collect();
                let agents: Vec<_> =
                    open.room.agents.iter().map(|agent| format!("@{}", agent.name)).collect();
                self.say(format!("Here: {}. Agents: {}.", names.join(", "), agents.join(", ")));
            }
            SlashCommand::Group(filter) => self.choose_group(&filter),
            SlashCommand::Help => open.over = Over::Help,
            SlashCommand::Quit => self.ended = Some(None),
        }
    }

    fn post(&mut self, text: String, reply_to: Option<MessageId>) {
        let Some(open) = &mut self.open else { return };
        let message_id = MessageId::new(Uuid::now_v7().simple().to_string())
            .expect("hexadecimal digits are an id");
        let mentions = open.room.mentions(&text);
        open.chosen = None;
        open.typed_at = None;
        self.send(|r#ref| ClientFrame::Post { r#ref, message_id, text, mentions, reply_to });
        self.show_newest();
    }

    /// Whoever writes sees what was written.
    fn show_newest(&mut self) {
        let Some(open) = &mut self.open else { return };
        if open.room.reaches_now {
            open.scroll = crate::view::Scroll::Bottom;
        } else {
            self.load(Wanted::Newest);
        }
    }

    fn edit(&mut self, message_id: MessageId, text: String) {
        if let Some(open) = &mut self.open {
            open.chosen = None;
        }
        self.send(|r#ref| ClientFrame::Edit { r#ref, message_id, text });
    }

    pub(super) fn delete(&mut self, message_id: MessageId) {
        if let Some(open) = &mut self.open {
            open.chosen = None;
        }
        self.send(|r#ref| ClientFrame::Delete { r#ref, message_id });
    }

    /// Keeps a command until it is acknowledged, and sends it if there is a connection.
    fn send(&mut self, make: impl FnOnce(convene_model::Ref) -> ClientFrame) {
        let Some(open) = &mut self.open else { return };
        let effect = open.room.command(make);
        self.carry_out(vec![effect]);
    }

    /// Puts the last message of one's own into the composer.
    pub(super) fn edit_last(&mut self) {
        let Some(open) = &mut self.open else { return };
        if let Some(id) = open.chosen_or(|open, message| open.is_mine(message)) {
            self.begin_edit(id);
        }
    }

    fn begin_edit(&mut self, id: MessageId) {
        let Some(open) = &mut self.open else { return };
        match open.room.message(&id) {
            Some(message) if open.is_mine(message) => {
                let text = message.posted.text.clone();
                open.editor.set(&text);
                open.purpose = Purpose::Edit(id);
            }
            Some(_) | None => self.say("Nobody rewords what another one said."),
        }
    }

    pub(super) fn stop_agents(&mut self) {
        let Some(open) = &mut self.open else { return };
        let frames = open.room.stop_frames();
        if frames.is_empty() {
            return self.say("No agent is at work.");
        }
        open.send(&frames);
    }

    fn search(&mut self, query: String) {
        let Some(open) = &self.open else { return };
        let (api, reports) = (self.api.clone(), self.reports.clone());
        let group = open.group.group_id.clone();
        tokio::spawn(async move {
            let answer = api.search(&group, &query).await;
            let _ = reports.send(Report::Hits(group, query, answer)).await;
        });
    }

    fn ask_why(&mut self, message_id: MessageId) {
        let Some(open) = &self.open else { return };
        let (api, reports) = (self.api.clone(), self.reports.clone());
        let group = open.group.group_id.clone();
        tokio::spawn(async move {
            let answer = api.why(&group, &message_id).await;
            let _ = reports.send(Report::Why(group, answer)).await;
        });
    }

    /// Goes to a message, wherever it is.
    pub(super) fn jump(&mut self, seq: u64) {
        let Some(open) = &mut self.open else { return };
        if open.room.messages.contains_key(&seq) {
            open.look_at(seq);
        } else {
            self.load(Wanted::Around(seq));
        }
    }
}

impl Open {
    fn is_mine(&self, message: &Message) -> bool {
        self.room.is_me(&message.posted.author)
    }

    /// The chosen message, or else the newest that `wanted` says yes to.
    fn chosen_or(&self, wanted: impl Fn(&Self, &Message) -> bool) -> Option<MessageId> {
        let chosen = self.chosen.and_then(|seq| self.room.messages.get(&seq));
        let message = match chosen {
            Some(message) => Some(message),
            None => self.room.newest(|message| wanted(self, message)),
        };
        message.map(|message| message.posted.message_id.clone())
    }

    fn has_reacted(&self, id: &MessageId, emoji: &str) -> bool {
        self.room.message(id).is_some_and(|message| {
            let same = message.reactions.iter().filter(|reaction| reaction.emoji == emoji);
            same.flat_map(|reaction| &reaction.authors).any(|author| self.room.is_me(author))
        })
    }
}
