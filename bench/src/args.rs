//! Options of the parts: `--name value`, in any order.

use std::str::FromStr;

use anyhow::{Context, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Options that were given and not yet asked for.
#[derive(Debug)]
pub(crate) struct Args(Vec<(String, String)>);

impl Args {
    /// Reads `--name value` pairs.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Vec::new();
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--") else {
                bail!("{word:?} is not an option: options are --NAME VALUE");
            };
            let value = words
                .next()
                .with_context(|| format!("--{name} needs a value"))?;
            options.push((name.to_owned(), value));
        }
        Ok(Self(options))
    }

    /// All values given for `name`.
    pub(crate) fn all(&mut self, name: &str) -> Vec<String> {
        let given = self.0.extract_if(.., |(option, _)| option == name);
        given.map(|(_, value)| value).collect()
    }

    /// The value for `name`, if it was given.
    pub(crate) fn get<T: FromStr>(&mut self, name: &str) -> anyhow::Result<Option<T>> {
        let Some(value) = self.all(name).pop() else {
            return Ok(None);
        };
        match value.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => bail!("--{name} {value:?} cannot be read"),
        }
    }

    /// The value for `name`, which must be given.
    pub(crate) fn need<T: FromStr>(&mut self, name: &str) -> anyhow::Result<T> {
        self.get(name)?
            .with_context(|| format!("--{name} is missing"))
    }

    /// Pins this process to the CPU of `--cpu`, and refuses options that nobody asked for.
    pub(crate) fn finish(&mut self) -> anyhow::Result<()> {
        let cpu: Option<usize> = self.get("cpu")?;
        if let Some((name, _)) = self.0.first() {
            bail!("there is no option --{name} here");
        }
        cpu.map_or(Ok(()), pin)
    }
}

/// Pins this process to one CPU.
pub(crate) fn pin(cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot pin to that CPU")
}
