//! `layby top`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::Result;
use layby_control::api::types::UsageView;
use serde::Serialize;

use crate::cli::Top;
use crate::client::Client;
use crate::commands::services;
use crate::out::say;
use crate::show;
use crate::terminal::{self, Raw, Screen};

/// How long a single look watches, to tell what is used at present.
const ONCE_MS: u64 = 500;
/// From one look to the next.
const LEAST_MS: u64 = 100;

/// One line: what a replica uses at present.
#[derive(Debug, Clone, Serialize)]
struct Line {
    app: String,
    service: String,
    replica: String,
    /// 100 is one core.
    cpu_percent: f64,
    memory_bytes: u64,
    memory_limit_bytes: Option<u64>,
    network_in_bytes_per_s: f64,
    network_out_bytes_per_s: f64,
    disk_read_bytes_per_s: f64,
    disk_write_bytes_per_s: f64,
    disk_bytes: u64,
    pids: u64,
}

/// Shows what services use: live on a terminal, else once.
///
/// # Errors
/// No node answers, or a name fits none.
pub(crate) async fn top(client: &Client, options: &Top) -> Result<()> {
    let mut query = vec![("watch", "true".to_owned())];
    let names = services::find_all(client, &options.names).await?;
    query.extend(names.into_iter().map(|name| ("service", name)));
    let live = !options.once && (options.json.json || std::io::stdout().is_terminal());
    let interval_ms = match live {
        true => ((options.interval * 1000.0) as u64).max(LEAST_MS),
        false => ONCE_MS,
    };
    query.push(("interval_ms", interval_ms.to_string()));
    let mut looks = client.get_lines("/v1/usage", &query).await?;
    let mut rates = Rates::default();
    let mut full = false;
    let mut screen = None;
    let (mut keys, _raw) = match live && !options.json.json && terminal::is_interactive() {
        true => (Some(terminal::input()), Some(Raw::enter()?)),
        false => (None, None),
    };
    let mut ended = Box::pin(until_ended());
    loop {
        let views = tokio::select! {
            views = looks.next::<Vec<UsageView>>() => views?,
            () = asked_to_end(&mut keys) => return Ok(()),
            () = &mut ended => return Ok(()),
        };
        let Some(views) = views else {
            drop(screen);
            anyhow::bail!("the node closed the connection: see its log");
        };
        let mut lines = rates.lines(views, Instant::now());
        lines.sort_by(|a, b| b.cpu_percent.total_cmp(&a.cpu_percent));
        // The first look has nothing to be compared with.
        if !std::mem::replace(&mut full, true) {
            continue;
        }
        match (options.json.json, live) {
            (true, _) => say!("{}", serde_json::to_string(&lines)?),
            (false, false) => show::print(&table(&lines)),
            (false, true) => {
                let text = table(&lines).to_string();
                let mut shown: Vec<String> = text.lines().map(str::to_owned).collect();
                if lines.is_empty() {
                    shown.push("Nothing runs: what sleeps uses nothing.".to_owned());
                }
                screen.get_or_insert_with(Screen::open).show(&shown);
            }
        }
        if !live {
            return Ok(());
        }
    }
}

/// Waits for `q`, Ctrl-C or Ctrl-D.
async fn asked_to_end(keys: &mut Option<tokio::sync::mpsc::Receiver<Vec<u8>>>) {
    let Some(keys) = keys else {
        return std::future::pending().await;
    };
    while let Some(pressed) = keys.recv().await {
        if pressed.iter().any(|key| matches!(key, b'q' | 3 | 4)) {
            return;
        }
    }
}

/// Waits for a signal that ends this program: the terminal is put right before.
async fn until_ended() {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    );
    let (Ok(mut one), Ok(mut two), Ok(mut three)) = listen else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = one.recv() => {}
        _ = two.recv() => {}
        _ = three.recv() => {}
    }
}

/// The counters of the last look.
#[derive(Default)]
struct Rates(BTreeMap<String, (Instant, UsageView)>);

impl Rates {
    fn lines(&mut self, views: Vec<UsageView>, now: Instant) -> Vec<Line> {
        let before = std::mem::take(&mut self.0);
        let lines = views.iter().map(|view| {
            let before = before.get(&view.replica);
            let elapsed = before.map_or(Duration::ZERO, |(at, _)| now.duration_since(*at));
            let rate = |counter: fn(&UsageView) -> u64| match before {
                Some((_, before)) if !elapsed.is_zero() => {
                    counter(view).saturating_sub(counter(before)) as f64 / elapsed.as_secs_f64()
                }
                _ => 0.0,
            };
            Line {
                app: view.app.clone(),
                service: view.service.clone(),
                replica: view.replica.clone(),
                cpu_percent: (rate(|view| view.cpu_us) / 1_000.0).round() / 10.0,
                memory_bytes: view.memory_bytes,
                memory_limit_bytes: view.memory_limit_bytes,
                network_in_bytes_per_s: rate(|view| view.network_in_bytes).round(),
                network_out_bytes_per_s: rate(|view| view.network_out_bytes).round(),
                disk_read_bytes_per_s: rate(|view| view.disk_read_bytes).round(),
                disk_write_bytes_per_s: rate(|view| view.disk_write_bytes).round(),
                disk_bytes: view.disk_bytes,
                pids: view.pids,
            }
        });
        let lines = lines.collect();
        let seen = views.into_iter();
        self.0 = seen
            .map(|view| (view.replica.clone(), (now, view)))
            .collect();
        lines
    }
}

fn table(lines: &[Line]) -> comfy_table::Table {
    let mut table = show::table(&[
        "SERVICE",
        "REPLICA",
        "CPU %",
        "MEMORY",
        "LIMIT",
        "NET IN/s",
        "NET OUT/s",
        "READ/s",
        "WRITE/s",
        "DISK",
        "PIDS",
    ]);
    for line in lines {
        let limit = line.memory_limit_bytes;
        table.add_row(vec![
            format!("{}/{}", line.app, line.service),
            line.replica.clone(),
            format!("{:.1}", line.cpu_percent),
            bytes(line.memory_bytes as f64),
            limit.map_or_else(|| "-".to_owned(), |limit| bytes(limit as f64)),
            bytes(line.network_in_bytes_per_s),
            bytes(line.network_out_bytes_per_s),
            bytes(line.disk_read_bytes_per_s),
            bytes(line.disk_write_bytes_per_s),
            bytes(line.disk_bytes as f64),
            line.pids.to_string(),
        ]);
    }
    table
}

/// `512 B`, `1.5 MiB`.
fn bytes(count: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut count = count;
    let mut unit = 0;
    while count >= 1024.0 && unit + 1 < units.len() {
        count /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count:.0} B"),
        _ => format!("{count:.1} {}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(1023.0), "1023 B");
        assert_eq!(bytes(1536.0 * 1024.0), "1.5 MiB");
    }
}
