//! Whether user namespaces work on this machine, tried out: an overlay of layers with shifted ids, mounted and written to.

use std::ffi::CStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::prctl;

use crate::error::{Error, Result, Trying};
use crate::idmap::Stage;
use crate::image::ShimImage;
use crate::rootfs::{self, Overlay};
use crate::spec::Bundle;
use crate::sys;

/// A process with this as its name for itself tries user namespaces.
pub(crate) const ROLE: &str = "layby-probe";
const NAME: &CStr = c"layby-probe";

/// The ids that are tried.
const MAP: (u32, u32) = (0x1000_0000, 65_536);

/// Tries user namespaces with files in the folder `dir`, which is on the file system of bundles and images.
///
/// # Errors
/// Why they do not work, in one sentence.
pub fn user_namespaces(image: &ShimImage, dir: &Path) -> Result<()> {
    // One of a node that was killed meanwhile may be there.
    let place = dir.join("probe");
    let _ = fs::remove_dir_all(&place);
    rootfs::make_private_dir(&place)?;
    let tried = Command::new(image.program())
        .arg0(ROLE)
        .arg(&place)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .and_then(|mut child| {
            let mut sentence = String::new();
            if let Some(out) = child.stdout.take() {
                out.take(4096).read_to_string(&mut sentence)?;
            }
            Ok((child.wait()?.success(), sentence))
        })
        .trying(|| "try user namespaces".into());
    let _ = fs::remove_dir_all(&place);
    match tried? {
        (true, _) => Ok(()),
        (false, sentence) => Err(Error::Failed(sentence)),
    }
}

/// The one who tries.
pub(crate) fn work(place: &Path) -> ! {
    sys::close_inherited();
    match try_all(place) {
        Ok(()) => sys::exit_now(0),
        Err(error) => {
            sys::write_raw(1, error.sentence().as_bytes());
            sys::exit_now(1)
        }
    }
}

fn try_all(place: &Path) -> Result<()> {
    prctl::set_name(NAME).trying(|| "take a name".into())?;
    let place = fs::canonicalize(place).trying(|| format!("find {}", place.display()))?;
    for name in ["lower", "upper", "work"] {
        rootfs::make_private_dir(&place.join(name))?;
    }
    let file = place.join("lower/file");
    fs::write(&file, "text").trying(|| format!("write {}", file.display()))?;
    rootfs::enter()?;
    let stage = Stage::new(
        &Bundle::new(&place),
        Some(MAP),
        std::slice::from_ref(&place),
    )?;
    let root = stage.place("root")?;
    let lower: [PathBuf; 1] = [place.join("lower")];
    rootfs::mount_overlay(
        &Overlay {
            name: "probe",
            lower: &lower,
            upper: &place.join("upper"),
            work: &place.join("work"),
            fleeting: false,
        },
        &stage,
        &root,
    )?;
    let what = || "write to an overlay with shifted ids".to_owned();
    stage.as_root(|| {
        fs::remove_file(root.join("file")).trying(what)?;
        fs::write(root.join("new"), "text").trying(what)
    })?;
    let owner = fs::metadata(place.join("upper/new")).trying(what)?.uid();
    if owner != 0 {
        return Err(Error::Failed(format!(
            "files written with shifted ids belong to id {owner} on disk, and not to 0"
        )));
    }
    Ok(())
}
