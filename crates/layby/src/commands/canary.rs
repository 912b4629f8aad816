//! `layby promote` and `abort`: how what is tried out ends.

use anyhow::Result;
use layby_control::api::types::{CanaryView, GivenView, ServiceView};

use crate::cli::{Name, Promote};
use crate::client::Client;
use crate::commands::named;
use crate::commands::services::find;
use crate::events;
use crate::out::say;

/// Lets a canary take all requests, and shows how it goes live.
///
/// # Errors
/// No node answers; the name fits none or several; nothing of it is tried out.
pub(crate) async fn promote(client: &Client, options: &Promote) -> Result<()> {
    let path = find(client, &options.name.name).await?;
    let query = [("detach", options.detach.to_string())];
    let lines = client.post_lines(&format!("{path}/promote"), &query).await;
    let lines = events::begun(lines, &path)?;
    events::show(client, lines, events::Style::Auto).await
}

/// Gives up what is on its way to be live.
///
/// # Errors
/// No node answers; the name fits none or several; nothing of it is on its way.
pub(crate) async fn abort(client: &Client, name: &Name) -> Result<()> {
    let path = find(client, &name.name).await?;
    let view: ServiceView = client.post(&format!("{path}/abort"), &[]).await?;
    let id = named::full(&view);
    match view.aborted.map(|aborted| aborted.revision) {
        Some(revision) if revision != view.revision => say!(
            "{id}  revision {revision} is aborted; revision {} serves on",
            view.revision
        ),
        Some(_) | None => say!("{id}  revision {} is aborted", view.revision),
    }
    Ok(())
}

/// A canary in a few words, for lists.
pub(crate) fn short(canary: &CanaryView) -> String {
    let CanaryView {
        share, revision, ..
    } = canary;
    match canary.serves {
        true => format!("canary {share} revision {revision}"),
        false => format!("canary {share} revision {revision} is not ready"),
    }
}

/// A canary beside what is live, in lines.
pub(crate) fn lines(canary: &CanaryView, service: &ServiceView) -> Vec<String> {
    let rate = |given: &GivenView| match given.requests {
        0 => "no requests yet".to_owned(),
        n => format!(
            "{n} {}, {} failed ({:.2} %)",
            if n == 1 { "request" } else { "requests" },
            given.errors,
            given.errors as f64 * 100.0 / n as f64
        ),
    };
    vec![
        format!(
            "revision {}, {}, {} of {} ready: {}",
            canary.revision,
            canary.share,
            canary.replicas_ready,
            service.replicas_wanted,
            rate(&canary.given)
        ),
        format!(
            "revision {}, live: {}",
            service.revision,
            rate(&canary.given_live)
        ),
    ]
}
