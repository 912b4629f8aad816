//! `layby audit`: who changed what.

use anyhow::Result;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use layby_control::api::AuditView;

use crate::cli::Audit;
use crate::client::Client;
use crate::moment;
use crate::out::say;
use crate::show;

/// Shows the audit log, the oldest first.
///
/// # Errors
/// What the node refused.
pub(crate) async fn audit(client: &Client, options: &Audit) -> Result<()> {
    let mut query = Vec::new();
    if let Some(since) = &options.since {
        let now_ms = Timestamp::now().as_millisecond();
        query.push(("since_ms", moment::parse(since, now_ms)?.to_string()));
        query.push(("limit", "1000".to_owned()));
    }
    query.extend(options.who.clone().map(|who| ("who", who)));
    let mut records: Vec<AuditView> = Vec::new();
    loop {
        let (page, next) = client.get_page("/v1/audit", &query).await?;
        records.extend::<Vec<AuditView>>(page);
        let Some(cursor) = next.filter(|_| options.since.is_some()) else {
            break;
        };
        query.retain(|(name, _)| *name != "cursor");
        query.push(("cursor", cursor));
    }
    records.reverse();
    if options.json.json {
        say!("{}", serde_json::to_string_pretty(&records)?);
        return Ok(());
    }
    let zone = TimeZone::system();
    let mut table = show::table(&["AT", "WHO", "FROM", "WHAT", "ON", "STATUS"]);
    for record in records {
        let status = status(&record);
        table.add_row(vec![
            to_the_second(&record.at, &zone),
            record.who,
            record.from,
            record.verb,
            if record.target.is_empty() {
                "-".to_owned()
            } else {
                record.target
            },
            status,
        ]);
    }
    show::print(&table);
    Ok(())
}

/// `200`; `200, failed (3)` where what was streamed ended badly.
fn status(record: &AuditView) -> String {
    match record.code {
        None | Some(0) => record.status.to_string(),
        Some(code) => format!("{}, failed ({code})", record.status),
    }
}

/// `2026-11-30 04:05:06`; a time that cannot be read is shown as it is.
fn to_the_second(at: &str, zone: &TimeZone) -> String {
    match at.parse::<Timestamp>() {
        Ok(at) => zone
            .to_datetime(at)
            .strftime("%Y-%m-%d %H:%M:%S")
            .to_string(),
        Err(_) => at.to_owned(),
    }
}
