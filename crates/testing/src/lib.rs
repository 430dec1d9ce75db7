//! What tests from the outside stand on: the binary as a process or as a cluster of them, clients, a
//! scripted model provider, services and MCP servers as tools call them, and a real browser.

pub mod balancer;
pub mod browser;
pub mod client;
pub mod cluster;
pub mod conformance;
pub mod fault_proxy;
pub mod forge;
pub mod load;
pub mod mcp_server;
pub mod model_server;
pub mod openmetrics;
pub mod postgres;
pub mod process;
pub mod s3_server;
pub mod stores;
pub mod terminal;
pub mod web_service;
