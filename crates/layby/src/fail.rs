//! Fail points, as the environment orders them: for `cargo xtask chaos` only (CONTRIBUTING.md says how).
//!
//! `LAYBY_FAIL_AT=after-publish:2` ends the node by SIGKILL when it comes to that point the second time;
//! `LAYBY_FAIL_STORE_MS=300` lets each access of the store take so much longer; `LAYBY_FAIL_CLOCK=FILE` adds the number of
//! seconds in that file to the wall clock, whatever it is at that moment.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use layby_model::fail::{self, Hooks, Point};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const AT: &str = "LAYBY_FAIL_AT";
const STORE_MS: &str = "LAYBY_FAIL_STORE_MS";
const CLOCK: &str = "LAYBY_FAIL_CLOCK";

#[derive(Debug)]
struct Orders {
    /// Where to end, and at which time.
    at: Option<(Point, u32)>,
    came: AtomicU32,
    store: Duration,
    clock: Option<PathBuf>,
}

static ORDERS: OnceLock<Orders> = OnceLock::new();

/// Reads the orders, if there are any.
///
/// # Errors
/// They make no sense.
pub(crate) fn install() -> Result<()> {
    let [at, store, clock] = [AT, STORE_MS, CLOCK].map(std::env::var_os);
    if at.is_none() && store.is_none() && clock.is_none() {
        return Ok(());
    }
    let at = at.map(|text| place(&text.to_string_lossy())).transpose()?;
    let store = store.map(|text| text.to_string_lossy().parse()).transpose();
    let store_ms = store.with_context(|| format!("{STORE_MS} is no number of milliseconds"))?;
    tracing::warn!(?at, ?store_ms, ?clock, "this node is to fail: it is a test");
    let orders = Orders {
        at,
        came: AtomicU32::new(0),
        store: Duration::from_millis(store_ms.unwrap_or(0)),
        clock: clock.map(PathBuf::from),
    };
    if ORDERS.set(orders).is_ok() {
        fail::install(Hooks {
            at: come,
            clock_shift_s,
        });
    }
    Ok(())
}

/// `after-publish:2`, or without the number for the first time.
fn place(text: &str) -> Result<(Point, u32)> {
    let (name, time) = text.split_once(':').unwrap_or((text, "1"));
    let time = time.parse().ok().filter(|time| *time > 0);
    let point = Point::ALL.into_iter().find(|point| point.name() == name);
    let (Some(point), Some(time)) = (point, time) else {
        let names: Vec<&str> = Point::ALL.into_iter().map(Point::name).collect();
        bail!(
            "{AT} is no fail point: write NAME or NAME:TIME with one of {}",
            names.join(", ")
        );
    };
    Ok((point, time))
}

fn come(point: Point) {
    let Some(orders) = ORDERS.get() else {
        return;
    };
    if point == Point::BeforeStore && !orders.store.is_zero() {
        std::thread::sleep(orders.store); // the store has a thread of its own
    }
    if let Some((at, time)) = orders.at
        && at == point
        && orders.came.fetch_add(1, Ordering::SeqCst) + 1 == time
    {
        let _ = kill(Pid::this(), Signal::SIGKILL);
        // Not one step more, until the signal is there.
        loop {
            std::thread::park();
        }
    }
}

fn clock_shift_s() -> i64 {
    let file = ORDERS.get().and_then(|orders| orders.clock.as_ref());
    let text = file.and_then(|file| std::fs::read_to_string(file).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_a_point_and_a_time() {
        assert_eq!(
            place("after-store").expect("a point"),
            (Point::AfterStore, 1)
        );
        assert_eq!(
            place("before-remove:7").expect("a point"),
            (Point::BeforeRemove, 7)
        );
        for wrong in ["", "nowhere", "after-store:0", "after-store:x"] {
            let error = place(wrong).expect_err("no point").to_string();
            assert!(error.contains("after-publish"), "{error}");
        }
    }
}
