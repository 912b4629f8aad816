//! Nodes elsewhere that this user knows: `~/.config/layby/contexts.json`, for nobody else's eyes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cli;
use crate::exit::{Code, Exit};
use crate::out::say;
use crate::show;

/// The name of the node on this machine, which is no context of its own.
pub(crate) const LOCAL: &str = "local";

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// All that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Contexts {
    /// The one that is asked where none is named; `None`: the node on this machine.
    pub(crate) current: Option<String>,
    /// By name.
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// One node.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Context {
    /// `https://host` or `https://host:port`.
    pub(crate) url: String,
    /// The secret.
    pub(crate) token: String,
    /// Whose certificate is taken.
    pub(crate) trust: Trust,
}

/// Without the token, which belongs in no message.
impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Context");
        shown.field("url", &self.url).field("trust", &self.trust);
        shown.finish_non_exhaustive()
    }
}

/// Why a node's certificate is taken for its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Trust {
    /// It is the one with this SHA-256.
    Fingerprint(String),
    /// One of these authorities (PEM) vouches for it.
    Authority(String),
    /// An authority does that the system trusts.
    System,
}

impl Contexts {
    /// Reads them; none, where there is no file.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub(crate) fn read() -> Result<Self> {
        Self::read_from(&place()?)
    }

    fn read_from(path: &Path) -> Result<Self> {
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
        match read {
            Ok(_) => serde_json::from_str(&text)
                .with_context(|| format!("{} is not understood", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes them, aside and then in place.
    ///
    /// # Errors
    /// Where that cannot be done.
    pub(crate) fn write(&self) -> Result<()> {
        let path = place()?;
        self.write_to(&path)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn write_to(&self, path: &Path) -> Result<()> {
        if let Some(dir) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)?;
        }
        let aside = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
        file.sync_all()?;
        Ok(fs::rename(&aside, path)?)
    }

    /// The node that is meant: by its name, or the current one; `None`: the one on this machine.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn meant(&self, name: Option<&str>) -> Result<Option<(&str, &Context)>> {
        let Some(name) = name
            .or(self.current.as_deref())
            .filter(|name| *name != LOCAL)
        else {
            return Ok(None);
        };
        match self.contexts.get_key_value(name) {
            Some((name, context)) => Ok(Some((name, context))),
            None => Err(unknown(name)),
        }
    }
}

fn unknown(name: &str) -> anyhow::Error {
    let text = format!(
        "there is no context {name}: `layby context ls` shows what there is, `layby login URL` adds one"
    );
    Exit::new(Code::NotFound, text).into()
}

/// Where they are kept (XDG Base Directory Specification).
fn place() -> Result<PathBuf> {
    let absolute = |name: &str| {
        let dir = std::env::var_os(name).map(PathBuf::from);
        dir.filter(|dir| dir.is_absolute())
    };
    let config = absolute("XDG_CONFIG_HOME");
    let config = config.or_else(|| absolute("HOME").map(|home| home.join(".config")));
    match config {
        Some(config) => Ok(config.join("layby/contexts.json")),
        None => bail!("neither HOME nor XDG_CONFIG_HOME says where your settings are"),
    }
}

/// `layby context`.
///
/// # Errors
/// There is no such context, or the file cannot be read or written.
pub(crate) fn context(command: cli::Context) -> Result<()> {
    let mut all = Contexts::read()?;
    match command {
        cli::Context::Ls(form) => return ls(&all, form.json),
        cli::Context::Use { name } => {
            if name != LOCAL && !all.contexts.contains_key(&name) {
                return Err(unknown(&name));
            }
            say!("{name}  is asked from now on");
            all.current = (name != LOCAL).then_some(name);
        }
        cli::Context::Rm { name } => {
            if all.contexts.remove(&name).is_none() {
                return Err(unknown(&name));
            }
            all.current = all.current.filter(|current| *current != name);
            say!("{name}  forgotten; its token is good until an admin takes it away");
        }
    }
    all.write()
}

fn ls(all: &Contexts, json: bool) -> Result<()> {
    let current = all.current.as_deref().unwrap_or(LOCAL);
    let rows = all.contexts.iter().map(|(name, context)| {
        let trust = match &context.trust {
            Trust::Fingerprint(digits) => {
                format!("certificate {}...", digits.get(..16).unwrap_or(digits))
            }
            Trust::Authority(_) => "own authority".to_owned(),
            Trust::System => "system's authorities".to_owned(),
        };
        (name.as_str(), context.url.as_str(), trust)
    });
    let here = (LOCAL, "this machine", "-".to_owned());
    let rows = std::iter::once(here).chain(rows);
    if json {
        let shown: Vec<_> = rows
            .map(|(name, url, trust)| {
                serde_json::json!({"name": name, "url": url, "trust": trust, "current": name == current})
            })
            .collect();
        say!("{}", serde_json::to_string_pretty(&shown)?);
        return Ok(());
    }
    let mut table = show::table(&["CONTEXT", "URL", "TRUSTED BY"]);
    for (name, url, trust) in rows {
        let mark = if name == current { " *" } else { "" };
        table.add_row(vec![format!("{name}{mark}"), url.to_owned(), trust]);
    }
    show::print(&table);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Contexts {
        let context = Context {
            url: "https://node.example:8443".to_owned(),
            token: "lyb_secret".to_owned(),
            trust: Trust::System,
        };
        Contexts {
            current: Some("prod".to_owned()),
            contexts: BTreeMap::from([("prod".to_owned(), context)]),
        }
    }

    #[test]
    fn they_are_read_as_they_were_written_and_by_nobody_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("layby/contexts.json");
        assert_eq!(
            Contexts::read_from(&path).expect("none"),
            Contexts::default()
        );
        some().write_to(&path).expect("to write");
        assert_eq!(Contexts::read_from(&path).expect("to read"), some());
        let mode = |path: &Path| {
            fs::metadata(path)
                .expect("it is there")
                .permissions()
                .mode()
        };
        assert_eq!(mode(&path) & 0o777, 0o600);
        assert_eq!(mode(path.parent().expect("a folder")) & 0o777, 0o700);
        fs::write(&path, "nonsense").expect("to write");
        assert!(Contexts::read_from(&path).is_err());
    }

    #[test]
    fn the_current_one_is_meant_unless_another_is_named() {
        let all = some();
        let name = |named| all.meant(named).map(|found| found.map(|(name, _)| name));
        assert_eq!(name(None).expect("it is there"), Some("prod"));
        assert_eq!(name(Some(LOCAL)).expect("it is there"), None);
        assert!(name(Some("other")).is_err());
        assert!(!format!("{all:?}").contains("lyb_secret"));
    }
}
