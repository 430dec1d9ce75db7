//! What tests from the outside stand on: the binary as a process, clients, a scripted model
//! provider and a real browser.

pub mod browser;
pub mod client;
pub mod fault_proxy;
pub mod forge;
pub mod load;
pub mod model_server;
pub mod process;
