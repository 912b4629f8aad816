//! Paths of mounts, and what follows from them: where they may go, and how a service that writes is replaced.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use layby_model::mounts::{Mount, MountSource};
use layby_model::spec::{ContainerSpec, ServiceSpec, Strategy};

use crate::draft::Placed;
use crate::fields::Expected;
use crate::report::Report;
use crate::tree::{Place, cut};

/// The longest path (PATH_MAX of Linux, its end counted).
const MAX_PATH_BYTES: usize = 4095;
/// The longest that the labels of a volume may be.
const MAX_LABELS_BYTES: usize = 8192;
/// The most mounts of a container.
const MAX_MOUNTS: usize = 200;

/// Where a mount goes in the container: an absolute path, written without `.` and `//`.
pub(crate) fn target(text: &str) -> Result<String, Expected> {
    let expected = || "an absolute path in the container, without \"..\"".to_owned();
    if !text.starts_with('/') || text.len() > MAX_PATH_BYTES {
        return Err(expected());
    }
    let clean = relative(text.trim_start_matches('/')).map_err(|_| expected())?;
    if clean.is_empty() {
        return Err("a folder below the container's root".to_owned());
    }
    Ok(format!("/{clean}"))
}

/// A path inside of something: relative, without `..`; written without `.` and `//`. The thing itself is empty text.
pub(crate) fn relative(text: &str) -> Result<String, Expected> {
    let parts: Vec<&str> = text
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if text.starts_with('/') || parts.contains(&"..") || text.len() > MAX_PATH_BYTES {
        return Err("a relative path without \"..\"".to_owned());
    }
    Ok(parts.join("/"))
}

/// `path` on the machine, seen from the folder `from`, without `.` and `..`. Links are not followed: the path means
/// what it says where the manifest was written.
pub(crate) fn on_machine(from: &str, path: &str) -> Result<String, Expected> {
    let mut parts: Vec<&str> = Vec::new();
    for part in from.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let clean = format!("/{}", parts.join("/"));
    if clean.len() > MAX_PATH_BYTES {
        return Err("a shorter path".to_owned());
    }
    Ok(clean)
}

/// The name of a volume on a node (as Docker's): letters, digits and `_.-`, beginning with a letter or digit.
pub(crate) fn volume_name(text: &str) -> Result<String, Expected> {
    const MAX_CHARS: usize = 200;
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if text.len() <= MAX_CHARS
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(is_inner)
    {
        Ok(text.to_owned())
    } else {
        Err("the name of a volume: letters, digits, '_', '.' and '-'".to_owned())
    }
}

/// Takes the labels of a volume, which go with each of its mounts: not too many.
pub(crate) fn labels(
    labels: BTreeMap<String, String>,
    what: &str,
    place: &Place,
    report: &mut Report,
) -> BTreeMap<String, String> {
    let size_bytes: usize = labels
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if size_bytes > MAX_LABELS_BYTES {
        let message = format!("the labels of {what} are longer than {MAX_LABELS_BYTES} bytes");
        report.error(place, message);
        return BTreeMap::new();
    }
    labels
}

/// The name of a scratch folder made of a path: one path, one name, and nothing in it that a path could mean.
pub(crate) fn scratch_name(path: &str) -> String {
    let mut name = String::new();
    for byte in path.trim_start_matches('/').bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => name.push(char::from(byte)),
            byte => {
                // Writing to text cannot fail.
                let _ = write!(name, "_{byte:02x}");
            }
        }
    }
    name
}

/// Takes the mounts of a container: no two at one place, and not too many.
pub(crate) fn distinct(
    mounts: Vec<Placed<Mount>>,
    what: &str,
    report: &mut Report,
) -> Vec<Placed<Mount>> {
    let mut at: BTreeMap<String, Place> = BTreeMap::new();
    let mut kept = Vec::new();
    for mount in mounts {
        if let Some(first) = at.get(&mount.value.target) {
            let message = format!(
                "two mounts of {what} go to {}: the first is in {}",
                cut(&mount.value.target),
                first.short()
            );
            report.error(&mount.place, message);
            continue;
        }
        if at.len() >= MAX_MOUNTS {
            report.error(
                &mount.place,
                format!("{what} has more than {MAX_MOUNTS} mounts"),
            );
            break;
        }
        at.insert(mount.value.target.clone(), mount.place.clone());
        kept.push(mount);
    }
    kept
}

/// How the next revision takes over: as it was said, else so that no two revisions write to one volume.
pub(crate) fn strategy(
    said: Option<Strategy>,
    service: &ServiceSpec,
    place: &Place,
    how: &str,
    report: &mut Report,
) -> Strategy {
    let Some(written) = service.containers.iter().find_map(written) else {
        return said.unwrap_or(Strategy::StartFirst);
    };
    let name = service.name.as_str();
    if service.replicas > 1 {
        let message = format!(
            "the {} replicas of service {name:?} all write to {written}: they must be made for that",
            service.replicas
        );
        report.warn(place, message);
    }
    if let Some(said) = said {
        return said;
    }
    let message = format!(
        "service {name:?} writes to {written}: its next revision starts after the old one has stopped, and requests wait meanwhile; {how} if both may write at once"
    );
    report.warn(place, message);
    Strategy::StopFirst
}

/// What of the machine a container writes to, if anything, in words. What goes with the replica does not count, nor do
/// sockets and devices: they are spoken with.
fn written(container: &ContainerSpec) -> Option<String> {
    container
        .mounts
        .iter()
        .filter(|mount| !mount.read_only)
        .find_map(|mount| match &mount.source {
            MountSource::Volume { name, .. } => Some(format!("the volume {:?}", cut(name))),
            MountSource::Bind { path, .. } if path.ends_with(".sock") => None,
            MountSource::Bind { path, .. } if path.starts_with("/dev/") => None,
            MountSource::Bind { path, .. } => Some(cut(path)),
            MountSource::Tmpfs { .. } | MountSource::Scratch { .. } | MountSource::Files { .. } => {
                None
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_absolute_and_stays_below_the_root() {
        assert_eq!(target("/var//lib/./x/").as_deref(), Ok("/var/lib/x"));
        for bad in ["", "/", "//", "var", "/a/../b", "/..", "./a"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_of_the_machine_is_seen_from_its_folder() {
        let cases = [
            ("./data", "/srv/shop/data"),
            ("../data/.", "/srv/data"),
            ("../../../..", "/"),
            (".", "/srv/shop"),
        ];
        for (path, expected) in cases {
            assert_eq!(
                on_machine("/srv/shop", path).as_deref(),
                Ok(expected),
                "{path}"
            );
        }
        assert_eq!(on_machine("", "/a/../b/").as_deref(), Ok("/b"));
    }

    #[test]
    fn two_paths_never_make_one_scratch_name() {
        assert_eq!(scratch_name("/app/node_modules"), "app_2fnode_5fmodules");
        assert_ne!(scratch_name("/a/b"), scratch_name("/a_2fb"));
        assert_eq!(scratch_name("/../x"), "_2e_2e_2fx");
    }

    #[test]
    fn a_volume_is_named_as_docker_names_one() {
        for good in ["data", "shop_data", "0.a-b"] {
            assert!(volume_name(good).is_ok(), "{good}");
        }
        for bad in ["", "_a", ".", "..", "a/b", "ä", &"a".repeat(201)] {
            assert!(volume_name(bad).is_err(), "{bad}");
        }
    }
}
