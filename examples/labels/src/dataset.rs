//! `labels export-dataset`: everything that was read and corrected, as files to train with.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use crate::edit::{Reply, ReplyOutcome};
use crate::index::{Filter, Picture, State};
use crate::library::Library;

/// What was written.
#[derive(Debug, PartialEq, Eq)]
pub struct Exported {
    /// How many pictures.
    pub pictures: usize,
    /// How many of them an analyst has reviewed.
    pub reviewed: usize,
}

/// Where files are written to.
enum Files<'a> {
    Folder(PathBuf),
    Tar(tar::Builder<&'a mut dyn Write>),
}

/// Writes each picture that was read to `pictures/` below a folder, and one line of JSON for each to `labels.jsonl`: what
/// the machine recognised, what analysts made of it, and each single change. With `reviewed_only`, only those that an
/// analyst has called right.
///
/// # Errors
/// When the store does not answer, or a file cannot be written.
pub fn export(library: &Library, folder: &Path, reviewed_only: bool) -> anyhow::Result<Exported> {
    let pictures = folder.join("pictures");
    fs::create_dir_all(&pictures).with_context(|| format!("cannot make {}", pictures.display()))?;
    write(library, Files::Folder(folder.to_owned()), reviewed_only)
}

/// The same as a tar.
///
/// # Errors
/// As [`export`].
pub fn export_tar(
    library: &Library,
    to: &mut dyn Write,
    reviewed_only: bool,
) -> anyhow::Result<Exported> {
    write(library, Files::Tar(tar::Builder::new(to)), reviewed_only)
}

fn write(library: &Library, mut files: Files<'_>, reviewed_only: bool) -> anyhow::Result<Exported> {
    let wanted = library.look(|index| {
        let found = index.find(&Filter::default());
        let wanted = found.into_iter().filter(|picture| match picture.now.state {
            State::Reviewed => true,
            State::ToReview => !reviewed_only,
            State::Queued | State::Refused(_) => false,
        });
        let described = |picture: &Picture| {
            let is_reviewed = picture.now.state == State::Reviewed;
            let name = format!(
                "pictures/{}.{}",
                picture.upload.sha256,
                picture.upload.media_type.extension()
            );
            (
                picture.upload.sha256.clone(),
                is_reviewed,
                line(picture, &name),
                name,
            )
        };
        wanted.map(described).collect::<Vec<_>>()
    });
    let mut exported = Exported {
        pictures: 0,
        reviewed: 0,
    };
    let mut lines = String::new();
    for (sha256, is_reviewed, line, name) in wanted {
        let bytes = library
            .original(&sha256)?
            .with_context(|| format!("the store has lost {sha256}"))?;
        files.add(&name, &bytes)?;
        lines.push_str(&line.to_string());
        lines.push('\n');
        exported.pictures += 1;
        exported.reviewed += usize::from(is_reviewed);
    }
    files.add("labels.jsonl", lines.as_bytes())?;
    files.finish()?;
    Ok(exported)
}

impl Files<'_> {
    fn add(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        match self {
            Files::Folder(folder) => {
                let path = folder.join(name);
                fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
            }
            Files::Tar(tar) => {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                tar.append_data(&mut header, name, bytes)
                    .context("cannot write the tar")
            }
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Files::Folder(_) => Ok(()),
            Files::Tar(mut tar) => tar.finish().context("cannot write the tar to its end"),
        }
    }
}

fn line(picture: &Picture, name: &str) -> serde_json::Value {
    let recognised = match &picture.reply {
        Some((
            _,
            Reply {
                outcome: ReplyOutcome::Reading(reading),
                ..
            },
        )) => json!(reading),
        Some((
            _,
            Reply {
                outcome: ReplyOutcome::Refused(_),
                ..
            },
        ))
        | None => serde_json::Value::Null,
    };
    json!({
        "picture": name,
        "upload": picture.upload,
        "category": picture.now.category,
        "reviewed": picture.now.state == State::Reviewed,
        "recognised": recognised,
        "text": picture.now.text,
        "fields": picture.now.fields,
        "edits": picture.edits.values().collect::<Vec<_>>(),
    })
}
