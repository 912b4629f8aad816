//! Reading a Dockerfile (docs.docker.com/reference/dockerfile): text to instructions, no IO.
//!
//! Variables are still in the words; [`words::expand`] is for the builder, which knows their values.

mod heredoc;
mod instruction;
pub mod mount;
pub mod words;

use std::collections::BTreeMap;

pub use self::heredoc::Heredoc;

/// A parsed Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// `\` or `` ` `` (the `# escape=` directive).
    pub escape: char,
    /// `ARG` before the first `FROM`: only `FROM` sees these.
    pub args: Vec<Instruction>,
    /// The stages, at least one.
    pub stages: Vec<Stage>,
    /// What was left out, for the user: line and text.
    pub notes: Vec<(u32, String)>,
}

/// One `FROM` and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The `FROM` as written.
    pub text: String,
    /// Its line.
    pub line: u32,
    /// The image, an earlier stage, or `scratch`; may hold variables.
    pub base: String,
    /// `--platform`.
    pub platform: Option<String>,
    /// `AS name`, lower case.
    pub name: Option<String>,
    /// In order.
    pub instructions: Vec<Instruction>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Where it begins, from 1.
    pub line: u32,
    /// As written, continuation lines joined.
    pub text: String,
    /// What it says.
    pub kind: Kind,
}

/// What an instruction says. Words are as written, with quotes and variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `ARG name[=default]...`
    Arg(Vec<(String, Option<String>)>),
    /// `COPY` and `ADD`.
    Copy(Copy),
    /// `RUN`; its command is never expanded.
    Run(Run),
    /// `ONBUILD instruction`, the instruction as text (its heredocs included).
    OnBuild(String),
    /// `MAINTAINER name`.
    Maintainer(String),
    /// `ENV name=value...` or `ENV name value`.
    Env(Vec<(String, String)>),
    /// `LABEL name=value...`
    Label(Vec<(String, String)>),
    /// `WORKDIR path`.
    Workdir(String),
    /// `USER name`.
    User(String),
    /// `EXPOSE port[/protocol]...`
    Expose(Vec<String>),
    /// `VOLUME path...`
    Volume(Vec<String>),
    /// `CMD`; never expanded.
    Cmd(Command),
    /// `ENTRYPOINT`; never expanded.
    Entrypoint(Command),
    /// `SHELL ["program", "argument"...]`
    Shell(Vec<String>),
    /// `STOPSIGNAL signal`.
    StopSignal(String),
    /// `HEALTHCHECK`; `None` for `HEALTHCHECK NONE`.
    Healthcheck(Option<HealthcheckOptions>),
}

/// `RUN [--mount=...]... [--network=N] command`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What to run; with heredocs the line that opens them.
    pub command: Command,
    /// In the order in which the line names them.
    pub heredocs: Vec<Heredoc>,
    /// The values of `--mount`; see [`mount`].
    pub mounts: Vec<String>,
    /// `default`, `none` or `host`.
    pub network: Option<String>,
}

/// `COPY [--from=F] [--chown=O] [--chmod=M] [--parents] [--exclude=P]... source... destination`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Whether it was written `ADD`.
    pub is_add: bool,
    /// A stage's name or number, or an image.
    pub from: Option<String>,
    /// `user[:group]`.
    pub chown: Option<String>,
    /// Octal, or symbolic as for chmod(1).
    pub chmod: Option<String>,
    /// Whether the folders that a source is in are made too.
    pub parents: bool,
    /// Patterns of what is left out.
    pub excludes: Vec<String>,
    /// The digest that a URL's content must have.
    pub checksum: Option<String>,
    /// Whether ADD unpacks archives; `None`: local ones.
    pub unpack: Option<bool>,
    /// Files and URLs. With `heredocs`, at least one.
    pub sources: Vec<String>,
    /// Files that stand in the Dockerfile.
    pub heredocs: Vec<Heredoc>,
    /// Where to.
    pub destination: String,
}

/// A command in either form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `["program", "argument"...]`
    Exec(Vec<String>),
    /// A line for the shell.
    Shell(String),
}

/// `HEALTHCHECK [options] CMD ...`. Durations in nanoseconds, as they stand in an image config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthcheckOptions {
    /// The test.
    pub command: Command,
    /// `--interval`
    pub interval_ns: Option<u64>,
    /// `--timeout`
    pub timeout_ns: Option<u64>,
    /// `--start-period`
    pub start_period_ns: Option<u64>,
    /// `--start-interval`
    pub start_interval_ns: Option<u64>,
    /// `--retries`
    pub retries: Option<u32>,
}

/// Something that cannot be understood, or is not supported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {message}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: u32,
    /// Names the instruction.
    pub message: String,
}

/// The longest Dockerfile that is read.
pub const MAX_DOCKERFILE_BYTES: u64 = 1 << 20;

/// An instruction's line before its words are looked at.
struct Line {
    number: u32,
    text: String,
    heredocs: Vec<Heredoc>,
}

/// Parses the text of a Dockerfile.
pub fn parse(text: &str) -> Result<Dockerfile, ParseError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let escape = directives(text)?;
    let mut file = Dockerfile {
        escape,
        args: Vec::new(),
        stages: Vec::new(),
        notes: Vec::new(),
    };
    let mut last_line = 1;
    for line in logical_lines(text, escape)? {
        last_line = line.number;
        let error = |message: String| ParseError {
            line: line.number,
            message,
        };
        let (keyword, rest) = split_keyword(&line.text);
        let keyword = keyword.to_ascii_uppercase();
        if keyword == "FROM" {
            let stage = instruction::from(&line.text, rest, line.number, escape).map_err(error)?;
            file.stages.push(stage);
            continue;
        }
        if keyword == "MAINTAINER" {
            let note =
                "MAINTAINER is old; LABEL org.opencontainers.image.authors is what tools read";
            file.notes.push((line.number, note.to_owned()));
        }
        let kind = instruction::parse(&keyword, rest, &line.heredocs, escape).map_err(error)?;
        let instruction = Instruction {
            line: line.number,
            text: line.text.clone(),
            kind,
        };
        match file.stages.last_mut() {
            Some(stage) => stage.instructions.push(instruction),
            None if matches!(instruction.kind, Kind::Arg(_)) => file.args.push(instruction),
            None => return Err(error(format!("{keyword} stands before the first FROM"))),
        }
    }
    if file.stages.is_empty() {
        return Err(ParseError {
            line: last_line,
            message: "there is no FROM".to_owned(),
        });
    }
    Ok(file)
}

/// Parses an ONBUILD trigger, as a base image's config has it.
pub(crate) fn parse_trigger(text: &str, number: u32, escape: char) -> Result<Instruction, String> {
    let mut lines = logical_lines(text, escape).map_err(|error| error.message)?;
    let (Some(line), true) = (lines.pop(), lines.is_empty()) else {
        return Err("it is not one instruction".to_owned());
    };
    let (keyword, rest) = split_keyword(&line.text);
    let keyword = keyword.to_ascii_uppercase();
    if matches!(keyword.as_str(), "FROM" | "ONBUILD") {
        return Err(format!("{keyword} cannot be one"));
    }
    let kind = instruction::parse(&keyword, rest, &line.heredocs, escape)?;
    Ok(Instruction {
        line: number,
        text: line.text,
        kind,
    })
}

/// The keyword and what follows it, trimmed.
fn split_keyword(text: &str) -> (&str, &str) {
    match text.split_once(char::is_whitespace) {
        Some((keyword, rest)) => (keyword, rest.trim()),
        None => (text, ""),
    }
}

/// Reads the parser directives at the very top, and gives the escape character.
fn directives(text: &str) -> Result<char, ParseError> {
    let mut seen = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let Some((key, value)) = line
            .trim()
            .strip_prefix('#')
            .and_then(|rest| rest.split_once('='))
        else {
            break;
        };
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        if !matches!(key.as_str(), "syntax" | "escape" | "check") {
            break;
        }
        let line = u32::try_from(index + 1).unwrap_or(u32::MAX);
        if seen.insert(key.clone(), value).is_some() {
            let message = format!("the parser directive {key} stands there twice");
            return Err(ParseError { line, message });
        }
        if key == "escape" && !matches!(value, "\\" | "`") {
            let message = format!("the escape character must be \\ or `, not {value:?}");
            return Err(ParseError { line, message });
        }
    }
    Ok(if seen.get("escape") == Some(&"`") {
        '`'
    } else {
        '\\'
    })
}

/// Joins continuation lines; comments and empty lines within them are left out, as Docker does. What follows a
/// line that opens heredocs is theirs, as it stands.
fn logical_lines(text: &str, escape: char) -> Result<Vec<Line>, ParseError> {
    let mut lines: Vec<Line> = Vec::new();
    let mut open: Option<Line> = None;
    let mut rest = text.lines().zip(1..);
    while let Some((raw, number)) = rest.next() {
        let trimmed = raw.trim_start();
        if trimmed.starts_with('#') || trimmed.trim_end().is_empty() {
            continue;
        }
        let (part, continues) = match continued(raw, escape) {
            Some(part) => (part, true),
            None => (raw, false),
        };
        let line = open.get_or_insert_with(|| Line {
            number,
            text: String::new(),
            heredocs: Vec::new(),
        });
        line.text.push_str(if line.text.is_empty() {
            part.trim_start()
        } else {
            part
        });
        let Some(mut line) = open.take_if(|_| !continues) else {
            continue;
        };
        if may_open_heredocs(&line.text) {
            line.heredocs = heredoc::opened(&line.text, escape);
        }
        for heredoc in &mut line.heredocs {
            if !rest.by_ref().any(|(raw, _)| heredoc.take(raw)) {
                let message = format!("the heredoc <<{} has no end", heredoc.name);
                return Err(ParseError {
                    line: line.number,
                    message,
                });
            }
        }
        lines.push(line);
    }
    lines.extend(open);
    for line in &mut lines {
        line.text = line.text.trim_end().to_owned();
    }
    lines.retain(|line| !line.text.is_empty());
    Ok(lines)
}

/// Whether the instruction is one that takes heredocs. Elsewhere `<<` is just text.
fn may_open_heredocs(text: &str) -> bool {
    let (keyword, rest) = split_keyword(text);
    match keyword.to_ascii_uppercase().as_str() {
        "RUN" | "COPY" | "ADD" => true,
        "ONBUILD" => may_open_heredocs(rest),
        _ => false,
    }
}

/// The line without its continuation mark: an escape character at the end that is not itself escaped.
fn continued(line: &str, escape: char) -> Option<&str> {
    let part = line
        .trim_end_matches([' ', '\t', '\r'])
        .strip_suffix(escape)?;
    (!part.ends_with(escape)).then_some(part)
}

#[cfg(test)]
mod tests;
