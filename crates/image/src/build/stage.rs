//! Carrying out the instructions of one stage.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::content::Content;
use super::copy::{self, Request, Source};
use super::draft::Draft;
use super::view::{View, clean, joined};
use super::{Build, stage_named};
use crate::Error;
use crate::dockerfile::{Command, Copy, HealthcheckOptions, Instruction, Kind, words};

/// The longest account file that is searched for a name of --chown.
const MAX_ACCOUNTS_BYTES: u64 = 1 << 20;

/// A stage on its way.
pub(crate) struct StageBuilder<'a> {
    build: &'a Build<'a>,
    index: usize,
    draft: Draft,
    /// The ARGs declared so far.
    args: BTreeMap<String, String>,
    /// Whether this stage had a CMD of its own.
    has_cmd: bool,
}

impl<'a> StageBuilder<'a> {
    /// Begins a stage on its base.
    pub(crate) fn new(build: &'a Build<'a>, index: usize, draft: Draft) -> Self {
        Self {
            build,
            index,
            draft,
            args: BTreeMap::new(),
            has_cmd: false,
        }
    }

    /// The stage's image.
    pub(crate) fn into_draft(self) -> Draft {
        self.draft
    }

    /// Carries out one instruction. Says whether nothing had to be made.
    pub(crate) fn carry_out(
        &mut self,
        instruction: &Instruction,
        done: &BTreeMap<usize, Draft>,
    ) -> Result<bool, Error> {
        let line = instruction.line;
        let text = &instruction.text;
        let mut content = None;
        match &instruction.kind {
            Kind::Arg(args) => {
                for (name, default) in args {
                    self.arg(line, name, default.as_deref())?;
                }
            }
            Kind::Copy(copy) => content = Some(self.copy(line, copy, done)?),
            Kind::Env(pairs) => {
                // All values of one ENV see the variables as they were before it.
                for (name, value) in self.expand_pairs(line, "ENV", pairs)? {
                    self.draft.set_env(&name, &value);
                }
            }
            Kind::Label(pairs) => {
                for (name, value) in self.expand_pairs(line, "LABEL", pairs)? {
                    self.draft.add("Labels", &name, value.into());
                }
            }
            Kind::Workdir(path) => content = Some(self.workdir(line, path)?),
            Kind::User(user) => {
                let user = self.expand_filled(line, "USER", user)?;
                self.draft.set("User", user.into());
            }
            Kind::Expose(ports) => self.expose(line, ports)?,
            Kind::Volume(paths) => {
                for path in paths {
                    let path = self.expand_filled(line, "VOLUME", path)?;
                    self.draft.add("Volumes", &path, json!({}));
                }
            }
            Kind::Cmd(command) => {
                self.has_cmd = true;
                let command = self.command(command);
                self.draft.set("Cmd", command);
            }
            Kind::Entrypoint(command) => {
                // The base's CMD was meant for the base's ENTRYPOINT.
                if !self.has_cmd {
                    self.draft.set("Cmd", Value::Null);
                }
                let command = self.command(command);
                self.draft.set("Entrypoint", command);
            }
            Kind::Shell(words) => self.draft.set("Shell", json!(words)),
            Kind::StopSignal(signal) => {
                let signal = self.expand_filled(line, "STOPSIGNAL", signal)?;
                self.draft.set("StopSignal", signal.into());
            }
            Kind::Healthcheck(options) => {
                let healthcheck = match options {
                    None => json!({ "Test": ["NONE"] }),
                    Some(options) => healthcheck(options),
                };
                self.draft.set("Healthcheck", healthcheck);
            }
        }
        let content = content.filter(|content| !content.is_empty());
        let (layer, cached) = match content {
            Some(content) => {
                let (layer, cached) = content.store(self.build.store, self.build.epoch_s)?;
                (Some(layer), cached)
            }
            None => (None, true),
        };
        self.draft.record(text, layer, &self.build.created);
        Ok(cached)
    }

    fn arg(&mut self, line: u32, name: &str, default: Option<&str>) -> Result<(), Error> {
        let value = match (self.build.options.args.get(name), default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => Some(self.expand(line, "ARG", default)?),
            (None, None) => self.build.globals.get(name).cloned(),
        };
        self.args
            .extend(value.map(|value| (name.to_owned(), value)));
        Ok(())
    }

    fn copy(
        &self,
        line: u32,
        copy: &Copy,
        done: &BTreeMap<usize, Draft>,
    ) -> Result<Content, Error> {
        let keyword = if copy.is_add { "ADD" } else { "COPY" };
        let image = self.draft.view(self.build.store)?;
        let sources: Result<Vec<String>, Error> = copy
            .sources
            .iter()
            .map(|word| self.expand_filled(line, keyword, word))
            .collect();
        let owner = match &copy.chown {
            Some(owner) => Some(self.owner(line, &self.expand(line, keyword, owner)?, &image)?),
            None => None,
        };
        let mode = match &copy.chmod {
            Some(mode) => {
                let mode = self.expand(line, keyword, mode)?;
                let parsed = u32::from_str_radix(&mode, 8)
                    .ok()
                    .filter(|mode| *mode <= 0o7777);
                let bad = || format!("{keyword} --chmod={mode} is no octal mode such as 755");
                Some(parsed.ok_or_else(|| self.build.error(line, bad()))?)
            }
            None => None,
        };
        let request = Request {
            keyword,
            sources: sources?,
            destination: self.expand_filled(line, keyword, &copy.destination)?,
            working_dir: self.draft.working_dir().to_owned(),
            owner,
            mode,
            refuses_archives: copy.is_add,
        };
        let other;
        let source = match &copy.from {
            None => Source {
                view: self.build.context,
                ignore: Some(self.build.ignore),
                shown: self.build.context_shown.clone(),
            },
            Some(from) => {
                other = self.other_image(line, from, done)?;
                Source {
                    view: &other,
                    ignore: None,
                    shown: format!("{from:?}"),
                }
            }
        };
        copy::content(&request, &source, &image).map_err(|reason| {
            self.build
                .error(line, format!("{} {reason}", request.keyword))
        })
    }

    /// The file system that `--from` means: a stage before this one, else an image of the store.
    fn other_image(
        &self,
        line: u32,
        from: &str,
        done: &BTreeMap<usize, Draft>,
    ) -> Result<View, Error> {
        let store = self.build.store;
        match stage_named(self.build.file, from, self.index).and_then(|index| done.get(&index)) {
            Some(draft) => draft.view(store),
            None => {
                let image = self.build.image(line, "COPY --from", from)?;
                Ok(View::of_layers(store.layers(&image.digest)?))
            }
        }
    }

    fn workdir(&mut self, line: u32, path: &str) -> Result<Content, Error> {
        let path = self.expand_filled(line, "WORKDIR", path)?;
        let absolute = if path.starts_with('/') {
            path
        } else {
            format!("{}/{path}", self.draft.working_dir())
        };
        let bad = |reason: String| self.build.error(line, format!("WORKDIR {reason}"));
        let parts =
            clean(&absolute).ok_or_else(|| bad(format!("{absolute:?} is outside of the image")))?;
        let path = format!("/{}", joined(&parts));
        let content = copy::working_dir(&path, &self.draft.view(self.build.store)?).map_err(bad)?;
        self.draft.set("WorkingDir", path.into());
        Ok(content)
    }

    fn expose(&mut self, line: u32, ports: &[String]) -> Result<(), Error> {
        for word in ports {
            for port in self.expand(line, "EXPOSE", word)?.split_whitespace() {
                let bad = || {
                    let text =
                        format!("EXPOSE {port} is no port such as 8080, 8080/udp or 8000-8010");
                    self.build.error(line, text)
                };
                let (range, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                let protocol = protocol.to_ascii_lowercase();
                if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
                    return Err(bad());
                }
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let first: u16 = first.parse().map_err(|_| bad())?;
                let last: u16 = last.parse().map_err(|_| bad())?;
                if first == 0 || first > last {
                    return Err(bad());
                }
                for port in first..=last {
                    self.draft
                        .add("ExposedPorts", &format!("{port}/{protocol}"), json!({}));
                }
            }
        }
        Ok(())
    }

    /// The exec form as it is; the shell form for the stage's shell.
    fn command(&self, command: &Command) -> Value {
        match command {
            Command::Exec(words) => json!(words),
            Command::Shell(line) if line.is_empty() => Value::Null,
            Command::Shell(line) => {
                let mut words = self.draft.list("Shell");
                if words.is_empty() {
                    words = vec!["/bin/sh".to_owned(), "-c".to_owned()];
                }
                words.push(line.clone());
                json!(words)
            }
        }
    }

    /// `user[:group]` as numbers; names are looked up in the image. A user's number alone is the group's too.
    fn owner(&self, line: u32, text: &str, image: &View) -> Result<(u32, u32), Error> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let unknown = |what: &str, name: &str, file: &str| {
            let text =
                format!("COPY --chown={text}: there is no {what} {name:?} in the image's {file}");
            self.build.error(line, text)
        };
        let (uid, primary) = match user.parse() {
            Ok(uid) => (uid, uid),
            Err(_) => {
                let ids = account(image, "etc/passwd", user);
                ids.ok_or_else(|| unknown("user", user, "/etc/passwd"))?
            }
        };
        let gid = match group {
            None => primary,
            Some(group) => match group.parse() {
                Ok(gid) => gid,
                Err(_) => {
                    let ids = account(image, "etc/group", group);
                    ids.ok_or_else(|| unknown("group", group, "/etc/group"))?.0
                }
            },
        };
        Ok((uid, gid))
    }

    fn expand_pairs(
        &self,
        line: u32,
        keyword: &str,
        pairs: &[(String, String)],
    ) -> Result<Vec<(String, String)>, Error> {
        let expanded = pairs.iter().map(|(name, value)| {
            Ok((
                self.expand_filled(line, keyword, name)?,
                self.expand(line, keyword, value)?,
            ))
        });
        expanded.collect()
    }

    fn expand(&self, line: u32, keyword: &str, word: &str) -> Result<String, Error> {
        let lookup = |name: &str| {
            self.draft
                .env(name)
                .or_else(|| self.args.get(name).cloned())
        };
        words::expand(word, self.build.file.escape, &lookup).map_err(|reason| {
            self.build
                .error(line, format!("{keyword} {word}: {reason}"))
        })
    }

    /// Expands what must not be empty.
    fn expand_filled(&self, line: u32, keyword: &str, word: &str) -> Result<String, Error> {
        let text = self.expand(line, keyword, word)?;
        if text.is_empty() {
            let message =
                format!("{keyword} has {word:?}, which is empty once its variables are put in");
            return Err(self.build.error(line, message));
        }
        Ok(text)
    }
}

/// As Docker has it in the config: durations in nanoseconds, nothing for the defaults.
fn healthcheck(options: &HealthcheckOptions) -> Value {
    let test = match &options.command {
        Command::Exec(words) => [&["CMD".to_owned()], words.as_slice()].concat(),
        Command::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
    };
    let mut value = json!({ "Test": test });
    for (key, ns) in [
        ("Interval", options.interval_ns),
        ("Timeout", options.timeout_ns),
        ("StartPeriod", options.start_period_ns),
        ("StartInterval", options.start_interval_ns),
    ] {
        if let Some(ns) = ns {
            value[key] = ns.into();
        }
    }
    if let Some(retries) = options.retries {
        value["Retries"] = retries.into();
    }
    value
}

/// The third and fourth field of an account's line in /etc/passwd or /etc/group (the fourth is 0 where it is no number).
fn account(image: &View, file: &str, name: &str) -> Option<(u32, u32)> {
    use std::io::Read;
    let node = image.resolve(&clean(file)?).ok()?.node?;
    let mut text = String::new();
    let opened = std::fs::File::open(node.path()).ok()?;
    opened
        .take(MAX_ACCOUNTS_BYTES)
        .read_to_string(&mut text)
        .ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let id = fields.nth(1)?.parse().ok()?;
        Some((
            id,
            fields
                .next()
                .and_then(|field| field.parse().ok())
                .unwrap_or(0),
        ))
    })
}
