//! File systems in memory: the key `tmpfs`, and the options by which mount(8) makes one.

use layby_model::mounts::{Mount, MountSource};

use crate::draft::Placed;
use crate::fields::{Expected, Fields};
use crate::mount::target;
use crate::report::Report;
use crate::tree::{Place, cut};
use crate::units::compose_bytes;

/// What the options of a tmpfs say.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tmpfs {
    pub(crate) size_bytes: Option<u64>,
    pub(crate) mode: Option<u32>,
    pub(crate) read_only: bool,
    pub(crate) no_exec: bool,
    /// Options that are known and not honoured.
    pub(crate) ignored: Vec<String>,
}

impl Tmpfs {
    /// Reads options with commas between them (tmpfs(5), mount(8)). Of two that contradict each other the later one holds.
    pub(crate) fn read(text: &str) -> Result<Self, Expected> {
        let mut tmpfs = Self::default();
        for option in text.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=').unwrap_or((option, "")) {
                ("size", value) => tmpfs.size_bytes = Some(size(value)?),
                ("mode", value) => tmpfs.mode = Some(mode(value)?),
                ("ro", "") => tmpfs.read_only = true,
                ("rw", "") => tmpfs.read_only = false,
                ("noexec", "") => tmpfs.no_exec = true,
                ("exec", "") => tmpfs.no_exec = false,
                // What it is anyway.
                ("nosuid" | "nodev" | "async" | "relatime", "") => {}
                ("suid" | "dev" | "sync" | "noatime", "")
                | ("uid" | "gid" | "nr_inodes" | "nr_blocks" | "huge" | "mpol", _) => {
                    tmpfs.ignored.push(option.to_owned());
                }
                _ => {
                    return Err("options of a tmpfs such as size=64m,mode=1777".to_owned());
                }
            }
        }
        Ok(tmpfs)
    }

    /// Warns of what is not honoured.
    pub(crate) fn warn(&self, what: &str, place: &Place, report: &mut Report) {
        for option in &self.ignored {
            let why = match option.as_str() {
                "suid" | "dev" => "is ignored: all memory is mounted nosuid and nodev",
                _ => "is not supported yet and is ignored",
            };
            report.warn(
                place,
                format!("the option {:?} of {what} {why}", cut(option)),
            );
        }
    }

    /// It as a mount.
    pub(crate) fn source(&self) -> MountSource {
        MountSource::Tmpfs {
            size_bytes: self.size_bytes,
            mode: self.mode,
            no_exec: self.no_exec,
        }
    }
}

/// Takes the key `tmpfs` off a service: `PATH[:OPTIONS]`, one or a list.
pub(crate) fn read(service: &mut Fields, report: &mut Report) -> Vec<Placed<Mount>> {
    let name = service.name("tmpfs");
    let mut mounts = Vec::new();
    for item in service.text_or_texts("tmpfs", report).unwrap_or_default() {
        let (path, options) = item.value.split_once(':').unwrap_or((&item.value, ""));
        let read = target(path).and_then(|target| Ok((target, Tmpfs::read(options)?)));
        let (target, tmpfs) = match read {
            Ok(read) => read,
            Err(expected) => {
                let message = format!(
                    "an item of {name} must be {expected}, not {:?}",
                    cut(&item.value)
                );
                report.error(&item.place, message);
                continue;
            }
        };
        tmpfs.warn(&name, &item.place, report);
        mounts.push(Placed {
            value: Mount {
                source: tmpfs.source(),
                target,
                read_only: tmpfs.read_only,
            },
            place: item.place,
        });
    }
    mounts
}

/// A size of at least a byte: 0 would be no limit at all.
pub(crate) fn size(text: &str) -> Result<u64, Expected> {
    match compose_bytes(text)? {
        0 => Err("a size of more than 0, such as 64m".to_owned()),
        bytes => Ok(bytes),
    }
}

/// A mode, in octal, such as `1777` or `0o1777`.
pub(crate) fn mode(text: &str) -> Result<u32, Expected> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o7777 && !digits.starts_with('+') => Ok(mode),
        _ => Err("a mode in octal digits, such as 1777".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_mount_writes_them() {
        let read = Tmpfs::read("rw,noexec,size=64m,mode=0700,uid=5").unwrap();
        assert_eq!(read.size_bytes, Some(64 << 20));
        assert_eq!(read.mode, Some(0o700));
        assert!(read.no_exec && !read.read_only);
        assert_eq!(read.ignored, ["uid=5"]);
        assert!(Tmpfs::read("ro").unwrap().read_only);
        assert_eq!(Tmpfs::read("").unwrap(), Tmpfs::default());
        let later = Tmpfs::read("ro,noexec,rw,exec,nosuid,nodev");
        assert_eq!(later.unwrap(), Tmpfs::default());
        assert_eq!(Tmpfs::read("suid,dev").unwrap().ignored, ["suid", "dev"]);
        for bad in [
            "size=0",
            "size=50%",
            "mode=8",
            "mode=+7",
            "mode=70000",
            "x",
            "noexec=1",
        ] {
            assert!(Tmpfs::read(bad).is_err(), "{bad}");
        }
    }
}
