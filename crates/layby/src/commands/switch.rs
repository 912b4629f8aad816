//! `layby disable`, `enable`, `restart` and `rm`: services off and on, and away.

use anyhow::Result;
use futures_util::future::join_all;
use layby_control::api::types::{JobView, RemovedView, ServiceView};

use crate::cli::{Enable, Remove, Restart, Several};
use crate::client::Client;
use crate::commands::services::{find, find_all};
use crate::events::{self, Style};
use crate::exit::{Code, Exit};
use crate::out::say;
use crate::show;

/// Disables services, all at a time, and waits until nothing of them runs.
///
/// # Errors
/// No node answers, or a name fits neither a service nor an app; or one takes too long to end.
pub(crate) async fn disable(client: &Client, several: &Several) -> Result<()> {
    let paths = paths(client, several, true).await?;
    let asked = paths.iter().map(async |path| {
        let view: ServiceView = client.post(&format!("{path}/disable"), &[]).await?;
        Ok(format!(
            "{}/{}  {}",
            view.app,
            view.service,
            show::state(&view)
        ))
    });
    say_all(join_all(asked).await)
}

/// Enables services, all at a time, and shows how they come back.
///
/// # Errors
/// As [`disable`]; or one of them did not come back.
pub(crate) async fn enable(client: &Client, options: &Enable) -> Result<()> {
    each(client, &options.several, false, "enable", options.detach).await
}

/// Restarts services in place, all at a time, each one replica after the other.
///
/// # Errors
/// As [`disable`]; or one of them is not ready again.
pub(crate) async fn restart(client: &Client, options: &Restart) -> Result<()> {
    each(client, &options.several, true, "restart", options.detach).await
}

/// Has all services do something that takes its time, and shows how it goes.
async fn each(
    client: &Client,
    several: &Several,
    enabled: bool,
    verb: &str,
    detach: bool,
) -> Result<()> {
    let query = [("detach", detach.to_string())];
    let mut answers = Vec::new();
    for path in paths(client, several, enabled).await? {
        answers.push(client.post_lines(&format!("{path}/{verb}"), &query).await);
    }
    let mut results = Vec::new();
    for lines in answers {
        results.push(match lines {
            Ok(lines) => events::show(client, lines, Style::Auto).await,
            Err(error) => Err(error),
        });
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
        let path = match find(client, name).await {
            Ok(path) => path,
            Err(error) => return Err(unless_app(client, name, error).await),
        };
        if !paths.contains(&path) {
            paths.push(path);
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
    let services: Result<Vec<ServiceView>> = client.get("/v1/services", &[]).await;
    let jobs: Result<Vec<JobView>> = client.get("/v1/jobs", &[]).await;
    let (services, jobs) = (services.unwrap_or_default(), jobs.unwrap_or_default());
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

/// The API paths of what is meant. `--all` means those that the command changes: with `enabled` those that are, else the
/// disabled ones.
async fn paths(client: &Client, several: &Several, enabled: bool) -> Result<Vec<String>> {
    let ids = match several.all {
        true => {
            let views: Vec<ServiceView> = client.get("/v1/services", &[]).await?;
            let views = views.into_iter();
            let meant = views.filter(|view| show::is_disabled(view) != enabled);
            meant
                .map(|view| format!("{}/{}", view.app, view.service))
                .collect()
        }
        false => find_all(client, &several.names).await?,
    };
    if ids.is_empty() {
        let what = if enabled { "enabled" } else { "disabled" };
        say!("No service is {what}.");
    }
    Ok(ids.iter().map(|id| format!("/v1/services/{id}")).collect())
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
