//! Layby: one binary that is the node, the shim of each replica, and the command line.

mod cli;
mod client;
mod events;
mod exit;
mod images;
mod logs;
mod node;
mod out;
mod parcel;
mod paths;
mod serve;
mod services;
mod show;
mod up;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cli::{Cli, Command};
use client::Client;
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
        .block_on(ask(&paths, cli.command))
}

/// Everything but `serve` asks the node.
async fn ask(paths: &Paths, command: Command) -> Result<()> {
    let client = Client::new(&paths.socket(), &paths.data_dir);
    match command {
        Command::Serve(_) => unreachable!("served above"),
        Command::Up(options) => up::up(paths, &client, options).await,
        Command::Ls(form) => services::ls(&client, form.json).await,
        Command::Status { name, json } => services::status(&client, &name.name, json.json).await,
        Command::Logs(options) => logs::logs(&client, &options).await,
        Command::Sleep(name) => services::turn(&client, &name.name, "sleep").await,
        Command::Doze(name) => services::turn(&client, &name.name, "doze").await,
        Command::Wake(name) => services::turn(&client, &name.name, "wake").await,
        Command::Deploy(options) => services::deploy(&client, &options).await,
        Command::Down { app } => services::down(&client, &app).await,
        Command::Image(command) => images::image(&client, command).await,
        Command::Node(cli::Node::Stop { all }) => node::stop(paths, &client, all).await,
        Command::Version(form) => node::version(&client, form.json).await,
    }
}
