//! What is on the machine for a node.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::node::{Node, run_dir};

/// Where things of replicas are, with the ids of those that have some there.
pub(super) fn by_replica(node: &Node) -> Vec<(String, BTreeSet<String>)> {
    let run = run_dir(node.data.path());
    let mut places = vec![
        (
            "bundles".to_owned(),
            names(&node.data.path().join("replicas")),
        ),
        ("namespaces".to_owned(), names(&run.join("netns"))),
        ("shims' sockets".to_owned(), names(&run.join("shims"))),
        (
            "shims".to_owned(),
            shims(&node.data.path().join("replicas")),
        ),
    ];
    for group in groups(node) {
        let ids = fs::read_dir(&group).into_iter().flatten().flatten();
        let ids = ids.filter(|entry| entry.path().is_dir());
        let ids = ids.filter_map(|entry| id(&entry.file_name().to_string_lossy()));
        places.push((group.display().to_string(), ids.collect()));
    }
    places
}

/// What else is there, and is not to be once the node has taken all down.
pub(super) fn of_node(node: &Node) -> Vec<String> {
    let hash = run_dir(node.data.path());
    let hash = hash
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let mut left = Vec::new();
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output();
        let output = output.map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output).into_owned()
    };
    for (program, args) in [
        ("nft", &["list", "tables"][..]),
        ("ip", &["-br", "link"]),
        ("ip", &["route", "show", "table", "all"]),
    ] {
        let lines = said(program, args);
        let of_it = lines.lines().filter(|line| line.contains(&hash));
        left.extend(of_it.map(|line| format!("{program}: {line}")));
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let below = format!("{}/", node.data.path().display());
    let of_it = mounts
        .lines()
        .filter(|line| line.contains(&hash) || line.contains(&below));
    left.extend(of_it.map(|line| format!("mounted: {line}")));
    left.extend(groups(node).map(|group| format!("cgroup: {}", group.display())));
    for (place, ids) in by_replica(node) {
        left.extend(ids.into_iter().map(|id| format!("{place}: {id}")));
    }
    left
}

/// The cgroups of the node, in each hierarchy.
fn groups(node: &Node) -> impl Iterator<Item = PathBuf> + use<> {
    let hash = run_dir(node.data.path());
    let hash = hash.file_name().expect("a name").to_owned();
    let root = Path::new("/sys/fs/cgroup");
    let mut roots = vec![root.to_owned()];
    let below = fs::read_dir(root).into_iter().flatten().flatten();
    roots.extend(below.map(|entry| entry.path()).filter(|path| path.is_dir()));
    let groups = roots
        .into_iter()
        .map(move |root| root.join("layby").join(&hash));
    groups.filter(|group| group.is_dir())
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| id(&entry.file_name().to_string_lossy()))
        .collect()
}

/// The replicas whose shims run, by their command lines.
fn shims(bundles: &Path) -> BTreeSet<String> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = all.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    let below = format!("{}/", bundles.display());
    let ids = lines.filter_map(|line| {
        let at = line.find(&below)? + below.len();
        id(&line[at..])
    });
    ids.collect()
}

/// The process of a replica's shim.
pub(super) fn shim_of(node: &Node, replica: &str) -> Option<i32> {
    let bundle = node.data.path().join("replicas").join(replica);
    let bundle = bundle.display().to_string();
    let mut all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.find_map(|entry| {
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let pid = entry.file_name().to_string_lossy().parse().ok()?;
        line.contains(&bundle).then_some(pid)
    })
}

/// The id of a replica that a name begins with: 12 hexadecimal digits.
fn id(name: &str) -> Option<String> {
    let id = name.get(..12)?;
    let whole = name[12..]
        .chars()
        .next()
        .is_none_or(|c| !c.is_ascii_alphanumeric());
    (whole && id.chars().all(|c| c.is_ascii_hexdigit())).then(|| id.to_owned())
}
