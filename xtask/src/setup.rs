//! `cargo xtask setup`: the Debian packages that building and running need.

use std::process::Stdio;

use anyhow::{Context, bail};

use crate::command::{command, run};

/// What must be there, and why. Sorted by name.
const PACKAGES: [(&str, &str); 5] = [
    (
        "gcc",
        "compiles the SQLite that is part of the binary, and links",
    ),
    ("iproute2", "the tests look at the network through `ip`"),
    ("libc6-dev", "the binary is linked statically against it"),
    (
        "libseccomp-dev",
        "the seccomp filter of the containers, linked statically",
    ),
    (
        "nftables",
        "the node's masquerading and fences between containers",
    ),
];

/// Installs what building and running need.
///
/// # Errors
/// As [`install`].
pub(crate) fn setup() -> anyhow::Result<()> {
    install(&PACKAGES)
}

/// Installs what is missing of `packages`; does nothing, and needs no root, when nothing is.
///
/// # Errors
/// When something is missing and this is not root, not Debian, or apt fails.
pub(crate) fn install(packages: &[(&'static str, &'static str)]) -> anyhow::Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        println!("setup: all {} Debian packages are there", packages.len());
        return Ok(());
    }
    require_root("cargo xtask setup")?;
    for (name, why) in &missing {
        println!("setup: installs {name}: {why}");
    }
    let apt = || {
        let mut apt = command("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    run(apt().args(["update", "--quiet"]))?;
    run(apt()
        .args(["install", "--yes", "--quiet", "--no-install-recommends"])
        .args(missing.iter().map(|(name, _)| name)))
}

/// Refuses to go on unless this is root; to be called before anything is built or changed.
///
/// # Errors
/// When this is not root.
pub(crate) fn require_root(what: &str) -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("`{what}` needs root, because it installs packages and runs containers: run it as root")
}

fn missing(
    packages: &[(&'static str, &'static str)],
) -> anyhow::Result<Vec<(&'static str, &'static str)>> {
    let mut missing = Vec::new();
    for &(name, why) in packages {
        let output = command("dpkg-query")
            .args(["--show", "--showformat", "${db:Status-Status}", name])
            .stderr(Stdio::null())
            .output()
            .context("cannot run dpkg-query: this set-up is for Debian and its descendants")?;
        if !is_installed(&output.stdout) {
            missing.push((name, why));
        }
    }
    Ok(missing)
}

/// dpkg knows removed packages, too ("config-files"); of two architectures one is enough.
fn is_installed(status: &[u8]) -> bool {
    let status = String::from_utf8_lossy(status);
    status == "installed" || status.starts_with("installedinstalled")
}

#[cfg(test)]
mod tests {
    use super::{PACKAGES, is_installed};

    #[test]
    fn only_what_is_installed_counts_as_installed() {
        assert!(is_installed(b"installed"));
        for other in [
            &b""[..],
            b"config-files",
            b"not-installed",
            b"half-installed",
        ] {
            assert!(!is_installed(other));
        }
    }

    #[test]
    fn the_table_of_packages_is_sorted() {
        assert!(PACKAGES.is_sorted());
    }
}
