//! `layby logs`.

use anyhow::Result;
use layby_control::api::types::LogView;

use crate::cli::Logs;
use crate::client::Client;
use crate::out::say;
use crate::services;

/// Prints what a service wrote, the oldest line first.
///
/// # Errors
/// No node answers, or the name fits no service.
pub(crate) async fn logs(client: &Client, options: &Logs) -> Result<()> {
    let path = services::find(client, &options.name.name).await?;
    let mut query = vec![("follow", options.follow.to_string())];
    query.extend(options.tail.map(|tail| ("tail", tail.to_string())));
    query.extend(options.container.clone().map(|name| ("container", name)));
    let mut lines = client.get_lines(&format!("{path}/logs"), &query).await?;
    while let Some(entry) = lines.next::<LogView>().await? {
        if options.json.json {
            say!("{}", serde_json::to_string(&entry)?);
        } else {
            say!("{}", entry.text);
        }
    }
    Ok(())
}
