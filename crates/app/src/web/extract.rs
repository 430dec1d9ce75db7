//! What handlers take from a request, with problems as refusals.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use axum::extract::{FromRequestParts, Path, Query};
use convene_model::{Code, Problem};
use http::{HeaderValue, request::Parts};
use serde::de::DeserializeOwned;

use super::failure::Failure;
use crate::{agents::tokens::AgentCaller, identity::caller::Caller};

/// The request's own site and client, put there by the guard.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// The site's origin, for links: `https://chat.example`.
    pub(crate) origin: String,
    /// Whether cookies are set `Secure`.
    pub(crate) secure: bool,
    /// The client's address.
    pub(crate) client: Option<IpAddr>,
    /// What the client calls itself.
    pub(crate) user_agent: Option<HeaderValue>,
    /// The cookie behind the forms of somebody who is not signed in, when the request has it.
    pub(crate) form_cookie: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Site {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Code::Internal.into())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        if let Some(caller) = parts.extensions.get::<Self>() {
            return Ok(caller.clone());
        }
        if parts.extensions.get::<AgentCaller>().is_some() {
            let detail = "an agent's token reads and answers in the agent's groups, nothing else";
            return Err(Problem::new(Code::Forbidden).detail(detail).into());
        }
        Err(Code::Unauthorized.into())
    }
}

/// Who reads in a group: a person, or an agent's own process.
pub(crate) enum Participant {
    /// A person.
    Person(Caller),
    /// An agent.
    Agent(AgentCaller),
}

impl<S: Send + Sync> FromRequestParts<S> for Participant {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match parts.extensions.get::<AgentCaller>() {
            Some(agent) => Ok(Self::Agent(agent.clone())),
            None => Caller::from_request_parts(parts, state).await.map(Self::Person),
        }
    }
}

/// Who is signed in, if anybody is.
pub(crate) struct Visitor(pub(crate) Option<Caller>);

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Ok(Self(parts.extensions.get::<Caller>().cloned()))
    }
}

/// Ids in the path; a malformed one is nothing that exists.
pub(crate) struct Ids<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Ids<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(ids)) => Ok(Self(ids)),
            Err(_) => Err(Code::NotFound.into()),
        }
    }
}

/// The query, as the type describes it.
pub(crate) struct Search<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Search<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(error) => Err(Problem::new(Code::InvalidRequest).detail(error.body_text()).into()),
        }
    }
}

/// The fields of a form that the guard has read and whose `csrf` it has checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields(Arc<HashMap<String, String>>);

impl Fields {
    pub(crate) fn parse(body: &[u8]) -> Self {
        Self(Arc::new(url::form_urlencoded::parse(body).into_owned().collect()))
    }

    /// A field's value; empty when it is absent.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// A field's value unless it is empty or absent.
    pub(crate) fn filled(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Fields {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Code::InvalidRequest.into())
    }
}
