//! Real containers. Needs root; prints SKIPPED otherwise.
//!
//! There is no test harness: a shim is a copy of the program that starts it, so this program must be able
//! to become one before it has threads.

mod alone;
mod attach;
mod copies;
mod escapes;
mod fences;
mod life;
mod mounts;
mod options;
mod probes;
mod rig;
mod shims;
mod starts;
mod steps;

use std::panic::{AssertUnwindSafe, catch_unwind};

type Test = (&'static str, fn());

fn main() {
    layby_runtime::run_if_shim();
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, spec, bundle] = &arguments[..]
        && word == shims::NODE
    {
        shims::play_node(spec, bundle);
    }
    if let [_, word, spec, dir] = &arguments[..]
        && word == steps::BUILDER
    {
        steps::play_builder(spec, dir);
    }
    // What cargo's own harness understands is passed over; words are filters.
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let all = [
        alone::TESTS,
        attach::TESTS,
        copies::TESTS,
        life::TESTS,
        escapes::TESTS,
        fences::TESTS,
        mounts::TESTS,
        options::TESTS,
        probes::TESTS,
        shims::TESTS,
        starts::TESTS,
        steps::TESTS,
    ]
    .concat();
    if !nix::unistd::geteuid().is_root() {
        println!(
            "SKIPPED: containers need root\n\ntest result: ok. 0 passed; 0 failed; {} ignored; 0 measured; 0 filtered out",
            all.len()
        );
        return;
    }
    let wanted = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
    };
    let (chosen, others): (Vec<Test>, Vec<Test>) =
        all.into_iter().partition(|(name, _)| wanted(name));
    println!("\nrunning {} tests", chosen.len());
    let mut failed = Vec::new();
    for (name, test) in &chosen {
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(*name);
        }
    }
    rig::remove_layer();
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        chosen.len() - failed.len(),
        failed.len(),
        others.len()
    );
    std::process::exit(i32::from(!failed.is_empty()));
}
