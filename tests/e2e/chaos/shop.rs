//! The node of the cases, the service on it, and what is known to be acknowledged.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cases::Case;
use super::left;
use super::load::Load;
use super::work::{self, Work};
use crate::apps::App;
use crate::bad_input::SmallDisk;
use crate::node::Node;

/// From the last word of a node that is killed until it is gone.
const DYING: Duration = Duration::from_secs(2);

const HOST: &str = "web.shop.localhost";

const MANIFEST: &str = "\
name: shop
services:
  web:
    build: .
    image: shop-web:1
    environment: {GREETING: \"0\"}
    volumes: [\"data:/data\"]
    secrets: [word]
    deploy: {update_config: {order: start-first}}
    x-layby: {sleep: {doze_after: never, sleep_after: never}}
  task:
    build: .
    image: shop-web:1
    command: [length, /run/secrets/word, /length]
    secrets: [word]
    x-layby: {schedule: '@yearly', retries: 2}
volumes: {data: }
secrets: {word: {external: true}}
";

/// What was asked for, of one setting.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Word<T> {
    /// Was acknowledged last.
    is: T,
    /// Was asked for after that, and nobody said whether it is so.
    may_be: Vec<T>,
}

impl<T: Clone + PartialEq> Word<T> {
    pub(super) fn new(is: T) -> Self {
        let may_be = Vec::new();
        Self { is, may_be }
    }

    pub(super) fn ask(&mut self, word: T) {
        self.may_be.push(word);
    }

    pub(super) fn acknowledge(&mut self) {
        if let Some(word) = self.may_be.pop() {
            *self = Self::new(word);
        }
    }

    pub(super) fn fits(&self, word: &T) -> bool {
        self.is == *word || self.may_be.contains(word)
    }

    /// It was found so; of what else was asked for, something may still come.
    pub(super) fn found(&mut self, word: T) {
        self.may_be.retain(|other| *other != word);
        self.is = word;
    }
}

pub(super) struct Shop {
    pub(super) node: Node,
    load: Load,
    greeting: Word<String>,
    scale: Word<u64>,
    power: Word<Option<String>>,
    pub(super) work: Work,
    /// Counts the greetings and secrets.
    pub(super) next: u32,
    /// The lives of the node that ended by order.
    ended: Vec<u32>,
    pub(super) app: App,
    disk: SmallDisk,
}

impl Shop {
    pub(super) fn open() -> Self {
        let disk = SmallDisk::mount("96m");
        let node = Node::start_on(disk.folder());
        let app = App::compose(MANIFEST);
        let work = Work::begin(&node, &app);
        node.run_in(app.path(), &["up"]).ok();
        let load = Load::begin(HOST);
        load.node_lives(node.gateway());
        Self {
            node,
            load,
            greeting: Word::new("0".to_owned()),
            scale: Word::new(1),
            power: Word::new(None),
            work,
            next: 0,
            ended: Vec::new(),
            app,
            disk,
        }
    }

    /// Starts the node anew with these orders to fail, which it does when it comes to that; `false`: it came to it before
    /// it answered.
    pub(super) fn begin_anew(&mut self, env: Vec<(&'static str, String)>) -> bool {
        if !self.node.has_died() {
            self.kill();
        }
        self.node.env = env;
        let lives = self.node.serve_or_die();
        if lives {
            self.load.node_lives(self.node.gateway());
        }
        lives
    }

    /// kill -9 of the node.
    pub(super) fn kill(&mut self) {
        self.node_ended();
        self.node.kill();
    }

    /// Whether the node has ended as it was ordered to.
    pub(super) fn has_died(&mut self) -> bool {
        let died = self.node.has_died();
        if died {
            self.node_ended();
        }
        died
    }

    /// The same, when it may be about to.
    pub(super) fn dies(&mut self) -> bool {
        let begun = Instant::now();
        while !self.has_died() && begun.elapsed() < DYING {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.has_died()
    }

    fn node_ended(&mut self) {
        self.load.node_is_gone();
        self.forgive();
    }

    /// What gets no answer in this life of the node is no fault of it.
    pub(super) fn forgive(&mut self) {
        let life = self.load.life();
        if self.ended.last() != Some(&life) {
            self.ended.push(life);
        }
    }

    pub(super) fn fill_disk(&self) {
        self.disk.fill();
    }

    pub(super) fn free_disk(&self) {
        self.disk.free();
    }

    /// Runs a command; whether it said that all is done.
    pub(super) fn run(&self, args: &[&str]) -> bool {
        let answer = self.node.run(args);
        if answer.code != 0 {
            println!(
                "  {} ended with {}: {}",
                answer.command,
                answer.code,
                answer.err.trim()
            );
        }
        answer.code == 0
    }

    pub(super) fn deploy(&mut self) -> bool {
        self.next += 1;
        let greeting = self.next.to_string();
        self.greeting.ask(greeting.clone());
        let done = self.run(&["deploy", "web", "--env", &format!("GREETING={greeting}")]);
        if done {
            self.greeting.acknowledge();
        }
        done
    }

    pub(super) fn scale(&mut self, replicas: u64) -> bool {
        self.scale.ask(replicas);
        let done = self.run(&["scale", "web", &replicas.to_string()]);
        if done {
            self.scale.acknowledge();
        }
        done
    }

    pub(super) fn power(&mut self, name: &str) -> bool {
        self.power.ask(Some(name.to_owned()));
        let done = self.run(&["power", "web", name]);
        if done {
            self.power.acknowledge();
        }
        done
    }

    /// A power that it does not have.
    pub(super) fn other_power(&self) -> &'static str {
        match self.power.is.as_deref() {
            Some("nano") => "micro",
            _ => "nano",
        }
    }

    /// A request of one's own: how long it took, in milliseconds.
    pub(super) fn ask(&self) -> u128 {
        let begun = Instant::now();
        let reply = self.node.get(HOST, "/");
        assert_eq!(reply.status, 200, "{reply:?}");
        begun.elapsed().as_millis()
    }

    /// The service's replicas.
    pub(super) fn replicas(&self) -> BTreeSet<String> {
        ids(&self.node.status("web"))
    }

    /// That all is as it was acknowledged, and nothing beside it; with a node that is not to fail.
    pub(super) fn check(&mut self, case: &Case) {
        if self.node.has_died() || !self.node.env.is_empty() {
            assert!(self.begin_anew(Vec::new()), "{case}: {}", self.node.story());
        }
        self.settle(case);
        let status = self.node.status("web");
        let body = self.node.get(HOST, "/").body;
        let greeting = body.trim_start_matches("hello ").to_owned();
        assert!(
            self.greeting.fits(&greeting),
            "{case}: {body:?}, not {:?}",
            self.greeting
        );
        let scale = status["replicas_wanted"].as_u64().expect("a number");
        assert!(
            self.scale.fits(&scale),
            "{case}: {scale}, not {:?}",
            self.scale
        );
        let power = status["power"].as_str().map(str::to_owned);
        assert!(
            self.power.fits(&power),
            "{case}: {power:?}, not {:?}",
            self.power
        );
        self.greeting = Word::new(greeting);
        self.scale = Word::new(scale);
        self.power = Word::new(power);
        self.check_work(case);
        let faults = self.load.faults(&self.ended);
        assert_eq!(faults, Vec::<String>::new(), "{case}: what the load saw");
    }

    /// Waits until the load was answered, of which one answer may have been on its way before; false: the node died over it.
    pub(super) fn is_woken(&mut self) -> bool {
        let answered = self.load.answered();
        let end = Instant::now() + crate::node::PATIENCE;
        while self.load.answered() < answered + 2 {
            if self.has_died() || Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Waits until the service has what it is to have, and the machine nothing that is not of it.
    fn settle(&self, case: &Case) {
        let answered = self.load.answered();
        self.node.wait_for(&format!("{case} to settle"), |node| {
            if work::goes_on(node) {
                return false;
            }
            let status = node.status("web");
            let of = |what: &str| status[what].as_u64();
            let ready =
                status["state"] == "RUNNING" && of("replicas_ready") == of("replicas_wanted");
            let shown = ids(&status);
            ready
                && Some(shown.len() as u64) == of("replicas_wanted")
                && self.load.answered() > answered
                && left::by_replica(node)
                    .iter()
                    .all(|(_, there)| *there == shown)
        });
    }

    /// Takes all down: nothing of it is left on the machine.
    pub(super) fn close(mut self) {
        self.forgive();
        self.load.node_is_gone();
        self.node.run(&["down", "shop", "--volumes"]).ok();
        self.node.run(&["node", "stop", "--all"]).ok();
        let node = &mut self.node;
        let begun = Instant::now();
        while !node.has_died() && begun.elapsed() < crate::node::PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(
            left::of_node(node),
            Vec::<String>::new(),
            "left on the machine"
        );
    }
}

fn ids(status: &Value) -> BTreeSet<String> {
    let replicas = status["replicas"].as_array().cloned().unwrap_or_default();
    let ids = replicas.iter().filter_map(|replica| replica["id"].as_str());
    ids.map(str::to_owned).collect()
}
