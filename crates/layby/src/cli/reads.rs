//! Every command that reads takes `--json`: the whole command line is walked, so that a new one has to decide.

use clap::CommandFactory;

use super::Cli;

/// Commands that change something.
const CHANGE: [&str; 44] = [
    "abort",
    "build",
    "context rm",
    "context use",
    "deploy",
    "disable",
    "doze",
    "down",
    "enable",
    "image load",
    "image pull",
    "image push",
    "image rm",
    "image tag",
    "job resume",
    "job rm",
    "job run",
    "job stop",
    "job suspend",
    "logout",
    "network create",
    "network rm",
    "node stop",
    "power rm",
    "power set",
    "promote",
    "redeploy",
    "restart",
    "rm",
    "rollback",
    "secret import",
    "secret rm",
    "secret rotate-key",
    "secret set",
    "serve",
    "sleep",
    "state import",
    "token rm",
    "up",
    "volume create",
    "volume prune",
    "volume rm",
    "wake",
    "watch",
];

/// Commands whose output is a program's, a file, or of a form of its own.
const OWN_FORM: [&str; 9] = [
    "completions",
    "convert",
    "cp",
    "exec",
    "image save",
    "man",
    "port-forward",
    "run",
    "state export",
];

/// All commands below one, each with whether it takes `--json`.
fn below(command: &clap::Command, path: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for one in command.get_subcommands() {
        let name = format!("{path}{}", one.get_name());
        let does_something = !one.is_subcommand_required_set();
        if does_something {
            let json = |arg: &clap::Arg| arg.get_long() == Some("json");
            found.push((name.clone(), one.get_arguments().any(json)));
        }
        found.extend(below(one, &format!("{name} ")));
    }
    found
}

#[test]
fn every_command_that_reads_takes_json() {
    let all = below(&Cli::command(), "");
    assert!(all.len() > CHANGE.len() + OWN_FORM.len(), "{all:?}");
    let without = all.iter().filter(|(_, json)| !json);
    let mut without: Vec<&str> = without.map(|(name, _)| name.as_str()).collect();
    without.sort_unstable();
    let mut expected = [&CHANGE[..], &OWN_FORM[..]].concat();
    expected.sort_unstable();
    assert_eq!(without, expected);
}
