//! What a fake replica does, as its image's name says.

use std::time::Duration;

use layby_model::replica::Exit;
use layby_model::spec::ContainerSpec;

/// What a replica does. The table stands in the parent module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Script {
    /// Why it cannot be prepared or started.
    pub(super) fault: Option<Fault>,
    /// From its start to its first answer; `None`: never.
    pub(super) answers_after: Option<Duration>,
    /// After having run so long, this happens.
    pub(super) fate: Option<(Duration, Fate)>,
    /// How long it takes to stop.
    pub(super) stops_after: Duration,
    /// Its log does not come when it is asked for.
    pub(super) log_is_stuck: bool,
}

/// What cannot be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The image is missing.
    MissingImage,
    /// The command is missing.
    MissingCommand,
    /// The disk is full.
    FullDisk,
}

/// What becomes of a running replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its first container ends so.
    Ends(Exit),
    /// It is lost.
    Vanishes,
}

const OK: Script = Script {
    fault: None,
    answers_after: Some(Duration::from_millis(5)),
    fate: None,
    stops_after: Duration::from_millis(5),
    log_is_stuck: false,
};

impl Script {
    /// What a replica does whose first container this is.
    pub(super) fn of(container: &ContainerSpec) -> Self {
        match Self::of_command(container.entrypoint.as_deref().unwrap_or_default()) {
            _ if container.options.hold => OK,
            Some(script) => script,
            None => Self::of_image(&container.image),
        }
    }

    /// Reads a command; `None`: it is none that is known.
    fn of_command(argv: &[String]) -> Option<Self> {
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        let (after, code) = match words.as_slice() {
            ["true"] | ["echo", ..] => (Duration::ZERO, 0),
            ["false"] => (Duration::ZERO, 1),
            ["exit", code] => (Duration::ZERO, code.parse().ok()?),
            ["sleep", length] => (parse_length(length)?, 0),
            _ => return None,
        };
        let exit = Exit { code, oom: false };
        Some(Self {
            fate: Some((after, Fate::Ends(exit))),
            ..OK
        })
    }

    /// Reads an image's name.
    pub(super) fn of_image(image: &str) -> Self {
        let Some((_, order)) = image.rsplit_once("fake/") else {
            return OK;
        };
        let (name, argument) = order.split_once(':').unwrap_or((order, ""));
        let length = parse_length(argument).unwrap_or(Duration::from_millis(100));
        let ends = |after, code, oom| Some((after, Fate::Ends(Exit { code, oom })));
        let fault = |fault| Script {
            fault: Some(fault),
            ..OK
        };
        match name {
            "slow" => Script {
                answers_after: Some(length),
                ..OK
            },
            "hangs" => Script {
                answers_after: None,
                ..OK
            },
            "exits" => Script {
                fate: ends(Duration::ZERO, argument.parse().unwrap_or(1), false),
                ..OK
            },
            "oom" => Script {
                fate: ends(Duration::ZERO, 137, true),
                ..OK
            },
            "crashes-after" => Script {
                fate: ends(length, 1, false),
                ..OK
            },
            "vanishes-after" => Script {
                fate: Some((length, Fate::Vanishes)),
                ..OK
            },
            "slow-stop" => Script {
                stops_after: length,
                ..OK
            },
            "stuck-log" => Script {
                fate: ends(Duration::ZERO, 0, false),
                log_is_stuck: true,
                ..OK
            },
            "missing" => fault(Fault::MissingImage),
            "no-command" => fault(Fault::MissingCommand),
            "full-disk" => fault(Fault::FullDisk),
            _ => OK,
        }
    }
}

/// What a container writes whose entrypoint is to say something.
pub(super) fn says(container: &ContainerSpec) -> Option<String> {
    match container.entrypoint.as_deref()? {
        [echo, words @ ..] if echo == "echo" => Some(words.join(" ")),
        _ => None,
    }
}

/// Reads `5ms`, `2s` or `1m`.
pub(super) fn parse_length(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let count: u64 = digits.parse().ok()?;
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return None,
    };
    Some(Duration::from_millis(count.checked_mul(unit_ms)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_and_the_tag_latest_do_not_matter() {
        for image in ["fake/ok", "docker.io/fake/ok:latest", "mnist:1.1.0", ""] {
            assert_eq!(Script::of_image(image), OK, "{image}");
        }
        let hangs = Script::of_image("docker.io/fake/hangs:latest");
        assert_eq!(hangs.answers_after, None);
    }

    #[test]
    fn an_argument_stands_where_a_tag_does() {
        let exits = Script::of_image("fake/exits:3");
        let exit = Exit {
            code: 3,
            oom: false,
        };
        assert_eq!(exits.fate, Some((Duration::ZERO, Fate::Ends(exit))));
        let slow = Script::of_image("fake/slow:2s");
        assert_eq!(slow.answers_after, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_length_has_a_unit() {
        assert_eq!(parse_length("5ms"), Some(Duration::from_millis(5)));
        assert_eq!(parse_length("1m"), Some(Duration::from_secs(60)));
        for bad in ["", "5", "ms", "-1s", "5h", "99999999999999999999s"] {
            assert_eq!(parse_length(bad), None, "{bad}");
        }
    }
}
