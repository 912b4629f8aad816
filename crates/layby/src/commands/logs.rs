//! `layby logs`.

use std::io::IsTerminal;

use anyhow::Result;
use jiff::Timestamp;
use layby_control::api::types::LogView;

use crate::cli::{JobLogs, Logs};
use crate::client::Client;
use crate::commands::jobs;
use crate::commands::services;
use crate::exit::{Code, Exit};
use crate::moment;
use crate::out::say;

/// The colours of names (ECMA-48, SGR), in turn.
const COLOURS: [u8; 10] = [36, 33, 32, 35, 34, 96, 93, 92, 95, 94];

/// Prints what services wrote, the oldest line first.
///
/// # Errors
/// No node answers, or a name fits neither a service nor an app.
pub(crate) async fn logs(client: &Client, options: &Logs) -> Result<()> {
    if let [name] = &options.names[..]
        && let Some(job) = services::job_called(client, name).await?
    {
        let newest = JobLogs {
            name: format!("{}/{}", job.app, job.job),
            run: None,
            follow: options.follow,
            tail: options.tail.and_then(|tail| u32::try_from(tail).ok()),
            timestamps: options.timestamps,
            json: options.json,
        };
        return jobs::logs(client, &newest).await;
    }
    let names = services::find_all(client, &options.names).await?;
    let now_ms = Timestamp::now().as_millisecond();
    let mut query = vec![("follow", options.follow.to_string())];
    query.extend(names.iter().map(|name| ("service", name.clone())));
    query.extend(options.tail.map(|tail| ("tail", tail.to_string())));
    query.extend(options.container.clone().map(|name| ("container", name)));
    for (name, text) in [("since_ms", &options.since), ("until_ms", &options.until)] {
        if let Some(text) = text {
            query.push((name, moment::parse(text, now_ms)?.to_string()));
        }
    }
    let mut lines = match (&names[..], &options.replica) {
        ([one], Some(replica)) => {
            query.retain(|(name, _)| *name != "service");
            query.push(("replica", replica.clone()));
            client
                .get_lines(&format!("/v1/services/{one}/logs"), &query)
                .await?
        }
        (_, Some(_)) => {
            let text = "a replica is one of a single service: name that one";
            return Err(Exit::new(Code::Failed, text).into());
        }
        (_, None) => client.get_lines("/v1/logs", &query).await?,
    };
    let prefixes = Prefixes::new(&names, colourful(options));
    while let Some(entry) = lines.next::<LogView>().await? {
        if options.json.json {
            say!("{}", serde_json::to_string(&entry)?);
            continue;
        }
        let prefix = prefixes.of(&entry.service);
        if options.timestamps {
            let at = i64::try_from(entry.at_ms).unwrap_or(i64::MAX);
            let at = Timestamp::from_millisecond(at).unwrap_or(Timestamp::MAX);
            say!("{prefix}{at:.3} {}", entry.text);
        } else {
            say!("{prefix}{}", entry.text);
        }
    }
    Ok(())
}

/// Whether names get colours: for people who have not said no (no-color.org).
fn colourful(options: &Logs) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !options.no_color && !refused && std::io::stdout().is_terminal()
}

/// What stands before the lines of each service, where there are several.
struct Prefixes(Vec<(String, String)>);

impl Prefixes {
    fn new(names: &[String], colourful: bool) -> Self {
        let app = |name: &String| name.split_once('/').map(|(app, _)| app.to_owned());
        let one_app = names.iter().all(|name| app(name) == app(&names[0]));
        let short = |name: &String| match name.split_once('/') {
            Some((_, service)) if one_app => service.to_owned(),
            _ => name.clone(),
        };
        let shown: Vec<String> = names.iter().map(short).collect();
        let width = shown.iter().map(|name| name.len()).max().unwrap_or(0);
        let prefix = |(number, name): (usize, &String)| {
            let text = format!("{name:width$} | ");
            match colourful {
                true => format!("\x1b[{}m{text}\x1b[0m", COLOURS[number % COLOURS.len()]),
                false => text,
            }
        };
        let prefixes = shown.iter().enumerate().map(prefix);
        match names {
            [_] => Self(Vec::new()),
            _ => Self(names.iter().cloned().zip(prefixes).collect()),
        }
    }

    fn of(&self, service: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == service);
        found.map_or("", |(_, prefix)| prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_before_lines_where_there_are_several() {
        let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        let one = Prefixes::new(&names(&["shop/web"]), true);
        assert_eq!(one.of("shop/web"), "");
        let two = Prefixes::new(&names(&["shop/db", "shop/worker"]), false);
        assert_eq!(two.of("shop/db"), "db     | ");
        assert_eq!(two.of("shop/worker"), "worker | ");
        let apps = Prefixes::new(&names(&["a/web", "b/web"]), true);
        assert_eq!(apps.of("b/web"), "\x1b[33mb/web | \x1b[0m");
    }
}
