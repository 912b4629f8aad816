//! `layby scale NAME` without a number: how many replicas there are, and why.

use anyhow::Result;
use layby_control::api::types::{PolicyView, ScaleView, SeenView};

use crate::out::say;

/// Prints how a service came to its number of replicas.
///
/// # Errors
/// It cannot be written as JSON.
pub(crate) fn show(view: &ScaleView, json: bool) -> Result<()> {
    if json {
        say!("{}", serde_json::to_string_pretty(view)?);
        return Ok(());
    }
    lines(view).iter().for_each(|line| say!("{line}"));
    Ok(())
}

fn lines(view: &ScaleView) -> Vec<String> {
    let mut lines = vec![format!("{} ({})", replicas(view.replicas), view.why)];
    if let Some(policy) = &view.policy {
        lines.push(format!("  policy    {}", policy_line(policy)));
    }
    if let Some(seen) = &view.seen {
        lines.push(format!("  now       {}", now(seen)));
        lines.extend(averages(view.policy.as_ref(), seen));
    }
    if let Some(short) = &view.short {
        lines.push(format!("  ! it is not scaled as far as it needs: {short}"));
    }
    lines
}

/// `0 to 4 replicas, 1 request at a time for each and no more, 80 % of CPU`.
fn policy_line(policy: &PolicyView) -> String {
    let mut parts = vec![format!("{} to {}", policy.min, replicas(policy.max))];
    match (policy.concurrency, policy.target) {
        (Some(most), Some(target)) if most == target => {
            parts.push(format!("{} at a time for each and no more", requests(most)));
        }
        (most, target) => {
            parts.extend(target.map(|n| format!("{} at a time for each", requests(n))));
            parts.extend(most.map(|n| format!("no more than {n} to one")));
        }
    }
    parts.extend(
        policy
            .cpu_percent
            .map(|percent| format!("{percent} % of CPU")),
    );
    parts.join(", ")
}

fn now(seen: &SeenView) -> String {
    let burst = match seen.is_burst {
        true => "; a burst is not over",
        false => "",
    };
    format!(
        "{} in flight, {} held, {} ready{burst}",
        requests(seen.in_flight),
        seen.held,
        replicas(seen.ready)
    )
}

fn averages(policy: Option<&PolicyView>, seen: &SeenView) -> Vec<String> {
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    let mut lines = Vec::new();
    if let (Some(stable), Some(panic), Some(policy)) =
        (seen.stable_average, seen.panic_average, policy)
    {
        let (long, short) = (policy.stable_window_ms, policy.panic_window_ms);
        lines.push(format!(
            "  average   {stable} in {} s, {panic} in {} s",
            seconds(long),
            seconds(short)
        ));
    }
    let cpu = seen.cpu_percent;
    lines.extend(cpu.map(|percent| format!("  CPU       {percent} % of what a replica asks for")));
    lines
}

fn replicas(count: u32) -> String {
    match count {
        1 => "1 replica".to_owned(),
        n => format!("{n} replicas"),
    }
}

fn requests(count: u32) -> String {
    match count {
        1 => "1 request".to_owned(),
        n => format!("{n} requests"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_says_how_many_why_by_what_and_from_what() {
        let view = ScaleView {
            replicas: 4,
            why: "8 requests at a time now, and 1 for each replica".into(),
            policy: Some(PolicyView {
                min: 0,
                max: 4,
                concurrency: Some(1),
                target: Some(1),
                cpu_percent: None,
                stable_window_ms: 60_000,
                panic_window_ms: 6_000,
            }),
            seen: Some(SeenView {
                in_flight: 1,
                held: 7,
                ready: 1,
                stable_average: Some(0.25),
                panic_average: Some(1.5),
                is_burst: true,
                cpu_percent: Some(70),
            }),
            short: Some("there is too little memory".into()),
            ..ScaleView::default()
        };
        assert_eq!(
            lines(&view),
            [
                "4 replicas (8 requests at a time now, and 1 for each replica)",
                "  policy    0 to 4 replicas, 1 request at a time for each and no more",
                "  now       1 request in flight, 7 held, 1 replica ready; a burst is not over",
                "  average   0.25 in 60 s, 1.5 in 6 s",
                "  CPU       70 % of what a replica asks for",
                "  ! it is not scaled as far as it needs: there is too little memory",
            ]
        );
        let fixed = ScaleView {
            replicas: 1,
            why: "its manifest says so".into(),
            ..ScaleView::default()
        };
        assert_eq!(lines(&fixed), ["1 replica (its manifest says so)"]);
        let policy = PolicyView {
            concurrency: Some(20),
            target: Some(10),
            cpu_percent: Some(80),
            ..view.policy.expect("above")
        };
        let line =
            "0 to 4 replicas, 10 requests at a time for each, no more than 20 to one, 80 % of CPU";
        assert_eq!(policy_line(&policy), line);
    }
}
