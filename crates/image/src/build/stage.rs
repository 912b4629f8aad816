//! Carrying out the instructions of one stage.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::content::{Content, Layer};
use super::draft::Draft;
use super::plan::{Base, Plan, Planned};
use super::{Build, BuildEvent};
use crate::Error;
use crate::dockerfile::{Command, HealthcheckOptions, Instruction, Kind};

/// A stage on its way.
pub(super) struct StageBuilder<'a> {
    pub(super) build: &'a Build<'a>,
    pub(super) planned: &'a Planned,
    /// Gives another stage, as soon as it is built.
    pub(super) earlier: &'a dyn Fn(usize) -> Result<Draft, Error>,
    pub(super) draft: Draft,
    /// The step that it is at.
    pub(super) number: u32,
    tell: &'a dyn Fn(BuildEvent),
    of: u32,
    /// Whether this stage had a CMD of its own.
    has_cmd: bool,
}

/// What an instruction brought.
pub(super) enum Made {
    /// Nothing but settings.
    Nothing,
    /// Files, of which the layer is still to be made.
    Content(Content),
    /// A layer, or none since nothing changed; and whether that was known before.
    Layer(Option<Layer>, bool),
}

impl<'a> StageBuilder<'a> {
    /// Begins a stage on its base: `base`, where that is another stage.
    pub(super) fn new(
        build: &'a Build<'a>,
        plan: &Plan,
        planned: &'a Planned,
        base: Option<Draft>,
        earlier: &'a dyn Fn(usize) -> Result<Draft, Error>,
        tell: &'a dyn Fn(BuildEvent),
    ) -> Self {
        let draft = match &planned.base {
            Base::Scratch => Draft::scratch(&build.platform),
            Base::Image(draft) => Draft::clone(draft),
            Base::Stage(_) => {
                let mut draft = base.unwrap_or_else(|| Draft::scratch(&build.platform));
                // They are among this stage's instructions.
                drop(draft.take_triggers());
                draft
            }
        };
        Self {
            build,
            planned,
            earlier,
            draft,
            number: planned.first_number,
            tell,
            of: plan.steps,
            has_cmd: false,
        }
    }

    /// Carries out all of it.
    pub(super) fn build(mut self) -> Result<Draft, Error> {
        self.step(&self.build.file.stages[self.planned.index].text, true);
        let planned = self.planned;
        for (place, instruction) in planned.instructions.iter().enumerate() {
            self.number += 1;
            if self.build.stop.load(Ordering::Relaxed) {
                return Err(given_up());
            }
            let done = self.carry_out(instruction);
            let cached = match place < planned.triggers {
                true => done.map_err(|error| self.of_trigger(error, &instruction.text))?,
                false => done?,
            };
            self.step(&instruction.text, cached);
        }
        Ok(self.draft)
    }

    /// The Dockerfile's line has only the FROM: says where the instruction is from.
    fn of_trigger(&self, error: Error, text: &str) -> Error {
        let base = &self.build.file.stages[self.planned.index].base;
        match error {
            Error::Dockerfile {
                file,
                line,
                message,
            } => {
                let keyword = text.split_whitespace().next().unwrap_or_default();
                let message = format!("ONBUILD {keyword} of the base image {base}: {message}");
                Error::Dockerfile {
                    file,
                    line,
                    message,
                }
            }
            other => other,
        }
    }

    fn step(&self, text: &str, cached: bool) {
        (self.tell)(BuildEvent::Step {
            number: self.number,
            of: self.of,
            stage: self.planned.name.clone(),
            text: text.to_owned(),
            cached,
        });
    }

    /// Tells that a step which may take long has begun.
    pub(super) fn begun(&self, text: &str) {
        (self.tell)(BuildEvent::Started {
            number: self.number,
            of: self.of,
            stage: self.planned.name.clone(),
            text: text.to_owned(),
        });
    }

    /// A line that the step's command wrote.
    pub(super) fn line(&self, text: String) {
        (self.tell)(BuildEvent::Line {
            number: self.number,
            stage: self.planned.name.clone(),
            text,
        });
    }

    /// Tells what the command of a failed step wrote.
    pub(super) fn failed(&self, text: &str, output: String) {
        (self.tell)(BuildEvent::Failed {
            number: self.number,
            stage: self.planned.name.clone(),
            text: text.to_owned(),
            output,
        });
    }

    pub(super) fn note(&self, text: String) {
        (self.tell)(BuildEvent::Output(text));
    }

    /// Carries out one instruction. Says whether nothing had to be made.
    fn carry_out(&mut self, instruction: &Instruction) -> Result<bool, Error> {
        let line = instruction.line;
        let text = &instruction.text;
        let mut made = Made::Nothing;
        match &instruction.kind {
            Kind::Arg(args) => {
                for (name, default) in args {
                    self.arg(line, name, default.as_deref())?;
                }
            }
            Kind::Copy(copy) => {
                if copy.is_add {
                    self.begun(text);
                }
                made = self.copy(line, copy)?;
            }
            Kind::Run(run) => made = self.run(line, text, run)?,
            Kind::OnBuild(trigger) => self.draft.add_trigger(trigger),
            Kind::Maintainer(name) => {
                let name = self.expand(line, "MAINTAINER", name)?;
                self.draft.set_author(&name);
            }
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
            Kind::Workdir(path) => made = Made::Content(self.workdir(line, path)?),
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
        let (layer, cached) = match made {
            Made::Nothing => (None, true),
            Made::Content(content) => self.stored(line, &content)?,
            Made::Layer(layer, cached) => (layer, cached),
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
        let named = value.map(|value| (name.to_owned(), value));
        self.draft.args.extend(named);
        Ok(())
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

    /// A line as an argument of the stage's shell.
    pub(super) fn in_shell(&self, line: &str) -> Vec<String> {
        let mut words = self.draft.list("Shell");
        if words.is_empty() {
            words = vec!["/bin/sh".to_owned(), "-c".to_owned()];
        }
        words.push(line.to_owned());
        words
    }

    /// The exec form as it is; the shell form for the stage's shell.
    fn command(&self, command: &Command) -> Value {
        match command {
            Command::Exec(words) => json!(words),
            Command::Shell(line) if line.is_empty() => Value::Null,
            Command::Shell(line) => {
                json!(self.in_shell(line))
            }
        }
    }
}

/// Nobody wants the image any more.
pub(super) fn given_up() -> Error {
    Error::Build("it was given up".to_owned())
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
