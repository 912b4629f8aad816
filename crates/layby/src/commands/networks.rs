//! `layby network`: the networks that apps share.

use anyhow::Result;
use layby_control::api::types::{NetworkBody, NetworkView};

use crate::cli::Network;
use crate::client::{Client, encode};
use crate::out::say;
use crate::show;

/// Does what `command` says.
///
/// # Errors
/// What the node refused.
pub(crate) async fn network(client: &Client, command: Network) -> Result<()> {
    match command {
        Network::Ls(form) => ls(client, form.json).await,
        Network::Inspect { name, .. } => {
            let network: NetworkView = client.get(&path(&name), &[]).await?;
            say!("{}", serde_json::to_string_pretty(&network)?);
            Ok(())
        }
        Network::Create { name, app } => create(client, NetworkBody { name, apps: app }).await,
        Network::Rm { names } => {
            for name in names {
                client.forget(&path(&name), &[]).await?;
                say!("{name}  removed");
            }
            Ok(())
        }
    }
}

/// Makes one, and says who may join it now: of one that is there, who may before has no say in it.
async fn create(client: &Client, body: NetworkBody) -> Result<()> {
    let before: Vec<NetworkView> = client.get("/v1/networks", &[]).await?;
    let before = before.into_iter().find(|one| one.name == body.name);
    let made: NetworkView = client.post_json("/v1/networks", &body).await?;
    let was = before.filter(|before| before.limited && before.apps != made.apps);
    let was = was.map(|before| format!(" (before: {})", before.apps.join(", ")));
    let was = was.unwrap_or_default();
    match made.apps.is_empty() {
        true => say!("{}  there, any app may join it{was}", made.name),
        false => say!("{}  there, for {}{was}", made.name, made.apps.join(", ")),
    }
    Ok(())
}

async fn ls(client: &Client, json: bool) -> Result<()> {
    let networks: Vec<NetworkView> = client.get("/v1/networks", &[]).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&networks)?);
        return Ok(());
    }
    let mut table = show::table(&["NETWORK", "MAY JOIN", "USED BY", "MADE BY"]);
    for network in networks {
        let apps = match (network.apps.is_empty(), network.limited) {
            (true, false) => "any".to_owned(),
            (true, true) => "other apps".to_owned(),
            (false, _) => network.apps.join(", "),
        };
        let used_by = match network.used_by.is_empty() {
            true => "-".to_owned(),
            false => network.used_by.join(", "),
        };
        table.add_row(vec![network.name, apps, used_by, network.made_by]);
    }
    show::print(&table);
    Ok(())
}

fn path(name: &str) -> String {
    format!("/v1/networks/{}", encode(name))
}
