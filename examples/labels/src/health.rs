//! `labels healthcheck`: asks the service in the same container whether it is well.

use std::time::Duration;

use anyhow::{Context, ensure};
use ureq::Agent;

/// Asks `http://127.0.0.1:PORT/healthz`.
///
/// # Errors
/// When the answer is not 200, or does not come within two seconds.
pub fn check(port: u16) -> anyhow::Result<()> {
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(2)))
        .build()
        .into();
    let url = format!("http://127.0.0.1:{port}/healthz");
    let answer = agent
        .get(&url)
        .call()
        .with_context(|| format!("{url} does not answer"))?;
    ensure!(answer.status() == 200, "{url} answers {}", answer.status());
    Ok(())
}
