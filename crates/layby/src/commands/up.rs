//! `layby up`: sends manifests and contexts, and shows what becomes of them.

use anyhow::{Result, bail};
use layby_control::api::types::{ContextView, ManifestView};

use crate::cli::Up;
use crate::client::Client;
use crate::commands::agents::{self, Source};
use crate::commands::node;
use crate::events::{self, Style};
use crate::parcel::{self, ContextFolder, Manifests, Parcel, SecretSource, SecretValue};
use crate::paths::Paths;

/// Deploys what `options` names. Starts a node in the background if none answers.
///
/// # Errors
/// What the node refused, and each failed rollout, with the exit code for it.
pub(crate) async fn up(paths: &Paths, client: &Client, options: Up) -> Result<()> {
    let mut manifests = Manifests::read(&options.manifest)?;
    if !options.dry_run && !client.answers().await? {
        node::start(paths, client).await?;
    }
    let mut query = manifests.query(client.elsewhere().is_none());
    if options.build {
        query.push(("build", true.to_string()));
    }
    let reply: ManifestView = manifests
        .ask(client, "/v1/manifests", &query, layby_manifest::needed)
        .await?;
    if let Some(node) = client.elsewhere() {
        manifests.check_asked(node, &reply)?;
    }
    let contexts = context_folders(&manifests, &reply)?;
    manifests.add(&reply.files)?;
    query.push(("dry_run", options.dry_run.to_string()));
    query.push(("detach", options.detach.to_string()));
    query.push(("atomic", options.atomic.to_string()));
    query.push(("remove_orphans", options.remove_orphans.to_string()));
    query.extend(options.canary.query());
    query.extend(
        options
            .retries
            .map(|retries| ("retries", retries.to_string())),
    );
    let agents = reply.ssh.iter();
    let agents = agents.map(|view| Source::of_manifest(view, &manifests.folder));
    let agents: Vec<Source> = agents.collect();
    let lent = match options.dry_run || agents.is_empty() {
        true => None,
        false => Some(agents::lend(client, &agents).await?),
    };
    query.extend(lent.as_ref().map(|lent| ("agents", lent.key.clone())));
    let secrets = reply.secrets.iter().map(|secret| {
        let source = match (&secret.file, &secret.env) {
            (Some(file), _) => SecretSource::File(file.into()),
            (None, Some(name)) => SecretSource::Variable(name.clone()),
            (None, None) => bail!("a build secret is neither a file nor a variable"),
        };
        source.read(&manifests.folder)
    });
    let secrets: Result<Vec<SecretValue>> = match options.dry_run {
        true => Ok(Vec::new()),
        false => secrets.collect(),
    };
    let parcel = Parcel {
        files: manifests.files()?,
        secrets: secrets?,
        // Nothing is built of them.
        contexts: if options.dry_run {
            Vec::new()
        } else {
            contexts
        },
    };
    let lines = parcel::send(client, "/v1/apps", &query, parcel).await?;
    let shown = events::show(client, lines, Style::Auto).await;
    drop(lent);
    shown
}

fn context_folders(manifests: &Manifests, reply: &ManifestView) -> Result<Vec<ContextFolder>> {
    let folder_of = |context: &ContextView| {
        let folder = manifests.folder.join(&context.path);
        if !folder.is_dir() {
            bail!("the build context {} is not a folder", folder.display());
        }
        Ok(ContextFolder {
            folder,
            dockerfile: context
                .dockerfile
                .clone()
                .unwrap_or_else(|| "Dockerfile".to_owned()),
        })
    };
    reply.contexts.iter().map(folder_of).collect()
}
