//! What every Convene does, whatever it is made of: a suite that knows base URLs and keys and
//! nothing else, so that it holds unchanged for one process, for several, and for other hosts.
//!
//! Each case makes its own accounts, workspaces and groups, so that cases and repeated runs do not
//! disturb each other.

mod accounts;
mod agents;
mod groups;
mod infra;
mod portal;
mod service;

use std::{future::Future, pin::Pin};

use crate::{client::Person, forge::Identity};

pub use portal::Portal;

/// The Convene that is looked at.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where people reach the App, without a slash at the end.
    pub app: String,
    /// Where outside apps reach the infra API, without a slash at the end.
    pub infra: String,
    /// An outside app that may call it, with the key that is configured there, without scope.
    pub portal: Identity,
    /// Another outside app that may call it.
    pub rival: Identity,
}

impl Target {
    /// A Convene at two addresses, with the outside apps that [`Target::apps_toml`] configures.
    #[must_use]
    pub fn new(app: impl Into<String>, infra: impl Into<String>) -> Self {
        let [portal, rival] = outside_apps();
        Self { app: app.into(), infra: infra.into(), portal, rival }
    }

    /// The configuration of the outside apps, as lines of a `convene.toml`.
    ///
    /// # Panics
    /// Never: a key set is JSON.
    #[must_use]
    pub fn apps_toml() -> String {
        let app = |identity: &Identity| {
            let jwks = serde_json::to_string(&identity.key.jwks()).expect("a key set is JSON");
            format!("[[orchestrator.apps]]\nissuer = {:?}\njwks = '{jwks}'\n", identity.issuer())
        };
        outside_apps().iter().map(app).collect()
    }

    /// A new person; the name is only what the person is called.
    async fn person(&self, name: &str) -> Person {
        Person::sign_up(&self.app, &unique(name)).await
    }

    /// A new person with a workspace and a group in it: person, workspace, group.
    async fn founder(&self, name: &str) -> (Person, String, String) {
        let person = self.person(name).await;
        let org = person.create_org("Lighthouse").await;
        let group = person.create_group(&org, "Plans").await;
        (person, org, group)
    }
}

fn outside_apps() -> [Identity; 2] {
    [Identity::new("our-portal", 71), Identity::new("other-portal", 72)]
}

/// A name that nothing else has.
fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

type Running<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// One statement about every Convene.
struct Case {
    name: &'static str,
    run: for<'a> fn(&'a Target) -> Running<'a>,
}

macro_rules! cases {
    ($($module:ident :: $name:ident),* $(,)?) => {
        const CASES: &[Case] = &[$(Case {
            name: concat!(stringify!($module), "::", stringify!($name)),
            run: |target| Box::pin($module::$name(target)),
        }),*];
    };
}

cases![
    service::every_door_says_that_it_lives_and_is_ready_and_publishes_keys,
    accounts::a_person_signs_up_and_in_and_is_known_by_the_token,
    accounts::what_a_person_may_not_see_does_not_exist,
    groups::a_post_is_seen_by_everybody_and_acknowledged_once_it_is_durable,
    groups::a_repeated_post_is_answered_with_its_first_number_over_socket_and_http,
    groups::a_client_that_returns_gets_exactly_what_it_missed,
    groups::history_is_paged_in_both_directions,
    groups::a_removed_person_is_closed_out_at_once_and_stays_out,
    agents::a_mention_is_answered_in_a_stream_that_ends_once,
    agents::a_run_is_stopped_by_a_person,
    infra::an_outside_app_speaks_for_its_users_over_one_upstream,
    infra::a_repeated_mutation_is_done_once,
    infra::history_needs_the_routing_token_of_a_user,
    infra::a_revoked_user_is_detached_and_refused,
    infra::a_token_with_any_fault_is_refused_and_changes_nothing,
    infra::an_organization_belongs_to_the_app_that_first_used_it,
    infra::a_frame_for_nobody_and_one_that_is_too_large_leave_the_upstream_as_it_was,
];

/// Looks at everything, one case after the other, and says which fail.
///
/// # Panics
/// When a case does not hold, after all were looked at.
pub async fn run(target: &Target) {
    let mut failed = Vec::new();
    for case in CASES {
        let target = target.clone();
        let run = case.run;
        let outcome = tokio::spawn(async move { run(&target).await }).await;
        eprintln!("conformance: {} {}", if outcome.is_ok() { "holds" } else { "FAILS" }, case.name);
        if outcome.is_err() {
            failed.push(case.name);
        }
    }
    assert!(failed.is_empty(), "{} of {} cases fail: {failed:?}", failed.len(), CASES.len());
}
