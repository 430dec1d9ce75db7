//! The direction of dependencies between the crates, and what may not enter those that run on wasm.
//!
//! `model` ← `db`, `hop` ← the hops ← the hosts. The four hops never depend on each other, on
//! storage or on a host.

use crate::wasm;
use crate::workspace::{Package, Workspace};

/// What each crate may use of the workspace. Hosts and test helpers use anything.
const LAYERS: &[(&str, Allowed)] = &[
    ("convene-model", Allowed::Only(&[])),
    ("convene-db", Allowed::Only(&["convene-model"])),
    ("convene-hop", Allowed::Only(&["convene-model"])),
    ("convene-threads", Allowed::Only(&[])),
    ("convene-archive", Allowed::Only(&["convene-model", "convene-threads"])),
    ("convene-app", Allowed::Only(&["convene-model", "convene-db", "convene-hop"])),
    (
        "convene-orchestrator",
        Allowed::Only(&["convene-model", "convene-db", "convene-hop", "convene-archive"]),
    ),
    ("convene-group-controller", Allowed::Only(&["convene-model"])),
    ("convene-agents-worker", Allowed::Only(&["convene-model"])),
    ("convene-storage", Allowed::Only(&["convene-model", "convene-db", "convene-threads"])),
    // A client like any other: it knows the wire types and nothing of the server.
    ("convene-chat", Allowed::Only(&["convene-model"])),
    ("convene-host-native", Allowed::Anything),
    ("convene-testing", Allowed::Anything),
    ("xtask", Allowed::Only(&[])),
];

/// Sockets, threads and C libraries: none of them exists on wasm.
const NOT_ON_WASM: &[&str] =
    &["tokio", "reqwest", "rusqlite", "hyper", "hyper-util", "mio", "socket2", "libc", "rustls"];

enum Allowed {
    Only(&'static [&'static str]),
    Anything,
}

pub(super) fn check(workspace: &Workspace) -> Vec<String> {
    let mut findings: Vec<_> = workspace.packages.iter().flat_map(package).collect();
    for (name, _) in LAYERS {
        if !workspace.packages.iter().any(|package| package.name == *name) {
            findings.push(format!("xtask/src/tidy/dependencies.rs: there is no crate {name}"));
        }
    }
    findings
}

fn package(package: &Package) -> Vec<String> {
    let name = &package.name;
    let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| layer == name) else {
        return vec![format!("{name}: not among the layers of xtask/src/tidy/dependencies.rs")];
    };
    let mut findings = Vec::new();
    for dependency in &package.dependencies {
        let ours = dependency.starts_with("convene-") || dependency == "xtask";
        match allowed {
            Allowed::Only(those) if ours && !those.contains(&dependency.as_str()) => {
                findings.push(format!("{name} depends on {dependency}, against the layering"));
            }
            Allowed::Only(_) | Allowed::Anything => {}
        }
        if wasm::CRATES.contains(&name.as_str()) && NOT_ON_WASM.contains(&dependency.as_str()) {
            findings.push(format!("{name} runs on wasm and depends on {dependency}"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::package;
    use crate::workspace::Package;

    fn found(name: &str, dependencies: &[&str]) -> usize {
        let dependencies = dependencies.iter().map(|name| (*name).to_owned()).collect();
        package(&Package { name: name.to_owned(), dependencies }).len()
    }

    #[test]
    fn hops_use_lower_layers_only() {
        assert_eq!(found("convene-app", &["convene-model", "convene-hop", "tokio"]), 0);
        assert_eq!(found("convene-app", &["convene-orchestrator"]), 1);
        assert_eq!(found("convene-orchestrator", &["convene-storage"]), 1);
        assert_eq!(found("convene-agents-worker", &["convene-hop"]), 1);
        assert_eq!(found("convene-host-native", &["convene-storage", "convene-app"]), 0);
    }

    #[test]
    fn crates_for_wasm_have_no_sockets() {
        assert_eq!(found("convene-group-controller", &["serde", "convene-model"]), 0);
        assert_eq!(found("convene-group-controller", &["tokio"]), 1);
        assert_eq!(found("convene-agents-worker", &["reqwest", "rusqlite"]), 2);
    }

    #[test]
    fn a_new_crate_chooses_its_layer() {
        assert_eq!(found("convene-new", &[]), 1);
    }
}
