//! The corpus of Dockerfiles in `crates/image/tests/corpus`: each is built by Layby and by buildah, and must give the
//! same files, modes, owners and settings. History, dates and how files are split into layers may differ.
//!
//! Where a case has a `Dockerfile.buildah`, that says the same in words that Debian's buildah knows. `options` holds
//! arguments for both.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use layby_image::Store;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::node::{Node, is_root};

/// A static shell with all its tools.
const BUSYBOX: &str = "/bin/busybox";

/// What buildah leaves in an image whose steps it ran in a chroot: places for its mounts.
const LEFT_BY_BUILDAH: [&str; 9] = [
    "/dev",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/mnt",
    "/proc",
    "/run",
    "/run/secrets",
    "/sys",
];

/// Where Layby differs on purpose: case and key.
const ON_PURPOSE: [(&str, &str); 6] = [
    // What an archive holds has the archive's owners, and folders that it does not name are root's, also with --chown.
    ("add-tar-gz", "/owned/implied"),
    ("add-tar-gz", "/owned/implied/deep"),
    // With another escape character, `\` is a character as any.
    ("escape-backtick", "config Env"),
    // SHELL is for CMD and ENTRYPOINT, too.
    ("shell", "config Cmd"),
    ("shell", "config Entrypoint"),
    // VOLUME makes no folder.
    ("volume", "/v"),
];

#[test]
fn the_corpus_is_built_as_buildah_builds_it() {
    if !is_root() || !has_tools() {
        return;
    }
    let node = Node::start();
    let buildah = Buildah::new();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../image/tests/corpus");
    let mut cases: Vec<PathBuf> = fs::read_dir(&corpus)
        .expect("the corpus")
        .map(|entry| entry.expect("a case").path())
        .collect();
    cases.sort();
    // All others begin with it.
    let base = TempDir::new().expect("a folder");
    for file in ["Dockerfile", "passwd", "group"] {
        fs::copy(corpus.join("base").join(file), base.path().join(file)).expect("copied");
    }
    fs::copy(BUSYBOX, base.path().join("busybox")).expect("busybox");
    node.run_in(base.path(), &["build", ".", "-t", "base"]).ok();
    buildah
        .build(base.path(), "base", &[])
        .expect("buildah builds");

    let mut differences = Vec::new();
    for case in &cases {
        let name = case
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        if name == "base" {
            compare(name, &node, &buildah, &mut differences);
            continue;
        }
        let options = fs::read_to_string(case.join("options")).unwrap_or_default();
        let options: Vec<&str> = options.split_whitespace().collect();
        let mut args = vec!["build", ".", "-t", name, "--progress", "plain"];
        args.extend(&options);
        let answer = node.run_in(case, &args);
        if answer.code != 0 {
            differences.push(format!("{name}: Layby does not build it: {}", answer.err));
            continue;
        }
        match buildah.build(case, name, &options) {
            Ok(()) => compare(name, &node, &buildah, &mut differences),
            Err(said) => differences.push(format!("{name}: buildah does not build it: {said}")),
        }
    }
    assert!(cases.len() > 40, "the corpus has only {}", cases.len());
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// Whether buildah and busybox are there; where all tests are to run, they must be.
fn has_tools() -> bool {
    let there = Path::new(BUSYBOX).exists()
        && Command::new("buildah")
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success());
    assert!(
        there || std::env::var_os("CI").is_none(),
        "buildah and busybox-static are not installed"
    );
    if !there {
        println!("SKIPPED: needs Debian's buildah and busybox-static");
    }
    there
}

/// buildah with a storage of its own.
struct Buildah {
    dir: TempDir,
}

impl Buildah {
    fn new() -> Self {
        let dir = TempDir::new().expect("a folder");
        fs::write(
            dir.path().join("policy.json"),
            r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        )
        .expect("a file");
        Self { dir }
    }

    fn run(&self, dir: &Path, args: &[&str]) -> Result<(), String> {
        let output = Command::new("buildah")
            .args(["--storage-driver", "vfs", "--root"])
            .arg(self.dir.path().join("root"))
            .arg("--runroot")
            .arg(self.dir.path().join("run"))
            .args(args)
            .current_dir(dir)
            .output()
            .expect("buildah runs");
        match output.status.success() {
            true => Ok(()),
            false => Err(format!(
                "buildah {}: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    }

    fn build(&self, dir: &Path, name: &str, options: &[&str]) -> Result<(), String> {
        let policy = self.dir.path().join("policy.json").display().to_string();
        let file = match dir.join("Dockerfile.buildah").exists() {
            true => "Dockerfile.buildah",
            false => "Dockerfile",
        };
        let mut args = vec!["bud", "--isolation", "chroot", "--format", "docker"];
        args.extend(["--identity-label=false", "--pull-never"]);
        args.extend([
            "--signature-policy",
            policy.as_str(),
            "-f",
            file,
            "-t",
            name,
        ]);
        args.extend(options);
        args.push(".");
        self.run(dir, &args)
    }

    /// Writes the image into an archive.
    fn save(&self, name: &str, file: &Path) {
        let to = format!("docker-archive:{}:{name}", file.display());
        let policy = self.dir.path().join("policy.json").display().to_string();
        let args = ["push", "--signature-policy", &policy, "--format", "v2s2"];
        self.run(Path::new("/"), &[&args[..], &[name, &to]].concat())
            .expect("buildah saves");
    }
}

/// Adds how the two images of a name differ, one line each.
fn compare(name: &str, node: &Node, buildah: &Buildah, differences: &mut Vec<String>) {
    let dir = TempDir::new().expect("a folder");
    let (ours, theirs) = (dir.path().join("ours.tar"), dir.path().join("theirs.tar"));
    let to = ours.display().to_string();
    node.run(&["image", "save", name, "-o", &to]).ok();
    buildah.save(name, &theirs);
    let ours = contents(&dir.path().join("ours"), &ours);
    let theirs = contents(&dir.path().join("theirs"), &theirs);
    let keys: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for key in keys {
        let (mine, other) = (ours.get(key), theirs.get(key));
        let on_purpose = ON_PURPOSE.contains(&(name, key.as_str()));
        let known = on_purpose || mine.is_none() && LEFT_BY_BUILDAH.contains(&key.as_str());
        if mine != other && !known {
            let shown = |side: Option<&String>| side.map_or("-", String::as_str).to_owned();
            differences.push(format!(
                "{name}  {key}\n    layby    {}\n    buildah  {}",
                shown(mine),
                shown(other)
            ));
        }
    }
}

/// All that is in an image: its settings, and its files by path.
fn contents(dir: &Path, archive: &Path) -> BTreeMap<String, String> {
    let store = Store::open(dir).expect("a store");
    let archive = fs::File::open(archive).expect("an archive");
    let image = store.load(archive).expect("an image").remove(0);
    let mut all = settings(dir, &image.digest);
    let mut files: BTreeMap<PathBuf, String> = BTreeMap::new();
    let layers = store.layers(&image.digest).expect("its layers");
    for layer in layers.iter().rev() {
        put_over(layer, Path::new(""), &mut files);
    }
    all.extend(
        files
            .into_iter()
            .map(|(path, what)| (format!("/{}", path.display()), what)),
    );
    all
}

/// Puts a layer, in overlayfs' form, over what lies below.
fn put_over(layer: &Path, within: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(layer.join(within)).expect("a folder") {
        let path = within.join(entry.expect("an entry").file_name());
        let real = layer.join(&path);
        let metadata = fs::symlink_metadata(&real).expect("metadata");
        let kind = metadata.file_type();
        let is_whiteout = kind.is_char_device() && metadata.rdev() == 0;
        if !kind.is_dir() || is_opaque(&real) {
            files.retain(|other, _| !other.starts_with(&path));
        }
        if is_whiteout {
            continue;
        }
        let what = match () {
            () if kind.is_dir() => "dir".to_owned(),
            () if kind.is_symlink() => {
                format!(
                    "link to {}",
                    fs::read_link(&real).expect("a link").display()
                )
            }
            () if kind.is_file() => {
                let bytes = fs::read(&real).expect("a file");
                let hash = Sha256::digest(&bytes);
                let text = String::from_utf8(bytes)
                    .ok()
                    .filter(|text| text.len() < 100);
                text.map_or_else(
                    || format!("file {:02x?}", hash.as_slice()),
                    |text| format!("file {text:?}"),
                )
            }
            () if kind.is_fifo() => "pipe".to_owned(),
            () => format!("device {:x}", metadata.rdev()),
        };
        let mode = match kind.is_symlink() {
            true => 0,
            false => metadata.mode() & 0o7777,
        };
        let owner = format!("{mode:o} {}:{} {what}", metadata.uid(), metadata.gid());
        files.insert(path.clone(), owner);
        if kind.is_dir() {
            put_over(layer, &path, files);
        }
    }
}

/// Whether a directory hides what the layers below have there.
fn is_opaque(dir: &Path) -> bool {
    let mut value = [0; 1];
    rustix::fs::lgetxattr(dir, "trusted.overlay.opaque", &mut value).is_ok() && value == *b"y"
}

/// The settings of an image's config that count, in one form.
fn settings(store: &Path, digest: &str) -> BTreeMap<String, String> {
    let blob = |digest: &str| -> Value {
        let hex = digest.trim_start_matches("sha256:");
        let bytes = fs::read(store.join("blobs/sha256").join(hex)).expect("a blob");
        serde_json::from_slice(&bytes).expect("JSON")
    };
    let manifest = blob(digest);
    let document = blob(manifest["config"]["digest"].as_str().expect("a digest"));
    let mut settings = BTreeMap::new();
    for key in ["architecture", "os", "author"] {
        settings.insert(format!("config {key}"), document[key].clone());
    }
    for key in [
        "Env",
        "Cmd",
        "Entrypoint",
        "User",
        "WorkingDir",
        "ExposedPorts",
        "Volumes",
        "Labels",
        "StopSignal",
        "OnBuild",
        "Healthcheck",
        "Shell",
    ] {
        settings.insert(format!("config {key}"), document["config"][key].clone());
    }
    // The same in other words.
    if settings["config WorkingDir"] == json!("/") {
        settings.insert("config WorkingDir".to_owned(), Value::Null);
    }
    let nothing = [json!(null), json!(""), json!([]), json!({})];
    settings
        .into_iter()
        .filter(|(_, value)| !nothing.contains(value))
        .map(|(key, value)| (key, value.to_string()))
        .collect()
}
