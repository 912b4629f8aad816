//! The crate table of the architecture: which arrows between crates are impossible.

use super::Finding;
use super::graph::Graph;

/// What one crate may and must not use. Dependencies of tests are free.
struct Border {
    krate: &'static str,
    /// The crates of this workspace that it may name.
    workspace: &'static [&'static str],
    /// If given, the only crates from elsewhere that it may name.
    only: Option<&'static [&'static str]>,
    /// What must not be built into it, not even through another crate.
    never: &'static [&'static str],
}

const ASYNC: &str = "tokio";
const DATABASES: [&str; 2] = ["libsqlite3-sys", "rusqlite"];

const BORDERS: [Border; 13] = [
    // An example stands for a user's own code.
    Border {
        krate: "labels",
        workspace: &[],
        only: None,
        never: &["layby-model"],
    },
    Border {
        krate: "layby",
        workspace: &[
            "layby-control",
            "layby-engine",
            "layby-gateway",
            "layby-image",
            "layby-manifest",
            "layby-model",
            "layby-net",
            "layby-runtime",
        ],
        only: None,
        never: &[],
    },
    Border {
        krate: "layby-bench",
        workspace: &[
            "layby-control",
            "layby-engine",
            "layby-gateway",
            "layby-image",
            "layby-manifest",
            "layby-model",
            "layby-net",
            "layby-runtime",
        ],
        only: None,
        never: &[],
    },
    Border {
        krate: "layby-control",
        workspace: &["layby-image", "layby-manifest", "layby-model"],
        only: None,
        never: &[
            "layby-engine",
            "layby-gateway",
            "layby-net",
            "layby-runtime",
        ],
    },
    Border {
        krate: "layby-engine",
        workspace: &["layby-image", "layby-model", "layby-net", "layby-runtime"],
        only: None,
        never: &["layby-control", "layby-gateway"],
    },
    Border {
        krate: "layby-gateway",
        workspace: &["layby-model"],
        only: None,
        never: &["layby-control", "layby-engine", DATABASES[0], DATABASES[1]],
    },
    Border {
        krate: "layby-image",
        workspace: &[],
        only: None,
        never: &["axum", "layby-model", "layby-runtime"],
    },
    Border {
        krate: "layby-manifest",
        workspace: &["layby-model"],
        only: None,
        never: &["k8s-openapi", "layby-control", "layby-engine"],
    },
    Border {
        krate: "layby-model",
        workspace: &[],
        only: Some(&["futures-core", "serde", "thiserror", "zeroize"]),
        never: &[ASYNC, DATABASES[0], DATABASES[1], "http", "rand"],
    },
    Border {
        krate: "layby-net",
        workspace: &[],
        only: None,
        never: &["layby-model"],
    },
    Border {
        krate: "layby-runtime",
        workspace: &[],
        only: None,
        never: &[ASYNC, "layby-image", "layby-model"],
    },
    // An example stands for a user's own code.
    Border {
        krate: "mnist",
        workspace: &[],
        only: None,
        never: &["layby-model"],
    },
    // The chores must build in seconds, on a machine on which nothing else builds yet.
    Border {
        krate: "xtask",
        workspace: &[],
        only: Some(&[
            "anyhow",
            "base64",
            "clap",
            "nix",
            "serde",
            "serde_json",
            "tempfile",
            "toml",
        ]),
        never: &[ASYNC],
    },
];

/// Checks every crate of the workspace against the table, and the table against the workspace.
pub(crate) fn check(graph: &Graph) -> Vec<Finding> {
    let mut findings = Vec::new();
    let members = graph.members();
    let names: Vec<&str> = members.iter().map(|member| &*member.name).collect();
    for member in &members {
        let mut found = |message: String| {
            findings.push(Finding::new(&manifest(&member.name), 1, message));
        };
        let Some(border) = BORDERS.iter().find(|border| border.krate == member.name) else {
            found(format!(
                "{} is not in the crate table: add it to xtask/src/tidy/borders.rs",
                member.name
            ));
            continue;
        };
        for used in graph.direct(&member.id) {
            let allowed = match (names.contains(&used), border.only) {
                (true, _) => border.workspace.contains(&used),
                (false, Some(only)) => only.contains(&used),
                (false, None) => true,
            };
            if !allowed {
                found(format!(
                    "{} may not use {used} (see ARCHITECTURE.md): take the dependency out",
                    member.name
                ));
            }
        }
        let all = graph.all(&member.id);
        for never in border.never {
            if let Some(way) = all.get(never) {
                found(format!(
                    "{} must never contain {never}, and does through {}",
                    member.name,
                    way.join(" -> ")
                ));
            }
        }
    }
    findings
}

fn manifest(name: &str) -> String {
    match name {
        "layby-bench" => "bench/Cargo.toml".to_owned(),
        "xtask" => "xtask/Cargo.toml".to_owned(),
        "labels" | "mnist" => format!("examples/{name}/Cargo.toml"),
        _ => format!("crates/{}/Cargo.toml", name.trim_start_matches("layby-")),
    }
}

#[cfg(test)]
mod tests {
    use super::{BORDERS, check};
    use crate::tidy::graph::tests::graph;

    fn messages(members: &[&str], edges: &[(&str, &str)]) -> Vec<String> {
        let findings = check(&graph(members, edges));
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_table_is_sorted_and_names_each_crate_once() {
        assert!(BORDERS.is_sorted_by(|one, other| one.krate < other.krate));
    }

    #[test]
    fn allowed_arrows_pass_and_tests_may_use_anything() {
        let members = ["layby-control", "layby-engine", "layby-model"];
        let edges = [
            ("layby-control", "layby-model"),
            ("layby-control", "layby-engine?"),
            ("layby-engine", "layby-model"),
            ("layby-model", "serde"),
        ];
        assert_eq!(messages(&members, &edges), [""; 0]);
    }

    #[test]
    fn a_forbidden_arrow_is_found_also_through_another_crate() {
        let found = messages(
            &["layby-gateway", "layby-model"],
            &[
                ("layby-gateway", "helper"),
                ("helper", "rusqlite"),
                ("layby-model", "tokio"),
            ],
        );
        assert_eq!(
            found,
            [
                "crates/gateway/Cargo.toml:1: layby-gateway must never contain rusqlite, and does \
                 through helper -> rusqlite",
                "crates/model/Cargo.toml:1: layby-model may not use tokio (see ARCHITECTURE.md): \
                 take the dependency out",
                "crates/model/Cargo.toml:1: layby-model must never contain tokio, and does through \
                 tokio",
            ]
        );
    }

    #[test]
    fn a_crate_that_the_table_does_not_know_is_found() {
        let found = messages(&["layby-extra"], &[]);
        assert!(found[0].contains("is not in the crate table"), "{found:?}");
    }
}
