//! Layby: one binary that is the node, the shim of each replica, and the command line.

mod ask;
mod build;
mod cli;
mod client;
mod cp;
mod events;
mod exec;
mod exit;
mod forward;
mod history;
mod images;
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
mod serve;
mod services;
mod settings;
mod show;
mod socket;
mod switch;
mod terminal;
mod tokens;
mod top;
mod transfer;
mod up;
mod volumes;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cli::{Cli, Command};
use paths::Paths;

fn main() -> ExitCode {
    layby_runtime::run_if_shim(); // before any thread exists
    exit::report(run(Cli::parse()))
}

fn run(cli: Cli) -> Result<()> {
    let paths = Paths::of(&cli.data)?;
    if let Command::Serve(options) = &cli.command {
        return serve::serve(&paths, options);
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(ask::ask(&paths, cli.command))
}
