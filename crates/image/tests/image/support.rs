//! What the tests share: a store in a temporary directory, contexts, hand-made tars and images.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use layby_image::build::build;
use layby_image::{BuildEvent, BuildOptions, Error, Image, Reach, Store};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A store and a build context, deleted at the end.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) store: Store,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Self { dir, store }
    }

    pub(crate) fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn context(&self) -> PathBuf {
        let path = self.dir.path().join("context");
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Writes files into the context, with their directories.
    pub(crate) fn write(&self, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = self.context().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    /// Builds the Dockerfile in the context; also gives what `progress` was told.
    pub(crate) fn build_with(
        &self,
        options: &BuildOptions,
    ) -> (Result<Image, Error>, Vec<BuildEvent>) {
        let mut events = Vec::new();
        let result = build(&self.store, &self.context(), options, &mut |event| {
            events.push(event)
        });
        (result, events)
    }

    pub(crate) fn build(&self, dockerfile: &str) -> Result<Image, Error> {
        self.write(&[("Dockerfile", dockerfile)]);
        let options = BuildOptions {
            tag: Some("test".to_owned()),
            // Servers of tests are on this machine.
            reach: Reach {
                node: true,
                ..Reach::default()
            },
            ..BuildOptions::default()
        };
        self.build_with(&options).0
    }

    /// All files of the image's layers, topmost first, as text: path to `mode uid:gid content`. Plain layers only.
    pub(crate) fn files(&self, image: &Image) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        for layer in self.store.layers(&image.digest).unwrap() {
            walk(&layer, &layer, &mut files);
        }
        files
    }
}

fn walk(root: &Path, dir: &Path, files: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let rights = format!(
            "{:o} {}:{}",
            metadata.mode() & 0o7777,
            metadata.uid(),
            metadata.gid()
        );
        if metadata.is_dir() {
            files.entry(format!("{name}/")).or_insert(rights);
            walk(root, &path, files);
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(&path).unwrap();
            files
                .entry(name)
                .or_insert(format!("-> {}", target.display()));
        } else {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|_| "?".to_owned());
            files.entry(name).or_insert(format!("{rights} {text}"));
        }
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    format!(
        "sha256:{}",
        hash.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    )
}

/// A tar being made by hand, with whatever in it.
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds an entry with exactly these bytes as name and link; `kind` is the type flag of the tar format.
    pub(crate) fn entry(mut self, kind: u8, path: &str, link: &str, data: &[u8]) -> Self {
        self.header(kind, path, link, 0o644, data.len() as u64);
        self.data(data);
        self
    }

    pub(crate) fn file(self, path: &str, text: &str) -> Self {
        self.entry(b'0', path, "", text.as_bytes())
    }

    pub(crate) fn dir(self, path: &str) -> Self {
        self.mode_entry(b'5', path, 0o755)
    }

    pub(crate) fn mode_entry(mut self, kind: u8, path: &str, mode: u32) -> Self {
        self.header(kind, path, "", mode, 0);
        self
    }

    pub(crate) fn header(&mut self, kind: u8, path: &str, link: &str, mode: u32, size: u64) {
        let mut block = [0_u8; 512];
        block[..path.len()].copy_from_slice(path.as_bytes());
        let octal = |number: u64, width: usize| format!("{number:0width$o}\0").into_bytes();
        block[100..108].copy_from_slice(&octal(mode.into(), 7));
        block[108..116].copy_from_slice(&octal(0, 7));
        block[116..124].copy_from_slice(&octal(0, 7));
        block[124..136].copy_from_slice(&octal(size, 11));
        block[136..148].copy_from_slice(&octal(1_000_000_000, 11));
        block[148..156].copy_from_slice(b"        ");
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link.as_bytes());
        block[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(block);
    }

    pub(crate) fn data(&mut self, data: &[u8]) {
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    /// A pax header for the entry that follows.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (1..)
                .map(|digits| rest + digits)
                .find(|n| n.to_string().len() == n - rest)
                .unwrap();
            data.extend(format!("{length} {key}=").bytes());
            data.extend(*value);
            data.push(b'\n');
        }
        self.entry(b'x', "pax", "", &data)
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An OCI archive of one image with these layers: blob (perhaps compressed) and diff id.
pub(crate) fn oci_archive(name: &str, layers: &[(Vec<u8>, String)]) -> Vec<u8> {
    let diff_ids: Vec<&String> = layers.iter().map(|(_, diff_id)| diff_id).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = config.to_string().into_bytes();
    let descriptor = |kind: &str, blob: &[u8]| serde_json::json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": sha256(blob), "size": blob.len()});
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &config),
        "layers": layers.iter().map(|(blob, _)| descriptor("layer.v1.tar", blob)).collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = descriptor("manifest.v1+json", &manifest);
    entry["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    // The index last, and the manifest before what it names: any order must do.
    let mut tar = Tar::new();
    let blobs = layers.iter().map(|(blob, _)| blob).chain([&config]);
    for blob in [&manifest].into_iter().chain(blobs) {
        tar = tar.entry(
            b'0',
            &format!("blobs/sha256/{}", &sha256(blob)[7..]),
            "",
            blob,
        );
    }
    tar.file("index.json", &index)
        .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
        .finish()
}

/// Loads an image with one layer, the tar as it is.
pub(crate) fn load_layer(store: &Store, tar: &[u8]) -> Image {
    let archive = oci_archive("layered", &[(tar.to_vec(), sha256(tar))]);
    store.load(archive.as_slice()).unwrap().remove(0)
}
