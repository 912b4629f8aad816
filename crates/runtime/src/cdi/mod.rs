//! Devices by the Container Device Interface (CNCF, SPEC.md, versions 0.3 to 1.0): a vendor's file says what a container
//! needs for a device, such as a GPU: nodes, files, variables, groups.
//!
//! Hooks are programs of the machine that would change a container as the machine's root. They are not run, and the
//! shim's log says so.

mod file;
mod yaml;

use std::path::{Path, PathBuf};

use file::{Edits, File};

use crate::error::{Error, Result};
use crate::mounts::{self, MountConfig, MountFrom};
use crate::options::DeviceConfig;
use crate::spec::ContainerConfig;
use crate::{devices, options};

/// Where the files are; one in a later folder counts before one in an earlier one.
const DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Puts what a container's CDI devices ask for into its config.
pub(crate) fn apply(config: &mut ContainerConfig) -> Result<()> {
    if config.options.cdi_devices.is_empty() {
        return Ok(());
    }
    let dirs: Vec<PathBuf> = DIRS.iter().map(PathBuf::from).collect();
    let (files, unread) = file::read_all(&dirs);
    edit(config, &files, &unread)?;
    options::check(&config.name, &config.options)?;
    devices::check(&config.name, &config.options.devices)?;
    // Its own were checked before; none of a device's is a file with an owner.
    mounts::check(&config.name, &config.mounts, None)
}

fn edit(config: &mut ContainerConfig, files: &[File], unread: &[String]) -> Result<()> {
    let mut names = config.options.cdi_devices.clone();
    names.dedup();
    let mut whole: Vec<&Path> = Vec::new();
    for name in &names {
        let found = name.split_once('=').and_then(|(kind, device)| {
            let files = files.iter().rev().filter(|file| file.kind == kind);
            files
                .filter_map(|file| Some((file, file.devices.iter().find(|d| d.name == device)?)))
                .next()
        });
        let Some((file, device)) = found else {
            let mut text = format!(
                "container {} asks for the device {name}, of which no file in {} says anything",
                config.name,
                DIRS.join(" or ")
            );
            for reason in unread {
                text.push_str("; ");
                text.push_str(reason);
            }
            return Err(Error::Fatal(text));
        };
        if !whole.contains(&file.path.as_path()) {
            whole.push(&file.path);
            take(config, name, &file.container_edits);
        }
        take(config, name, &device.container_edits);
    }
    Ok(())
}

fn take(config: &mut ContainerConfig, name: &str, edits: &Edits) {
    for pair in &edits.env {
        let (variable, value) = pair.split_once('=').unwrap_or((pair, ""));
        config.env.retain(|(known, _)| known != variable);
        config.env.push((variable.to_owned(), value.to_owned()));
    }
    for node in &edits.device_nodes {
        let permissions = node.permissions.clone().filter(|text| !text.is_empty());
        config.options.devices.push(DeviceConfig {
            source: node.host_path.clone().unwrap_or_else(|| node.path.clone()),
            target: node.path.clone(),
            permissions: permissions.unwrap_or_else(|| "rwm".to_owned()),
        });
    }
    for mount in &edits.mounts {
        let has = |word: &str| mount.options.iter().any(|option| option == word);
        let target = mount.container_path.clone();
        // A file that two devices need is mounted once.
        if config.mounts.iter().any(|known| known.target == target) {
            continue;
        }
        config.mounts.push(MountConfig {
            source: MountFrom::Bind {
                path: PathBuf::from(&mount.host_path),
                recursive: has("rbind"),
                subpath: None,
            },
            target,
            read_only: has("ro"),
            copy_up: false,
        });
    }
    let groups = edits.additional_gids.iter().filter(|gid| **gid != 0);
    config.options.group_add.extend(groups.map(u32::to_string));
    for hook in &edits.hooks {
        eprintln!(
            "layby-shim: the device {name} asks for the hook {}, which is not run",
            hook.path
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = r#"
cdiVersion: "0.6.0"
kind: vendor.test/device
containerEdits:
  env:
    - "DRIVER=1.2"
devices:
  - name: "0"
    containerEdits:
      env: ["WHICH=zero"]
      deviceNodes:
        - path: /dev/mine0
          hostPath: /dev/null
          permissions: rw
          fileMode: 0666
      mounts:
        - hostPath: /usr/lib/driver.so
          containerPath: /usr/lib/driver.so
          options: [ro, nosuid, bind]
      hooks:
        - hookName: createContainer
          path: /usr/bin/hook
      additionalGids: [44, 0]
"#;

    fn edited(names: &[&str]) -> Result<ContainerConfig> {
        let file = file::parse(Path::new("/etc/cdi/test.yaml"), YAML).expect("a file");
        let mut config = ContainerConfig {
            env: vec![("DRIVER".to_owned(), "old".to_owned())],
            ..ContainerConfig::default()
        };
        config.options.cdi_devices = names.iter().map(|&name| name.to_owned()).collect();
        edit(
            &mut config,
            &[file],
            &["/etc/cdi/bad.json is broken".to_owned()],
        )?;
        Ok(config)
    }

    #[test]
    fn a_device_brings_what_its_file_says() {
        let config = edited(&["vendor.test/device=0"]).expect("it is there");
        let env: Vec<String> = config.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(env, ["DRIVER=1.2", "WHICH=zero"]);
        assert_eq!(
            config.options.devices,
            [DeviceConfig {
                source: "/dev/null".to_owned(),
                target: "/dev/mine0".to_owned(),
                permissions: "rw".to_owned(),
            }]
        );
        assert_eq!(config.options.group_add, ["44"]);
        assert!(config.mounts[0].read_only);
        assert_eq!(config.mounts[0].target, "/usr/lib/driver.so");
    }

    #[test]
    fn a_device_that_no_file_has_is_named_with_the_files_that_cannot_be_read() {
        for name in ["vendor.test/device=1", "vendor.test/other=0", "nonsense"] {
            let error = edited(&[name]).expect_err(name).sentence();
            assert!(
                error.contains(name) && error.contains("bad.json"),
                "{error}"
            );
        }
    }
}
