//! A node that has nothing to do gives back the memory that only its work needed.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(5);
/// With no more CPU time than this in a period the node rests, in microseconds: a fifth of a percent.
const RESTING_US: i64 = 10_000;
/// Less work than this since the last time has left nothing to give back, in microseconds.
const WORTHWHILE_US: i64 = 20_000;

/// Gives memory back once after each time of work, for ever.
///
/// The pages of the program itself come back from the page cache when they are touched, at some 0.5 µs for 64 KiB.
pub(crate) async fn give_memory_back() {
    let mut trimmed_at = 0;
    let mut before = cpu_us();
    loop {
        tokio::time::sleep(PERIOD).await;
        let now = cpu_us();
        if now - before <= RESTING_US && now - trimmed_at >= WORTHWHILE_US {
            layby_runtime::trim_memory();
            trimmed_at = cpu_us();
        }
        before = now;
    }
}

/// CPU time of this process so far, in microseconds.
fn cpu_us() -> i64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| {
        usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
    })
}
