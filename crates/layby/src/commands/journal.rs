//! `layby events`: the node's journal of what happened.

use anyhow::Result;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use layby_control::api::types::EventView;

use crate::cli::Events;
use crate::client::Client;
use crate::commands::named;
use crate::exit::{Code, Exit};
use crate::moment;
use crate::out::say;

/// Prints what happened, the oldest first.
///
/// # Errors
/// No node answers, or a name fits neither a service nor an app.
pub(crate) async fn events(client: &Client, options: &Events) -> Result<()> {
    let mut query = vec![
        ("follow", options.follow.to_string()),
        ("limit", options.tail.to_string()),
    ];
    query.extend(options.kind.iter().map(|kind| ("kind", kind.clone())));
    if let Some(name) = &options.name {
        query.push(named(client, name).await?);
    }
    if let Some(since) = &options.since {
        let now_ms = Timestamp::now().as_millisecond();
        query.push(("since_ms", moment::parse(since, now_ms)?.to_string()));
    }
    let mut lines = client.get_lines("/v1/events", &query).await?;
    let zone = TimeZone::system();
    while let Some(event) = lines.next::<EventView>().await? {
        match options.json.json {
            true => say!("{}", serde_json::to_string(&event)?),
            false => say!("{}", line(&event, &zone)),
        }
    }
    Ok(())
}

/// A service by its name, or an app. One that is gone is known by its whole name still.
async fn named(client: &Client, name: &str) -> Result<(&'static str, String)> {
    if name.contains('/') {
        return Ok(("service", name.to_owned()));
    }
    let found = named::find_all(client, &[name.to_owned()]).await;
    match found.as_deref() {
        Ok([one]) => Ok(("service", named::full(one))),
        Ok(pods)
            if pods
                .iter()
                .all(|pod| pod.set.as_deref() == Some(name) && pod.app != name) =>
        {
            let pods: Vec<_> = pods.iter().collect();
            let text = named::of_set(&pods, "name its app, or one of its pods");
            Err(Exit::new(Code::Failed, text).into())
        }
        Ok(_) | Err(_) => Ok(("app", name.to_owned())),
    }
}

/// `2026-11-30 04:05:06  shop/web  live  revision 3 is live`.
fn line(event: &EventView, zone: &TimeZone) -> String {
    let at = i64::try_from(event.at_ms).unwrap_or(i64::MAX);
    let at = Timestamp::from_millisecond(at).unwrap_or(Timestamp::MAX);
    let at = zone
        .to_datetime(at)
        .strftime("%Y-%m-%d %H:%M:%S")
        .to_string();
    let of = match (&event.app, &event.service) {
        (Some(app), Some(service)) => format!("{app}/{service}"),
        (Some(app), None) => app.clone(),
        (None, _) => "node".to_owned(),
    };
    let kind = event.kind;
    let by = event
        .who
        .as_ref()
        .map(|who| format!(" (by {who})"))
        .unwrap_or_default();
    format!("{at}  {of}  {kind}  {}{by}", event.text)
}
