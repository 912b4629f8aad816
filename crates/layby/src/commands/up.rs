//! `layby up`: sends manifests and contexts, and shows what becomes of them.

use anyhow::{Result, bail};
use layby_control::api::types::{ContextView, ManifestView};

use crate::cli::{Canary, Up, Watch};
use crate::client::{Client, Query};
use crate::commands::agents::{self, Source};
use crate::commands::{node, watch};
use crate::events::{self, Style};
use crate::parcel::{self, ContextFolder, Manifests, Parcel, SecretSource, SecretValue};
use crate::paths::Paths;

/// How a manifest is deployed.
#[derive(Debug, Default)]
pub(crate) struct How {
    pub(crate) build: bool,
    pub(crate) dry_run: bool,
    pub(crate) detach: bool,
    pub(crate) atomic: bool,
    pub(crate) remove_orphans: bool,
    pub(crate) retries: Option<u32>,
}

/// Deploys what `options` names, and goes on watching where they say so. Starts a node in the background if none answers.
///
/// # Errors
/// What the node refused, and each failed rollout, with the exit code for it.
pub(crate) async fn up(paths: &Paths, client: &Client, options: Up) -> Result<()> {
    let mut manifests = Manifests::read_what(options.what)?;
    if options.watch {
        // What is wrong with it shows before anything is deployed.
        watch::rules(&mut manifests, client.elsewhere().is_none())?;
    }
    if !options.dry_run && !client.answers().await? {
        node::start(paths, client).await?;
    }
    let how = How {
        // What is watched begins as the files are now.
        build: options.build || options.watch,
        dry_run: options.dry_run,
        detach: options.detach,
        atomic: options.atomic,
        remove_orphans: options.remove_orphans,
        retries: options.retries,
    };
    deploy(client, &mut manifests, &how, &options.canary, Style::Auto).await?;
    match options.watch {
        true => watch::watch(client, manifests, false).await,
        false => Ok(()),
    }
}

/// Deploys what `options` name unless they say not to, then watches it.
///
/// # Errors
/// As [`up`]; nothing is to be watched.
pub(crate) async fn watch(paths: &Paths, client: &Client, options: Watch) -> Result<()> {
    let mut manifests = Manifests::read_what(options.what)?;
    watch::rules(&mut manifests, client.elsewhere().is_none())?;
    if !options.no_up {
        if !client.answers().await? {
            node::start(paths, client).await?;
        }
        let style = match options.quiet {
            true => Style::Quiet,
            false => Style::Auto,
        };
        let how = How {
            build: true,
            ..How::default()
        };
        deploy(client, &mut manifests, &how, &Canary::default(), style).await?;
    } else {
        watch::check_there(client, &mut manifests).await?;
    }
    watch::watch(client, manifests, options.quiet).await
}

/// Deploys manifests.
///
/// # Errors
/// As [`up`].
pub(crate) async fn deploy(
    client: &Client,
    manifests: &mut Manifests,
    how: &How,
    canary: &Canary,
    style: Style,
) -> Result<()> {
    let mut query = manifests.query(client.elsewhere().is_none());
    if how.build {
        query.push(("build", true.to_string()));
    }
    let reply: ManifestView = manifests
        .ask(client, "/v1/manifests", &query, layby_manifest::needed)
        .await?;
    if let Some(node) = client.elsewhere() {
        manifests.check_asked(node, &reply)?;
    }
    let contexts = context_folders(manifests, &reply)?;
    manifests.add(&reply.files)?;
    query.extend(how.query());
    query.extend(canary.query());
    let agents = reply.ssh.iter();
    let agents = agents.map(|view| Source::of_manifest(view, &manifests.folder));
    let agents: Vec<Source> = agents.collect();
    let lent = match how.dry_run || agents.is_empty() {
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
    let secrets: Result<Vec<SecretValue>> = match how.dry_run {
        true => Ok(Vec::new()),
        false => secrets.collect(),
    };
    let parcel = Parcel {
        files: manifests.files()?,
        secrets: secrets?,
        // Nothing is built of them.
        contexts: if how.dry_run { Vec::new() } else { contexts },
    };
    let lines = parcel::send(client, "/v1/apps", &query, parcel).await?;
    let shown = events::show(client, lines, style).await;
    drop(lent);
    shown
}

impl How {
    /// As the API takes it, but for what it takes earlier.
    fn query(&self) -> Vec<Query<'static>> {
        let flags = [
            ("dry_run", self.dry_run),
            ("detach", self.detach),
            ("atomic", self.atomic),
            ("remove_orphans", self.remove_orphans),
        ];
        let flags = flags.map(|(name, is_set)| (name, is_set.to_string()));
        let retries = self.retries.map(|retries| ("retries", retries.to_string()));
        flags.into_iter().chain(retries).collect()
    }
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
