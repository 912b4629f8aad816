//! A deploy as it goes on: in place on a terminal, as plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use layby_control::api::types::{AbortedView, Event, Failure, Outcome, ServiceView};
use layby_model::State;
use layby_model::state::Showing;

use crate::client::{Client, Lines};
use crate::commands::{history, named};
use crate::exit::{Code, Exit};
use crate::out::{say, tell};
use crate::show;

/// How events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// In place on a terminal, as plain lines elsewhere.
    Auto,
    /// As plain lines.
    Plain,
    /// In place on a terminal; for good, and elsewhere, only what went wrong.
    Brief,
    /// Only what went wrong, and the digest of an image that was built.
    Quiet,
}

/// Shows the events until the last one.
///
/// # Errors
/// The code that the node ended with, if it is not 0.
pub(crate) async fn show(client: &Client, mut lines: Lines, style: Style) -> Result<()> {
    let mut screen = Screen::new(client.gateway().await?, style);
    let mut code = None;
    let mut outcomes = BTreeMap::new();
    let mut under_way = BTreeMap::new();
    loop {
        let event = match lines.next::<Event>().await {
            Ok(Some(event)) => event,
            // Where its last line is missing, the node went in the midst of it.
            Ok(None) | Err(_) if code.is_some() => break,
            Ok(None) => return Err(cut_off(&under_way)),
            Err(error) if error.chain().any(|cause| cause.is::<std::io::Error>()) => {
                return Err(cut_off(&under_way));
            }
            Err(error) => return Err(error),
        };
        match event {
            Event::Warning { text } => screen.note(&format!("warning: {text}")),
            Event::Build { service, text } => screen.line(&service, "building", &text),
            Event::BuildOutput {
                service,
                step,
                text,
            } => screen.line(&service, &format!("#{step}"), &text),
            Event::BuildFailed {
                service,
                text,
                output,
            } => screen.build_failed(&service, &text, &output),
            Event::Built {
                names,
                digest,
                size_bytes,
            } => screen.built(&names, &digest, size_bytes),
            Event::Pull {
                service,
                image,
                text,
            } => screen.line(&service, "pulling", &format!("{image}: {text}")),
            Event::Progress {
                service,
                state,
                text,
            } => {
                screen.line(&service, &show::text(&state), &text);
                under_way.insert(service, state);
            }
            Event::Secret {
                app,
                name,
                version,
                is_new,
            } => screen.say(&secret(app, &name, version, is_new)),
            Event::Step { service, text } => screen.say(&format!("{service}  {text}")),
            Event::Job { job, text } => screen.say(&format!("{job}  {text}")),
            Event::Service {
                service,
                outcome,
                failure,
            } => {
                screen.outcome(&service, outcome, failure.as_ref());
                let name = named::full(&service);
                under_way.remove(&name);
                let failed = outcomes.get(&name) == Some(&Outcome::Failed);
                // One that failed and was taken out again is one that failed.
                if !(failed && outcome == Outcome::Removed) {
                    outcomes.insert(name, outcome);
                }
            }
            Event::Error { problem } => {
                screen.note(&format!("layby: {}", problem.detail));
                problem
                    .hint
                    .iter()
                    .for_each(|hint| screen.note(&format!("  {hint}")));
            }
            Event::Done { code: last } => code = Some(last),
        }
    }
    screen.clear();
    if outcomes.len() > 1 && !screen.is_quiet {
        screen.say(&summary(outcomes.values()));
    }
    let code = match code {
        Some(0) => return Ok(()),
        Some(3) => Code::Kept,
        Some(4) => Code::NotFound,
        Some(5) => Code::TimedOut,
        Some(6) => Code::Overtaken,
        Some(_) | None => Code::Failed,
    };
    Err(Exit::new(code, "").into())
}

/// The answer to a request that begins a rollout of the service at `path`, or how it goes on where the node went before
/// its answer came: it may have been written.
///
/// # Errors
/// As the request.
pub(crate) fn begun<T>(answer: Result<T>, path: &str) -> Result<T> {
    let service = path.strip_prefix("/v1/services/").map(str::to_owned);
    answer.map_err(
        |error| match error.chain().any(|cause| cause.is::<hyper::Error>()) {
            true => cut_off(
                &service
                    .into_iter()
                    .map(|name| (name, State::Deploying))
                    .collect(),
            ),
            false => error,
        },
    )
}

/// What is said where the node goes in the midst of it; what it has written goes on once it is back.
fn cut_off(under_way: &BTreeMap<String, State>) -> anyhow::Error {
    let rolls = |state: &State| match state {
        State::Deploying | State::Updating => true,
        State::Disabled | State::Ready | State::Running => false,
    };
    let next = match under_way.keys().next() {
        Some(service) if !under_way.values().any(rolls) => {
            let others = if under_way.len() > 1 {
                ", and so for each of the others"
            } else {
                ""
            };
            format!(
                "once it runs again, `layby status {service}` shows how far it came{others} (a restart has to be asked for again)"
            )
        }
        Some(service) if under_way.len() == 1 => {
            format!("once it runs again, `layby deploy {service} --follow` tells how it goes on")
        }
        Some(service) => format!(
            "once it runs again, `layby deploy {service} --follow` tells how it goes on, and so for each of the others"
        ),
        None => "`layby ls` shows how things stand once it runs again".to_owned(),
    };
    anyhow::anyhow!("the node ended in the midst of it: {next}; its log says why")
}

fn secret(app: Option<String>, name: &str, version: u32, is_new: bool) -> String {
    let of = app.map_or_else(String::new, |app| format!(" of {app}"));
    match is_new {
        true => format!("{name}{of}  version {version}"),
        false => format!("{name}{of}  unchanged, version {version}"),
    }
}

/// `3 live, 1 unchanged, 1 failed (kept)`: how many services came to what.
fn summary<'a>(outcomes: impl Iterator<Item = &'a Outcome> + Clone) -> String {
    let all = [
        (Outcome::Live, "live"),
        (Outcome::Canary, "tried out"),
        (Outcome::Unchanged, "unchanged"),
        (Outcome::Scaled, "scaled"),
        (Outcome::Restarted, "restarted"),
        (Outcome::Disabled, "disabled"),
        (Outcome::Removed, "removed"),
        (Outcome::RolledBack, "rolled back"),
        (Outcome::Pending, "under way"),
        (Outcome::Overtaken, "overtaken"),
        (Outcome::Aborted, "aborted"),
        (Outcome::Kept, "failed (kept)"),
        (Outcome::Failed, "failed"),
    ];
    let counted = all.into_iter().filter_map(|(outcome, what)| {
        let count = outcomes.clone().filter(|o| **o == outcome).count();
        (count > 0).then(|| format!("{count} {what}"))
    });
    counted.collect::<Vec<_>>().join(", ")
}

/// One line a service while it moves; what is settled stands above for good.
struct Screen {
    gateway: String,
    live: Option<MultiProgress>,
    is_quiet: bool,
    bars: BTreeMap<String, ProgressBar>,
}

impl Screen {
    fn new(gateway: String, style: Style) -> Self {
        let may = matches!(style, Style::Auto | Style::Brief);
        let in_place = may && std::io::stderr().is_terminal();
        Self {
            gateway,
            live: in_place.then(MultiProgress::new),
            is_quiet: matches!(style, Style::Brief | Style::Quiet),
            bars: BTreeMap::new(),
        }
    }

    /// Something that moves on: replaces the service's line on a terminal.
    fn line(&mut self, service: &str, what: &str, text: &str) {
        let Some(live) = &self.live else {
            if !self.is_quiet {
                say!("{service}  {what}  {text}");
            }
            return;
        };
        let bar = self.bars.entry(service.to_owned()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner} {prefix}  {wide_msg}");
            let bar = live.add(ProgressBar::new_spinner());
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar.with_prefix(service.to_owned())
        });
        bar.set_message(format!("{what}  {text}"));
    }

    /// All that a failed step wrote; where lines are not shown in place, they stand above already.
    fn build_failed(&mut self, service: &str, text: &str, output: &str) {
        if self.live.is_some() || self.is_quiet {
            self.note(&format!("{service}  {text}"));
            output
                .lines()
                .for_each(|line| self.note(&format!("  {line}")));
        }
    }

    fn built(&mut self, names: &[String], digest: &str, size_bytes: u64) {
        self.clear();
        if self.is_quiet {
            return say!("{digest}");
        }
        let named = match names {
            [] => "an image without a name".to_owned(),
            names => names.join(", "),
        };
        say!(
            "Built {named} ({digest}, {})",
            crate::commands::images::size(size_bytes)
        );
        if names.is_empty() {
            self.note(
                "Without a name it is kept for a day, and as long as something uses it: `layby build -t NAME` names it",
            );
        }
    }

    fn outcome(&mut self, service: &ServiceView, outcome: Outcome, failure: Option<&Failure>) {
        let name = named::full(service);
        for key in [name.as_str(), service.service.as_str()] {
            if let Some(bar) = self.bars.remove(key) {
                bar.finish_and_clear();
            }
        }
        if self.is_quiet && is_well(outcome) {
            return;
        }
        let said = match outcome {
            Outcome::Live => format!("live, revision {}", service.revision),
            Outcome::Canary => canary(service, &name),
            Outcome::Unchanged => format!("unchanged, revision {}", service.revision),
            Outcome::Failed => "failed".to_owned(),
            Outcome::Kept if has_ended(service) => {
                format!(
                    "failed; revision {}, which has ended, stays",
                    service.revision
                )
            }
            Outcome::Kept => format!("failed; revision {} serves on", service.revision),
            Outcome::Disabled => format!(
                "disabled, revision {}: `layby enable {name}` brings it back",
                service.revision
            ),
            Outcome::Scaled => format!(
                "{}, {}",
                scale(service.replicas_wanted),
                show::state(service)
            ),
            Outcome::Restarted if has_ended(service) => {
                format!("restarted and ended, revision {}", service.revision)
            }
            Outcome::Restarted => format!("restarted, revision {}", service.revision),
            Outcome::RolledBack => format!(
                "back to what was live before, revision {}",
                service.revision
            ),
            Outcome::Removed => "removed".to_owned(),
            Outcome::Pending => "goes on in the background: `layby status` shows how".to_owned(),
            Outcome::Overtaken => {
                let follow = || format!("`layby deploy {name} --follow` tells how that goes");
                let next = failure.and_then(|failure| failure.hint.clone());
                format!("{}: {}", reason(failure), next.unwrap_or_else(follow))
            }
            Outcome::Aborted => match service.aborted {
                Some(AbortedView { revision, .. }) if revision == service.revision => {
                    format!("revision {revision} {}", reason(failure))
                }
                Some(_) | None => {
                    format!(
                        "{}; revision {} serves on",
                        reason(failure),
                        service.revision
                    )
                }
            },
        };
        self.say(&format!("{name}  {said}"));
        let told = matches!(outcome, Outcome::Overtaken | Outcome::Aborted);
        for line in failure.filter(|_| !told).into_iter().flat_map(explain) {
            self.say(&line);
        }
        let answers = match outcome {
            Outcome::Failed | Outcome::Disabled | Outcome::Removed => false,
            Outcome::Kept => !has_ended(service),
            Outcome::Live
            | Outcome::Canary
            | Outcome::Unchanged
            | Outcome::Pending
            | Outcome::Scaled
            | Outcome::Restarted
            | Outcome::RolledBack
            | Outcome::Overtaken
            | Outcome::Aborted => !told,
        };
        if answers {
            for address in show::addresses(service, &self.gateway) {
                self.say(&format!("  {address}"));
            }
        }
    }

    /// A line that stays, on standard output.
    fn say(&self, line: &str) {
        self.suspended(|| say!("{line}"));
    }

    /// A line that stays, on standard error.
    fn note(&self, line: &str) {
        self.suspended(|| tell!("{line}"));
    }

    fn suspended(&self, print: impl FnOnce()) {
        match &self.live {
            Some(live) => live.suspend(print),
            None => print(),
        }
    }

    fn clear(&mut self) {
        if let Some(live) = &self.live {
            let _ = live.clear(); // nothing is lost where a terminal has gone
        }
        self.bars.clear();
    }
}

/// Whether what was asked for has come about.
fn is_well(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Live
        | Outcome::Canary
        | Outcome::Unchanged
        | Outcome::Disabled
        | Outcome::Scaled
        | Outcome::Restarted
        | Outcome::Removed => true,
        Outcome::Failed
        | Outcome::Kept
        | Outcome::Pending
        | Outcome::RolledBack
        | Outcome::Overtaken
        | Outcome::Aborted => false,
    }
}

/// Whether it ended and is left so, as a task is: nothing of it answers.
fn has_ended(service: &ServiceView) -> bool {
    service.wakefulness == Some(Showing::Ended)
}

/// Why a revision is not live, as words that follow its service's name.
fn reason(failure: Option<&Failure>) -> &str {
    failure.map_or("not live", |failure| &failure.reason)
}

fn scale(replicas: u32) -> String {
    match replicas {
        1 => "1 replica".to_owned(),
        n => format!("{n} replicas"),
    }
}

fn canary(service: &ServiceView, name: &str) -> String {
    let Some(canary) = &service.canary else {
        return "tried out".to_owned(); // promoted or aborted at this very moment
    };
    format!(
        "tried out, revision {} gets {}; revision {} the rest: `layby promote {name}` or `layby abort {name}`",
        canary.revision, canary.share, service.revision
    )
}

/// A failure in lines: the reason, then what there is to find its cause.
pub(crate) fn explain(failure: &Failure) -> Vec<String> {
    let mut lines = vec![format!(
        "  revision {}: {}{}",
        failure.revision,
        failure.reason,
        match failure.attempt {
            0 | 1 => String::new(),
            n => format!(" (attempt {n})"),
        }
    )];
    if let Some(exit) = &failure.exit {
        let oom = if exit.oom { ", out of memory" } else { "" };
        lines.push(format!("  exit code: {}{oom}", exit.code));
    }
    lines.extend(
        failure
            .last_probe
            .iter()
            .map(|probe| format!("  last probe: {probe}")),
    );
    if !failure.log.is_empty() {
        lines.push("  last log lines:".to_owned());
        lines.extend(failure.log.iter().map(|line| format!("    {line}")));
    }
    if !failure.difference.is_empty() {
        lines.push("  what differs from the revision that works:".to_owned());
        let changes = failure.difference.iter();
        lines.extend(changes.map(|change| format!("    {}", history::line(change))));
    }
    lines.extend(failure.hint.iter().map(|hint| format!("  hint: {hint}")));
    lines
}
