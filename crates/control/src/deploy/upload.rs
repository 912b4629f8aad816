//! What a client sends to be deployed: a tar with the manifest's files and the build contexts, unpacked
//! into a folder of its own within limits, and gone when it is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use axum::http::StatusCode;
use layby_manifest::Files;
use layby_model::error_chain;
use tar::EntryType;
use tempfile::TempDir;

use crate::api::types::Problem;

/// Most that all files of a manifest may have together.
pub(crate) const MANIFEST_BYTES: u64 = 2 << 20;
/// Most files of a manifest.
const MANIFEST_FILES: usize = 1_000;
/// Most that a whole upload may have.
pub(crate) const UPLOAD_BYTES: u64 = 4 << 30;
/// Most files in all build contexts.
const CONTEXT_FILES: usize = 200_000;
/// Most that one build secret may have; Docker's limit is about the same.
const SECRET_BYTES: u64 = 512 << 10;
/// Most build secrets.
const SECRETS: usize = 100;
/// Where the caller's environment lies among the manifest's files.
const ENV_FILE: &str = ".layby/env.json";
/// Where the names of the further files lie: a list of them, the n-th that of `.layby/file/<n>`. One without such a file does
/// not exist.
const NAMES_FILE: &str = ".layby/files.json";
/// Where the further files lie.
const NUMBERED: &str = ".layby/file";

/// An unpacked upload.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    /// The manifest's files, and the further ones.
    pub(crate) files: Files,
    /// The caller's environment.
    pub(crate) env: BTreeMap<String, String>,
    /// The further files that the manifest names, by the paths that were asked for.
    pub(crate) named_files: BTreeMap<String, Vec<u8>>,
    /// Those that were asked for and do not exist.
    pub(crate) absent: BTreeSet<String>,
    /// The values of build secrets.
    pub(crate) secrets: Secrets,
    folder: Option<TempDir>,
}

/// The values of build secrets, by place. They are kept in memory only, and shown nowhere.
#[derive(Default)]
pub(crate) struct Secrets(BTreeMap<usize, Vec<u8>>);

impl Secrets {
    /// The n-th.
    pub(crate) fn get(&self, n: usize) -> Option<&[u8]> {
        self.0.get(&n).map(Vec::as_slice)
    }

    fn read(&mut self, name: &Path, value: &mut impl Read) -> Result<(), Problem> {
        let number = name.to_str().and_then(|name| name.parse().ok());
        let number = number.ok_or_else(|| {
            Problem::bad_request("a build secret in the upload is not named secret/<n>")
        })?;
        let mut bytes = Vec::new();
        let read = value.take(SECRET_BYTES + 1).read_to_end(&mut bytes);
        if read.map_err(unreadable)? as u64 > SECRET_BYTES || self.0.len() >= SECRETS {
            return Err(too_large(format!(
                "a build secret is larger than {} KiB, or there are more than {SECRETS}",
                SECRET_BYTES >> 10
            )));
        }
        self.0.insert(number, bytes);
        Ok(())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

impl Upload {
    /// Reads a tar. With `contexts`, the manifest's files are below `manifest/`, those that it names are `file/<n>` too,
    /// build secrets are `secret/<n>`, and folders `context/<n>/` are unpacked below `parent`; without, all files are the manifest's. Blocks.
    ///
    /// # Errors
    /// A problem for the client when it is no tar, too large, or reaches out of its folder; or for the node's disk.
    pub(crate) fn read(body: impl Read, parent: &Path, contexts: bool) -> Result<Self, Problem> {
        let limit = if contexts {
            UPLOAD_BYTES
        } else {
            MANIFEST_BYTES * 2
        };
        let mut archive = tar::Archive::new(body.take(limit));
        archive.set_preserve_permissions(true);
        archive.set_overwrite(false);
        let mut upload = Self::default();
        let mut left = MANIFEST_BYTES;
        let mut unpacked = 0;
        let mut names: Vec<String> = Vec::new();
        let mut numbered: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for entry in archive.entries().map_err(unreadable)? {
            let mut entry = entry.map_err(unreadable)?;
            let path = inside(&entry.path().map_err(unreadable)?)?;
            let kind = entry.header().entry_type();
            if contexts && path.starts_with("context") {
                unpacked += 1;
                if unpacked > CONTEXT_FILES {
                    let text = format!("the build contexts have more than {CONTEXT_FILES} files");
                    return Err(too_large(text));
                }
                let known = [
                    EntryType::Regular,
                    EntryType::Directory,
                    EntryType::Symlink,
                    EntryType::Link,
                ];
                if known.contains(&kind) {
                    let folder = upload.folder(parent)?;
                    entry.unpack_in(folder).map_err(|error| storing(&error))?;
                }
                continue;
            }
            if kind != EntryType::Regular {
                continue;
            }
            if let (true, Ok(name)) = (contexts, path.strip_prefix("secret")) {
                upload.secrets.read(name, &mut entry)?;
                continue;
            }
            let name = if contexts {
                path.strip_prefix("manifest").unwrap_or(&path)
            } else {
                &path
            };
            let number = path.strip_prefix("file").ok().filter(|_| contexts);
            let number = number.or(name.strip_prefix(NUMBERED).ok());
            let number = number.map(|number| number.to_string_lossy().into_owned());
            let name = name.to_string_lossy().into_owned();
            let mut content = Vec::new();
            let read = (&mut entry).take(left + 1).read_to_end(&mut content);
            let size = read.map_err(unreadable)? as u64;
            let count = upload.files.0.len() + numbered.len();
            if size > left || count >= MANIFEST_FILES {
                let text = format!(
                    "the manifest's files are larger than {} MiB, or more than {MANIFEST_FILES}",
                    MANIFEST_BYTES >> 20
                );
                return Err(too_large(text));
            }
            left -= size;
            if name == ENV_FILE {
                upload.env = listed(ENV_FILE, &content)?;
            } else if name == NAMES_FILE {
                names = listed(NAMES_FILE, &content)?;
            } else if let Some(number) = number {
                numbered.insert(number, content);
            } else {
                upload.files.0.insert(name, content);
            }
        }
        for (n, name) in names.into_iter().enumerate() {
            match numbered.remove(&n.to_string()) {
                Some(content) => {
                    upload.files.0.insert(name.clone(), content.clone());
                    upload.named_files.insert(name, content);
                }
                None => drop(upload.absent.insert(name)),
            }
        }
        Ok(upload)
    }

    /// The n-th build context, if it was sent.
    pub(crate) fn context(&self, n: usize) -> Option<PathBuf> {
        let path = self
            .folder
            .as_ref()?
            .path()
            .join("context")
            .join(n.to_string());
        path.is_dir().then_some(path)
    }

    fn folder(&mut self, parent: &Path) -> Result<&Path, Problem> {
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => {
                std::fs::create_dir_all(parent).map_err(|error| storing(&error))?;
                TempDir::with_prefix_in("upload-", parent).map_err(|error| storing(&error))?
            }
        };
        Ok(self.folder.insert(folder).path())
    }
}

/// What one of Layby's own files in an upload says.
fn listed<T: serde::de::DeserializeOwned>(name: &str, content: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(content)
        .map_err(|error| Problem::bad_request(format!("{name}: {error}")))
}

/// The path without `.`, if it stays inside.
fn inside(path: &Path) -> Result<PathBuf, Problem> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                let text = format!(
                    "the upload has a path that leads out of it: {}",
                    path.display()
                );
                return Err(Problem::bad_request(text));
            }
        }
    }
    Ok(clean)
}

fn unreadable(error: io::Error) -> Problem {
    Problem::bad_request(format!("the upload is not a readable tar: {error}"))
}

fn too_large(text: String) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", text)
}

/// An error while unpacking to the node's disk.
fn storing(error: &io::Error) -> Problem {
    if matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) {
        Problem::full_disk("the node's disk is full while unpacking a build context")
    } else {
        Problem::failed(format!(
            "a build context could not be unpacked: {}",
            error_chain(error)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            // Written raw: the library itself refuses to write `..`.
            let bytes = name.as_bytes();
            header.as_gnu_mut().expect("a GNU header").name[..bytes.len()].copy_from_slice(bytes);
            header.set_cksum();
            tar.append(&header, *content).expect("to append");
        }
        tar.into_inner().expect("to finish")
    }

    #[test]
    fn manifest_env_and_contexts_are_told_apart() {
        let parent = TempDir::new().expect("a folder");
        let tar = tar_of(&[
            ("manifest/compose.yaml", b"services: {}"),
            ("manifest/.layby/env.json", br#"{"TAG":"1"}"#),
            ("manifest/.layby/files.json", br#"["../a.env","/b.env"]"#),
            ("file/1", b"B=1"),
            ("secret/0", b"hunter2"),
            ("context/0/Dockerfile", b"FROM scratch"),
        ]);
        let upload = Upload::read(&tar[..], parent.path(), true).expect("to read");
        let files: Vec<_> = upload.files.0.keys().collect();
        assert_eq!(files, ["/b.env", "compose.yaml"]);
        assert!(upload.absent.contains("../a.env"));
        assert_eq!(upload.env["TAG"], "1");
        let named: Vec<_> = upload.named_files.iter().collect();
        assert_eq!(named, [(&"/b.env".to_owned(), &b"B=1".to_vec())]);
        assert_eq!(upload.secrets.get(0), Some(&b"hunter2"[..]));
        assert!(!format!("{upload:?}").contains("hunter2"));
        let context = upload.context(0).expect("a context");
        assert!(context.join("Dockerfile").is_file());
        assert!(upload.context(1).is_none());
        drop(upload);
        assert!(!context.exists());
    }

    #[test]
    fn further_files_bear_the_names_that_the_list_gives_them() {
        let tar = tar_of(&[
            ("compose.yaml", b"include: [../x.yaml, y.yaml]"),
            (".layby/files.json", br#"["../x.yaml","y.yaml"]"#),
            (".layby/file/0", b"services: {}"),
        ]);
        let upload = Upload::read(&tar[..], Path::new("/nonexistent"), false).expect("to read");
        let files: Vec<_> = upload.files.0.keys().collect();
        assert_eq!(files, ["../x.yaml", "compose.yaml"]);
        assert!(upload.absent.contains("y.yaml"));
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        let parent = TempDir::new().expect("a folder");
        for name in ["../x", "context/0/../../../x", "/etc/x"] {
            let tar = tar_of(&[(name, b"x")]);
            let refused = Upload::read(&tar[..], parent.path(), true).expect_err(name);
            assert_eq!(refused.status, 400, "{name}: {}", refused.detail);
        }
    }

    #[test]
    fn a_manifest_of_100_mb_is_refused() {
        let big = vec![b'x'; 100 << 20];
        let tar = tar_of(&[("compose.yaml", &big)]);
        let refused = Upload::read(&tar[..], Path::new("/nonexistent"), false);
        assert_eq!(refused.expect_err("too large").status, 413);
    }

    #[test]
    fn what_is_no_tar_is_refused() {
        let refused = Upload::read(&[b'x'; 2048][..], Path::new("/nonexistent"), false);
        assert_eq!(refused.expect_err("no tar").status, 400);
    }
}
