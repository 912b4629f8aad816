//! One instruction's words to what it says. Errors name the instruction; the caller adds the line.

use super::words::split;
use super::{Command, Copy, HealthcheckOptions, Kind, Stage};

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
pub(super) fn parse(keyword: &str, rest: &str, escape: char) -> Result<Kind, String> {
    let need = |what: &str| format!("{keyword} takes {what}");
    if rest.is_empty()
        && !matches!(keyword, "CMD" | "ENTRYPOINT" | "RUN" | "ONBUILD")
        && is_known(keyword)
    {
        return Err(format!("{keyword} says nothing"));
    }
    Ok(match keyword {
        "ARG" => Kind::Arg(arguments(rest, escape)?),
        "COPY" | "ADD" => Kind::Copy(copy(keyword, rest, escape)?),
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
        "RUN" => {
            return Err(
                "RUN is not supported yet by this builder; build what it makes beforehand and COPY it, or build the image elsewhere and load it with `layby image load`"
                    .to_owned(),
            );
        }
        "ONBUILD" => {
            return Err(
                "ONBUILD is not supported yet by this builder; write the instruction where it is needed".to_owned(),
            );
        }
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

fn copy(keyword: &str, rest: &str, escape: char) -> Result<Copy, String> {
    let (flags, rest) = flags(rest, escape);
    let mut copy = Copy {
        is_add: keyword == "ADD",
        from: None,
        chown: None,
        chmod: None,
        sources: Vec::new(),
        destination: String::new(),
    };
    for (name, value) in flags {
        let field = match name.as_str() {
            "from" if !copy.is_add => &mut copy.from,
            "chown" => &mut copy.chown,
            "chmod" => &mut copy.chmod,
            // Every layer of this builder is made by itself, which is all that --link asks for.
            "link" => continue,
            _ => return Err(format!("{keyword} does not know the flag --{}", cut(&name))),
        };
        let value = value.filter(|value| !value.is_empty());
        *field = Some(value.ok_or_else(|| format!("{keyword} has --{name} without a value"))?);
    }
    if rest.starts_with("<<") {
        return Err(format!(
            "{keyword} of a heredoc is not supported yet by this builder; COPY a file"
        ));
    }
    copy.sources = json(rest).unwrap_or_else(|| split(rest, escape));
    copy.destination = copy.sources.pop().unwrap_or_default();
    if copy.sources.is_empty() {
        return Err(format!(
            "{keyword} takes at least one source and a destination"
        ));
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
