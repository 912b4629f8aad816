//! The five rules in a hostile world, at random: a late gateway, slow engines, a stalling disk, bad images, crash
//! loops, kill -9, clock steps and users. The rules must keep every property; each deliberate mistake must not.
//!
//! `LAYBY_SIM_RUNS` sets the number of runs without a mistake, `LAYBY_SIM_SEED` the first seed. A run is its seed:
//! the same one does the same on every machine.

mod control;
mod engine;
mod gateway;
mod mutation;
mod properties;
mod rng;
mod rollouts;
mod rules;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use mutation::Mutation;
use properties::Property;
use world::{Stats, World};

/// What many runs brought.
#[derive(Default)]
struct Outcome {
    runs: u64,
    stats: Stats,
    /// Seeds of runs with a violation.
    bad: Vec<u64>,
    /// How many runs broke a property.
    broken: BTreeMap<Property, u64>,
}

/// Runs seeds `first..first + runs` on all cores; with a mistake, only until it breaks its property.
fn run_many(mutation: Option<Mutation>, first: u64, runs: u64) -> Outcome {
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let outcome = Mutex::new(Outcome::default());
    let worker = || {
        let mut mine = Outcome::default();
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + runs {
                break;
            }
            let world = World::run(seed, mutation, false);
            mine.runs += 1;
            mine.stats.add(&world.stats);
            for violation in &world.violations {
                *mine.broken.entry(violation.property).or_default() += 1;
                let caught = mutation.is_some_and(|m| m.breaks() == violation.property);
                stop.fetch_or(caught, Ordering::Relaxed);
            }
            if !world.violations.is_empty() {
                mine.bad.push(seed);
            }
        }
        let mut all = outcome
            .lock()
            .expect("no worker panics while it holds the lock");
        all.runs += mine.runs;
        all.stats.add(&mine.stats);
        all.bad.extend(mine.bad);
        for (property, count) in mine.broken {
            *all.broken.entry(property).or_default() += count;
        }
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        for _ in 0..cores {
            scope.spawn(worker);
        }
    });
    let mut outcome = outcome.into_inner().expect("the workers are done");
    outcome.bad.sort_unstable();
    outcome
}

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text:?}")),
        Err(_) => default,
    }
}

/// Tells a run once more, in full.
fn tell(seed: u64, mutation: Option<Mutation>) {
    for violation in World::run(seed, mutation, true).violations {
        println!(
            "seed {seed} tick {}: {}: {}",
            violation.tick,
            violation.property.broken(),
            violation.detail
        );
        for line in violation.log {
            println!("      {line}");
        }
    }
}

#[test]
fn the_rules_keep_every_property_in_a_hostile_world() {
    let runs = setting("LAYBY_SIM_RUNS", 3_000);
    let first = setting("LAYBY_SIM_SEED", 0);
    let began = Instant::now();
    let outcome = run_many(None, first, runs);
    println!(
        "{} runs from seed {first} in {:.1} s: {:?}",
        outcome.runs,
        began.elapsed().as_secs_f64(),
        outcome.stats
    );
    for seed in outcome.bad.iter().take(3) {
        tell(*seed, None);
    }
    assert!(
        outcome.bad.is_empty(),
        "{} of {runs} runs broke a property: {:?}; set LAYBY_SIM_SEED and LAYBY_SIM_RUNS=1 for one of the seeds {:?}",
        outcome.bad.len(),
        outcome.broken,
        &outcome.bad[..outcome.bad.len().min(10)]
    );
}

#[test]
fn every_deliberate_mistake_breaks_its_property() {
    let first = setting("LAYBY_SIM_SEED", 0);
    let mut missed = Vec::new();
    for &mutation in Mutation::ALL {
        let began = Instant::now();
        let outcome = run_many(Some(mutation), first, mutation.runs());
        let caught = outcome.broken.contains_key(&mutation.breaks());
        println!(
            "{:22} {} in {:5} runs, {:4.1} s: {} -> {}",
            format!("{mutation:?}"),
            if caught { "caught" } else { "MISSED" },
            outcome.runs,
            began.elapsed().as_secs_f64(),
            mutation.what(),
            mutation.breaks().broken(),
        );
        if !caught {
            missed.push(mutation);
        }
    }
    assert!(
        missed.is_empty(),
        "not caught, from seed {first}: {missed:?}"
    );
}

#[test]
fn every_property_is_broken_by_a_mistake() {
    for property in Property::ALL {
        let broken = Mutation::ALL.iter().any(|m| m.breaks() == *property);
        assert!(broken, "{property:?} is proved by no mistake");
    }
}
