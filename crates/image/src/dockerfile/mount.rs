//! `RUN --mount=type=...,key=value...` (docs.docker.com/reference/dockerfile, RUN --mount).

use self::MountKind::{Bind, Cache, Secret, Ssh, Tmpfs};

/// A mount as it is asked for, variables put in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// What kind it is.
    pub kind: MountKind,
    /// The stage, image or named context that it shows; `None`: the build context.
    pub from: Option<String>,
    /// The path in that; `None`: the whole.
    pub source: Option<String>,
    /// Where it is shown.
    pub target: Option<String>,
    /// Whether writing is refused.
    pub read_only: bool,
    /// What names a secret or a cache.
    pub id: Option<String>,
    /// How several builds use a cache at a time.
    pub sharing: Sharing,
    /// Whether it is an error when the secret is not given.
    pub required: bool,
    /// The mode of a secret's file, or of a new cache's folder.
    pub mode: Option<u32>,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The most that a tmpfs holds.
    pub size_bytes: Option<u64>,
    /// The environment variable that gets the secret.
    pub env: Option<String>,
}

/// The kinds of mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountKind {
    /// Files of the context, a stage or an image (the default).
    #[default]
    Bind,
    /// A folder that stays from build to build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A file that is there only during the step.
    Secret,
    /// The socket of an SSH agent.
    Ssh,
}

/// How several builds use a cache at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// All at once (the default).
    #[default]
    Shared,
    /// Each has its own.
    Private,
    /// One waits for the other.
    Locked,
}

/// The `from` of a mount, which the order of the stages depends on: no variables in it.
pub(crate) fn from_of(text: &str) -> Option<String> {
    fields(text)
        .into_iter()
        .find_map(|field| field.strip_prefix("from=").map(str::to_owned))
}

/// Reads one `--mount`; `expand` puts variables in.
///
/// # Errors
/// What is wrong, as the rest of a sentence that begins with the instruction.
pub(crate) fn parse(
    text: &str,
    expand: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Mount, String> {
    let fields = fields(text);
    let kind = fields.iter().find_map(|field| field.strip_prefix("type="));
    let mut mount = Mount {
        kind: kind_of(kind)?,
        ..Mount::default()
    };
    let mut writable = None;
    for field in &fields {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim().to_ascii_lowercase(), Some(value)),
            None => (field.trim().to_ascii_lowercase(), None),
        };
        let text = match (key.as_str(), value) {
            ("from", Some(value)) if value.contains('$') => {
                return Err(format!(
                    "has --mount with from={value}: no variables are put in there; name a stage with FROM {value} AS ..."
                ));
            }
            ("type" | "from", Some(value)) => value.to_owned(),
            (_, Some(value)) => expand(value)?,
            (_, None) => String::new(),
        };
        let option = Opt {
            key: &key,
            has_value: value.is_some(),
            text,
        };
        match key.as_str() {
            "readonly" | "ro" => writable = Some(!option.flag(&mount, &[Bind, Cache])?),
            "readwrite" | "rw" => writable = Some(option.flag(&mount, &[Bind, Cache])?),
            _ => set(&mut mount, &option)?,
        }
    }
    mount.read_only = match mount.kind {
        Bind => !writable.unwrap_or(false),
        Cache => !writable.unwrap_or(true),
        Tmpfs => false,
        Secret | Ssh => true,
    };
    let needs_target = matches!(mount.kind, Bind | Cache | Tmpfs);
    if needs_target && mount.target.is_none() {
        return Err("has --mount without a target".to_owned());
    }
    if mount.kind == Secret && mount.id.is_none() && mount.target.is_none() {
        return Err("has --mount=type=secret without an id".to_owned());
    }
    Ok(mount)
}

fn kind_of(name: Option<&str>) -> Result<MountKind, String> {
    match name {
        None | Some("bind") => Ok(Bind),
        Some("cache") => Ok(Cache),
        Some("tmpfs") => Ok(Tmpfs),
        Some("secret") => Ok(Secret),
        Some("ssh") => Ok(Ssh),
        Some(other) => Err(format!(
            "has --mount=type={other}; there are bind, cache, tmpfs, secret and ssh"
        )),
    }
}

/// One `key=value`, variables put in.
struct Opt<'a> {
    key: &'a str,
    has_value: bool,
    text: String,
}

impl Opt<'_> {
    /// Whether a mount of this kind has such an option.
    fn fits(&self, mount: &Mount, kinds: &[MountKind]) -> Result<(), String> {
        match kinds.contains(&mount.kind) {
            true => Ok(()),
            false => Err(format!(
                "has --mount with {}, which a mount of this type does not have",
                self.key
            )),
        }
    }

    fn flag(&self, mount: &Mount, kinds: &[MountKind]) -> Result<bool, String> {
        self.fits(mount, kinds)?;
        match (self.has_value, self.text.as_str()) {
            (false, _) | (_, "true" | "1") => Ok(true),
            (_, "false" | "0") => Ok(false),
            (_, other) => Err(format!(
                "has --mount with {}={other}: say true or false",
                self.key
            )),
        }
    }

    fn filled(&self, mount: &Mount, kinds: &[MountKind]) -> Result<Option<String>, String> {
        self.fits(mount, kinds)?;
        match self.text.is_empty() {
            true => Err(format!("has --mount with {} without a value", self.key)),
            false => Ok(Some(self.text.clone())),
        }
    }

    fn number(&self, mount: &Mount, kinds: &[MountKind], radix: u32) -> Result<u32, String> {
        self.fits(mount, kinds)?;
        u32::from_str_radix(&self.text, radix).map_err(|_| {
            format!(
                "has --mount with {}={}, which is no number",
                self.key, self.text
            )
        })
    }
}

/// Sets one option, but for whether it may be written to.
fn set(mount: &mut Mount, option: &Opt) -> Result<(), String> {
    const ALL: &[MountKind] = &[Bind, Cache, Tmpfs, Secret, Ssh];
    let owned = &[Cache, Secret, Ssh];
    match option.key {
        "type" => {}
        "from" => mount.from = option.filled(mount, &[Bind, Cache])?,
        "source" | "src" => mount.source = option.filled(mount, &[Bind, Cache])?,
        "target" | "dst" | "destination" => mount.target = option.filled(mount, ALL)?,
        "id" => mount.id = option.filled(mount, owned)?,
        "sharing" => {
            option.fits(mount, &[Cache])?;
            mount.sharing = match option.text.as_str() {
                "shared" => Sharing::Shared,
                "private" => Sharing::Private,
                "locked" => Sharing::Locked,
                other => {
                    return Err(format!(
                        "has --mount with sharing={other}; there are shared, private and locked"
                    ));
                }
            };
        }
        "required" => mount.required = option.flag(mount, &[Secret, Ssh])?,
        "mode" => mount.mode = Some(option.number(mount, owned, 8)? & 0o7777),
        "uid" => mount.uid = option.number(mount, owned, 10)?,
        "gid" => mount.gid = option.number(mount, owned, 10)?,
        "size" => {
            option.fits(mount, &[Tmpfs])?;
            let size = bytes(&option.text);
            mount.size_bytes = Some(size.ok_or_else(|| {
                format!(
                    "has --mount with size={}, which is no size such as 64m",
                    option.text
                )
            })?);
        }
        "env" => mount.env = option.filled(mount, &[Secret])?,
        other => {
            let other: String = other.chars().take(80).collect();
            return Err(format!("does not know {other:?} in --mount"));
        }
    }
    Ok(())
}

/// Splits at commas outside of double quotes, and takes these away (a line of CSV).
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().into_iter().for_each(|last| last.push(c)),
        }
    }
    fields.retain(|field| !field.trim().is_empty());
    fields
}

/// `64m`, `1g`, `65536`: powers of 1024, as Docker has them.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.trim_end_matches('b').trim_end_matches('i');
    let (digits, factor) = match lower.chars().last()? {
        'k' => (&lower[..lower.len() - 1], 1 << 10),
        'm' => (&lower[..lower.len() - 1], 1 << 20),
        'g' => (&lower[..lower.len() - 1], 1 << 30),
        _ => (lower, 1_u64),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Mount, String> {
        parse(text, &|value| Ok(value.replace("$X", "x")))
    }

    #[test]
    fn each_kind_of_mount_is_read_with_its_options() {
        let mount = read(
            "type=cache,target=/c,id=k-$X,sharing=locked,mode=0700,uid=5,gid=6,from=base,source=/s",
        )
        .unwrap();
        assert_eq!(
            (mount.kind, mount.sharing),
            (MountKind::Cache, Sharing::Locked)
        );
        assert_eq!(mount.id.as_deref(), Some("k-x"));
        assert_eq!((mount.mode, mount.uid, mount.gid), (Some(0o700), 5, 6));
        assert!(!mount.read_only);
        let bind = read("src=a,dst=/b").unwrap();
        assert!(bind.kind == MountKind::Bind && bind.read_only);
        assert!(!read("target=/b,rw").unwrap().read_only);
        assert!(
            read("type=cache,target=/b,readonly=true")
                .unwrap()
                .read_only
        );
        assert_eq!(
            read("type=tmpfs,target=/t,size=64m").unwrap().size_bytes,
            Some(64 << 20)
        );
        let secret = read("type=secret,id=a,env=TOKEN,required").unwrap();
        assert!(secret.required && secret.env.as_deref() == Some("TOKEN"));
        assert_eq!(
            from_of("type=bind,\"from=a\",target=/x"),
            Some("a".to_owned())
        );
    }

    #[test]
    fn what_a_mount_cannot_have_is_named() {
        for (text, error) in [
            ("type=disk,target=/x", "type=disk"),
            ("type=bind", "without a target"),
            ("type=secret", "without an id"),
            ("type=tmpfs,target=/x,size=big", "size=big"),
            ("type=cache,target=/x,sharing=all", "sharing=all"),
            ("type=bind,target=/x,required", "does not have"),
            ("target=/x,from=$X", "no variables"),
            ("target=/x,colour=red", "does not know \"colour\""),
            ("type=cache,target=/x,mode=9", "no number"),
            ("target=/x,ro=perhaps", "true or false"),
        ] {
            let found = read(text).expect_err(text);
            assert!(found.contains(error), "{text}: {found}");
        }
    }
}
