//! Whether user namespaces work on this machine, tried out: an overlay of layers with shifted ids, mounted and written to.

use std::ffi::CStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
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

/// With this the process ends that found them not to work; with any other failure it found out nothing.
const UNSUPPORTED: i32 = 2;

/// Where this is 0, the machine's administrator has switched user namespaces off (namespaces(7)).
const LIMIT: &str = "/proc/sys/user/max_user_namespaces";

/// Whether user namespaces work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserNamespaces {
    /// They do.
    Work,
    /// The kernel or the file system does not have them, or has them switched off: why, in one sentence.
    Unsupported(String),
}

/// Tries user namespaces with files in the folder `dir`, which is on the file system of bundles and images.
///
/// # Errors
/// It could not be found out: the disk is full, say. Another try may tell.
pub fn user_namespaces(image: &ShimImage, dir: &Path) -> Result<UserNamespaces> {
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
            Ok((child.wait()?, sentence))
        })
        .trying(|| "try user namespaces".into());
    let _ = fs::remove_dir_all(&place);
    let (status, sentence) = tried?;
    match status.code() {
        Some(0) => Ok(UserNamespaces::Work),
        Some(UNSUPPORTED) => Ok(UserNamespaces::Unsupported(sentence)),
        Some(_) if !sentence.is_empty() => Err(Error::Failed(sentence)),
        _ => Err(Error::Failed(format!(
            "the process that tries user namespaces ended without a word ({status})"
        ))),
    }
}

/// The one who tries.
pub(crate) fn work(place: &Path) -> ! {
    sys::close_inherited();
    let (code, sentence) = match try_all(place) {
        Ok(UserNamespaces::Work) => (0, String::new()),
        Ok(UserNamespaces::Unsupported(why)) => (UNSUPPORTED, why),
        Err(error) => (1, error.sentence()),
    };
    sys::write_raw(1, sentence.as_bytes());
    sys::exit_now(code)
}

fn try_all(place: &Path) -> Result<UserNamespaces> {
    prctl::set_name(NAME).trying(|| "take a name".into())?;
    let place = fs::canonicalize(place).trying(|| format!("find {}", place.display()))?;
    for name in ["lower", "upper", "work"] {
        rootfs::make_private_dir(&place.join(name))?;
    }
    let file = place.join("lower/file");
    fs::write(&file, "text").trying(|| format!("write {}", file.display()))?;
    rootfs::enter()?;
    match shift(&place) {
        Ok(0) => Ok(UserNamespaces::Work),
        Ok(owner) => Ok(UserNamespaces::Unsupported(format!(
            "files written with shifted ids belong to id {owner} on disk, and not to 0"
        ))),
        Err(error) if is_unsupported(&error) || are_switched_off() => {
            Ok(UserNamespaces::Unsupported(error.sentence()))
        }
        Err(error) => Err(error),
    }
}

/// Whether this is the kernel's word that it cannot do it, now or later: unshare(2), mount_setattr(2), mount(2), and
/// what an overlay says of ids that it cannot shift. What may pass (no space, no memory, a limit that is reached) is not.
fn is_unsupported(error: &Error) -> bool {
    let Error::Io { source, .. } = error else {
        return false;
    };
    let words = [
        Errno::EINVAL,
        Errno::ENOSYS,
        Errno::EOPNOTSUPP,
        Errno::EOVERFLOW,
        Errno::EPERM,
    ];
    let number = source.raw_os_error();
    number.is_some_and(|number| words.contains(&Errno::from_raw(number)))
}

/// The kernel says "no space" then, as it does when a limit of many is reached.
fn are_switched_off() -> bool {
    fs::read_to_string(LIMIT).is_ok_and(|limit| limit.trim() == "0")
}

/// Mounts and writes with shifted ids, and gives the owner on disk of what root wrote.
fn shift(place: &Path) -> Result<u32> {
    let stage = Stage::new(&Bundle::new(place), Some(MAP), &[place.to_owned()])?;
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
    Ok(fs::metadata(place.join("upper/new")).trying(what)?.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_pass_counts_as_unsupported() {
        let error = |number: Errno| {
            let failed: std::result::Result<(), Errno> = Err(number);
            failed.trying(|| "shift ids".into()).expect_err("a failure")
        };
        for lasting in [
            Errno::EINVAL,
            Errno::ENOSYS,
            Errno::EOPNOTSUPP,
            Errno::EPERM,
        ] {
            assert!(is_unsupported(&error(lasting)), "{lasting}");
        }
        for passing in [
            Errno::ENOSPC,
            Errno::EDQUOT,
            Errno::ENOMEM,
            Errno::EAGAIN,
            Errno::EMFILE,
            Errno::EIO,
            Errno::EROFS,
        ] {
            assert!(!is_unsupported(&error(passing)), "{passing}");
        }
        assert!(!is_unsupported(&Error::Failed("no place".into())));
    }
}
