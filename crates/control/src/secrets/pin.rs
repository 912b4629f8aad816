//! From the names of secrets to the versions that a revision runs with.

use std::collections::{BTreeMap, BTreeSet};

use layby_model::AppName;
use layby_model::secret::{self, Found, Scope, SecretRef, ValueKind};
use layby_model::spec::ServiceSpec;

use super::seal::Place;
use super::vault::NewValue;
use crate::api::types::Problem;
use crate::plane::Plane;
use crate::store::ValueRow;

/// What there is: the newest version of each name, and all versions.
#[derive(Debug, Default)]
struct Index {
    newest: BTreeMap<(String, ValueKind, String), u32>,
    all: BTreeSet<Place>,
}

impl Index {
    fn new(rows: Vec<ValueRow>) -> Self {
        let mut index = Self::default();
        for place in rows
            .into_iter()
            .filter(|row| row.is_kept)
            .map(|row| row.place)
        {
            let key = (place.app.clone(), place.kind, place.name.clone());
            // They come in order.
            index.newest.insert(key, place.version);
            index.all.insert(place);
        }
        index
    }

    fn find(&self, app: &AppName, wanted: &SecretRef) -> Option<Found> {
        let scopes: &[Scope] = match wanted.scope {
            Some(Scope::App) => &[Scope::App],
            Some(Scope::Node) => &[Scope::Node],
            None => &[Scope::App, Scope::Node],
        };
        scopes.iter().find_map(|scope| {
            let owner = match scope {
                Scope::App => app.to_string(),
                Scope::Node => String::new(),
            };
            let key = (owner, wanted.kind, wanted.name.clone());
            let newest = *self.newest.get(&key)?;
            let version = wanted.version.unwrap_or(newest);
            let place = Place {
                app: key.0,
                kind: key.1,
                name: key.2,
                version,
            };
            let scope = *scope;
            self.all
                .contains(&place)
                .then_some(Found { scope, version })
        })
    }

    /// The keys of a group: the app's, and where it has none, the node's.
    fn keys(&self, app: &AppName, group: &str) -> Vec<String> {
        let of = |owner: &str| -> Vec<String> {
            let names = self
                .newest
                .keys()
                .filter(|(known, kind, _)| known == owner && *kind == ValueKind::Secret);
            names
                .filter_map(|(_, _, name)| name.strip_prefix(group)?.strip_prefix('/'))
                .map(str::to_owned)
                .collect()
        };
        let own = of(app.as_str());
        if own.is_empty() { of("") } else { own }
    }
}

/// Makes services of an app name exact versions: the newest, but where one is named already.
///
/// # Errors
/// A conflict that names every value that is not there.
pub(crate) async fn pin<'a>(
    plane: &Plane,
    services: impl Iterator<Item = (&'a AppName, &'a mut ServiceSpec)>,
) -> Result<(), Problem> {
    let rows = plane.store.values().await?;
    settle(&Index::new(rows), services)
}

/// What a service of an app would be pinned to now, as far as what it names is there.
pub(super) fn as_now(rows: &[ValueRow], app: &AppName, spec: &ServiceSpec) -> ServiceSpec {
    let mut spec = spec.clone();
    // Of the others there is nothing that could be removed.
    let _ = settle(
        &Index::new(rows.to_vec()),
        std::iter::once((app, &mut spec)),
    );
    spec
}

/// Refuses an app that names secrets that are neither there nor among those that its manifest brings.
///
/// # Errors
/// As [`pin`].
pub(crate) async fn check(
    plane: &Plane,
    app: &AppName,
    services: &[ServiceSpec],
    brought: &[NewValue],
) -> Result<(), Problem> {
    let rows = plane.store.values().await?;
    let mut index = Index::new(rows);
    for value in brought {
        let key = (app.to_string(), value.kind, value.name.clone());
        index.all.insert(Place {
            app: key.0.clone(),
            kind: key.1,
            name: key.2.clone(),
            version: 0,
        });
        index.newest.insert(key, 0);
    }
    let mut services = services.to_vec();
    settle(&index, services.iter_mut().map(|service| (app, service)))
}

fn settle<'a>(
    index: &Index,
    services: impl Iterator<Item = (&'a AppName, &'a mut ServiceSpec)>,
) -> Result<(), Problem> {
    let mut texts = Vec::new();
    let mut of_kubernetes = false;
    for (app, service) in services {
        let find = |wanted: &SecretRef| index.find(app, wanted);
        let keys = |group: &str| index.keys(app, group);
        if let Err(missing) = secret::pin(service, &find, &keys) {
            // `SECRET/KEY`.
            of_kubernetes |= missing.iter().any(|name| name.contains('/'));
            texts.push(format!(
                "{app}/{} needs {}",
                service.name,
                missing.join(", ")
            ));
        }
    }
    if texts.is_empty() {
        return Ok(());
    }
    let text = format!("some secrets are not there: {}", texts.join("; "));
    let hint = "`layby secret set --app APP NAME` makes one for an app, `layby secret set NAME` one for every app; \
         `layby secret ls` shows what there is";
    let along = match of_kubernetes {
        true => {
            "; if a Secret of another file is meant, give that along (`layby up -f FILE -f FILE`, or their folder)"
        }
        false => "",
    };
    Err(Problem::conflict(text).hint(format!("{hint}{along}")))
}
