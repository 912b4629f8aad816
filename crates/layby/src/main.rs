//! Layby: one binary that is the node, the shim of each replica, and the command line.

mod ask;
mod cli;
mod client;
mod commands;
mod connections;
mod contexts;
mod events;
mod exit;
mod fail;
mod https;
mod moment;
mod nearest;
mod out;
mod parcel;
mod parent;
mod paths;
mod process;
mod registry;
mod reserve;
mod rest;
mod serve;
mod settings;
mod show;
mod socket;
mod terminal;
mod tls;
mod transfer;
mod transport;

use std::process::ExitCode;

use anyhow::Result;
use ask::Named;
use clap::Parser;
use cli::{Cli, Command};
use paths::Paths;

fn main() -> ExitCode {
    layby_runtime::run_if_shim(); // before any thread exists
    exit::report(run(Cli::parse()))
}

fn run(cli: Cli) -> Result<()> {
    let named = Named {
        has_data: cli.data.is_some(),
        context: cli.context,
    };
    let data = cli.data.unwrap_or_else(|| paths::DATA_DIR.into());
    let paths = Paths::of(&data)?;
    if let Command::Serve(options) = &cli.command {
        return serve::serve(&paths, options);
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(ask::ask(&paths, named, cli.command))
}
