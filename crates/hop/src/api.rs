//! A table of routes that is both: the router that serves them and the OpenAPI document that
//! describes them, so that neither can have a route which the other has not.
//!
//! Owns how an operation is described and how the document is put together; the shapes of bodies
//! come from the types that handlers read and answer with. Decides nothing about a request.

mod document;

use axum::{Router, handler::Handler, routing::MethodFilter};
use convene_model::Code;
use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};

pub use document::{Document, Problems};

/// The shape of a body or a query, made when the document is.
pub(crate) type Shape = fn(&mut SchemaGenerator) -> Schema;

/// Routes and their descriptions, side by side.
pub struct Api<S> {
    router: Router<S>,
    operations: Vec<Operation>,
}

/// One method of one path.
#[derive(Debug, Clone)]
pub struct Operation {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) access: Access,
    pub(crate) query: Option<Shape>,
    pub(crate) body: Option<Shape>,
    pub(crate) idempotent: bool,
    pub(crate) needs_key: bool,
    pub(crate) answers: Vec<Answers>,
    pub(crate) problems: Vec<Code>,
}

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Open,
    /// Whoever brings the API's own credentials.
    Caller,
    /// The same, with a user's routing token besides.
    CallerAndUser,
}

/// A way in which an operation ends well.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    pub(crate) status: u16,
    pub(crate) media: &'static str,
    pub(crate) shape: Option<Shape>,
}

const JSON: &str = "application/json";

impl<S: Clone + Send + Sync + 'static> Default for Api<S> {
    fn default() -> Self {
        Self { router: Router::new(), operations: Vec::new() }
    }
}

impl<S: Clone + Send + Sync + 'static> Api<S> {
    /// No routes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an operation and what answers it.
    ///
    /// # Panics
    /// When the path has the method already, or the operation's id is taken: a bug, met at the
    /// start.
    #[must_use]
    pub fn on<H, T>(mut self, operation: Operation, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        let taken = self.operations.iter().any(|other| other.id == operation.id);
        assert!(!taken, "two operations are called {}", operation.id);
        let filter = MethodFilter::try_from(operation.method.clone());
        let filter = filter.expect("operations use the methods that routers know");
        self.router = self.router.route(operation.path, axum::routing::on(filter, handler));
        self.operations.push(operation);
        self
    }

    /// Adds all operations of another table.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.operations.extend(other.operations);
        self
    }

    /// The router and the descriptions.
    pub fn split(self) -> (Router<S>, Vec<Operation>) {
        (self.router, self.operations)
    }
}

impl Operation {
    fn new(method: Method, path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self {
            method,
            path,
            id,
            summary,
            access: Access::Caller,
            query: None,
            body: None,
            idempotent: false,
            needs_key: false,
            answers: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// `GET`, with the operation's unique name and one sentence about it.
    #[must_use]
    pub fn get(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new(Method::GET, path, id, summary)
    }

    /// `POST`.
    #[must_use]
    pub fn post(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new(Method::POST, path, id, summary)
    }

    /// `PUT`.
    #[must_use]
    pub fn put(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new(Method::PUT, path, id, summary)
    }

    /// `PATCH`.
    #[must_use]
    pub fn patch(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new(Method::PATCH, path, id, summary)
    }

    /// `DELETE`.
    #[must_use]
    pub fn delete(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new(Method::DELETE, path, id, summary)
    }

    /// Who may call it, when that is not every caller with credentials.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Its query's members.
    #[must_use]
    pub fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(|generator| T::json_schema(generator));
        self
    }

    /// Its JSON body.
    #[must_use]
    pub fn body<T: JsonSchema>(mut self) -> Self {
        self.body = Some(|generator| generator.subschema_for::<T>());
        self
    }

    /// It takes an `idempotency-key`.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// It is refused without an `idempotency-key`.
    #[must_use]
    pub fn always_idempotent(mut self) -> Self {
        self.needs_key = true;
        self.idempotent()
    }

    /// It answers with a status and a JSON body.
    #[must_use]
    pub fn answers<T: JsonSchema>(self, status: u16) -> Self {
        self.answers_as(status, JSON, Some(|generator| generator.subschema_for::<T>()))
    }

    /// It answers with a status and nothing else.
    #[must_use]
    pub fn answers_empty(self, status: u16) -> Self {
        self.answers_as(status, JSON, None)
    }

    /// It answers with something that is not JSON.
    #[must_use]
    pub fn answers_text(self, status: u16, media: &'static str) -> Self {
        self.answers_as(status, media, Some(|_| schemars::json_schema!({"type": "string"})))
    }

    fn answers_as(mut self, status: u16, media: &'static str, shape: Option<Shape>) -> Self {
        self.answers.push(Answers { status, media, shape });
        self
    }

    /// Problems that it answers with, beside those that follow from its form.
    #[must_use]
    pub fn problems(mut self, codes: &[Code]) -> Self {
        self.problems.extend(codes);
        self
    }

    /// Its method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Its path, with members in braces.
    #[must_use]
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// Its unique name.
    #[must_use]
    pub fn id(&self) -> &'static str {
        self.id
    }
}
