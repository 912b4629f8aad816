//! The commands that are about one service, or list them.

use std::collections::BTreeMap;

use anyhow::Result;
use layby_control::api::types::{DeployBody, JobView, RemovedView, ServiceDetail, ServiceView};
use layby_model::state::Showing;

use crate::cli::Deploy;
use crate::client::{Client, Lines, encode};
use crate::commands::jobs;
use crate::commands::named::{self, Meant};
use crate::events;
use crate::out::{say, tell};
use crate::show;

/// Lists the services; those that are disabled only with `all`.
///
/// # Errors
/// No node answers.
pub(crate) async fn ls(client: &Client, all: bool, json: bool) -> Result<()> {
    let mut services = named::views(client).await?;
    let known = services.len();
    if !all {
        services.retain(|service| !show::is_disabled(service));
    }
    let hidden = known - services.len();
    if json {
        say!("{}", serde_json::to_string_pretty(&services)?);
        return Ok(());
    }
    let jobs = jobs::all(client).await?;
    if known == 0 && jobs.is_empty() {
        say!("No services yet: `layby up` deploys a Compose file or Kubernetes manifests.");
    }
    if !services.is_empty() {
        show::services(&services);
    }
    match hidden {
        0 => {}
        1 => say!("1 service is disabled: `layby ls --all` shows it, too."),
        n => say!("{n} services are disabled: `layby ls --all` shows them, too."),
    }
    if !jobs.is_empty() {
        if known > 0 {
            say!("");
        }
        jobs::list(&jobs);
    }
    Ok(())
}

/// Shows one service whole.
///
/// # Errors
/// No node answers, or the name fits none or several.
pub(crate) async fn status(client: &Client, name: &str, json: bool) -> Result<()> {
    if let Some(job) = job_called(client, name).await? {
        match json {
            true => say!("{}", serde_json::to_string_pretty(&job)?),
            false => jobs::detail(&job),
        }
        return Ok(());
    }
    let views = named::views(client).await?;
    match named::find(client, &views, name).await? {
        Meant::Service(view) => {
            let detail: ServiceDetail = client.get(&named::path(view), &[]).await?;
            match json {
                true => say!("{}", serde_json::to_string_pretty(&detail)?),
                false => show::detail(&detail, &client.gateway().await?),
            }
        }
        Meant::Pods(pods) if json => {
            let mut details: Vec<ServiceDetail> = Vec::new();
            for pod in pods {
                details.push(client.get(&named::path(pod), &[]).await?);
            }
            say!("{}", serde_json::to_string_pretty(&details)?);
        }
        Meant::Pods(pods) => {
            let pods: Vec<ServiceView> = pods.into_iter().cloned().collect();
            show::services(&pods);
            say!("These are the pods of a StatefulSet: `layby status` of one of them says more.");
        }
    }
    Ok(())
}

/// The job of this name, if no service has it.
pub(crate) async fn job_called(client: &Client, name: &str) -> Result<Option<JobView>> {
    let jobs = jobs::all(client).await?.into_iter();
    let mut found: Vec<JobView> = jobs.filter(|job| jobs::is_called(job, name)).collect();
    let services = match found.len() {
        1 => named::views(client).await?,
        _ => return Ok(None),
    };
    let taken = services.iter().any(|view| view.service == name);
    Ok(found.pop().filter(|_| !taken))
}

/// `wake`, `doze` or `sleep`: asks for it and waits until it is so; of a StatefulSet, pod after pod, also after one that refuses.
///
/// # Errors
/// As [`status`]; the service is not live; or it did not get there in time. Of several pods the last error; the others are told.
pub(crate) async fn turn(client: &Client, name: &str, verb: &str) -> Result<()> {
    let was_to_rest = verb != "wake";
    let mut failed: Option<anyhow::Error> = None;
    for path in find_each(client, name).await? {
        let view: ServiceView = match client.post(&format!("{path}/{verb}"), &[]).await {
            Ok(view) => view,
            Err(error) => {
                if let Some(before) = failed.replace(error) {
                    tell!("layby: {before:#}");
                }
                continue;
            }
        };
        let then = match was_to_rest && view.wakefulness == Some(Showing::Awake) {
            true => ": it rested, and was woken again at once by who uses it",
            false => "",
        };
        let state = show::state(&view);
        say!("{}  {state}{then}", named::full(&view));
    }
    failed.map_or(Ok(()), Err)
}

/// Deploys a service again, with another image or other settings; of a StatefulSet, pod after pod.
///
/// # Errors
/// As [`status`]; or the rollout failed.
pub(crate) async fn deploy(client: &Client, options: &Deploy) -> Result<()> {
    let name = &options.name.name;
    if options.follow {
        let path = find(client, name).await?;
        let lines = client.get_lines(&format!("{path}/rollout"), &[]).await?;
        return events::show(client, lines, events::Style::Auto).await;
    }
    let request = DeployBody {
        image: options.image.clone(),
        env: options.env.iter().cloned().collect::<BTreeMap<_, _>>(),
        unset: options.unset.clone(),
        retries: options.retries,
    };
    let mut query = vec![("detach", options.detach.to_string())];
    query.extend(options.canary.query());
    let deploy = async |path: &str| {
        let path = format!("{path}/deploy");
        client.post_for_lines(&path, &query, &request).await
    };
    one_by_one(client, &find_each(client, name).await?, deploy).await
}

/// Takes an app down, and with `volumes` removes those that were made for it.
///
/// # Errors
/// No node answers, or it knows no such app.
pub(crate) async fn down(client: &Client, app: &str, volumes: bool) -> Result<()> {
    let query = [("volumes", volumes.to_string())];
    let removed: RemovedView = client
        .delete(&format!("/v1/apps/{}", encode(app)), &query)
        .await?;
    for service in removed.removed {
        say!("{service}  removed");
    }
    for volume in removed.volumes {
        say!("{volume}  volume removed");
    }
    Ok(())
}

/// The API path of the one service called `name`: `service` where that is unique, else `app/service`.
///
/// # Errors
/// The name fits none (which there are is said), several (which is said), or a StatefulSet.
pub(crate) async fn find(client: &Client, name: &str) -> Result<String> {
    named::find_one(client, name, "name one of its pods").await
}

/// The API paths of the service, or of the pods of the StatefulSet, called `name`.
///
/// # Errors
/// The name fits none (which there are is said) or several (which is said).
pub(crate) async fn find_each(client: &Client, name: &str) -> Result<Vec<String>> {
    let views = named::views(client).await?;
    let meant = named::find(client, &views, name).await?;
    Ok(meant.services().into_iter().map(named::path).collect())
}

/// The services that names mean, each once, as `app/service`: see [`named::find_all`].
///
/// # Errors
/// No node answers, or a name fits nothing.
pub(crate) async fn find_all(client: &Client, names: &[String]) -> Result<Vec<String>> {
    let found = named::find_all(client, names).await?;
    Ok(found.iter().map(named::full).collect())
}

/// Has services roll out one after another, each once what `roll` begins with the one before it is over.
///
/// # Errors
/// One could not begin, or failed; then those after it are told, which stay as they are.
pub(crate) async fn one_by_one(
    client: &Client,
    paths: &[String],
    roll: impl AsyncFn(&str) -> Result<Lines>,
) -> Result<()> {
    for (n, path) in paths.iter().enumerate() {
        let lines = events::begun(roll(path).await, path);
        let ended = match lines {
            Ok(lines) => events::show(client, lines, events::Style::Auto).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tell_left(&paths[n + 1..], "stay as they are");
            return Err(error);
        }
    }
    Ok(())
}

/// Tells of services at which nothing was done, since one before them failed.
pub(crate) fn tell_left(paths: &[String], how: &str) {
    let names = paths.iter().map(|path| path.strip_prefix("/v1/services/"));
    let names: Vec<&str> = names.flatten().collect();
    if !names.is_empty() {
        tell!("layby: those after it {how}: {}", names.join(", "));
    }
}
