//! From a command to the function that does it.

use anyhow::Result;

use crate::cli::{self, Command};
use crate::client::Client;
use crate::paths::Paths;
use crate::{
    build, cp, exec, forward, history, images, journal, login, logs, manual, node, power, services,
    switch, tokens, top, up, volumes,
};

/// Does what `command` says; everything but `serve` asks the node.
///
/// # Errors
/// What the node refused, or could not do.
pub(crate) async fn ask(paths: &Paths, command: Command) -> Result<()> {
    let client = Client::new(&paths.socket(), &paths.data_dir);
    match command {
        Command::Serve(_) => unreachable!("served above"),
        Command::Completions(options) => manual::completions(&options),
        Command::Man(options) => manual::man(&options),
        Command::Up(options) => up::up(paths, &client, options).await,
        Command::Build(options) => build::build(paths, &client, options).await,
        Command::Ls { all, json } => services::ls(&client, all, json.json).await,
        Command::Status { name, json } => services::status(&client, &name.name, json.json).await,
        Command::Exec(options) => exec::exec(&client, &options).await,
        Command::Cp(options) => cp::cp(&client, &options).await,
        Command::Top(options) => top::top(&client, &options).await,
        Command::PortForward(options) => forward::port_forward(&client, &options).await,
        Command::Events(options) => journal::events(&client, &options).await,
        Command::Logs(options) => logs::logs(&client, &options).await,
        Command::Sleep(name) => services::turn(&client, &name.name, "sleep").await,
        Command::Doze(name) => services::turn(&client, &name.name, "doze").await,
        Command::Wake(name) => services::turn(&client, &name.name, "wake").await,
        Command::Scale(options) => power::scale(&client, &options).await,
        Command::Power(options) => power::power(&client, options).await,
        Command::Deploy(options) => services::deploy(&client, &options).await,
        Command::History(options) => history::history(&client, &options).await,
        Command::Diff(options) => history::diff(&client, &options).await,
        Command::Rollback(options) => history::rollback(&client, &options).await,
        Command::Redeploy(options) => history::redeploy(&client, &options).await,
        Command::Disable(several) => switch::disable(&client, &several).await,
        Command::Enable(options) => switch::enable(&client, &options).await,
        Command::Rm(options) => switch::remove(&client, &options).await,
        Command::Down { app, volumes } => services::down(&client, &app, volumes).await,
        Command::Volume(command) => volumes::volume(&client, command).await,
        Command::Image(command) => images::image(&client, command).await,
        Command::Token(command) => tokens::token(&client, command).await,
        Command::Login(options) => login::login(&client, options).await,
        Command::Logout { registry } => login::logout(&client, &registry).await,
        Command::Node(cli::Node::Stop { all }) => node::stop(paths, &client, all).await,
        Command::Version(form) => node::version(&client, form.json).await,
    }
}
