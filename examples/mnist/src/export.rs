//! Writes held-out digits as pictures: those that the tests and the documentation use.

use std::path::Path;

use anyhow::Context;
use image::GrayImage;

use crate::digits::{Digits, read_package};
use crate::picture::SIDE;

/// How many of each digit stand as a picture of their own.
const SINGLE: usize = 3;

/// Writes `digits/<digit>-<n>.png` (three of each) and `tests/heldout/<digit>.png` (all held-out
/// ones of that digit, one below the other) below `folder`.
///
/// # Errors
/// When the package cannot be read or a file cannot be written.
pub fn export(package: &Path, folder: &Path) -> anyhow::Result<()> {
    let held_out = read_package(package)?.held_out;
    for label in 0..10u8 {
        let pictures = of(&held_out, label);
        for (number, picture) in (1..).zip(pictures.iter().take(SINGLE)) {
            write(
                picture,
                &folder.join(format!("digits/{label}-{number}.png")),
            )?;
        }
        let bytes = pictures
            .iter()
            .flat_map(|picture| picture.as_raw())
            .copied();
        let height = (pictures.len() * SIDE) as u32;
        let strip = GrayImage::from_raw(SIDE as u32, height, bytes.collect())
            .context("a picture is not 28x28")?;
        write(&strip, &folder.join(format!("tests/heldout/{label}.png")))?;
    }
    Ok(())
}

fn of(digits: &Digits, label: u8) -> Vec<&GrayImage> {
    let labelled = digits.labels.iter().zip(&digits.pictures);
    labelled
        .filter(|(its, _)| **its == label)
        .map(|(_, picture)| picture)
        .collect()
}

fn write(picture: &GrayImage, path: &Path) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let file =
        std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let encoder = image::codecs::png::PngEncoder::new_with_quality(
        std::io::BufWriter::new(file),
        image::codecs::png::CompressionType::Best,
        image::codecs::png::FilterType::NoFilter,
    );
    picture
        .write_with_encoder(encoder)
        .with_context(|| format!("cannot write {}", path.display()))
}
