//! How services look on a terminal.

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use layby_control::api::types::{
    AbortedView, ContainerView, DeadlineView, ExitView, ReplicaView, ServiceDetail, ServiceView,
    SizeView,
};
use layby_model::{State, power};
use nix::sys::signal::Signal;

use crate::commands::canary;
use crate::out::say;
use crate::{events, moment};

/// A plain table: columns apart by spaces, as other tools of the kind print them.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Prints the table without spaces at line ends.
pub(crate) fn print(table: &Table) {
    for line in table.to_string().lines() {
        say!("{}", line.trim_end());
    }
}

/// `RUNNING, awake` or just the state; with what became of the revision deployed last, if it is not live:
/// `RUNNING, awake (revision 2 aborted by ann)`; and `RUNNING, waking (crash loop)`. Of a service that never ran only that: it is
/// ready for a deploy, but who reads `READY` takes it for ready to be used.
pub(crate) fn state(service: &ServiceView) -> String {
    let state = text(&service.state);
    match (service.state, service.failed_revision, &service.aborted) {
        (State::Ready, Some(revision), _) => return format!("FAILED (revision {revision})"),
        (State::Ready, None, Some(AbortedView { revision, by })) => {
            return format!("ABORTED (revision {revision}, by {by})");
        }
        (State::Ready, None, None)
        | (State::Disabled | State::Deploying | State::Updating | State::Running, _, _) => {}
    }
    let state = match &service.wakefulness {
        Some(wakefulness) => format!("{state}, {}", text(wakefulness)),
        None => state,
    };
    let note = match (&service.canary, service.failed_revision, &service.aborted) {
        (Some(canary), _, _) => canary::short(canary),
        (None, Some(revision), _) => format!("revision {revision} failed"),
        (None, None, Some(AbortedView { revision, by })) => {
            format!("revision {revision} aborted by {by}")
        }
        (None, None, None) if service.crash_loop => "crash loop".to_owned(),
        (None, None, None) => return state,
    };
    format!("{state} ({note})")
}

/// Whether it was switched off.
pub(crate) fn is_disabled(service: &ServiceView) -> bool {
    service.state == State::Disabled
}

/// What serde calls a plain enum value.
pub(crate) fn text(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// The lines that say where a service is reached.
///
/// `gateway` is where it listens: names below `.localhost` resolve in browsers and curl, but not in every program.
pub(crate) fn addresses(service: &ServiceView, gateway: &str) -> Vec<String> {
    let mut lines = service.urls.clone();
    let host = lines
        .first()
        .and_then(|url| url.strip_prefix("http://"))
        .map(|rest| {
            let authority = rest.trim_end_matches('/');
            authority
                .rsplit_once(':')
                .map_or(authority, |(host, _)| host)
                .to_owned()
        });
    // Of a pattern nobody can say which name is meant.
    let is_name = |host: &String| !host.starts_with(|c: char| c.is_ascii_digit() || c == '*');
    if let Some(host) = host.filter(is_name) {
        let gateway = gateway.replace("0.0.0.0", "127.0.0.1");
        lines.insert(1, format!("curl -H 'Host: {host}' http://{gateway}/"));
    }
    lines
}

/// Prints the services as a table.
pub(crate) fn services(services: &[ServiceView]) {
    let mut table = table(&[
        "APP", "SERVICE", "STATE", "READY", "POWER", "REVISION", "IMAGE", "URL",
    ]);
    for service in services {
        table.add_row(vec![
            service.app.to_string(),
            service.service.to_string(),
            state(service),
            format!("{}/{}", service.replicas_ready, service.replicas_wanted),
            size(service),
            service.revision.to_string(),
            service.image.clone(),
            service
                .urls
                .first()
                .cloned()
                .unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    print(&table);
}

/// `small x 2`: power and scale; `- x 2` where it has no power, `- x 2 (0-4)` where what it has to do scales it.
fn size(service: &ServiceView) -> String {
    let power = service.power.as_deref().unwrap_or("-");
    let range = service
        .scales
        .map(|range| format!(" ({}-{})", range.min, range.max));
    let replicas = service.replicas_wanted;
    format!("{power} x {replicas}{}", range.unwrap_or_default())
}

/// What a service's limits are, and whether `layby power` said so.
fn power_notes(size: &SizeView) -> Vec<String> {
    let limits: Vec<String> = [
        size.cpu_limit_milli
            .map(|milli| format!("{} CPU", power::cpu(milli))),
        size.memory_limit_bytes.map(power::memory),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut notes = Vec::new();
    if !limits.is_empty() {
        notes.push(limits.join(", "));
    }
    if size.power_by_hand {
        notes.push("by `layby power`".to_owned());
    }
    notes
}

/// `small (0.5 CPU, 1 GB; by `layby power`)`; of limits that have no name `no power (0.3 CPU)`.
pub(crate) fn power_line(detail: &ServiceDetail) -> String {
    let power = detail.view.power.as_deref().unwrap_or("no power");
    let notes = power_notes(&detail.size);
    match (notes.is_empty(), &detail.view.power) {
        (true, Some(_)) => power.to_owned(),
        (true, None) => format!("{power}, and no limits"),
        (false, _) => format!("{power} ({})", notes.join("; ")),
    }
}

/// `small x 2 (0.5 CPU, 1 GB; by `layby power`)`: power and scale with what they mean, and whose word they are.
fn size_line(detail: &ServiceDetail) -> String {
    let size = &detail.size;
    let mut notes = power_notes(size);
    if size.scale.is_some() {
        // Most manifests say nothing of it.
        let without = size.manifest_replicas;
        notes.push(format!("by `layby scale`, {without} without it"));
    }
    match notes.is_empty() {
        true => self::size(&detail.view),
        false => format!("{} ({})", self::size(&detail.view), notes.join("; ")),
    }
}

/// Prints one service whole.
pub(crate) fn detail(detail: &ServiceDetail, gateway: &str) {
    let view = &detail.view;
    say!("{}/{}", view.app, view.service);
    say!("  state     {}", state(view));
    say!("  revision  {}, image {}", view.revision, view.image);
    if let Some(cause) = &detail.cause {
        say!("  cause     {cause}");
    }
    say!(
        "  ready     {} of {}",
        view.replicas_ready,
        view.replicas_wanted
    );
    say!("  power     {}", size_line(detail));
    for line in view
        .canary
        .iter()
        .flat_map(|canary| canary::lines(canary, view))
    {
        say!("  canary    {line}");
    }
    for (number, line) in addresses(view, gateway).iter().enumerate() {
        say!("  {:<8}  {line}", if number == 0 { "address" } else { "" });
    }
    if let Some(address) = &view.virtual_address {
        say!("  inside    {}.{}, {address}", view.service, view.app);
    }
    say!("  deadline  {}", deadline(&detail.deadline));
    if let Some(wake) = &detail.last_wake {
        let held = wake.held_ms.map_or_else(
            || "by command".to_owned(),
            |ms| format!("a request was held {ms:.1} ms"),
        );
        say!(
            "  last wake from {}, ready in {:.1} ms ({held})",
            text(&wake.from),
            wake.ready_ms
        );
    }
    for condition in &detail.conditions {
        say!("  ! {condition}");
    }
    if let Some(failure) = &detail.last_failure {
        say!("  last failure:");
        for line in events::explain(failure) {
            say!("  {line}");
        }
    }
    if detail.replicas.is_empty() {
        return;
    }
    let mut replicas = table(&[
        "REPLICA",
        "PHASE",
        "ADDRESS",
        "CONTAINER",
        "PID",
        "RESTARTS",
        "LAST EXIT",
    ]);
    for replica in &detail.replicas {
        for container in &replica.containers {
            replicas.add_row(vec![
                replica.id.to_string(),
                text(&replica.phase),
                replica.address.clone().unwrap_or_else(|| "-".to_owned()),
                match container.init {
                    true => format!("{} (init)", container.name),
                    false => container.name.clone(),
                },
                container
                    .pid
                    .map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                match container.init {
                    true => container.restarts.to_string(),
                    // Those before it in its place were replaced where others would have been restarted.
                    false => container
                        .restarts
                        .saturating_add(replica.deaths)
                        .to_string(),
                },
                last_exit(replica, container, Timestamp::now()),
            ]);
        }
    }
    print(&replicas);
}

/// `30 s (learned: 3 rollouts took up to 1.2 s), 300 s while its log or image moves`.
fn deadline(deadline: &DeadlineView) -> String {
    let how = match (deadline.is_said, deadline.boots_ms.iter().max()) {
        (true, _) => return seconds(deadline.still_ms),
        (false, None) => "nothing is learned yet".to_owned(),
        (false, Some(slowest)) => {
            let rollouts = match deadline.boots_ms.len() {
                1 => "1 rollout".to_owned(),
                n => format!("{n} rollouts"),
            };
            format!("learned: {rollouts} took up to {}", seconds(*slowest))
        }
    };
    let (still, max) = (seconds(deadline.still_ms), seconds(deadline.max_ms));
    format!("{still} ({how}), {max} while its log or image moves")
}

/// `300 s`, or `1.5 s`.
fn seconds(ms: u64) -> String {
    match ms.is_multiple_of(1_000) || ms >= 60_000 {
        true => format!("{} s", ms.div_ceil(1_000)),
        false => format!("{:.1} s", ms as f64 / 1_000.0),
    }
}

/// How a container ended last, and how long ago: `3, 5 min ago`; or what the liveness probe of the replica before it said.
fn last_exit(replica: &ReplicaView, container: &ContainerView, now: Timestamp) -> String {
    let how = container.last_exit.as_ref().map(exit);
    let at_ms = container.last_exit_ms.and_then(|ms| i64::try_from(ms).ok());
    match (how, at_ms) {
        (None, _) => match replica.last_death.as_ref().filter(|_| !container.init) {
            Some(said) => format!("liveness probe: {said}"),
            None => "-".to_owned(),
        },
        (Some(how), None) => how,
        (Some(how), Some(at_ms)) => {
            let ago_ms = now.as_millisecond().saturating_sub(at_ms);
            format!("{how}, {} ago", moment::span(ago_ms / 1000))
        }
    }
}

/// `3`, `137, SIGKILL`, `137, out of memory`.
fn exit(exit: &ExitView) -> String {
    let signal = Signal::try_from(exit.code - 128).ok();
    match (exit.oom, signal) {
        (true, _) => format!("{}, out of memory", exit.code),
        (false, Some(signal)) => format!("{}, {signal}", exit.code),
        (false, None) => exit.code.to_string(),
    }
}
