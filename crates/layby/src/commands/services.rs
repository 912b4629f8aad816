//! The commands that are about one service, or list them.

use std::collections::BTreeMap;

use anyhow::Result;
use layby_control::api::types::{DeployBody, JobView, RemovedView, ServiceDetail, ServiceView};
use layby_model::state::Showing;

use crate::cli::Deploy;
use crate::client::{Client, encode};
use crate::commands::jobs;
use crate::events;
use crate::exit::{Code, Exit};
use crate::nearest;
use crate::out::say;
use crate::show;

/// Lists the services; those that are disabled only with `all`.
///
/// # Errors
/// No node answers.
pub(crate) async fn ls(client: &Client, all: bool, json: bool) -> Result<()> {
    let mut services: Vec<ServiceView> = client.get("/v1/services", &[]).await?;
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
    let detail: ServiceDetail = client.get(&find(client, name).await?, &[]).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&detail)?);
    } else {
        show::detail(&detail, &client.gateway().await?);
    }
    Ok(())
}

/// The job of this name, if no service has it.
pub(crate) async fn job_called(client: &Client, name: &str) -> Result<Option<JobView>> {
    let jobs = jobs::all(client).await?.into_iter();
    let fits = |job: &JobView| job.job == name || format!("{}/{}", job.app, job.job) == name;
    let mut found: Vec<JobView> = jobs.filter(fits).collect();
    let services: Vec<ServiceView> = match found.len() {
        1 => client.get("/v1/services", &[]).await?,
        _ => return Ok(None),
    };
    let taken = services.iter().any(|view| view.service == name);
    Ok(found.pop().filter(|_| !taken))
}

/// `wake`, `doze` or `sleep`: asks for it and waits until it is so.
///
/// # Errors
/// As [`status`]; the service is not live; or it did not get there in time.
pub(crate) async fn turn(client: &Client, name: &str, verb: &str) -> Result<()> {
    let path = find(client, name).await?;
    let view: ServiceView = client.post(&format!("{path}/{verb}"), &[]).await?;
    let was_to_rest = verb != "wake";
    let then = match was_to_rest && view.wakefulness == Some(Showing::Awake) {
        true => ": it rested, and was woken again at once by who uses it",
        false => "",
    };
    let state = show::state(&view);
    say!("{}/{}  {state}{then}", view.app, view.service);
    Ok(())
}

/// Deploys a service again, with another image or other settings.
///
/// # Errors
/// As [`status`]; or the rollout failed.
pub(crate) async fn deploy(client: &Client, options: &Deploy) -> Result<()> {
    let path = find(client, &options.name.name).await?;
    if options.follow {
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
    let lines = client
        .post_for_lines(&format!("{path}/deploy"), &query, &request)
        .await;
    let lines = events::begun(lines, &path)?;
    events::show(client, lines, events::Style::Auto).await
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

/// The API path of the service called `name`: `service` where that is unique, else `app/service`.
///
/// # Errors
/// The name fits none (which there are is said) or several (which is said).
pub(crate) async fn find(client: &Client, name: &str) -> Result<String> {
    let services: Vec<ServiceView> = client.get("/v1/services", &[]).await?;
    let full = |view: &ServiceView| format!("{}/{}", view.app, view.service);
    let fits = |view: &&ServiceView| full(view) == name || view.service == name;
    let found: Vec<String> = services.iter().filter(fits).map(full).collect();
    match found.as_slice() {
        [one] => Ok(format!("/v1/services/{one}")),
        [] => {
            let all: Vec<String> = services.iter().map(full).collect();
            let instead = nearest::instead(name, &all);
            Err(Exit::new(
                Code::NotFound,
                format!("no service is called {name}: {instead}"),
            )
            .into())
        }
        several => {
            let message = format!(
                "several services are called {name}, say which: {}",
                several.join(", ")
            );
            Err(Exit::new(Code::Failed, message).into())
        }
    }
}

/// The services that names mean, each once: a service's name, else an app's, which means all of its services.
///
/// # Errors
/// No node answers, or a name fits neither a service nor an app.
pub(crate) async fn find_all(client: &Client, names: &[String]) -> Result<Vec<String>> {
    let views: Vec<ServiceView> = client.get("/v1/services", &[]).await?;
    let mut found: Vec<String> = Vec::new();
    for name in names {
        let full = |view: &ServiceView| format!("{}/{}", view.app, view.service);
        let is_service = |view: &&ServiceView| full(view) == *name || view.service == *name;
        let app = name.trim_end_matches('/');
        let of_app = views.iter().filter(|view| view.app == app);
        let of_app: Vec<String> = of_app.map(full).collect();
        // Several of a name are an error that says which there are.
        if !of_app.is_empty() && (app != name || views.iter().filter(is_service).count() != 1) {
            found.extend(of_app);
        } else {
            let path = find(client, name).await?;
            found.extend(path.strip_prefix("/v1/services/").map(str::to_owned));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}
