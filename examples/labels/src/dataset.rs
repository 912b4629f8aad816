//! `labels export-dataset`: everything that was read and corrected, as files to train with.

use std::fs;
use std::io::Write;
use std::path::Path;

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

/// Writes each picture that was read to `folder/pictures/`, and one line of JSON for each to `folder/labels.jsonl`: what
/// the machine recognised, what analysts made of it, and each single change. With `reviewed_only`, only those that an
/// analyst has called right.
///
/// # Errors
/// When the store does not answer, or a file cannot be written.
pub fn export(library: &Library, folder: &Path, reviewed_only: bool) -> anyhow::Result<Exported> {
    let pictures = folder.join("pictures");
    fs::create_dir_all(&pictures).with_context(|| format!("cannot make {}", pictures.display()))?;
    let path = folder.join("labels.jsonl");
    let mut file =
        fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let lines = library.look(|index| {
        let found = index.find(&Filter::default());
        let wanted = found.into_iter().filter(|picture| match picture.now.state {
            State::Reviewed => true,
            State::ToReview => !reviewed_only,
            State::Queued | State::Refused(_) => false,
        });
        let line = |picture: &Picture| {
            let name = format!(
                "{}.{}",
                picture.upload.sha256,
                picture.upload.media_type.extension()
            );
            (
                picture.upload.sha256.clone(),
                name.clone(),
                picture.now.state == State::Reviewed,
                line(picture, &name),
            )
        };
        wanted.map(line).collect::<Vec<_>>()
    });
    let mut exported = Exported {
        pictures: 0,
        reviewed: 0,
    };
    for (sha256, name, is_reviewed, line) in lines {
        let bytes = library
            .original(&sha256)?
            .with_context(|| format!("the store has lost {sha256}"))?;
        let to = pictures.join(&name);
        fs::write(&to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
        writeln!(file, "{line}")?;
        exported.pictures += 1;
        exported.reviewed += usize::from(is_reviewed);
    }
    file.sync_all()?;
    Ok(exported)
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
        "picture": format!("pictures/{name}"),
        "upload": picture.upload,
        "category": picture.now.category,
        "reviewed": picture.now.state == State::Reviewed,
        "recognised": recognised,
        "text": picture.now.text,
        "fields": picture.now.fields,
        "edits": picture.edits.values().collect::<Vec<_>>(),
    })
}
