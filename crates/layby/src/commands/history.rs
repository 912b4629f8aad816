//! `layby history`, `diff`, `rollback` and `redeploy`: the revisions of a service, and ways back and anew.

use anyhow::Result;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use layby_control::api::types::{ChangeView, DiffView, RevisionView};

use crate::cli::{Diff, History, Redeploy, Rollback};
use crate::client::Client;
use crate::commands::named;
use crate::commands::services::{find, find_each, one_by_one};
use crate::events::{self, Style};
use crate::out::say;
use crate::show;

/// So many hexadecimal digits of a digest tell images apart.
const SHORT_DIGEST: usize = 12;

/// Lists the revisions of a service, the newest first.
///
/// # Errors
/// No node answers, or the name fits none or several.
pub(crate) async fn history(client: &Client, options: &History) -> Result<()> {
    let path = find(client, &options.name.name).await?;
    let revisions: Vec<RevisionView> = client.get(&format!("{path}/history"), &[]).await?;
    if options.json.json {
        say!("{}", serde_json::to_string_pretty(&revisions)?);
        return Ok(());
    }
    let zone = TimeZone::system();
    let mut table = show::table(&[
        "", "REVISION", "OUTCOME", "MADE", "BY", "IMAGE", "DIGEST", "WHY",
    ]);
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for revision in &revisions {
        table.add_row(vec![
            if revision.active { "*" } else { "" }.to_owned(),
            revision.revision.to_string(),
            show::text(&revision.outcome),
            moment(&revision.made_at, &zone),
            known(&revision.made_by),
            revision.image.clone(),
            revision
                .digest
                .as_deref()
                .map_or_else(|| "-".to_owned(), short),
            known(&revision.cause),
        ]);
    }
    show::print(&table);
    for revision in &revisions {
        if let Some(failure) = &revision.failure {
            let (number, reason) = (revision.revision, &failure.reason);
            match failure.aborted_by {
                Some(_) => say!("revision {number} was {reason}"),
                None => say!(
                    "revision {number} {}: {reason}",
                    show::text(&revision.outcome)
                ),
            }
        }
    }
    Ok(())
}

/// Shows how two revisions differ.
///
/// # Errors
/// As [`history`]; or there is no such revision.
pub(crate) async fn diff(client: &Client, options: &Diff) -> Result<()> {
    let path = find(client, &options.name.name).await?;
    let mut query = vec![("from", options.from.to_string())];
    query.extend(options.to.map(|to| ("to", to.to_string())));
    let diff: DiffView = client.get(&format!("{path}/diff"), &query).await?;
    if options.json.json {
        say!("{}", serde_json::to_string_pretty(&diff)?);
    } else if diff.changes.is_empty() {
        say!("Revisions {} and {} are the same.", diff.from, diff.to);
    } else {
        diff.changes
            .iter()
            .for_each(|change| say!("{}", line(change)));
    }
    Ok(())
}

/// Goes back to an earlier revision.
///
/// # Errors
/// As [`history`]; there is nothing to go back to; or the rollout failed.
pub(crate) async fn rollback(client: &Client, options: &Rollback) -> Result<()> {
    let what = "`layby up` the earlier manifest, or go back with each of its pods, which have revisions of their own";
    let path = named::find_one(client, &options.name.name, what).await?;
    let mut query = vec![("detach", options.detach.to_string())];
    query.extend(options.to.map(|to| ("to", to.to_string())));
    let lines = client.post_lines(&format!("{path}/rollback"), &query).await;
    let lines = events::begun(lines, &path)?;
    events::show(client, lines, Style::Auto).await
}

/// Deploys the newest revision anew; of a StatefulSet, pod after pod.
///
/// # Errors
/// As [`history`]; or the rollout failed.
pub(crate) async fn redeploy(client: &Client, options: &Redeploy) -> Result<()> {
    let paths = find_each(client, &options.name.name).await?;
    let query = [
        ("pull", options.pull.to_string()),
        ("detach", options.detach.to_string()),
    ];
    let redeploy = async |path: &str| client.post_lines(&format!("{path}/redeploy"), &query).await;
    one_by_one(client, &paths, redeploy).await
}

/// `replicas: 1 -> 3`, `containers.main.env.LOG: debug (new)`, `port: 80 (gone)`; `env.KEY: another one (not shown)`.
pub(crate) fn line(change: &ChangeView) -> String {
    let path = &change.path;
    match (&change.before, &change.after) {
        // They differ, and what both show does not.
        (Some(before), Some(after)) if before == after => format!("{path}: another one {after}"),
        (Some(before), Some(after)) => format!("{path}: {before} -> {after}"),
        (None, Some(after)) => format!("{path}: {after} (new)"),
        (Some(before), None) => format!("{path}: {before} (gone)"),
        (None, None) => path.clone(),
    }
}

/// A moment in this machine's time.
fn moment(text: &str, zone: &TimeZone) -> String {
    let Ok(at) = text.parse::<Timestamp>() else {
        return text.to_owned();
    };
    let at = zone.to_datetime(at);
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The first digits of `sha256:...`.
fn short(digest: &str) -> String {
    let hex = digest.rsplit(':').next().unwrap_or(digest);
    hex.chars().take(SHORT_DIGEST).collect()
}
