//! Chaos: a node that is killed at every kind of step, or whose machine plays tricks on it, under a light load.
//!
//! After each case: what was acknowledged holds, what was asked for is reached, the load saw no wrong answer, and whatever is
//! on the machine for the node belongs to a replica that it shows. `cargo xtask chaos` runs all cases and prints a line for
//! each; a share of them is among the tests.

mod cases;
mod left;
mod load;
mod shop;
mod work;

use std::time::Instant;

use crate::node::is_root;
use cases::Case;
use shop::Shop;

/// Plays cases on one node, one after another.
fn play(cases: &[Case]) {
    if !is_root() {
        return;
    }
    let mut shop = Shop::open();
    for case in cases {
        let begun = Instant::now();
        let how = case.play(&mut shop);
        shop.check(case);
        let ms = begun.elapsed().as_millis();
        println!("{:<28} {how}, settled after {ms} ms", case.to_string());
    }
    shop.close();
}

#[test]
fn a_share_of_the_failures_loses_nothing_and_leaves_nothing_behind() {
    play(&cases::share());
}

#[test]
#[ignore = "takes minutes: `cargo xtask chaos` runs it"]
fn all_failures_lose_nothing_and_leave_nothing_behind() {
    let only = std::env::var("LAYBY_CHAOS_ONLY").unwrap_or_default();
    let mut cases = cases::all();
    // Parts of names, with commas between them.
    cases.retain(|case| {
        let name = case.to_string();
        only.split(',').any(|part| name.contains(part))
    });
    play(&cases);
}
