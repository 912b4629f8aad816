//! One instruction's words to what it says. Errors name the instruction; the caller adds the line.

use super::words::split;
use super::{Command, Copy, HealthcheckOptions, Heredoc, Kind, Run, Stage, heredoc, mount};

/// `FROM [--platform=P] image [AS name]`.
pub(super) fn from(text: &str, rest: &str, line: u32, escape: char) -> Result<Stage, String> {
    let (flags, rest) = flags(rest, escape);
    let mut platform = None;
    for (name, value) in flags {
        match name.as_str() {
            "platform" => platform = value,
            _ => return Err(format!("FROM does not know the flag --{name}")),
        }
    }
    let words = split(rest, escape);
    let (base, name) = match words.as_slice() {
        [base] => (base, None),
        [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
            let name = name.to_ascii_lowercase();
            let fits = name.starts_with(|c: char| c.is_ascii_lowercase())
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            if !fits {
                return Err(format!(
                    "FROM cannot name a stage {name:?}: letters, digits, `-`, `_` and `.` only"
                ));
            }
            (base, Some(name))
        }
        _ => return Err("FROM takes an image, and then perhaps `AS name`".to_owned()),
    };
    Ok(Stage {
        text: text.to_owned(),
        line,
        base: base.clone(),
        platform,
        name,
        instructions: Vec::new(),
    })
}

/// Any other instruction. `keyword` is in upper case.
pub(super) fn parse(
    keyword: &str,
    rest: &str,
    heredocs: &[Heredoc],
    escape: char,
) -> Result<Kind, String> {
    let need = |what: &str| format!("{keyword} takes {what}");
    if rest.is_empty() && !matches!(keyword, "CMD" | "ENTRYPOINT") && is_known(keyword) {
        return Err(format!("{keyword} says nothing"));
    }
    Ok(match keyword {
        "ARG" => Kind::Arg(arguments(rest, escape)?),
        "COPY" | "ADD" => Kind::Copy(copy(keyword, rest, heredocs, escape)?),
        "ENV" => Kind::Env(pairs(keyword, rest, escape)?),
        "LABEL" => Kind::Label(pairs(keyword, rest, escape)?),
        "WORKDIR" => Kind::Workdir(rest.to_owned()),
        "USER" => Kind::User(rest.to_owned()),
        "STOPSIGNAL" => Kind::StopSignal(single(rest, escape).ok_or_else(|| need("one signal"))?),
        "EXPOSE" => Kind::Expose(split(rest, escape)),
        "VOLUME" => Kind::Volume(json(rest).unwrap_or_else(|| split(rest, escape))),
        "CMD" => Kind::Cmd(command(rest)),
        "ENTRYPOINT" => Kind::Entrypoint(command(rest)),
        "SHELL" => Kind::Shell(
            json(rest)
                .filter(|words| !words.is_empty())
                .ok_or_else(|| need("the JSON form, such as [\"/bin/sh\", \"-c\"]"))?,
        ),
        "HEALTHCHECK" => Kind::Healthcheck(healthcheck(rest, escape)?),
        "RUN" => Kind::Run(run(rest, heredocs, escape)?),
        "ONBUILD" => {
            let mut text = rest.to_owned();
            for heredoc in heredocs {
                text.push('\n');
                text.push_str(&heredoc.written());
            }
            super::parse_trigger(&text, 0, escape)
                .map_err(|reason| format!("ONBUILD: {reason}"))?;
            Kind::OnBuild(text)
        }
        "MAINTAINER" => Kind::Maintainer(rest.to_owned()),
        _ => return Err(format!("{} is not an instruction", cut(keyword))),
    })
}

fn is_known(keyword: &str) -> bool {
    matches!(
        keyword,
        "ARG"
            | "COPY"
            | "ADD"
            | "ENV"
            | "LABEL"
            | "WORKDIR"
            | "USER"
            | "STOPSIGNAL"
            | "EXPOSE"
            | "VOLUME"
            | "SHELL"
            | "HEALTHCHECK"
            | "MAINTAINER"
            | "ONBUILD"
            | "RUN"
    )
}

/// `--name[=value]` words at the beginning, and what follows them.
fn flags(rest: &str, escape: char) -> (Vec<(String, Option<String>)>, &str) {
    let mut flags = Vec::new();
    let mut rest = rest.trim_start();
    while rest.starts_with("--") {
        // Words keep all of their characters, so the word's length is that of its text.
        let word = split(rest, escape).into_iter().next().unwrap_or_default();
        let flag = &rest[2..word.len()];
        rest = rest[word.len()..].trim_start();
        if flag.is_empty() {
            break;
        }
        match flag.split_once('=') {
            Some((name, value)) => flags.push((name.to_owned(), Some(value.to_owned()))),
            None => flags.push((flag.to_owned(), None)),
        }
    }
    (flags, rest)
}

fn run(rest: &str, heredocs: &[Heredoc], escape: char) -> Result<Run, String> {
    let (flags, rest) = flags(rest, escape);
    let mut run = Run {
        command: command(rest),
        heredocs: heredocs.to_vec(),
        mounts: Vec::new(),
        network: None,
    };
    for (name, value) in flags {
        match (name.as_str(), value) {
            ("mount", Some(text)) => {
                // With variables only the builder can say more.
                if !text.contains('$') {
                    mount::parse(&text, &|value| Ok(value.to_owned()))
                        .map_err(|reason| format!("RUN {reason}"))?;
                }
                run.mounts.push(text);
            }
            ("network", Some(network))
                if matches!(network.as_str(), "default" | "none" | "host") =>
            {
                run.network = Some(network);
            }
            ("network", _) => {
                return Err("RUN --network is default, none or host".to_owned());
            }
            ("security", Some(mode)) if mode == "sandbox" => {}
            ("security", _) => {
                return Err(
                    "RUN --security=insecure is not possible: build steps never get more rights than a container has"
                        .to_owned(),
                );
            }
            ("device", _) => {
                return Err("RUN --device is not supported by this builder".to_owned());
            }
            _ => return Err(format!("RUN does not know the flag --{}", cut(&name))),
        }
    }
    match &run.command {
        Command::Exec(words) if words.first().is_none_or(String::is_empty) => {
            Err("RUN has an empty command".to_owned())
        }
        Command::Shell(line) if line.is_empty() => Err("RUN says nothing".to_owned()),
        Command::Exec(_) | Command::Shell(_) => Ok(run),
    }
}

fn copy(keyword: &str, rest: &str, heredocs: &[Heredoc], escape: char) -> Result<Copy, String> {
    let (flags, rest) = flags(rest, escape);
    let mut copy = Copy {
        is_add: keyword == "ADD",
        from: None,
        chown: None,
        chmod: None,
        parents: false,
        excludes: Vec::new(),
        checksum: None,
        unpack: None,
        sources: Vec::new(),
        heredocs: heredocs.to_vec(),
        destination: String::new(),
    };
    for (name, value) in flags {
        let flag = || match value.as_deref() {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!(
                "{keyword} --{name} is true or false, not {}",
                cut(other)
            )),
        };
        match name.as_str() {
            // Every layer of this builder is made by itself, which is all that --link asks for.
            "link" => {
                flag()?;
                continue;
            }
            "parents" if !copy.is_add => {
                copy.parents = flag()?;
                continue;
            }
            "unpack" if copy.is_add => {
                copy.unpack = Some(flag()?);
                continue;
            }
            // It concerns only git, which is refused when the source is known.
            "keep-git-dir" if copy.is_add => continue,
            _ => {}
        }
        let value = value.filter(|value| !value.is_empty());
        let filled = value.ok_or_else(|| format!("{keyword} has --{name} without a value"));
        match name.as_str() {
            "from" if !copy.is_add => {
                let from = filled?;
                if from.contains('$') {
                    return Err(format!(
                        "{keyword} has --from={}: no variables are put in there; name a stage with FROM {0} AS ...",
                        cut(&from)
                    ));
                }
                copy.from = Some(from);
            }
            "chown" => copy.chown = Some(filled?),
            "chmod" => copy.chmod = Some(filled?),
            "exclude" => copy.excludes.push(filled?),
            "checksum" if copy.is_add => copy.checksum = Some(filled?),
            _ => return Err(format!("{keyword} does not know the flag --{}", cut(&name))),
        }
    }
    let mut words = json(rest).unwrap_or_else(|| split(rest, escape));
    copy.destination = words.pop().unwrap_or_default();
    words.retain(|word| copy.heredocs.is_empty() || heredoc::open(word).is_none());
    copy.sources = words;
    let opens_none = heredoc::open(&copy.destination).is_none();
    if (copy.sources.is_empty() && copy.heredocs.is_empty()) || !opens_none {
        return Err(format!(
            "{keyword} takes at least one source and a destination"
        ));
    }
    if copy.from.is_some() && !copy.heredocs.is_empty() {
        return Err(format!("{keyword} cannot take a heredoc --from elsewhere"));
    }
    Ok(copy)
}

fn arguments(rest: &str, escape: char) -> Result<Vec<(String, Option<String>)>, String> {
    let words = split(rest, escape).into_iter().map(|word| {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        let first = name.chars().next();
        let fits = first.is_some_and(|c| c == '_' || c.is_ascii_alphabetic())
            && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
        if fits {
            Ok((name, value))
        } else {
            Err(format!("ARG cannot be named {:?}", cut(&name)))
        }
    });
    words.collect()
}

/// `name=value...`, or the old form `name the whole rest`.
fn pairs(keyword: &str, rest: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = split(rest, escape);
    let old_form = words.first().is_some_and(|word| !word.contains('='));
    if old_form {
        let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let value = value.trim();
        if value.is_empty() {
            return Err(format!("{keyword} {} has no value", cut(name)));
        }
        return Ok(vec![(name.to_owned(), value.to_owned())]);
    }
    let pairs = words.into_iter().map(|word| match word.split_once('=') {
        Some(("", _)) => Err(format!(
            "{keyword} has a value without a name: {}",
            cut(&word)
        )),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(format!(
            "{keyword} has {} without a `=`; quote a value that has spaces",
            cut(&word)
        )),
    });
    pairs.collect()
}

fn command(rest: &str) -> Command {
    match json(rest) {
        Some(words) => Command::Exec(words),
        None => Command::Shell(rest.to_owned()),
    }
}

fn healthcheck(rest: &str, escape: char) -> Result<Option<HealthcheckOptions>, String> {
    let (flags, rest) = flags(rest, escape);
    let (keyword, rest) = super::split_keyword(rest);
    if keyword.eq_ignore_ascii_case("NONE") {
        return if rest.is_empty() && flags.is_empty() {
            Ok(None)
        } else {
            Err("HEALTHCHECK NONE takes nothing else".to_owned())
        };
    }
    if !keyword.eq_ignore_ascii_case("CMD") || rest.is_empty() {
        return Err("HEALTHCHECK takes `NONE` or `CMD` and a command".to_owned());
    }
    let mut options = HealthcheckOptions {
        command: command(rest),
        interval_ns: None,
        timeout_ns: None,
        start_period_ns: None,
        start_interval_ns: None,
        retries: None,
    };
    if options.command == Command::Exec(Vec::new()) {
        return Err("HEALTHCHECK CMD has an empty command".to_owned());
    }
    for (name, value) in flags {
        let text = value.unwrap_or_default();
        let field = match name.as_str() {
            "interval" => &mut options.interval_ns,
            "timeout" => &mut options.timeout_ns,
            "start-period" => &mut options.start_period_ns,
            "start-interval" => &mut options.start_interval_ns,
            "retries" => {
                let retries = text.parse().map_err(|_| {
                    format!(
                        "HEALTHCHECK has --retries={}, which is no number",
                        cut(&text)
                    )
                })?;
                options.retries = Some(retries);
                continue;
            }
            _ => {
                return Err(format!(
                    "HEALTHCHECK does not know the flag --{}",
                    cut(&name)
                ));
            }
        };
        let ns = duration_ns(&text).ok_or_else(|| {
            format!(
                "HEALTHCHECK has --{name}={}, which is no duration such as 30s or 1m30s",
                cut(&text)
            )
        })?;
        if (1..1_000_000).contains(&ns) {
            return Err(format!(
                "HEALTHCHECK has --{name}={text}, which is less than a millisecond"
            ));
        }
        *field = Some(ns);
    }
    Ok(Some(options))
}

/// Go's durations, not negative: `1h`, `1m30s`, `1.5s`, `100ms`, `0`.
fn duration_ns(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit_ns: f64 = match &rest[..unit_end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        rest = &rest[unit_end..];
        let ns = number * unit_ns;
        // Go's durations end at i64, some 292 years.
        if !(0.0..9e18).contains(&ns) {
            return None;
        }
        total = total
            .checked_add(ns.round() as u64)
            .filter(|ns| *ns < 1 << 63)?;
    }
    (!text.is_empty()).then_some(total)
}

/// A JSON array of strings; `None` for anything else, which then is the shell form, as Docker has it.
fn json(rest: &str) -> Option<Vec<String>> {
    if !rest.starts_with('[') {
        return None;
    }
    serde_json::from_str(rest).ok()
}

fn single(rest: &str, escape: char) -> Option<String> {
    let mut words = split(rest, escape).into_iter();
    words.next().filter(|_| words.next().is_none())
}

/// User text in an error, of bounded length.
fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
