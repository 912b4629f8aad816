//! What was built: is it static, how large is it, and where does it go.

use std::path::Path;

use anyhow::{Context, bail};

use crate::command::{command, run};
use crate::place;

/// The program header that names the dynamic loader (ELF-64, `PT_INTERP`).
const INTERPRETER: u32 = 3;

/// Copies a binary without its symbols, and prints how large it has become. A file that is being
/// executed can be replaced like this, but not written over.
///
/// # Errors
/// When `strip` fails or the file cannot be put into place.
pub(crate) fn install(from: &Path, to: &Path) -> anyhow::Result<()> {
    let aside = to.with_extension("new");
    run(command("strip").arg("-o").arg(&aside).arg(from))?;
    std::fs::rename(&aside, to).with_context(|| format!("cannot write {}", place::shown(to)))?;
    let size_bytes = std::fs::metadata(to)?.len();
    println!(
        "{}: {:.1} MB, static",
        place::shown(to),
        size_bytes as f64 / 1e6
    );
    Ok(())
}

/// Refuses a binary that needs a loader and libraries: on `scratch` it would not start.
///
/// # Errors
/// When the file is no ELF-64 executable or names a loader.
pub(crate) fn require_static(path: &Path) -> anyhow::Result<()> {
    let shown = place::shown(path);
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    match names_loader(&bytes) {
        Some(false) => Ok(()),
        Some(true) => bail!(
            "{shown} is linked dynamically: see build.rustc-workspace-wrapper in .cargo/config.toml"
        ),
        None => bail!("{shown} is no ELF-64 executable"),
    }
}

/// Whether one of the program headers is `PT_INTERP`; `None` if this is no little-endian ELF-64.
fn names_loader(bytes: &[u8]) -> Option<bool> {
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(u64::from_le_bytes(*bytes.get(32..)?.first_chunk()?)).ok()?;
    let size = usize::from(u16::from_le_bytes(*bytes.get(54..)?.first_chunk()?));
    let count = usize::from(u16::from_le_bytes(*bytes.get(56..)?.first_chunk()?));
    for index in 0..count {
        let header = bytes.get(table.checked_add(index * size)?..)?;
        if u32::from_le_bytes(*header.first_chunk()?) == INTERPRETER {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::names_loader;

    /// An ELF header with two program headers of these kinds.
    fn elf(kinds: [u32; 2]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(64, 0);
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 2;
        for kind in kinds {
            bytes.extend(kind.to_le_bytes());
            bytes.resize(bytes.len() + 52, 0);
        }
        bytes
    }

    #[test]
    fn a_binary_is_static_when_no_program_header_names_a_loader() {
        assert_eq!(names_loader(&elf([1, 2])), Some(false));
        assert_eq!(names_loader(&elf([1, 3])), Some(true));
    }

    #[test]
    fn what_is_no_elf_or_is_cut_short_is_neither() {
        assert_eq!(names_loader(b"#!/bin/sh"), None);
        assert_eq!(names_loader(&elf([1, 2])[..70]), None);
    }
}
