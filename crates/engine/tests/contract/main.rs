//! What every engine promises, asked of each engine there is.
//!
//! It has a main of its own: the shims are this program, and the embedded engine's tests run in a network and mount
//! namespace of their own, which must be entered before any thread exists.

mod access;
mod kit;
mod promises;
mod shims;
mod volumes;

use std::process::ExitCode;

use kit::{Kit, Maker};

/// A promise: its name, and how it is checked.
type Promise = (&'static str, fn(Kit));

fn main() -> ExitCode {
    layby_runtime::run_if_shim();
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let mut tally = Tally::default();

    let fake = Maker::Fake;
    for (name, promise) in every_engine() {
        tally.check(&format!("fake::{name}"), &only, &fake, *promise);
    }
    println!("SKIPPED: reopening the fake engine: its replicas live in this process");

    match kit::embedded() {
        Ok(embedded) => {
            let lasting = promises::LASTING.iter().chain(volumes::LASTING);
            for (name, promise) in every_engine().chain(lasting) {
                tally.check(&format!("embedded::{name}"), &only, &embedded, *promise);
            }
            for (name, promise) in shims::EMBEDDED_ONLY {
                tally.check(&format!("embedded::{name}"), &only, &embedded, *promise);
            }
        }
        Err(why) => println!("SKIPPED: the embedded engine: {why}"),
    }
    tally.verdict()
}

/// What every engine promises.
fn every_engine() -> impl Iterator<Item = &'static Promise> {
    let promises = promises::EVERY_ENGINE.iter();
    promises
        .chain(access::EVERY_ENGINE)
        .chain(volumes::EVERY_ENGINE)
}

#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
}

impl Tally {
    fn check(&mut self, name: &str, only: &Option<String>, maker: &Maker, promise: fn(Kit)) {
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            return;
        }
        let maker = maker.clone();
        // A panic is printed by the thread itself.
        let thread = std::thread::spawn(move || promise(maker.make()));
        if thread.join().is_ok() {
            self.passed += 1;
            println!("test {name} ... ok");
        } else {
            self.failed += 1;
            println!("test {name} ... FAILED");
        }
    }

    fn verdict(self) -> ExitCode {
        let Self { passed, failed } = self;
        let verdict = if failed == 0 { "ok" } else { "FAILED" };
        println!("test result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
        ExitCode::from(u8::from(failed > 0))
    }
}
