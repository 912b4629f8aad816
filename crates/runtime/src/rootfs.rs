//! The root file systems of a sandbox: overlays, mounted in the shim's own mount namespace.
//!
//! No mount of a sandbox is seen outside its shim, and all of them end with it, however it ends.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::error::{Error, Result, Trying};
use crate::idmap::Stage;
use crate::spec::{ContainerConfig, SandboxSpec};

const NONE: Option<&str> = None;

/// Gives this process a mount namespace of its own, in which nothing is shared with another one.
pub(crate) fn enter() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).trying(|| "make a mount namespace".into())?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .trying(|| "make the mounts private".into())
}

/// Drops from this mount namespace what the sandbox does not need.
///
/// A copy of a mount keeps what is mounted busy: each shim would hold the network namespaces of all
/// others, and every disk of the machine.
pub(crate) fn drop_mounts(needed: &[PathBuf]) -> Result<()> {
    for point in mount_points()?.iter().rev() {
        if !is_needed(point, needed) {
            // Gone with a mount below it, or held by none: nothing depends on it.
            let _ = umount2(point, MntFlags::MNT_DETACH);
        }
    }
    Ok(())
}

/// Takes away what is mounted below a container's root, but not the root itself.
pub(crate) fn unmount_below(rootfs: &Path) -> Result<()> {
    for point in mount_points()?.iter().rev() {
        if point != rootfs && point.starts_with(rootfs) {
            umount2(point, MntFlags::MNT_DETACH)
                .trying(|| format!("unmount {}", point.display()))?;
        }
    }
    Ok(())
}

/// Where something is mounted, in the order of mounting.
fn mount_points() -> Result<Vec<PathBuf>> {
    let text =
        fs::read_to_string("/proc/self/mountinfo").trying(|| "read /proc/self/mountinfo".into())?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points.map(unescape).collect())
}

/// Kept: the system's own file systems with the cgroups, and each mount that a needed path lies on.
fn is_needed(point: &Path, needed: &[PathBuf]) -> bool {
    let system = ["/", "/proc", "/sys", "/dev"]
        .iter()
        .any(|p| point == Path::new(p));
    system
        || point.starts_with("/sys/fs/cgroup")
        || needed.iter().any(|path| path.starts_with(point))
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[3..];
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    PathBuf::from(out)
}

/// The parts of a container's root file system.
pub(crate) struct Overlay<'a> {
    /// The container's name.
    pub(crate) name: &'a str,
    /// The layers that are only read, topmost first.
    pub(crate) lower: &'a [PathBuf],
    /// Where goes what it writes.
    pub(crate) upper: &'a Path,
    /// An empty folder on the same file system.
    pub(crate) work: &'a Path,
    /// What is written need not survive the machine's fall: programs that wait for the disk do not have to.
    pub(crate) fleeting: bool,
}

/// Makes the folders of a container in its directory of the bundle, mounts its overlay and returns where. What it
/// writes goes to `upper` there and stays there over stops and starts.
pub(crate) fn mount_root(dir: &Path, config: &ContainerConfig, stage: &Stage) -> Result<PathBuf> {
    for part in ["upper", "work", "rootfs"] {
        make_private_dir(&dir.join(part))?;
    }
    // The root directory that a container sees has upper's mode: any user of it must get in.
    let upper = dir.join("upper");
    fs::set_permissions(&upper, fs::Permissions::from_mode(0o755))
        .trying(|| format!("set the mode of {}", upper.display()))?;
    let rootfs = match stage.users() {
        Some(_) => stage.place(&format!("root-{}", config.name))?,
        None => dir.join("rootfs"),
    };
    let overlay = Overlay {
        name: &config.name,
        lower: &config.lower,
        upper: &upper,
        work: &dir.join("work"),
        fleeting: false,
    };
    mount_overlay(&overlay, stage, &rootfs)?;
    Ok(rootfs)
}

/// Mounts an overlay on `rootfs`.
pub(crate) fn mount_overlay(overlay: &Overlay<'_>, stage: &Stage, rootfs: &Path) -> Result<()> {
    if overlay.lower.is_empty() {
        return Err(Error::Fatal(format!(
            "container {} has no image layer to stand on",
            overlay.name
        )));
    }
    // A mount's options fit in one page: short names leave room for hundreds of layers, and paths with
    // ':' or ',' in them do no harm.
    let place = stage.place(&format!("layers-{}", overlay.name))?;
    let mut lower = Vec::with_capacity(overlay.lower.len());
    for (number, layer) in overlay.lower.iter().enumerate() {
        if !layer.is_dir() {
            return Err(Error::Fatal(format!(
                "the layer {} is not there: load the image again",
                layer.display()
            )));
        }
        let name = format!("{number}");
        stage.show(layer, &place.join(&name))?;
        lower.push(name);
    }
    // Both must lie on one mount.
    let base = common(overlay.upper, overlay.work);
    stage.show(&base, &place.join("own"))?;
    let inside = |path: &Path| {
        let rest = path.strip_prefix(&base).unwrap_or(path);
        Path::new("own").join(rest).display().to_string()
    };
    // What a kernel may have switched on beside these would leave more than whiteouts in upper.
    let mut options = format!(
        "index=off,metacopy=off,redirect_dir=off,lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        inside(overlay.upper),
        inside(overlay.work)
    );
    let lasting = options.clone();
    if overlay.fleeting {
        options.push_str(",volatile");
    }
    let before = std::env::current_dir().trying(|| "find the current directory".into())?;
    std::env::set_current_dir(&place).trying(|| format!("enter {}", place.display()))?;
    // As the containers' root: what overlayfs makes by itself (its work folder, whiteouts) belongs to who mounts it.
    // Devices come from the container's own /dev; a node in an image opens nothing.
    let mounted = stage.as_root(|| {
        let try_with = |options: &str| {
            let kind = Some("overlay");
            mount(kind, rootfs, kind, MsFlags::MS_NODEV, Some(options))
        };
        // Kernels before 5.10 do not know the last option.
        try_with(&options)
            .or_else(|error| match error {
                Errno::EINVAL if overlay.fleeting => try_with(&lasting),
                other => Err(other),
            })
            .trying(|| format!("mount the overlay on {}", rootfs.display()))
    });
    std::env::set_current_dir(&before).trying(|| format!("enter {}", before.display()))?;
    mounted
}

/// The folder that both paths are in.
fn common(one: &Path, other: &Path) -> PathBuf {
    let pairs = one.components().zip(other.components());
    pairs
        .take_while(|(one, other)| one == other)
        .map(|(part, _)| part)
        .collect()
}

/// Mounts a small tmpfs for what need not be on disk.
pub(crate) fn mount_memory(dir: &Path) -> Result<()> {
    make_private_dir(dir)?;
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let kind = Some("tmpfs");
    // The environments of containers are in it, with their secrets. Kernels before 6.4 do not know "noswap".
    mount(kind, dir, kind, flags, Some("mode=700,size=4m,noswap"))
        .or_else(|_| mount(kind, dir, kind, flags, Some("mode=700,size=4m")))
        .trying(|| format!("mount tmpfs on {}", dir.display()))
}

/// Unmounts a container's overlay.
pub(crate) fn unmount(rootfs: &Path) -> Result<()> {
    umount2(rootfs, MntFlags::MNT_DETACH).trying(|| format!("unmount {}", rootfs.display()))
}

/// Writes the files that containers get for `/etc`.
pub(crate) fn write_etc(spec: &SandboxSpec, stage: &Stage) -> Result<()> {
    let dir = stage.etc();
    make_private_dir(&dir)?;
    // On their own, since containers may write to them: filled up, they are in nobody's way.
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let kind = Some("tmpfs");
    mount(kind, &dir, kind, flags, Some("mode=755,size=256k"))
        .trying(|| format!("mount tmpfs on {}", dir.display()))?;
    let mut hosts =
        String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (address, name) in &spec.hosts {
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    let mut resolv: String = spec
        .dns
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    for (word, list) in [("search", &spec.dns_search), ("options", &spec.dns_options)] {
        if !list.is_empty() {
            resolv.push_str(&format!("{word} {}\n", list.join(" ")));
        }
    }
    for (name, text) in [
        ("hosts", hosts),
        ("hostname", format!("{}\n", spec.hostname)),
        ("resolv.conf", resolv),
    ] {
        let file = dir.join(name);
        fs::write(&file, text).trying(|| format!("write {}", file.display()))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))
            .trying(|| format!("set the mode of {}", file.display()))?;
        stage.own(&file)?;
    }
    Ok(())
}

/// Makes a directory that only root may enter, with those above it; one that stands is left as it is.
pub(crate) fn make_private_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .trying(|| format!("make the directory {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_that_nothing_lies_on_are_dropped() {
        let needed = [PathBuf::from("/var/lib/layby/replicas/1")];
        for kept in ["/", "/proc", "/sys/fs/cgroup/cpu", "/var", "/var/lib/layby"] {
            assert!(is_needed(Path::new(kept), &needed), "{kept}");
        }
        for dropped in [
            "/run/layby/ab/netns/2",
            "/home",
            "/var/lib/layby/replicas/2/x",
            "/dev/pts",
        ] {
            assert!(!is_needed(Path::new(dropped), &needed), "{dropped}");
        }
    }

    #[test]
    fn mount_points_are_read_back_as_they_were() {
        assert_eq!(unescape("/a\\040b\\134c"), PathBuf::from("/a b\\c"));
        assert_eq!(unescape("/plain"), PathBuf::from("/plain"));
    }
}
