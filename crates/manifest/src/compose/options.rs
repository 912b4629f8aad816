//! How closely a service is fenced in: capabilities, privileges, limits of processes, its terminal.

use std::collections::BTreeMap;

use layby_model::options::{ContainerOptions, Ulimit};

use crate::capability::capability;
use crate::compose::devices;
use crate::fields::{Expected, Fields, parsed};
use crate::report::Report;
use crate::tree::{Node, Value, cut};
use crate::units::compose_bytes;

/// What setrlimit(2) knows, without `RLIMIT_`, in lower case.
const LIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Takes the options of the container off a service.
pub(crate) fn read(service: &mut Fields, report: &mut Report) -> ContainerOptions {
    let security = security(service, report);
    let devices = devices::read(service, report);
    let options = ContainerOptions {
        cap_add: service.parsed_list("cap_add", report, capability),
        cap_drop: service.parsed_list("cap_drop", report, capability),
        privileged: service.flag("privileged", report).unwrap_or(false),
        read_only: service.flag("read_only", report).unwrap_or(false),
        no_new_privileges: security.no_new_privileges,
        seccomp: security.seccomp,
        ulimits: ulimits(service, report),
        shm_size_bytes: service
            .parsed("shm_size", report, compose_bytes)
            .filter(|bytes| *bytes > 0),
        init: service.flag("init", report).unwrap_or(false),
        hold: false,
        devices: devices.devices,
        cdi_devices: devices.cdi,
        group_add: service.parsed_list("group_add", report, group),
        tty: service.flag("tty", report).unwrap_or(false),
        oom_score_adj: service.parsed("oom_score_adj", report, |text| match text.parse() {
            Ok(adjustment @ -1000..=1000) => Ok(adjustment),
            _ => Err("a whole number from -1000 to 1000".to_owned()),
        }),
        cpuset: service.parsed("cpuset", report, cpuset),
        cpu_shares: service
            .number("cpu_shares", 0..=262_144, report)
            .filter(|shares| *shares > 0),
    };
    let open_at = service.place_of("stdin_open");
    let open = service.flag("stdin_open", report).unwrap_or(false);
    // A terminal is never at its end; anything else is from the start.
    if let Some(place) = open_at
        && open
        && !options.tty
    {
        let message = format!(
            "{} is ignored: without \"tty\" a service has no standard input",
            service.name("stdin_open")
        );
        report.warn(&place, message);
    }
    options
}

#[derive(Default)]
struct Security {
    no_new_privileges: Option<bool>,
    seccomp: Option<String>,
}

/// `security_opt`, parted by `=` or `:`.
fn security(service: &mut Fields, report: &mut Report) -> Security {
    let mut security = Security::default();
    let name = service.name("security_opt");
    let item_name = format!("an item of {name}");
    for item in service.list("security_opt", report).unwrap_or_default() {
        let Some(text) = parsed(&item, &item_name, report, |text| Ok(text.to_owned())) else {
            continue;
        };
        let (key, value) = text.split_once(['=', ':']).unwrap_or((&text, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = Some(true),
            ("no-new-privileges", "false") => security.no_new_privileges = Some(false),
            ("seccomp", "unconfined") => security.seccomp = Some("unconfined".to_owned()),
            ("seccomp", "builtin") => security.seccomp = None,
            ("seccomp", _) => report.error(
                &item.place,
                format!("{item_name} asks for a filter of its own: seccomp=unconfined is supported, and the usual filter where nothing is said"),
            ),
            ("label" | "apparmor" | "systempaths", _) => report.warn(
                &item.place,
                format!("{item_name} is ignored: {:?} is not supported yet", cut(key)),
            ),
            _ => report.error(
                &item.place,
                format!("{item_name} must be no-new-privileges, seccomp=unconfined, label=... or apparmor=..., not {:?}", cut(&text)),
            ),
        }
    }
    security
}

/// `ulimits`: a number for both limits, or `soft` and `hard`.
fn ulimits(service: &mut Fields, report: &mut Report) -> BTreeMap<String, Ulimit> {
    let Some(mut map) = service.map("ulimits", report) else {
        return BTreeMap::new();
    };
    map.accept_extensions();
    let mut limits = BTreeMap::new();
    for entry in map.rest() {
        let name = format!("{:?} in {}", cut(&entry.key), map.what);
        if !LIMITS.contains(&entry.key.as_str()) {
            let message = format!("{name} is no limit of a process: nofile or memlock are such");
            report.error(&entry.place, message);
            continue;
        }
        let limit = match entry.value.value {
            Value::Map(_) => soft_and_hard(entry.value, name, report),
            _ => parsed(&entry.value, &name, report, limit).map(|limit| Ulimit {
                soft: limit,
                hard: limit,
            }),
        };
        limits.extend(limit.map(|limit| (entry.key, limit)));
    }
    limits
}

fn soft_and_hard(node: Node, name: String, report: &mut Report) -> Option<Ulimit> {
    let mut fields = Fields::open(node, name, report)?;
    let place = fields.place.clone();
    let soft = fields.parsed("soft", report, limit);
    let hard = fields.parsed("hard", report, limit);
    fields.accept_extensions();
    let what = fields.what.clone();
    fields.finish(report);
    let (Some(soft), Some(hard)) = (soft, hard) else {
        report.error(
            &place,
            format!("{what} must have both \"soft\" and \"hard\""),
        );
        return None;
    };
    let is_over = match (soft, hard) {
        (Some(soft), Some(hard)) => soft > hard,
        (None, Some(_)) => true,
        (_, None) => false,
    };
    if is_over {
        report.error(&place, format!("{what} has a soft limit over the hard one"));
        return None;
    }
    Some(Ulimit { soft, hard })
}

/// A limit; -1 is none.
fn limit(text: &str) -> Result<Option<u64>, Expected> {
    match text {
        "-1" | "unlimited" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| "a whole number, or -1 for no limit".to_owned()),
    }
}

/// A group by name or number.
pub(crate) fn group(text: &str) -> Result<String, Expected> {
    let is_group = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if !text.is_empty() && text.chars().all(is_group) {
        Ok(text.to_owned())
    } else {
        Err("the name or number of a group".to_owned())
    }
}

/// CPUs as `0-2,4` (cpuset(7), "List format").
fn cpuset(text: &str) -> Result<String, Expected> {
    let expected = || "CPUs such as 0-2,4".to_owned();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        match (from.parse::<u16>(), to.parse::<u16>()) {
            (Ok(from), Ok(to)) if from <= to => {}
            _ => return Err(expected()),
        }
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_listed_with_commas_and_ranges() {
        for good in ["0", "0-2,4", "1,3"] {
            assert!(cpuset(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "2-1", "0,", "-1", "0-1-2"] {
            assert!(cpuset(bad).is_err(), "{bad}");
        }
    }
}
