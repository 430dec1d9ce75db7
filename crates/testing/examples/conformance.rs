//! The conformance suite against any running Convene, by its addresses.
//!
//! ```text
//! cargo run -p convene-testing --example conformance -- apps >> convene.toml
//! cargo run -p convene-testing --example conformance -- run http://127.0.0.1:8080 http://127.0.0.1:8081
//! ```
//!
//! The first prints the outside apps that the suite speaks as; their keys are no secret, so leave
//! them out where anybody else can reach the infra API.

use std::process::ExitCode;

use convene_testing::conformance::{self, Target};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["apps"] => print!("{}", Target::apps_toml()),
        ["run", app, infra] => {
            let bare = |url: &str| url.trim_end_matches('/').to_owned();
            conformance::run(&Target::new(bare(app), bare(infra))).await;
        }
        _ => {
            eprintln!("conformance apps | conformance run APP_URL INFRA_URL");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
