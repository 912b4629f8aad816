//! What is done when a service ends: `restart`, and `deploy.restart_policy`, which goes over it.

use layby_model::spec::RestartPolicy;

use crate::fields::{Expected, Fields};
use crate::report::Report;

/// So often in a row, at most, may be asked for.
const MAX_RETRIES: u32 = 1_000_000;

/// Takes `restart` off a service.
pub(crate) fn read(service: &mut Fields, report: &mut Report) -> Option<RestartPolicy> {
    service.parsed("restart", report, |text| match text {
        "no" | "false" => Ok(RestartPolicy::Never),
        "always" | "unless-stopped" => Ok(RestartPolicy::Always),
        "on-failure" => Ok(RestartPolicy::OnFailure { max_retries: None }),
        text => {
            let retries = text
                .strip_prefix("on-failure:")
                .and_then(|retries| retries.parse().ok())
                .filter(|retries| *retries <= MAX_RETRIES);
            match retries {
                // As Docker has it, 0 is no bound.
                Some(retries) => Ok(RestartPolicy::OnFailure {
                    max_retries: (retries > 0).then_some(retries),
                }),
                None => Err("no, always, on-failure[:RETRIES] or unless-stopped".to_owned()),
            }
        }
    })
}

/// Takes `restart_policy` off `deploy`. `counts`: attempts count whatever it is tried again after, as of a job, which is not started
/// again once it has ended well.
pub(crate) fn policy(
    deploy: &mut Fields,
    counts: bool,
    report: &mut Report,
) -> Option<RestartPolicy> {
    let mut policy = deploy.map("restart_policy", report)?;
    let condition = policy.parsed("condition", report, condition);
    let attempts_at = policy.place_of("max_attempts");
    let attempts = policy.count("max_attempts", 0..=MAX_RETRIES, report);
    // How fast: the pauses grow by themselves.
    policy.accept(&["delay", "window"]);
    policy.accept_extensions();
    let name = policy.name("max_attempts");
    policy.finish(report);
    // Compose's default is `any`.
    match condition.unwrap_or(RestartPolicy::Always) {
        RestartPolicy::OnFailure { .. } => Some(RestartPolicy::OnFailure {
            max_retries: attempts.filter(|attempts| *attempts > 0),
        }),
        RestartPolicy::Always if counts && attempts.is_some() => Some(RestartPolicy::OnFailure {
            max_retries: attempts.filter(|attempts| *attempts > 0),
        }),
        other => {
            if let (Some(place), RestartPolicy::Always) = (attempts_at, other) {
                let message = format!("{name} is ignored: it counts with on-failure only");
                report.warn(&place, message);
            }
            Some(other)
        }
    }
}

fn condition(text: &str) -> Result<RestartPolicy, Expected> {
    match text {
        // Docker's Compose takes the words of `restart`, too.
        "none" | "no" => Ok(RestartPolicy::Never),
        "on-failure" => Ok(RestartPolicy::OnFailure { max_retries: None }),
        "any" | "always" | "unless-stopped" => Ok(RestartPolicy::Always),
        _ => Err("none, on-failure or any".to_owned()),
    }
}
