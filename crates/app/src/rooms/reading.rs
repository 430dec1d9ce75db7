//! Reading a group through the chain, with a user's routing token.

use bytes::Bytes;
use convene_model::{
    Code, GroupId, HistoryId, MessageId, Problem, UserId,
    history::{HistoryQuery, Message, RawHistoryPage, SearchRequest},
    why::Why,
};
use serde::de::DeserializeOwned;

use super::{
    Mark, NO_HISTORY,
    raw::{RawMessageDetail, RawSearchPage},
    shared::{Shared, is_about_the_user},
};

/// The largest number that a client can say exactly in JSON; no event has a larger one.
const MAX_SEQ: u64 = 1 << 53;

/// What is read of a group.
enum Reading {
    History(HistoryQuery),
    Message(MessageId),
    Why(MessageId),
    Search(SearchRequest),
}

impl Shared {
    /// A page of history; an empty one of a group that was never activated.
    pub(super) async fn history(
        &self,
        group: &GroupId,
        user: &UserId,
        query: HistoryQuery,
    ) -> Result<RawHistoryPage, Problem> {
        match self.read_as(group, user, &Reading::History(query)).await {
            Err(problem) if problem.code == Code::GroupNotFound => Ok(empty_page()),
            answer => parse(group, &answer?),
        }
    }

    pub(super) async fn message(
        &self,
        group: &GroupId,
        user: &UserId,
        message: MessageId,
    ) -> Result<RawMessageDetail, Problem> {
        match self.read_as(group, user, &Reading::Message(message)).await {
            // A group that was never activated has no messages.
            Err(problem) if problem.code == Code::GroupNotFound => {
                Err(Code::MessageNotFound.into())
            }
            answer => parse(group, &answer?),
        }
    }

    pub(super) async fn why(
        &self,
        group: &GroupId,
        user: &UserId,
        message: MessageId,
    ) -> Result<Why, Problem> {
        match self.read_as(group, user, &Reading::Why(message)).await {
            // A group that was never activated has no messages.
            Err(problem) if problem.code == Code::GroupNotFound => {
                Err(Code::MessageNotFound.into())
            }
            answer => parse(group, &answer?),
        }
    }

    pub(super) async fn search(
        &self,
        group: &GroupId,
        user: &UserId,
        request: SearchRequest,
    ) -> Result<RawSearchPage, Problem> {
        match self.read_as(group, user, &Reading::Search(request)).await {
            Err(problem) if problem.code == Code::GroupNotFound => Ok(RawSearchPage::default()),
            answer => parse(group, &answer?),
        }
    }

    /// What a mark comes to by the group's history; one beyond the group's end is one at its end.
    pub(super) async fn look_up(
        &self,
        group: &GroupId,
        user: UserId,
        up_to: u64,
    ) -> Result<Option<Mark>, Problem> {
        let before = Some(up_to.min(MAX_SEQ) + 1);
        let query = HistoryQuery { before, limit: Some(1), ..HistoryQuery::default() };
        let page = match self.history(group, &user, query).await {
            // Access ended meanwhile, and with it what there was to read.
            Err(problem) if problem.code == Code::Forbidden => return Ok(None),
            answer => answer?,
        };
        let last = messages(group, &page)?.pop();
        let nth = last.map_or(0, |message| message.posted.nth);
        Ok(Some(Mark { user, up_to: up_to.min(page.head), nth }))
    }

    /// Reads with a user's routing token, once more with a new one if it is refused. A new one may be
    /// of an epoch that the group's controller has not heard of, when an archive was given up: then
    /// the group is activated, which tells it.
    async fn read_as(
        &self,
        group: &GroupId,
        user: &UserId,
        reading: &Reading,
    ) -> Result<Bytes, Problem> {
        let answer = self.try_read_as(group, user, reading).await;
        if !answer.as_ref().is_err_and(|problem| is_about_the_user(problem.code)) {
            return answer;
        }
        self.withdraw_token(group, user);
        let answer = self.try_read_as(group, user, reading).await;
        if !answer.as_ref().is_err_and(|problem| problem.code == Code::StaleEpoch) {
            return answer;
        }
        self.wake(group).await?;
        self.try_read_as(group, user, reading).await
    }

    async fn try_read_as(
        &self,
        group: &GroupId,
        user: &UserId,
        reading: &Reading,
    ) -> Result<Bytes, Problem> {
        let token = self.token(group, user).await?.ok_or(Code::Forbidden)?.routing_token;
        let org = self.org(group).await?;
        let client = &self.config.orchestrator;
        match reading {
            Reading::History(query) => client.history(group, &org, &token, query).await,
            Reading::Message(message) => client.message(group, &org, &token, message).await,
            Reading::Why(message) => client.why(group, &org, &token, message).await,
            Reading::Search(request) => client.search(group, &org, &token, request).await,
        }
    }
}

/// The messages of a page, read.
pub(super) fn messages(group: &GroupId, page: &RawHistoryPage) -> Result<Vec<Message>, Problem> {
    page.messages.iter().map(|raw| parse(group, raw.get().as_bytes())).collect()
}

fn parse<T: DeserializeOwned>(group: &GroupId, answer: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(answer).map_err(|error| {
        tracing::error!(%group, %error, "what was read of a group is not what it should be");
        Problem::new(Code::Internal)
    })
}

fn empty_page() -> RawHistoryPage {
    RawHistoryPage {
        messages: Vec::new(),
        runs: Vec::new(),
        answered: Vec::new(),
        more_before: false,
        more_after: false,
        head: 0,
        history: HistoryId::new(NO_HISTORY).expect("letters are an id"),
    }
}
