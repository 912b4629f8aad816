//! Labels to try the stack with: products that do not exist, drawn as pictures, with the truth about what they say.

pub mod accuracy;
pub mod draw;
pub mod product;

use std::path::Path;

use anyhow::Context;

use crate::samples::draw::Fonts;
use crate::samples::product::product;

/// Writes `count` pictures to `folder` (`sample-01.png`, ...), each with its text (`sample-01.txt`).
///
/// # Errors
/// When the fonts cannot be read or a file cannot be written.
pub fn write(fonts: &Path, folder: &Path, count: u32) -> anyhow::Result<()> {
    let fonts = Fonts::read(fonts)?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for number in 1..=count {
        let product = product(number);
        let drawn = draw::draw(&product, &fonts);
        let path = folder.join(format!("sample-{number:02}.png"));
        drawn
            .picture
            .save(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        std::fs::write(path.with_extension("txt"), &drawn.text)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
