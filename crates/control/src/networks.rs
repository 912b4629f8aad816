//! Networks that apps share (Compose `external`): made and removed by an admin, and joined by what names them.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use layby_model::names::is_dns_label;
use layby_model::network::{Networks, SHARED};
use layby_model::spec::{AppSpec, ServiceSpec};
use layby_model::{AppName, ServiceId};

use crate::api::types::Problem;
use crate::clock;
use crate::plane::Plane;
use crate::store::{Network, Row, Shelf};
use crate::tokens::Rights;

/// The most networks that apps share. Each makes further sets of networks, which take bridges of the node.
const MOST: u32 = 100;
/// The longest name, in characters.
const LONGEST: usize = 63;
/// The most names that several apps have which whoever deploys one of these is told of, in one network.
const TOLD: usize = 10;

/// A network, and the services and jobs that are in it.
pub(crate) struct Used {
    pub(crate) network: Network,
    pub(crate) by: Vec<ServiceId>,
    /// The names without a dot that services of several apps have in it: each leads further apps to the first of these.
    pub(crate) doubled: BTreeMap<String, BTreeSet<AppName>>,
}

/// Makes a network; of one that is there, who may join is said anew.
///
/// # Errors
/// 409: it cannot be called so, there are too many, or an app that is in it would be left out.
pub(crate) async fn make(
    plane: &Plane,
    name: &str,
    apps: BTreeSet<String>,
    by: &str,
) -> Result<Used, Problem> {
    if !Networks::is_name(name) || name.len() > LONGEST {
        let text = format!("no network can be called {name:?}");
        let hint =
            "use up to 63 letters, digits, '_', '.' and '-', beginning with a letter or digit";
        return Err(Problem::conflict(text).hint(hint));
    }
    if let Some(app) = apps.iter().find(|app| !is_dns_label(app)) {
        let text = format!("no app is called {app:?}");
        return Err(Problem::conflict(text).hint("`layby ls` shows what the apps are called"));
    }
    // Whoever deploys meanwhile is done before.
    let _turn = plane.deploys.lock().await;
    leaves_none_out(&all(plane).await?, name, &apps)?;
    let network = Network {
        name: name.to_owned(),
        apps,
        made_by: by.to_owned(),
        created_ms: i64::try_from(clock::wall_ms()).unwrap_or(i64::MAX),
    };
    if !plane.store.set_network(network, MOST).await? {
        let text = format!("this node has {MOST} networks already, as many as it may have");
        return Err(Problem::conflict(text).hint("remove one that no service uses"));
    }
    one(plane, name).await
}

/// Refuses to shut an app out of a network that it is in: none of its deploys would pass any more, those that nobody looks at
/// either.
fn leaves_none_out(all: &[Used], name: &str, apps: &BTreeSet<String>) -> Result<(), Problem> {
    let used = all.iter().filter(|used| used.network.name == name);
    let mut by = used.flat_map(|used| &used.by);
    let left_out = by.find(|id| !apps.is_empty() && !apps.contains(id.app.as_str()));
    let Some(id) = left_out else {
        return Ok(());
    };
    let text = format!("the network {name:?} is in use by {id}, whose app would be left out");
    let hint = format!(
        "name all that may join, `--app {}` too; `layby network inspect {name}` shows who is in it",
        id.app
    );
    Err(Problem::conflict(text).hint(hint))
}

/// All networks that apps share.
pub(crate) async fn all(plane: &Plane) -> Result<Vec<Used>, Problem> {
    let rows = plane.store.services().await?;
    let shelves = plane.store.shelves().await?;
    Ok(used(plane.store.networks().await?, &rows, &shelves))
}

/// These networks with what is in them, of all that is deployed.
fn used(networks: Vec<Network>, rows: &[Row], shelves: &BTreeMap<ServiceId, Shelf>) -> Vec<Used> {
    let services = rows.iter().flat_map(|row| {
        let revisions = row.live.iter().chain([&row.target]);
        revisions.map(move |revision| (&row.service, &revision.spec.service))
    });
    let jobs = shelves.iter().flat_map(|(id, shelf)| {
        let job = shelf.job.iter().map(|job| &job.spec);
        let runs = shelf.active().filter_map(|run| run.spec.as_ref());
        job.chain(runs).map(move |spec| (id, &spec.service))
    });
    let named: Vec<(&ServiceId, &ServiceSpec)> = services.clone().collect();
    let users: Vec<(&ServiceId, &ServiceSpec)> = services.chain(jobs).collect();
    let used = networks.into_iter().map(|network| {
        let is_in = |spec: &ServiceSpec| names(spec).any(|name| name == network.name);
        let by = users.iter().filter(|(_, spec)| is_in(spec));
        let by: BTreeSet<ServiceId> = by.map(|(id, _)| (*id).clone()).collect();
        Used {
            doubled: doubled(&network.name, &named),
            network,
            by: by.into_iter().collect(),
        }
    });
    used.collect()
}

/// The names without a dot that services of several apps have in a network, as [`crate::names`] gives them to further apps.
fn doubled(
    network: &str,
    services: &[(&ServiceId, &ServiceSpec)],
) -> BTreeMap<String, BTreeSet<AppName>> {
    let mut all: BTreeMap<String, BTreeSet<AppName>> = BTreeMap::new();
    let is_in = |spec: &ServiceSpec| {
        spec.sandbox.network.is_own() && names(spec).any(|name| name == network)
    };
    for (id, spec) in services.iter().filter(|(_, spec)| is_in(spec)) {
        let there = spec.network_names.get(&format!("{SHARED}{network}"));
        let further = spec.names.iter().chain(there.into_iter().flatten());
        let own = std::iter::once(spec.name.as_str()).chain(further.map(String::as_str));
        for name in own.filter(|name| !name.contains('.')) {
            all.entry(name.to_owned())
                .or_default()
                .insert(id.app.clone());
        }
    }
    all.retain(|_, apps| apps.len() > 1);
    all
}

/// What whoever deploys an app is told of names in networks that apps share, which it has and others have, too. Who is limited to
/// some apps is told of no others.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn warnings(
    plane: &Plane,
    rights: &Rights,
    app: &AppSpec,
) -> Result<Vec<String>, Problem> {
    let shares = |spec: &ServiceSpec| spec.networks.shared().next().is_some();
    if !rights.is_whole() || !app.services.iter().any(shares) {
        return Ok(Vec::new());
    }
    let all = all(plane).await?;
    Ok(all
        .iter()
        .filter_map(|used| told(used, &app.name))
        .collect())
}

/// The same of one network.
fn told(used: &Used, app: &AppName) -> Option<String> {
    let own = used.doubled.iter().filter(|(_, apps)| apps.contains(app));
    let all: Vec<String> = own
        .map(|(name, apps)| {
            let apps: Vec<&str> = apps.iter().map(AppName::as_str).collect();
            format!("{name} ({})", apps.join(", "))
        })
        .collect();
    let more = match all.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let shown = all.get(..TOLD).unwrap_or(&all).join(", ");
    (!all.is_empty()).then(|| {
        format!(
            "in the network {:?} other apps have names of {app}, too: {shown}{more}; such a name leads further apps to the first of these, and NAME.{app} to this one",
            used.network.name
        )
    })
}

/// One of them.
///
/// # Errors
/// 404.
pub(crate) async fn one(plane: &Plane, name: &str) -> Result<Used, Problem> {
    let mut all = all(plane).await?.into_iter();
    let found = all.find(|used| used.network.name == name);
    found.ok_or_else(|| missing(name))
}

/// That a network is not there.
pub(crate) fn missing(name: &str) -> Problem {
    let text = format!("there is no network {name:?} that apps share");
    Problem::new(StatusCode::NOT_FOUND, "not-found", text).hint("`layby network ls` shows them")
}

/// Removes one.
///
/// # Errors
/// 404; 409: something is in it.
pub(crate) async fn remove(plane: &Plane, name: &str) -> Result<(), Problem> {
    let _turn = plane.deploys.lock().await;
    let used = one(plane, name).await?;
    if let Some(first) = used.by.first() {
        let more = match used.by.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let text = format!("the network {name:?} is in use by {first}{more}");
        return Err(Problem::conflict(text).hint("take these out of it, or down, first"));
    }
    Ok(plane.store.remove_network(name.to_owned()).await?)
}

/// Refuses services that name a network which is not there, or is not for their app. In turn.
///
/// # Errors
/// 409, with the command that makes it.
pub(crate) fn check<'a>(
    known: &[Network],
    services: impl IntoIterator<Item = (ServiceId, &'a ServiceSpec)>,
) -> Result<(), Problem> {
    for (id, spec) in services {
        for name in names(spec) {
            let Some(network) = known.iter().find(|network| network.name == name) else {
                let text =
                    format!("{id} is in the network {name:?} of other apps, which is not there");
                let hint = format!("an admin makes it: `layby network create {name}`");
                return Err(Problem::conflict(text).hint(hint));
            };
            if !network.apps.is_empty() && !network.apps.contains(id.app.as_str()) {
                let text = format!("{id} may not join the network {name:?}: it is for other apps");
                let hint = naming(name, id.app.as_str());
                return Err(Problem::conflict(text).hint(hint));
            }
        }
    }
    Ok(())
}

/// Refuses whoever is limited to some apps what lets these reach others: a network that does not name the app, and in which it is
/// not yet. In turn.
///
/// # Errors
/// 403.
pub(crate) fn may_join<'a>(
    known: &[Network],
    rights: &Rights,
    rows: &[Row],
    services: impl IntoIterator<Item = (ServiceId, &'a ServiceSpec)>,
) -> Result<(), Problem> {
    for (id, spec) in services {
        for name in names(spec) {
            let network = known.iter().find(|network| network.name == name);
            let names_it = network.is_some_and(|one| one.apps.contains(id.app.as_str()));
            let is_in = rows.iter().any(|row| {
                let mut revisions = row.live.iter().chain([&row.target]);
                row.service.app == id.app
                    && revisions.any(|of| names(&of.spec.service).any(|had| had == name))
            });
            if !names_it && !is_in {
                let problem =
                    rights.denied(&format!("the network {name:?}, in which other apps are"));
                let hint = naming(name, id.app.as_str());
                return Err(problem.hint(hint));
            }
        }
    }
    Ok(())
}

/// How an app is let into a network, and those that are for it already are not shut out.
fn naming(name: &str, app: &str) -> String {
    format!(
        "an admin lets the app in: `layby network inspect {name}` shows which apps it is for, and `layby network create {name} --app ... --app {app}` names them all anew"
    )
}

/// The networks of the node that a service is in, as manifests call them.
fn names(spec: &ServiceSpec) -> impl Iterator<Item = &str> {
    let shared = spec.networks.shared();
    shared.map(|name| name.trim_start_matches(SHARED))
}

#[cfg(test)]
mod tests {
    use layby_model::ServiceName;

    use super::*;
    use crate::tokens::Role;

    fn network(name: &str, apps: &[&str]) -> Network {
        Network {
            name: name.to_owned(),
            apps: apps.iter().map(|app| (*app).to_owned()).collect(),
            made_by: "root".to_owned(),
            created_ms: 0,
        }
    }

    /// `shop/web` in a network of the node.
    fn web(name: &str) -> (ServiceId, ServiceSpec) {
        let mut spec = ServiceSpec::new(ServiceName::new("web").expect("a label"));
        spec.networks.names.insert(format!("{SHARED}{name}"));
        ("shop/web".parse().expect("a service"), spec)
    }

    #[test]
    fn a_network_is_joined_only_if_it_is_there_and_for_the_app() {
        let known = [
            network("any", &[]),
            network("ours", &["shop"]),
            network("theirs", &["blog"]),
        ];
        let joins = |name: &str| {
            let (id, spec) = web(name);
            check(&known, [(id, &spec)])
        };
        assert!(joins("any").is_ok() && joins("ours").is_ok());
        assert_eq!(joins("theirs").map_err(|problem| problem.status), Err(409));
        let hint = joins("none").map_err(|problem| problem.hint.unwrap_or_default());
        assert!(hint.is_err_and(|hint| hint.contains("layby network create none")));
    }

    #[test]
    fn no_app_is_shut_out_of_a_network_that_it_is_in() {
        let used = Used {
            network: network("proxy", &[]),
            by: vec!["shop/web".parse().expect("a service")],
            doubled: BTreeMap::new(),
        };
        let all = [used];
        let says = |name: &str, apps: &[&str]| {
            let apps = apps.iter().map(|app| (*app).to_owned()).collect();
            leaves_none_out(&all, name, &apps)
        };
        assert!(says("proxy", &[]).is_ok() && says("proxy", &["blog", "shop"]).is_ok());
        assert!(says("other", &["blog"]).is_ok());
        let refused = says("proxy", &["blog"]).map_err(|problem| problem.hint.unwrap_or_default());
        assert!(refused.is_err_and(|hint| hint.contains("--app shop")));
    }

    #[test]
    fn who_is_limited_to_an_app_joins_only_what_names_the_app() {
        let known = [network("any", &[]), network("ours", &["shop"])];
        let rights = Rights::new(Role::Deploy, Some(BTreeSet::from(["shop".to_owned()])));
        let joins = |name: &str| {
            let (id, spec) = web(name);
            may_join(&known, &rights, &[], [(id, &spec)])
        };
        assert!(joins("ours").is_ok());
        for name in ["any", "none"] {
            assert_eq!(joins(name).map_err(|problem| problem.status), Err(403));
        }
    }

    #[test]
    fn a_name_that_several_apps_have_in_a_network_is_told_with_whom_it_leads_to() {
        let service = |id: &str, network: &str, alias: &str| {
            let (_, mut spec) = web(network);
            let id: ServiceId = id.parse().expect("a service");
            spec.name = id.service.clone();
            let names = vec![alias.to_owned()];
            spec.network_names
                .insert(format!("{SHARED}{network}"), names);
            (id, spec)
        };
        let all = [
            service("shop/web", "proxy", "api"),
            service("shop/db", "proxy", "web"),
            service("blog/web", "proxy", "www.example.org"),
            service("tick/lone", "proxy", "www.example.org"),
            service("tick/api", "other", "web"),
        ];
        let all: Vec<(&ServiceId, &ServiceSpec)> =
            all.iter().map(|(id, spec)| (id, spec)).collect();
        let app = |name: &str| AppName::new(name).expect("a label");
        let apps = BTreeSet::from([app("blog"), app("shop")]);
        let expected = BTreeMap::from([("web".to_owned(), apps)]);
        assert_eq!(doubled("proxy", &all), expected);
        assert!(doubled("other", &all).is_empty());
        let used = Used {
            network: network("proxy", &[]),
            by: Vec::new(),
            doubled: expected,
        };
        let text = told(&used, &app("shop")).unwrap_or_default();
        assert!(
            text.contains("web (blog, shop); ") && text.contains("NAME.shop"),
            "{text}"
        );
        assert_eq!(told(&used, &app("tick")), None);
    }
}
