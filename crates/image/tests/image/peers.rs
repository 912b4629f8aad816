//! Debian's docker-registry and skopeo: what they hold and copy is what this crate pulls and pushes.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use layby_image::Reference;
use layby_image::client::{pull, push};
use tempfile::TempDir;

use crate::pulls::{layer, options};
use crate::support::{Tar, World, gzip, oci_archive, sha256};

/// docker-registry, ended with this.
pub(crate) struct Registry {
    child: Child,
    addr: SocketAddr,
    _dir: TempDir,
}

impl Registry {
    /// On loopback. `None`: it or skopeo is not installed.
    fn start() -> Option<Self> {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = free.local_addr().unwrap();
        drop(free);
        let dir = TempDir::new().unwrap();
        Self::serve(dir, addr, &["docker-registry"], "")
    }

    /// At `addr`, by a command that ends with its program, with further lines for `http` of its settings.
    pub(crate) fn serve(
        dir: TempDir,
        addr: SocketAddr,
        command: &[&str],
        http: &str,
    ) -> Option<Self> {
        for program in ["docker-registry", "skopeo"] {
            let there = Command::new(program)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            if there.is_err() {
                assert!(
                    std::env::var_os("CI").is_none(),
                    "{program} is not installed"
                );
                println!("SKIPPED: {program} is not installed");
                return None;
            }
        }
        let config = dir.path().join("config.yml");
        let storage = dir.path().join("storage");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{addr}\"{http}}}\n",
            storage.display()
        );
        fs::write(&config, text).unwrap();
        let child = Command::new(command[0])
            .args(&command[1..])
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self {
            child,
            addr,
            _dir: dir,
        };
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(addr).is_err() {
            assert!(Instant::now() < end, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(registry)
    }

    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.addr)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn skopeo(args: &[&str]) -> Vec<u8> {
    let output = Command::new("skopeo").args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skopeo {args:?}: {said}");
    output.stdout
}

/// An archive of an image with two layers, the upper one with all kinds of entries.
fn archive(dir: &Path) -> String {
    let upper = Tar::new()
        .dir("etc/")
        .file("etc/.wh.gone", "")
        .entry(b'2', "etc/link", "../a", b"")
        .file("etc/file", "text")
        .entry(b'1', "etc/hard", "etc/file", b"")
        .finish();
    let layers = [layer("a", 300_000), upper].map(|tar| (gzip(&tar), sha256(&tar)));
    let path = dir.join("archive.tar");
    fs::write(&path, oci_archive("peers:1", &layers)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_skopeo_put_into_a_registry_is_pulled_as_it_is_in_both_formats() {
    let Some(registry) = Registry::start() else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let archive = archive(dir.path());
    for format in ["oci", "v2s2"] {
        let world = World::new();
        let name = registry.name(&format!("team/app:{format}"));
        let to = format!("docker://{name}");
        let source = format!("oci-archive:{archive}");
        skopeo(&[
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            "--format",
            format,
            &source,
            &to,
        ]);
        let reference: Reference = name.parse().unwrap();
        let image = pull(&world.store, &reference, &options(), &|_| {}).unwrap();
        let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &to]);
        assert_eq!(image.digest, sha256(&raw), "{format}: the very manifest");
        let files = world.files(&image);
        assert!(
            files["etc/file"].ends_with(" text") && files["etc/link"] == "-> ../a",
            "{files:?}"
        );

        // The blobs are those that skopeo copies, byte for byte.
        let layout = dir.path().join(format);
        let to_dir = format!("dir:{}", layout.display());
        skopeo(&["copy", "--quiet", "--src-tls-verify=false", &to, &to_dir]);
        for layer in &world.store.inspect(&name).unwrap().layers {
            let hex = &layer.digest[7..];
            let ours = fs::read(world.store_dir().join("blobs/sha256").join(hex)).unwrap();
            assert!(
                ours == fs::read(layout.join(hex)).unwrap(),
                "{format}: {hex}"
            );
        }
    }
}

#[test]
fn what_was_pushed_is_what_skopeo_finds() {
    let Some(registry) = Registry::start() else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let archive = archive(dir.path());
    let world = World::new();
    let image = world
        .store
        .load(fs::File::open(archive).unwrap())
        .unwrap()
        .remove(0);
    for (name, chunk_bytes) in [("whole:1", 0), ("team/parts:1", 50_000)] {
        let mut how = options();
        how.chunk_bytes = chunk_bytes;
        let name = registry.name(name);
        let digest = push(
            &world.store,
            "peers:1",
            &name.parse().unwrap(),
            &how,
            &|_| {},
        )
        .unwrap();
        assert_eq!(digest, image.digest);
        let to = format!("docker://{name}");
        let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &to]);
        assert_eq!(sha256(&raw), digest);
        // It is all there: skopeo can copy it.
        let copy = format!("dir:{}", dir.path().join(chunk_bytes.to_string()).display());
        skopeo(&["copy", "--quiet", "--src-tls-verify=false", &to, &copy]);
    }
}
