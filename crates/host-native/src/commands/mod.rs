//! One file for each command beside `serve`, `config` and `bench`: its arguments and what it does.

pub(crate) mod archive;
pub(crate) mod backup;
pub(crate) mod chat;
pub(crate) mod groups;
pub(crate) mod healthcheck;
pub(crate) mod infra;
pub(crate) mod journal;
pub(crate) mod keys;
pub(crate) mod openapi;
pub(crate) mod orgs;
pub(crate) mod secrets;
pub(crate) mod users;
