//! `layby build`: sends a build context, and shows what becomes of it.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use layby_control::api::types::BuildBody;

use crate::cli::{Build, Progress};
use crate::client::Client;
use crate::commands::agents::{self, Source};
use crate::commands::node;
use crate::events::{self, Style};
use crate::parcel::{self, ContextFolder, Parcel, SecretSource};
use crate::paths::Paths;

/// A Dockerfile is at most so long; the builder refuses longer ones too.
const DOCKERFILE_MAX_BYTES: u64 = 1 << 20;

/// Builds what `options` name. Starts a node in the background if none answers.
///
/// # Errors
/// What cannot be read here; what the node says is wrong; the code of a build that failed.
pub(crate) async fn build(paths: &Paths, client: &Client, options: Build) -> Result<()> {
    let agents: Result<Vec<Source>> = options
        .ssh
        .iter()
        .map(|text| Source::of_option(text))
        .collect();
    let agents = agents?;
    for (n, agent) in agents.iter().enumerate() {
        if agents[..n].iter().any(|other| other.id == agent.id) {
            bail!("--ssh names the agent {:?} twice", agent.id);
        }
    }
    let (mut parcel, mut body, style) = parcel(options)?;
    if !client.answers().await? {
        node::start(paths, client).await?;
    }
    let lent = match agents.is_empty() {
        true => None,
        false => Some(agents::lend(client, &agents).await?),
    };
    body.ssh = agents.into_iter().map(|agent| agent.id).collect();
    body.agents = lent.as_ref().map(|lent| lent.key.clone());
    let body = serde_json::to_vec(&body)?;
    parcel.files.insert("build.json".to_owned(), body);
    let lines = parcel::send(client, "/v1/builds", &[], parcel).await?;
    let shown = events::show(client, lines, style).await;
    drop(lent);
    shown
}

/// What is sent for a build, read from this machine, and what is to be built of it.
fn parcel(options: Build) -> Result<(Parcel, BuildBody, Style)> {
    let shown = options.path.display().to_string();
    if shown == "-" || shown.contains("://") || shown.starts_with("git@") {
        bail!("the build context is a folder of this machine, not {shown}");
    }
    if !options.path.is_dir() {
        bail!("the build context {shown} is not a folder");
    }
    let (dockerfile, inline) = dockerfile(&options.path, options.file.as_deref())?;
    let mut body = BuildBody {
        folder: shown,
        dockerfile_shown: inline.is_some().then(|| {
            let file = options.file.as_deref().unwrap_or(Path::new("-"));
            match file == Path::new("-") {
                true => "Dockerfile".to_owned(),
                false => file.display().to_string(),
            }
        }),
        dockerfile_inline: inline,
        args: (options.build_arg.into_iter())
            .filter_map(|(name, value)| Some((name, value?)))
            .collect(),
        target: options.target,
        tags: options.tag,
        labels: options.label.into_iter().collect(),
        network: options.network,
        no_cache: options.no_cache,
        platform: options.platform,
        step_timeout_ms: options.timeout.map(|seconds| seconds.saturating_mul(1000)),
        ..BuildBody::default()
    };
    let mut contexts = vec![ContextFolder {
        folder: options.path,
        dockerfile: dockerfile
            .clone()
            .unwrap_or_else(|| "Dockerfile".to_owned()),
    }];
    body.dockerfile = dockerfile;
    for (name, source) in options.build_context {
        if !source.contains("://") {
            let number = contexts.len();
            contexts.push(ContextFolder::beside(Path::new(&source))?);
            body.contexts.insert(name, format!("context/{number}"));
        } else if source.starts_with("docker-image://") {
            body.contexts.insert(name, source);
        } else {
            bail!("the build context {name} is a folder or docker-image://NAME, not {source}");
        }
    }
    let mut secrets = Vec::new();
    for text in options.secret {
        let (id, source) = secret(&text)?;
        secrets.push(source.read(Path::new("."))?);
        body.secrets.push(id);
    }
    let style = match options.progress {
        Progress::Auto => Style::Auto,
        Progress::Plain => Style::Plain,
        Progress::Quiet => Style::Quiet,
    };
    let parcel = Parcel {
        secrets,
        contexts,
        ..Parcel::default()
    };
    Ok((parcel, body, style))
}

/// Where the Dockerfile is in the context; or its text, where it is elsewhere.
fn dockerfile(context: &Path, file: Option<&Path>) -> Result<(Option<String>, Option<String>)> {
    let Some(file) = file else {
        return Ok((None, None));
    };
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin()
            .take(DOCKERFILE_MAX_BYTES)
            .read_to_string(&mut text)
            .context("cannot read a Dockerfile from standard input")?;
        return Ok((None, Some(text)));
    }
    let cannot = || format!("cannot read {}", file.display());
    let real = file.canonicalize().with_context(cannot)?;
    let inside = real.strip_prefix(context.canonicalize()?).ok();
    if let Some(inside) = inside.and_then(Path::to_str) {
        return Ok((Some(inside.to_owned()), None));
    }
    std::fs::File::open(&real)
        .with_context(cannot)?
        .take(DOCKERFILE_MAX_BYTES)
        .read_to_string(&mut text)
        .with_context(cannot)?;
    Ok((None, Some(text)))
}

/// Reads `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`; without either the variable is named as the secret.
fn secret(text: &str) -> Result<(String, SecretSource)> {
    let (mut id, mut source) = (None, None);
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("id", value)) if !value.is_empty() => id = Some(value.to_owned()),
            Some(("src" | "source", value)) => {
                source = Some(SecretSource::File(PathBuf::from(value)));
            }
            Some(("env", value)) => source = Some(SecretSource::Variable(value.to_owned())),
            Some(("type", "file" | "env")) => {}
            // The whole may hold what is not to be seen on a terminal.
            _ => bail!("a --secret is id=NAME,src=FILE or id=NAME,env=VARIABLE"),
        }
    }
    let Some(id) = id else {
        bail!("a --secret needs an id: id=NAME,src=FILE or id=NAME,env=VARIABLE");
    };
    let source = source.unwrap_or_else(|| SecretSource::Variable(id.clone()));
    Ok((id, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_file_or_a_variable() {
        let (id, source) = secret("id=a,src=/x").expect("a secret");
        assert_eq!(
            (id.as_str(), source),
            ("a", SecretSource::File("/x".into()))
        );
        let (_, source) = secret("type=env,id=a,env=B").expect("a secret");
        assert_eq!(source, SecretSource::Variable("B".into()));
        assert_eq!(
            secret("id=A").expect("a secret").1,
            SecretSource::Variable("A".into())
        );
        for text in ["", "src=/x", "id=", "hunter2", "id=a,what=b"] {
            let error = secret(text).expect_err(text).to_string();
            assert!(error.starts_with("a --secret"), "{error}");
            assert!(!error.contains("hunter2"));
        }
    }

    #[test]
    fn a_dockerfile_of_the_context_is_named_and_another_one_is_sent() {
        let dir = tempfile::tempdir().expect("a folder");
        let context = dir.path().join("context");
        std::fs::create_dir_all(context.join("ci")).expect("folders");
        std::fs::write(context.join("ci/D"), "FROM a").expect("a file");
        std::fs::write(dir.path().join("E"), "FROM b").expect("a file");
        let inside = dockerfile(&context, Some(&context.join("ci/D"))).expect("read");
        assert_eq!(inside, (Some("ci/D".to_owned()), None));
        let outside = dockerfile(&context, Some(&dir.path().join("E"))).expect("read");
        assert_eq!(outside, (None, Some("FROM b".to_owned())));
        assert!(dockerfile(&context, Some(Path::new("/nonexistent"))).is_err());
    }
}
