//! `layby image`: the node's images.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use layby_control::api::types::{ImageDetail, ImageView, PruneBody, PruneView};
use tokio::fs::File;
use tokio::io::{self, AsyncRead};

use crate::cli::{ArchiveFormat, Image, Prune};
use crate::client::Client;
use crate::exit::Exit;
use crate::out::{say, tell};
use crate::{moment, show, transfer};

/// Does what `command` says.
///
/// # Errors
/// What the node refused, or a file that cannot be read or written.
pub(crate) async fn image(client: &Client, command: Image) -> Result<()> {
    match command {
        Image::Ls(form) => ls(client, form.json).await,
        Image::Load { file } => load(client, file.as_deref()).await,
        Image::Save {
            references,
            output,
            format,
        } => save(client, references, output.as_deref(), format).await,
        Image::Pull {
            reference,
            platform,
            transfer,
        } => {
            let mut query = vec![("reference", reference)];
            query.extend(platform.map(|platform| ("platform", platform)));
            transfer::follow(client, "/v1/images/pull", query, transfer).await
        }
        Image::Push {
            reference,
            destination,
            transfer,
        } => {
            let mut query = vec![("reference", reference)];
            query.extend(destination.map(|to| ("to", to)));
            transfer::follow(client, "/v1/images/push", query, transfer).await
        }
        Image::Inspect { reference, .. } => {
            let query = [("reference", reference)];
            let found: ImageDetail = client.get("/v1/images/inspect", &query).await?;
            say!("{}", serde_json::to_string_pretty(&found)?);
            Ok(())
        }
        Image::Tag { reference, name } => {
            let query = [("reference", reference.clone()), ("to", name.clone())];
            client.order("/v1/images/tag", &query).await?;
            say!("{reference}  is now also {name}");
            Ok(())
        }
        Image::Prune(options) => prune(client, options).await,
        Image::Rm { references } => {
            for reference in references {
                client
                    .forget("/v1/images", &[("reference", reference.clone())])
                    .await?;
                say!("{reference}  removed");
            }
            Ok(())
        }
    }
}

async fn ls(client: &Client, json: bool) -> Result<()> {
    let images: Vec<ImageView> = client.get("/v1/images", &[]).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&images)?);
        return Ok(());
    }
    let now = Timestamp::now();
    let mut table = show::table(&["IMAGE", "DIGEST", "SIZE", "AGE", "BUILT FOR"]);
    for image in &images {
        for reference in &image.references {
            let digest = image
                .digest
                .strip_prefix("sha256:")
                .unwrap_or(&image.digest);
            let short = digest.get(..12).unwrap_or(digest);
            let built_for = image.built_for.get(reference).map_or("-", String::as_str);
            table.add_row(vec![
                reference.clone(),
                short.to_owned(),
                size(image.size_bytes),
                age(image.created.as_deref(), image.since.as_deref(), now),
                built_for.to_owned(),
            ]);
        }
    }
    show::print(&table);
    Ok(())
}

async fn load(client: &Client, file: Option<&Path>) -> Result<()> {
    if let Some(path) = file.filter(|path| path.is_dir()) {
        bail!(
            "{} is a folder, not an archive: `tar -C {0} -c . | layby image load` takes in an OCI layout",
            path.display()
        );
    }
    let archive: Box<dyn AsyncRead + Send + Sync + Unpin> = match file {
        Some(path) if path != Path::new("-") => Box::new(
            File::open(path)
                .await
                .with_context(|| format!("cannot read {}", path.display()))?,
        ),
        _ => Box::new(io::stdin()),
    };
    let images: Vec<ImageView> = client.upload("/v1/images/load", &[], archive).await?;
    for image in images {
        say!("Loaded {} ({})", image.references.join(", "), image.digest);
    }
    Ok(())
}

/// Writes the archive aside first, so that a failure leaves what was there before.
async fn save(
    client: &Client,
    references: Vec<String>,
    output: Option<&Path>,
    format: ArchiveFormat,
) -> Result<()> {
    let format = match format {
        ArchiveFormat::Oci => "oci",
        ArchiveFormat::Docker => "docker",
    };
    let mut query = vec![("format", format.to_owned())];
    query.extend(
        references
            .into_iter()
            .map(|reference| ("reference", reference)),
    );
    let Some(path) = output else {
        if std::io::stdout().is_terminal() {
            bail!("an archive is not for a terminal: say where to with -o FILE");
        }
        let mut archive = client.download("/v1/images/save", &query).await?;
        io::copy(&mut archive, &mut io::stdout()).await?;
        return Ok(());
    };
    let mut archive = client.download("/v1/images/save", &query).await?;
    let mut aside = path.as_os_str().to_owned();
    aside.push(".part");
    let result = async {
        let mut file = File::create(&aside).await?;
        io::copy(&mut archive, &mut file).await?;
        file.sync_all().await?;
        tokio::fs::rename(&aside, path).await
    };
    if let Err(error) = result.await {
        let _ = tokio::fs::remove_file(&aside).await; // a part is of no use, and the first error is the one to tell
        return Err(error).with_context(|| format!("cannot write {}", path.display()));
    }
    Ok(())
}

/// How long ago an image was made, for people: `3 h`; of one that does not say so, since when the node has it.
fn age(created: Option<&str>, since: Option<&str>, now: Timestamp) -> String {
    let time = |text: Option<&str>| text?.parse::<Timestamp>().ok();
    // A reproducible build dates its images to the beginning of time.
    let made = time(created).filter(|made| made.as_second() > 0);
    let Some(made) = made.or_else(|| time(since)) else {
        return "-".to_owned();
    };
    moment::span(now.as_second().saturating_sub(made.as_second()))
}

async fn prune(client: &Client, options: Prune) -> Result<()> {
    let mut body = PruneBody {
        all: options.all,
        cache: options.cache,
        untagged: options.untagged,
        keep_revisions: options.keep_revisions,
        keep_days: options.keep_days,
        budget_bytes: options.budget,
        low_bytes: options.low,
        dry_run: options.dry_run,
        at_once: true,
        asked_ago_ms: None,
    };
    let asked_at = Instant::now();
    let mut pruned = client.post_json("/v1/images/prune", &body).await;
    let in_the_way =
        |error: &anyhow::Error| error.downcast_ref().is_some_and(|e: &Exit| e.is_conflict);
    if let Err(error) = &pruned
        && in_the_way(error)
    {
        // Which of them it is: builds and deploys, or somebody else who prunes.
        let why = error.to_string();
        let why = why.lines().next().unwrap_or_default();
        tell!("{why}: waiting; what is made meanwhile stays");
        body.at_once = false;
        body.asked_ago_ms = u32::try_from(asked_at.elapsed().as_millis()).ok();
        pruned = client.post_json("/v1/images/prune", &body).await;
    }
    let pruned: PruneView = pruned?;
    if options.json.json {
        say!("{}", serde_json::to_string_pretty(&pruned)?);
        return Ok(());
    }
    let gone = if options.dry_run {
        "would go"
    } else {
        "removed"
    };
    let all = [&pruned.revisions, &pruned.names, &pruned.untagged];
    for what in all.into_iter().flatten() {
        say!("{what}  {gone}");
    }
    if pruned.build_cache > 0 {
        say!("{} entries of the build cache  {gone}", pruned.build_cache);
    }
    let cache = match (pruned.left_cache_bytes, options.cache) {
        (0, _) => String::new(),
        (bytes, true) => format!(" ({} of it for builds alone)", size(bytes)),
        (bytes, false) => format!(
            " ({} of it for builds alone, which --cache lets go)",
            size(bytes)
        ),
    };
    say!(
        "{} {gone}, {} left{cache}",
        size(pruned.freed_bytes),
        size(pruned.left_bytes)
    );
    Ok(())
}

/// Bytes for people: `9.8 MB`.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::{age, size};

    #[test]
    fn ages_are_for_people() {
        let now = "2026-03-10T12:00:00Z".parse().expect("a time");
        for (created, shown) in [
            (Some("2026-03-10T11:59:18.5Z"), "42 s"),
            (Some("2026-03-10T14:30:00+03:00"), "30 min"),
            (Some("2026-03-08T11:00:00Z"), "2 d"),
            (Some("2030-01-01T00:00:00Z"), "0 s"),
            (Some("1970-01-01T00:00:00Z"), "-"),
            (Some("yesterday"), "-"),
            (None, "-"),
        ] {
            assert_eq!(age(created, None, now), shown, "{created:?}");
        }
        let since = Some("2026-03-10T09:00:00Z");
        assert_eq!(age(Some("1970-01-01T00:00:00Z"), since, now), "3 h");
        assert_eq!(age(Some("2026-03-10T11:59:18Z"), since, now), "42 s");
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(
            [size(0), size(999), size(9_800_000), size(2_000_000_000_000)],
            ["0 B", "999 B", "9.8 MB", "2.0 TB"]
        );
    }
}
