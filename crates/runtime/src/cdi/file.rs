//! The files of the Container Device Interface.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::yaml;

/// The longest file that is read.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The most files that are read of one folder.
const MAX_FILES: usize = 1024;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct File {
    /// Where it is.
    #[serde(skip)]
    pub(super) path: PathBuf,
    cdi_version: String,
    /// `vendor.com/class`.
    pub(super) kind: String,
    #[serde(default)]
    pub(super) devices: Vec<Device>,
    /// What each container needs that has one of the devices.
    #[serde(default)]
    pub(super) container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Device {
    pub(super) name: String,
    #[serde(default)]
    pub(super) container_edits: Edits,
}

/// What a container needs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Edits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<DeviceNode>,
    pub(super) mounts: Vec<Mount>,
    pub(super) hooks: Vec<Hook>,
    pub(super) additional_gids: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceNode {
    pub(super) path: String,
    pub(super) host_path: Option<String>,
    pub(super) permissions: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    #[serde(default)]
    pub(super) options: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hook {
    #[serde(default)]
    pub(super) path: String,
}

/// All files in these folders, in their order, and why some cannot be read.
pub(super) fn read_all(dirs: &[PathBuf]) -> (Vec<File>, Vec<String>) {
    let (mut files, mut unread) = (Vec::new(), Vec::new());
    for dir in dirs {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| {
                let ending = path.extension().and_then(|ending| ending.to_str());
                matches!(ending, Some("json" | "yaml" | "yml"))
            })
            .take(MAX_FILES)
            .collect();
        paths.sort();
        for path in paths {
            match read(&path) {
                Ok(file) => files.push(file),
                Err(reason) => unread.push(format!("{} cannot be read: {reason}", path.display())),
            }
        }
    }
    (files, unread)
}

fn read(path: &Path) -> Result<File, String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    parse(path, &text)
}

/// Reads the text of a file, JSON or YAML by its name.
pub(super) fn parse(path: &Path, text: &str) -> Result<File, String> {
    let is_json = path.extension().is_some_and(|ending| ending == "json");
    let value = if is_json {
        serde_json::from_str(text).map_err(|error| error.to_string())?
    } else {
        yaml::parse(text)?
    };
    let mut file: File = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let version = file.cdi_version.trim_start_matches('v');
    if !version.starts_with("0.") && !version.starts_with("1.") {
        return Err(format!(
            "its cdiVersion is {version}, and known are 0.3 to 1.0"
        ));
    }
    path.clone_into(&mut file.path);
    Ok(file)
}
