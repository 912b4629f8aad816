//! The job and the secret of the shop: what is asked of them, and what is known to be acknowledged.

use std::fs;

use serde_json::Value;

use super::cases::Case;
use super::shop::{Shop, Word};
use crate::apps::App;
use crate::node::Node;

const JOB: &str = "task";
const SECRET: &str = "word";
/// Where the service has it.
const FILE: &str = "web:/run/secrets/word";

/// What is known of them.
pub(super) struct Work {
    secret: Word<String>,
    /// The last run that was said to be done.
    done: u64,
    /// Runs up to this one need not have come to anything.
    excused: u64,
}

impl Work {
    /// On a node that runs nothing yet.
    pub(super) fn begin(node: &Node, app: &App) -> Self {
        set_secret(node, app, "word-0");
        Self {
            secret: Word::new("word-0".to_owned()),
            done: 0,
            excused: 0,
        }
    }
}

fn set_secret(node: &Node, app: &App, value: &str) {
    app.write("word.txt", value);
    let file = app.path().join("word.txt");
    let file = file.to_str().expect("UTF-8");
    node.run(&["secret", "set", SECRET, "--file", file]).ok();
}

/// The runs of the job, the newest first.
fn runs(node: &Node) -> Vec<Value> {
    let runs = node.run(&["job", "runs", JOB, "--json"]).ok().json();
    runs.as_array().cloned().unwrap_or_default()
}

fn newest(node: &Node) -> u64 {
    let newest = runs(node);
    newest.first().map_or(0, number)
}

fn number(run: &Value) -> u64 {
    run["run"].as_u64().expect("a number")
}

/// Whether a run of the job is not over.
pub(super) fn goes_on(node: &Node) -> bool {
    let over = |run: &Value| !run["ended_at"].is_null();
    !runs(node).iter().all(over)
}

impl Shop {
    /// Another value: another revision of the service.
    pub(super) fn set_secret(&mut self) -> bool {
        self.next += 1;
        let value = format!("word-{}", self.next);
        self.work.secret.ask(value.clone());
        self.app.write("word.txt", &value);
        let file = self.app.path().join("word.txt");
        let done = self.run(&[
            "secret",
            "set",
            SECRET,
            "--file",
            file.to_str().expect("UTF-8"),
        ]);
        if done {
            self.work.secret.acknowledge();
        }
        done
    }

    /// Another master key.
    pub(super) fn rotate_key(&mut self) -> bool {
        self.run(&["secret", "rotate-key"])
    }

    /// A run of the job, which ends well only where it has its secret.
    pub(super) fn run_job(&mut self) -> bool {
        let done = self.run(&["job", "run", JOB]);
        if done {
            self.work.done = newest(&self.node);
        }
        done
    }

    /// What has been run so far need not have come to anything.
    pub(super) fn excuse_runs(&mut self) {
        self.work.excused = newest(&self.node);
    }

    /// That job and secret are as they were acknowledged.
    pub(super) fn check_work(&mut self, case: &Case) {
        let to = self.app.path().join("out");
        let out = to.to_str().expect("UTF-8");
        self.node.run(&["cp", FILE, out]).ok();
        let secret = fs::read_to_string(&to).expect("a file");
        fs::remove_file(&to).expect("removed");
        let known = &mut self.work.secret;
        assert!(known.fits(&secret), "{case}: {secret:?}, not {known:?}");
        known.found(secret);
        let runs = runs(&self.node);
        let last = runs.first().map_or(0, number);
        assert!(
            last >= self.work.done,
            "{case}: run {} is lost",
            self.work.done
        );
        for run in runs {
            let well = run["state"] == "succeeded" || number(&run) <= self.work.excused;
            assert!(well, "{case}: {run:#}");
        }
    }
}
