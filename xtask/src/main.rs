//! `cargo xtask`: every chore of the project, in Rust.

mod bench;
mod binary;
mod chaos;
mod command;
mod demo;
mod dist;
mod example;
mod labels;
mod place;
mod setup;
mod sim;
mod suite;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install the Debian packages that building and running need; only what is missing.
    Setup,
    /// Build the static binary of an example, into examples/NAME/dist.
    Example {
        /// The folder in examples/.
        name: String,
    },
    /// Deploy an example, use it, let it doze and sleep and wake it; leaves the node running.
    Demo {
        /// Which: a digit classifier, or a stack of four services, one of which is scaled by load.
        #[arg(value_enum, default_value = "mnist")]
        which: demo::Which,
        /// Take down all that it made.
        #[arg(long)]
        once: bool,
    },
    /// Measure every figure of SPECIFICATION.md, with peers beside.
    Bench {
        /// Only this part.
        #[arg(value_enum)]
        part: Option<bench::Part>,
        /// How often what is repeated.
        #[arg(long, default_value_t = 50)]
        runs: u32,
        /// How long to watch an idle node.
        #[arg(long, default_value_t = 60)]
        idle_seconds: u32,
        /// Measure only Layby, without the engines and tools beside it.
        #[arg(long)]
        no_peers: bool,
    },
    /// Everything that CI runs, with one summary at the end.
    Test {
        /// Run instead the examples' own heavy tests, which CI leaves out: recognition of text, and pages in a browser.
        #[arg(long)]
        examples: bool,
        /// Run only the tests whose names contain this (and no other check).
        filter: Option<String>,
    },
    /// Lint the whole workspace with clippy; a warning fails.
    Lint,
    /// Check the rules that a machine can check: crate borders, licences, style.
    Tidy,
    /// Run the model's simulation for longer than the tests do.
    Sim {
        /// How many random worlds.
        #[arg(long, default_value_t = 100_000)]
        runs: u64,
        /// The first world's seed; another one tries other worlds.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Kill the node at every kind of step, and play its machine's tricks on it, as root; the tests do a share of it.
    Chaos {
        /// Only the cases whose names contain one of these, such as after-publish.
        only: Vec<String>,
    },
    /// Build the binary that is handed out: one static file, slower to build, faster to run.
    Dist,
}

fn main() -> ExitCode {
    let result = match Cli::parse().chore {
        Chore::Setup => setup::setup(),
        Chore::Example { name } => example::example(&name),
        Chore::Demo { which, once } => demo::demo(which, once),
        Chore::Bench {
            part,
            runs,
            idle_seconds,
            no_peers,
        } => bench::bench(part, runs, idle_seconds, !no_peers),
        Chore::Test {
            examples: true,
            filter,
        } => suite::test_examples(filter.as_deref()),
        Chore::Test {
            examples: false,
            filter,
        } => suite::test(filter.as_deref()),
        Chore::Lint => suite::lint(),
        Chore::Tidy => tidy::tidy(),
        Chore::Sim { runs, seed } => sim::sim(runs, seed),
        Chore::Chaos { only } => chaos::chaos(&only),
        Chore::Dist => dist::dist(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
