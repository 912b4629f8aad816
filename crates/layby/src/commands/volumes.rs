//! `layby volume`: the node's named volumes.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use anyhow::{Result, bail};
use layby_control::api::types::{VolumeBody, VolumeView};

use crate::cli::Volume;
use crate::client::{Client, encode};
use crate::out::say;
use crate::show;

/// Does what `command` says.
///
/// # Errors
/// What the node refused.
pub(crate) async fn volume(client: &Client, command: Volume) -> Result<()> {
    match command {
        Volume::Ls(form) => ls(client, form.json).await,
        Volume::Inspect { name, .. } => {
            let volume: VolumeView = client.get(&path(&name), &[]).await?;
            say!("{}", serde_json::to_string_pretty(&volume)?);
            Ok(())
        }
        Volume::Create { name, label } => {
            let labels = label.into_iter().collect::<BTreeMap<_, _>>();
            let body = VolumeBody { name, labels };
            let made: VolumeView = client.post_json("/v1/volumes", &body).await?;
            say!("{}  there, in {}", made.name, made.path);
            Ok(())
        }
        Volume::Rm { names } => remove(client, &names).await,
        Volume::Prune { yes } => prune(client, yes).await,
    }
}

async fn ls(client: &Client, json: bool) -> Result<()> {
    let volumes: Vec<VolumeView> = client.get("/v1/volumes", &[]).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&volumes)?);
        return Ok(());
    }
    let mut table = show::table(&["VOLUME", "APP", "USED BY", "CREATED"]);
    for volume in volumes {
        let or_none = |text: String| match text.is_empty() {
            true => "-".to_owned(),
            false => text,
        };
        let created = volume.created.unwrap_or_default();
        let created = created.split('.').next().unwrap_or_default().to_owned();
        table.add_row(vec![
            volume.name,
            or_none(volume.app.unwrap_or_default()),
            or_none(volume.used_by.join(", ")),
            or_none(created.trim_end_matches('Z').replace('T', " ")),
        ]);
    }
    show::print(&table);
    Ok(())
}

async fn remove(client: &Client, names: &[String]) -> Result<()> {
    for name in names {
        client.forget(&path(name), &[]).await?;
        say!("{name}  removed");
    }
    Ok(())
}

/// Removes what was shown, and nothing that came to be unused meanwhile.
async fn prune(client: &Client, yes: bool) -> Result<()> {
    let volumes: Vec<VolumeView> = client.get("/v1/volumes", &[]).await?;
    let unused = volumes.into_iter().filter(|v| v.used_by.is_empty());
    let names: Vec<String> = unused.map(|volume| volume.name).collect();
    if names.is_empty() {
        say!("Every volume is in use.");
        return Ok(());
    }
    if !yes && !confirmed(&names)? {
        bail!("nothing was removed");
    }
    remove(client, &names).await
}

fn confirmed(names: &[String]) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!(
            "this would remove {} with all that is in them: say --yes to do so",
            names.join(", ")
        );
    }
    eprint!(
        "Remove {} with all that is in them? [y/N] ",
        names.join(", ")
    );
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn path(name: &str) -> String {
    format!("/v1/volumes/{}", encode(name))
}
