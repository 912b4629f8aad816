//! `layby image`: the node's images.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Context, Result, bail};
use layby_control::api::types::ImageView;
use tokio::fs::File;
use tokio::io::{self, AsyncRead};

use crate::cli::{ArchiveFormat, Image};
use crate::client::Client;
use crate::out::say;
use crate::show;

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
        Image::Rm { reference } => {
            client
                .forget("/v1/images", &[("reference", reference.clone())])
                .await?;
            say!("{reference}  removed");
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
    let mut table = show::table(&["IMAGE", "DIGEST", "SIZE"]);
    for image in &images {
        for reference in &image.references {
            let digest = image
                .digest
                .strip_prefix("sha256:")
                .unwrap_or(&image.digest);
            let short = digest.get(..12).unwrap_or(digest);
            table.add_row(vec![
                reference.clone(),
                short.to_owned(),
                size(image.size_bytes),
            ]);
        }
    }
    show::print(&table);
    Ok(())
}

async fn load(client: &Client, file: Option<&Path>) -> Result<()> {
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
    use super::size;

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(
            [size(0), size(999), size(9_800_000), size(2_000_000_000_000)],
            ["0 B", "999 B", "9.8 MB", "2.0 TB"]
        );
    }
}
