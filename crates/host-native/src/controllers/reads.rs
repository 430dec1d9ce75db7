//! What is read of a group beside its history: one message in detail, why agents answered it, and what
//! a search finds.

use convene_model::{
    Code, GroupId, MessageId, Problem,
    history::{MessageDetail, SearchPage, SearchRequest},
    why::Why,
};
use convene_storage::Explained;

use super::{Controllers, actor::Mail, internal, store_problem};

impl Controllers {
    /// One message and its former texts, up to what is committed now.
    ///
    /// # Errors
    /// [`Code::GroupNotFound`], [`Code::MessageNotFound`], or [`Code::GroupQuarantined`] when stored
    /// rows fail their checks.
    pub async fn message(
        &self,
        group_id: &GroupId,
        message_id: MessageId,
    ) -> Result<MessageDetail, Problem> {
        let head = self.head(group_id).await?;
        let (store, key) = (self.shared.store.clone(), group_id.key());
        let read = move || store.detail(key, &message_id, head.seq);
        let mut detail = tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| internal("reading a message", &error))?
            .map_err(|error| store_problem(group_id, &error))?
            .ok_or(Code::MessageNotFound)?;
        if let Some((org_id, services)) = head.kept_by.as_ref().zip(self.shared.history.get()) {
            let message = std::slice::from_mut(&mut detail.message);
            services.fill(org_id, group_id, message).await?;
        }
        Ok(detail)
    }

    /// Why agents answered a message or did not, up to what is committed now.
    ///
    /// # Errors
    /// [`Code::GroupNotFound`], [`Code::MessageNotFound`], or [`Code::GroupQuarantined`] when stored
    /// rows fail their checks.
    pub async fn why(&self, group_id: &GroupId, message_id: MessageId) -> Result<Why, Problem> {
        let (head, agents) = self.ask(group_id, |reply| Mail::Agents { reply }).await??;
        let (store, key) = (self.shared.store.clone(), group_id.key());
        let read = move || store.why(key, &message_id, head.seq);
        let explained = tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| internal("explaining a message", &error))?
            .map_err(|error| store_problem(group_id, &error))?;
        let Some(Explained { mut why, author }) = explained else {
            return Err(Code::MessageNotFound.into());
        };
        why.name(agents.iter().map(|agent| (&agent.agent_id, &*agent.name)), author.as_ref());
        Ok(why)
    }

    /// What a search finds among the messages that are committed now.
    ///
    /// # Errors
    /// [`Code::GroupNotFound`]; [`Code::ValidationFailed`] when there is nothing to search for or
    /// too much; [`Code::InvalidRequest`] when the limit is none; [`Code::GroupQuarantined`] when
    /// stored rows fail their checks.
    pub async fn search(
        &self,
        group_id: &GroupId,
        request: SearchRequest,
    ) -> Result<SearchPage, Problem> {
        let head = self.head(group_id).await?;
        let (store, key) = (self.shared.store.clone(), group_id.key());
        tokio::task::spawn_blocking(move || store.search(key, &request, head.seq))
            .await
            .map_err(|error| internal("searching a group", &error))?
            .map_err(|error| store_problem(group_id, &error))
    }
}
