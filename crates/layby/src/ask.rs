//! From a command to the function that does it.

use anyhow::Result;

use crate::cli::{self, Command};
use crate::client::Client;
use crate::commands::{
    audit, build, canary, config, convert, cp, enrol, exec, forward, history, images, jobs,
    journal, login, logs, manual, networks, node, power, secrets, services, state, switch, tokens,
    top, up, volumes,
};
use crate::contexts;
use crate::contexts::Contexts;
use crate::paths::Paths;
use crate::transport::{Remote, Transport};

/// Does what `command` says; everything but `serve` asks the node.
///
/// # Errors
/// What the node refused, or could not do.
pub(crate) async fn ask(paths: &Paths, context: Named, command: Command) -> Result<()> {
    // What needs no node, and is to work whatever the contexts say.
    let command = match command {
        Command::Completions(options) => return manual::completions(&options),
        Command::Man(options) => return manual::man(&options),
        Command::Convert(options) => return convert::convert(&options),
        Command::Context(command) => return contexts::context(command),
        Command::Login(options) if enrol::is_node(&options.registry) => {
            return enrol::enrol(&options).await;
        }
        Command::Logout { registry } if enrol::is_node(&registry) => {
            return enrol::leave(&registry);
        }
        other => other,
    };
    let client = client(paths, &context)?;
    match command {
        Command::Serve(_) => unreachable!("served above"),
        Command::Completions(_) | Command::Man(_) | Command::Context(_) | Command::Convert(_) => {
            unreachable!("done above")
        }
        Command::State(command) => state::state(paths, &client, command).await,
        Command::Up(options) => up::up(paths, &client, options).await,
        Command::Watch(options) => up::watch(paths, &client, options).await,
        Command::Config(options) => config::config(&client, options).await,
        Command::Build(options) => build::build(paths, &client, options).await,
        Command::Ls { all, json } => services::ls(&client, all, json.json).await,
        Command::Status { name, json } => services::status(&client, &name.name, json.json).await,
        Command::Exec(options) => exec::exec(&client, &options).await,
        Command::Run(options) => jobs::run(&client, &options).await,
        Command::Job(command) => jobs::job(&client, command).await,
        Command::Cp(options) => cp::cp(&client, &options).await,
        Command::Top(options) => top::top(&client, &options).await,
        Command::PortForward(options) => forward::port_forward(&client, &options).await,
        Command::Audit(options) => audit::audit(&client, &options).await,
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
        Command::Restart(options) => switch::restart(&client, &options).await,
        Command::Promote(options) => canary::promote(&client, &options).await,
        Command::Abort(name) => canary::abort(&client, &name).await,
        Command::Disable(several) => switch::disable(&client, &several).await,
        Command::Enable(options) => switch::enable(&client, &options).await,
        Command::Rm(options) => switch::remove(&client, &options).await,
        Command::Down { app, volumes } => services::down(&client, &app, volumes).await,
        Command::Network(command) => networks::network(&client, command).await,
        Command::Volume(command) => volumes::volume(&client, command).await,
        Command::Image(command) => images::image(&client, command).await,
        Command::Secret(command) => secrets::secret(&client, command).await,
        Command::Token(command) => tokens::token(&client, command).await,
        Command::Login(options) => login::login(&client, options).await,
        Command::Logout { registry } => login::logout(&client, &registry).await,
        Command::Node(cli::Node::Stop { all }) => node::stop(paths, &client, all).await,
        Command::Version(form) => node::version(&client, form.json).await,
    }
}

/// Which node is meant, as far as the command line says.
pub(crate) struct Named {
    /// `--context`.
    pub(crate) context: Option<String>,
    /// Whether `--data` names one of this machine.
    pub(crate) has_data: bool,
}

/// The node that is meant: the context that is named, else the one of this machine whose data are named, else the current
/// context's.
fn client(paths: &Paths, named: &Named) -> Result<Client> {
    let here = || Client::new(&paths.socket(), &paths.data_dir);
    if named.context.is_none() && named.has_data {
        return Ok(here());
    }
    let all = Contexts::read()?;
    match all.meant(named.context.as_deref())? {
        Some((name, context)) => {
            let remote = Remote::new(name, context)?;
            Ok(Client::by(Transport::Https(remote.into())))
        }
        None => Ok(here()),
    }
}
