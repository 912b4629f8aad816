//! `layby disable`, `enable`, `restart` and `rm`: services off and on, and away.

use anyhow::Result;
use futures_util::future::join_all;
use layby_control::api::types::{RemovedView, ServiceView};

use crate::cli::{Enable, Remove, Restart, Several};
use crate::client::Client;
use crate::commands::services::{find_each, tell_left};
use crate::commands::{jobs, named};
use crate::events::{self, Style};
use crate::exit::{Code, Exit};
use crate::out::say;
use crate::show;

/// Disables services, all at a time, and waits until nothing of them runs.
///
/// # Errors
/// No node answers, or a name fits neither a service nor an app; or one takes too long to end.
pub(crate) async fn disable(client: &Client, several: &Several) -> Result<()> {
    let meant = meant(client, several, true).await?;
    let asked = meant.iter().map(async |view| {
        let path = named::path(view);
        let view: ServiceView = client.post(&format!("{path}/disable"), &[]).await?;
        Ok(format!("{}  {}", named::full(&view), show::state(&view)))
    });
    say_all(join_all(asked).await)
}

/// Enables services, all at a time, and shows how they come back.
///
/// # Errors
/// As [`disable`]; or one of them did not come back.
pub(crate) async fn enable(client: &Client, options: &Enable) -> Result<()> {
    let meant = meant(client, &options.several, false).await?;
    let alone = meant.iter().map(|view| vec![named::path(view)]);
    each(client, alone.collect(), "enable", options.detach).await
}

/// Restarts services in place, all at a time, each one replica after the other; so do the pods of a StatefulSet follow one another,
/// unless nobody waits for them.
///
/// # Errors
/// As [`disable`]; or one of them is not ready again.
pub(crate) async fn restart(client: &Client, options: &Restart) -> Result<()> {
    let meant = meant(client, &options.several, true).await?;
    each(
        client,
        rows(&meant, options.detach),
        "restart",
        options.detach,
    )
    .await
}

/// The API paths of services, in rows in each of which one follows the other.
fn rows(meant: &[ServiceView], all_at_once: bool) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut sets: Vec<Option<(&str, &str)>> = Vec::new();
    for view in meant {
        let set = view.set.as_deref().filter(|_| !all_at_once);
        let set = set.map(|set| (&*view.app, set));
        match sets.iter().position(|known| set.is_some() && *known == set) {
            Some(at) => rows[at].push(named::path(view)),
            None => {
                sets.push(set);
                rows.push(vec![named::path(view)]);
            }
        }
    }
    rows
}

/// Has services do something that takes its time, and shows how it goes: the first of all rows at once, then in each row one after
/// the other, until one fails.
async fn each(client: &Client, rows: Vec<Vec<String>>, verb: &str, detach: bool) -> Result<()> {
    let query = [("detach", detach.to_string())];
    let begin = async |path: &str| client.post_lines(&format!("{path}/{verb}"), &query).await;
    let mut begun = Vec::new();
    for row in &rows {
        begun.push(begin(&row[0]).await);
    }
    let mut results = Vec::new();
    for (row, first) in rows.iter().zip(begun) {
        let mut first = Some(first);
        for (n, path) in row.iter().enumerate() {
            let lines = match first.take() {
                Some(lines) => lines,
                None => begin(path).await,
            };
            let result = match lines {
                Ok(lines) => events::show(client, lines, Style::Auto).await,
                Err(error) => Err(error),
            };
            let failed = result.is_err();
            results.push(result);
            if failed {
                tell_left(&row[n + 1..], "go on as they are");
                break;
            }
        }
    }
    first_error(results)
}

/// Removes services with their histories. Their volumes stay.
///
/// # Errors
/// As [`disable`], but that apps are none of its business.
pub(crate) async fn remove(client: &Client, options: &Remove) -> Result<()> {
    let mut paths = Vec::new();
    for name in &options.names {
        // All are known before one is removed.
        let found = match find_each(client, name).await {
            Ok(found) => found,
            Err(error) => return Err(unless_app(client, name, error).await),
        };
        for path in found {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    let asked = paths.iter().map(async |path| {
        let removed: RemovedView = client.delete(path, &[]).await?;
        Ok(format!("{}  removed", removed.removed.join(", ")))
    });
    say_all(join_all(asked).await)
}

/// An error of finding a service; one that says the way where an app or a job is called so.
async fn unless_app(client: &Client, name: &str, error: anyhow::Error) -> anyhow::Error {
    let services = named::views(client).await;
    let known = jobs::all(client).await;
    let (services, jobs) = (services.unwrap_or_default(), known.unwrap_or_default());
    let app = name.trim_end_matches('/');
    let mut apps = services.iter().map(|view| &view.app);
    let text = if apps.any(|known| known == app) || jobs.iter().any(|job| job.app == app) {
        format!("{app} is an app: `layby down {app}` takes all of it down")
    } else if jobs
        .iter()
        .any(|job| job.job == name || format!("{}/{}", job.app, job.job) == name)
    {
        format!("{name} is a job: `layby job rm {name}` removes it")
    } else {
        return error;
    };
    Exit::new(Code::NotFound, text).into()
}

/// What is meant. `--all` means those that the command changes: with `enabled` those that are, else the disabled ones.
async fn meant(client: &Client, several: &Several, enabled: bool) -> Result<Vec<ServiceView>> {
    let meant = match several.all {
        true => {
            let views = named::views(client).await?.into_iter();
            views
                .filter(|view| show::is_disabled(view) != enabled)
                .collect()
        }
        false => named::find_all(client, &several.names).await?,
    };
    if meant.is_empty() {
        let what = if enabled { "enabled" } else { "disabled" };
        say!("No service is {what}.");
    }
    Ok(meant)
}

/// Says what was done, in the order of the names.
fn say_all(results: Vec<Result<String>>) -> Result<()> {
    let said = results.into_iter().map(|result| {
        say!("{}", result?);
        Ok(())
    });
    first_error(said.collect())
}

/// Every error is said; the first one is what the command ends with.
fn first_error(results: Vec<Result<()>>) -> Result<()> {
    let mut errors = results.into_iter().filter_map(Result::err);
    let first = errors.next();
    for other in errors {
        let text = format!("{other:#}");
        if !text.is_empty() {
            crate::out::tell!("layby: {text}");
        }
    }
    first.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::named::sample;

    #[test]
    fn the_pods_of_a_set_follow_one_another_and_all_else_is_alone() {
        let meant = [
            sample("shop", "db-0", Some("db")),
            sample("shop", "web", None),
            sample("shop", "db-1", Some("db")),
            sample("blog", "db-0", Some("db")),
        ];
        let path = |name: &str| format!("/v1/services/{name}");
        let follow = vec![
            vec![path("shop/db-0"), path("shop/db-1")],
            vec![path("shop/web")],
            vec![path("blog/db-0")],
        ];
        assert_eq!(rows(&meant, false), follow);
        assert_eq!(rows(&meant, true).len(), 4);
    }
}
