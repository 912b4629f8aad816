//! What a name means: a service, the pods of a StatefulSet, each of which is a service, or all services of an app.

use anyhow::Result;
use layby_control::api::types::{JobView, ServiceDetail, ServiceView};

use crate::client::Client;
use crate::commands::jobs;
use crate::exit::{Code, Exit};
use crate::nearest;

/// So many services are looked into for a container of a name that no service has.
const LOOKED_INTO: usize = 20;

/// What a name means.
#[derive(Debug, PartialEq)]
pub(crate) enum Meant<'a> {
    /// The service of this name.
    Service(&'a ServiceView),
    /// All pods of the StatefulSet of this name, in their order.
    Pods(Vec<&'a ServiceView>),
}

impl<'a> Meant<'a> {
    /// The services, one or several.
    pub(crate) fn services(self) -> Vec<&'a ServiceView> {
        match self {
            Self::Service(view) => vec![view],
            Self::Pods(pods) => pods,
        }
    }
}

/// A service as it is called in full.
pub(crate) fn full(view: &ServiceView) -> String {
    format!("{}/{}", view.app, view.service)
}

/// The API path of a service.
pub(crate) fn path(view: &ServiceView) -> String {
    format!("/v1/services/{}", full(view))
}

/// All services of the node.
///
/// # Errors
/// No node answers.
pub(crate) async fn views(client: &Client) -> Result<Vec<ServiceView>> {
    client.get("/v1/services", &[]).await
}

/// The service or the StatefulSet called `name`: its own name where that is unique, else `app/name`.
///
/// # Errors
/// The name fits none (which there are is said) or several (which is said).
pub(crate) async fn find<'a>(
    client: &Client,
    views: &'a [ServiceView],
    name: &str,
) -> Result<Meant<'a>> {
    let known = meant(views, name);
    if known.len() > 1 {
        let names: Vec<String> = known.iter().map(called).collect();
        let text = format!(
            "several services are called {name}, say which: {}",
            names.join(", ")
        );
        return Err(Exit::new(Code::Failed, text).into());
    }
    match known.into_iter().next() {
        Some(meant) => Ok(meant),
        None => Err(nobody(client, views, name).await.into()),
    }
}

/// The API path of the one service called `name`.
///
/// # Errors
/// As [`find`]; or it is a StatefulSet: `what` says, after its name and before those of its pods, what is to be done.
pub(crate) async fn find_one(client: &Client, name: &str, what: &str) -> Result<String> {
    match find(client, &views(client).await?, name).await? {
        Meant::Service(view) => Ok(path(view)),
        Meant::Pods(pods) => Err(Exit::new(Code::Failed, of_set(&pods, what)).into()),
    }
}

/// The services that names mean, each once: a service's name, else an app's, which means all of its services, else a StatefulSet's.
///
/// # Errors
/// No node answers, or a name fits none of these.
pub(crate) async fn find_all(client: &Client, names: &[String]) -> Result<Vec<ServiceView>> {
    let views = views(client).await?;
    let mut found: Vec<&ServiceView> = Vec::new();
    for name in names {
        match app_called(&views, name) {
            Some(of_app) => found.extend(of_app),
            // Several of a name are an error that says which there are.
            None => found.extend(find(client, &views, name).await?.services()),
        }
    }
    found.sort_by_cached_key(|view| order(view));
    found.dedup_by_key(|view| full(view));
    Ok(found.into_iter().cloned().collect())
}

/// The services of the app that is called `name`, or `name` without a `/` at its end, if one is and no one service is called so.
fn app_called<'a>(views: &'a [ServiceView], name: &str) -> Option<Vec<&'a ServiceView>> {
    let app = name.trim_end_matches('/');
    let is_service = || matches!(meant(views, name)[..], [Meant::Service(_)]);
    let of_app: Vec<&ServiceView> = views.iter().filter(|view| view.app == app).collect();
    (!of_app.is_empty() && (app != name || !is_service())).then_some(of_app)
}

/// All that a name may mean: a service goes before a StatefulSet of its app that is called like it.
fn meant<'a>(views: &'a [ServiceView], name: &str) -> Vec<Meant<'a>> {
    let fits = |app: &str, one: &str| one == name || name.split_once('/') == Some((app, one));
    let mut found: Vec<Meant> = (views.iter())
        .filter(|view| fits(&view.app, &view.service))
        .map(Meant::Service)
        .collect();
    let set = |view: &'a ServiceView| Some((&*view.app, view.set.as_deref()?));
    let mut sets: Vec<(&str, &str)> = views.iter().filter_map(set).collect();
    sets.sort_unstable();
    sets.dedup();
    for one in sets.into_iter().filter(|(app, one)| fits(app, one)) {
        // A service of this app is called so: it has no other name, and the pods have.
        let is_one = |view: &ServiceView| (&*view.app, &*view.service) == one;
        if views.iter().any(is_one) {
            continue;
        }
        let mut pods: Vec<&ServiceView> =
            views.iter().filter(|view| set(view) == Some(one)).collect();
        pods.sort_by_cached_key(|view| order(view));
        found.push(Meant::Pods(pods));
    }
    found
}

/// By which services are sorted: the pods of a StatefulSet by their numbers.
fn order(view: &ServiceView) -> (String, String, u64) {
    let number = view.set.as_ref().and_then(|set| {
        let number = view.service.strip_prefix(set.as_str())?;
        number.strip_prefix('-')?.parse().ok()
    });
    let name = view.set.as_ref().filter(|_| number.is_some());
    let name = name.unwrap_or(&view.service);
    (view.app.clone(), name.clone(), number.unwrap_or(0))
}

/// How something is called in full.
fn called(meant: &Meant) -> String {
    match meant {
        Meant::Service(view) => full(view),
        Meant::Pods(pods) => pods.first().map_or_else(String::new, |pod| set_of(pod)),
    }
}

fn set_of(pod: &ServiceView) -> String {
    let set = pod.set.as_deref().unwrap_or(&pod.service);
    format!("{}/{set}", pod.app)
}

/// `shop/db is a StatefulSet: name one of its pods: shop/db-0, shop/db-1`.
pub(crate) fn of_set(pods: &[&ServiceView], what: &str) -> String {
    let set = pods.first().map_or_else(String::new, |pod| set_of(pod));
    let names: Vec<String> = pods.iter().map(|pod| full(pod)).collect();
    format!("{set} is a StatefulSet: {what}: {}", names.join(", "))
}

/// That nothing is called so: a job may be, or a container that has no service of its own.
async fn nobody(client: &Client, views: &[ServiceView], name: &str) -> Exit {
    let jobs: Vec<JobView> = jobs::all(client).await.unwrap_or_default();
    if let Some(job) = jobs.iter().find(|job| jobs::is_called(job, name)) {
        let job = format!("{}/{}", job.app, job.job);
        let text = format!(
            "{job} is a job, and no service: `layby job run {job}` runs it, `layby job --help` says what else there is"
        );
        return Exit::new(Code::NotFound, text);
    }
    if let Some((service, container)) = container_of(client, views, name).await {
        let text = format!(
            "no service is called {name}: it is a container of {service} (`layby logs {service} --container {container}`)"
        );
        return Exit::new(Code::NotFound, text);
    }
    let all: Vec<String> = views.iter().map(full).collect();
    let sets = views.iter().filter(|view| view.set.is_some()).map(set_of);
    let sets: Vec<String> = sets.collect();
    let instead = match nearest::nearest(name, &sets) {
        Some(set) if nearest::nearest(name, &all).is_none() => format!("did you mean {set}?"),
        Some(_) | None => nearest::instead(name, &all),
    };
    let text = format!("no service is called {name}: {instead}");
    Exit::new(Code::NotFound, text)
}

/// The service that has a container of this name, as one of Compose that lives in another's network, and the container.
async fn container_of(
    client: &Client,
    views: &[ServiceView],
    name: &str,
) -> Option<(String, String)> {
    let (app, container) = match name.split_once('/') {
        Some((app, container)) => (Some(app), container),
        None => (None, name),
    };
    let views = views
        .iter()
        .filter(|view| app.is_none_or(|app| app == view.app));
    for view in views.take(LOOKED_INTO) {
        let detail: ServiceDetail = client.get(&path(view), &[]).await.ok()?;
        let mut containers = detail.replicas.iter().flat_map(|r| &r.containers);
        if containers.any(|one| one.name == container) {
            return Some((full(view), container.to_owned()));
        }
    }
    None
}

/// A service that runs, for tests.
#[cfg(test)]
pub(crate) fn sample(app: &str, service: &str, set: Option<&str>) -> ServiceView {
    ServiceView {
        app: app.to_owned(),
        service: service.to_owned(),
        state: layby_model::state::State::Running,
        wakefulness: None,
        failed_revision: None,
        aborted: None,
        replicas_ready: 1,
        replicas_wanted: 1,
        scales: None,
        power: None,
        revision: 1,
        image: String::new(),
        urls: Vec::new(),
        virtual_address: None,
        canary: None,
        crash_loop: false,
        set: set.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_set_means_its_pods_in_their_order() {
        let views = [
            sample("shop", "db-10", Some("db")),
            sample("shop", "db-2", Some("db")),
            sample("shop", "db-7", None),
            sample("blog", "web", None),
            sample("blog", "web-0", Some("web")),
        ];
        let names = |name: &str| -> Vec<Vec<String>> {
            let all = meant(&views, name).into_iter();
            all.map(|one| one.services().into_iter().map(full).collect())
                .collect()
        };
        assert_eq!(names("db"), [["shop/db-2", "shop/db-10"]]);
        assert_eq!(names("shop/db"), [["shop/db-2", "shop/db-10"]]);
        assert_eq!(names("db-2"), [["shop/db-2"]]);
        assert_eq!(names("web"), [["blog/web"]]);
        assert_eq!(names("blog/web"), [["blog/web"]]);
        assert_eq!(names("web-0"), [["blog/web-0"]]);
        assert!(names("blog/db").is_empty());
        let pods = meant(&views, "db").remove(0).services();
        assert_eq!(
            of_set(&pods, "name one of its pods"),
            "shop/db is a StatefulSet: name one of its pods: shop/db-2, shop/db-10"
        );
    }

    #[test]
    fn the_name_of_an_app_means_all_of_it_unless_a_service_has_it() {
        let views = [
            sample("queue", "queue-0", Some("queue")),
            sample("queue", "exporter", None),
            sample("blog", "web", None),
            sample("web", "web", None),
            sample("api", "worker", None),
            sample("shop", "api", None),
        ];
        let names = |name: &str| {
            let of_app = app_called(&views, name)?.into_iter();
            Some(of_app.map(full).collect::<Vec<_>>().join(" "))
        };
        for (name, all) in [
            // The usual name of a StatefulSet that has its namespace to itself.
            ("queue", Some("queue/queue-0 queue/exporter")),
            ("queue/queue", None),
            // Of two services of the name none is meant alone.
            ("web", Some("web/web")),
            ("api", None),
            ("api/", Some("api/worker")),
            ("worker", None),
        ] {
            assert_eq!(names(name).as_deref(), all, "{name}");
        }
    }
}
