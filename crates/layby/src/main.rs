//! Layby: one binary that is the node, the shim of each replica, and the command line.

mod ask;
mod audit;
mod build;
mod canary;
mod cli;
mod client;
mod connections;
mod contexts;
mod cp;
mod enrol;
mod events;
mod exec;
mod exit;
mod fail;
mod forward;
mod history;
mod https;
mod images;
mod jobs;
mod journal;
mod login;
mod logs;
mod manual;
mod moment;
mod nearest;
mod node;
mod out;
mod parcel;
mod parent;
mod paths;
mod power;
mod process;
mod registry;
mod reserve;
mod rest;
mod secrets;
mod serve;
mod services;
mod settings;
mod show;
mod socket;
mod state;
mod switch;
mod terminal;
mod tls;
mod tokens;
mod top;
mod transfer;
mod transport;
mod up;
mod volumes;

use std::process::ExitCode;

use anyhow::Result;
use ask::Named;
use clap::Parser;
use cli::{Cli, Command};
use paths::Paths;

/// Where a node keeps its data unless it is said.
const DATA_DIR: &str = "/var/lib/layby";

fn main() -> ExitCode {
    layby_runtime::run_if_shim(); // before any thread exists
    exit::report(run(Cli::parse()))
}

fn run(cli: Cli) -> Result<()> {
    let named = Named {
        has_data: cli.data.is_some(),
        context: cli.context,
    };
    let data = cli.data.unwrap_or_else(|| DATA_DIR.into());
    let paths = Paths::of(&data)?;
    if let Command::Serve(options) = &cli.command {
        return serve::serve(&paths, options);
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(ask::ask(&paths, named, cli.command))
}
