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
        Network::Create { name, app } => {
            let body = NetworkBody { name, apps: app };
            let made: NetworkView = client.post_json("/v1/networks", &body).await?;
            let apps = match made.apps.is_empty() {
                true => "any app may join".to_owned(),
                false => format!("for {}", made.apps.join(", ")),
            };
            say!("{}  there, {apps}", made.name);
            Ok(())
        }
        Network::Rm { names } => {
            for name in names {
                client.forget(&path(&name), &[]).await?;
                say!("{name}  removed");
            }
            Ok(())
        }
    }
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
