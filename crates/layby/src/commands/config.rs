//! `layby config`: the normal form of a Compose file, and all that is wrong with it. Nothing is changed.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use layby_control::api::ConfigView;
use layby_manifest::{ConfigOptions, Files, ReadOptions};
use sha2::{Digest, Sha256};

use crate::cli::{Config, ConfigFormat, ConfigOnly};
use crate::client::Client;
use crate::out::{say, tell};
use crate::parcel::{Asks, Manifests};

impl Asks for ConfigView {
    fn more(&self) -> &[String] {
        &self.more
    }
}

/// Prints what `options` ask for. Where no node runs, this program reads the file itself, as the node would.
///
/// # Errors
/// The file is not what it should be; or the node refused it.
pub(crate) async fn config(client: &Client, options: Config) -> Result<()> {
    let mut manifests = Manifests::read(&options.manifest.at(options.place))?;
    let how = ConfigOptions {
        no_interpolate: options.no_interpolate,
        json: options.json || options.format == ConfigFormat::Json || options.only.hash.is_some(),
    };
    let view = match client.answers().await? {
        true => {
            let mut query = manifests.query(client.elsewhere().is_none());
            query.push(("no_interpolate", how.no_interpolate.to_string()));
            query.push(("json", how.json.to_string()));
            let own = |files: &Files, options: &ReadOptions| {
                let config = layby_manifest::config(files, options, how);
                config.map(|config| config.more).unwrap_or_default()
            };
            manifests
                .ask(client, "/v1/manifests/config", &query, own)
                .await?
        }
        false => read_here(&mut manifests, how)?,
    };
    let text = chosen(&options.only, options.json, &view)?;
    // Who asks for a list wants nothing else.
    let is_whole = options.only.quiet || text == view.text;
    for warning in view.warnings.iter().filter(|_| is_whole) {
        tell!("warning: {warning}");
    }
    match &options.output {
        Some(file) => std::fs::write(file, text)
            .with_context(|| format!("cannot write {}", file.display()))?,
        None if text.is_empty() => {}
        None => say!("{}", text.trim_end_matches('\n')),
    }
    match view.errors.is_empty() {
        true => Ok(()),
        false => bail!("{}", view.errors.join("\n")),
    }
}

fn read_here(manifests: &mut Manifests, how: ConfigOptions) -> Result<ConfigView> {
    loop {
        let (files, mut options) = manifests.as_read();
        options.folder_path = Some(manifests.folder.display().to_string());
        let view = ConfigView::read(&files, &options, how)?;
        if view.more.is_empty() {
            return Ok(view);
        }
        manifests.add(&view.more)?;
    }
}

/// What of it is asked for, as lines or as JSON.
fn chosen(only: &ConfigOnly, json: bool, view: &ConfigView) -> Result<String> {
    let lists = [
        (only.services, &view.services),
        (only.images, &view.images),
        (only.volumes, &view.volumes),
        (only.networks, &view.networks),
        (only.profiles, &view.profiles),
    ];
    if let Some((_, list)) = lists.into_iter().find(|(wanted, _)| *wanted) {
        return Ok(match json {
            true => serde_json::to_string_pretty(list)?,
            false => list.join("\n"),
        });
    }
    match &only.hash {
        Some(service) => {
            let hashes = hashes(view, service)?;
            if json {
                return Ok(serde_json::to_string_pretty(&hashes)?);
            }
            let lines = hashes.iter().map(|(name, hash)| format!("{name} {hash}"));
            Ok(lines.collect::<Vec<_>>().join("\n"))
        }
        None if only.quiet => Ok(String::new()),
        None => Ok(view.text.clone()),
    }
}

/// The SHA-256 of each service's settings in their normal form, by service.
fn hashes(view: &ConfigView, service: &str) -> Result<BTreeMap<String, String>> {
    let config: serde_json::Value = serde_json::from_str(&view.text)?;
    let mut hashes = BTreeMap::new();
    for name in view
        .services
        .iter()
        .filter(|name| service == "*" || *name == service)
    {
        let settings = serde_json::to_vec(&config["services"][name])?;
        let hash = Sha256::digest(&settings);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        hashes.insert(name.clone(), hex);
    }
    match hashes.is_empty() && service != "*" {
        true => bail!("there is no service {service}: `layby config --services` shows them"),
        false => Ok(hashes),
    }
}
