//! Who calls: verification of the tokens that reach the Orchestrator.
//!
//! Owns the memory of used `jti` values. Never looks anything up in the directory: what a verified
//! caller may do with a group is decided where the group is known ([`crate::routes`]).

use std::collections::BTreeSet;

use convene_hop::{Clock, RawRequest};
use convene_model::{
    Code, OrgId, Problem,
    claims::{Access, AppClaims, ControllerClaims, service},
    keys::TrustedKeys,
    limits::MAX_REMEMBERED_JTIS,
    replay::ReplayGuard,
    token::{self, TokenError},
};

/// The header that carries a user's routing token.
pub(crate) const ROUTING_TOKEN_HEADER: &str = "x-routing-token";

pub(crate) struct Auth {
    operators: BTreeSet<String>,
    app_keys: TrustedKeys,
    controller_keys: TrustedKeys,
    own_keys: TrustedKeys,
    replay: ReplayGuard,
    clock: Clock,
}

/// An app whose token holds for the request that brought it.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The `iss` of its token.
    pub(crate) issuer: String,
    /// Whether it may set limits.
    pub(crate) operator: bool,
    /// The organization on whose behalf it calls, where it says so.
    pub(crate) org_id: Option<OrgId>,
}

/// A controller whose token holds for the request that brought it.
#[derive(Debug, Clone)]
pub(crate) struct Controller {
    /// The `iss` of its token.
    pub(crate) issuer: String,
    /// Which group, under which epoch.
    pub(crate) claims: ControllerClaims,
}

/// Who may report a group's lifecycle.
#[derive(Debug, Clone)]
pub(crate) enum Reporter {
    /// An app.
    App(Caller),
    /// A group's controller.
    Controller(Controller),
}

impl Auth {
    pub(crate) fn new(
        operators: BTreeSet<String>,
        app_keys: TrustedKeys,
        controller_keys: TrustedKeys,
        own_keys: TrustedKeys,
        clock: Clock,
    ) -> Self {
        let replay = ReplayGuard::new(MAX_REMEMBERED_JTIS);
        Self { operators, app_keys, controller_keys, own_keys, replay, clock }
    }

    /// The Orchestrator's own public keys, which its snapshots are signed with.
    pub(crate) fn own_keys(&self) -> &TrustedKeys {
        &self.own_keys
    }

    /// Whether an app of that name may call.
    pub(crate) fn knows(&self, issuer: &str) -> bool {
        self.app_keys.knows(issuer)
    }

    /// The app that made this request.
    ///
    /// # Errors
    /// [`TokenError`], all of them 401.
    pub(crate) fn app(&self, request: &RawRequest) -> Result<Caller, TokenError> {
        let token = token::authorize::<AppClaims>(
            &self.app_keys,
            service::ORCHESTRATOR,
            request.line(),
            (self.clock)(),
            Some(&self.replay),
        )?;
        let issuer = token.registered.iss;
        let operator = self.operators.contains(&issuer);
        Ok(Caller { issuer, operator, org_id: token.claims.org_id })
    }

    /// The app or the controller that made this request; the token's `typ` says which.
    ///
    /// # Errors
    /// [`TokenError`], all of them 401.
    pub(crate) fn reporter(&self, request: &RawRequest) -> Result<Reporter, TokenError> {
        match self.app(request) {
            Ok(caller) => return Ok(Reporter::App(caller)),
            Err(TokenError::WrongType) => {}
            Err(error) => return Err(error),
        }
        self.controller(request).map(Reporter::Controller)
    }

    /// The controller that made this request.
    ///
    /// # Errors
    /// [`TokenError`], all of them 401.
    pub(crate) fn controller(&self, request: &RawRequest) -> Result<Controller, TokenError> {
        let token = token::authorize::<ControllerClaims>(
            &self.controller_keys,
            service::ORCHESTRATOR,
            request.line(),
            (self.clock)(),
            Some(&self.replay),
        )?;
        Ok(Controller { issuer: token.registered.iss, claims: token.claims })
    }

    /// The user for whom the request is made, by the routing token that it carries.
    ///
    /// # Errors
    /// [`TokenError`], all of them 401.
    pub(crate) fn user(&self, request: &RawRequest) -> Result<Access, TokenError> {
        let token = request.header(ROUTING_TOKEN_HEADER).ok_or(TokenError::Missing)?;
        token::verify_routing(&self.own_keys, token, (self.clock)())
    }
}

impl Caller {
    /// That a call which names its organization in the token is about `org_id`.
    ///
    /// # Errors
    /// [`Code::Forbidden`] when the token names another.
    pub(crate) fn check_org(&self, org_id: &OrgId) -> Result<(), Problem> {
        match &self.org_id {
            Some(named) if named != org_id => {
                Err(Problem::new(Code::Forbidden).detail("the token is for another organization"))
            }
            Some(_) | None => Ok(()),
        }
    }
}
