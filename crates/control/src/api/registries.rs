//! Who the node is at other registries. No answer holds a password.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use layby_image::client::{Credentials, Keyring, Options, check_login};

use super::Shared;
use super::body::Hushed;
use super::images::broke_off;
use super::query::{self, Pairs};
use super::types::{LoginBody, LoginView, Problem};
use crate::audit::Target;

/// The longest name of a registry.
const MAX_NAME_BYTES: usize = 255;

/// The registries that the node is logged in to, by `layby login`.
#[utoipa::path(get, path = "/v1/registries", responses((status = 200, body = [LoginView])))]
pub(super) async fn list(State(plane): Shared) -> Result<Json<Vec<LoginView>>, Problem> {
    let keyring = Keyring::new(vec![plane.registries.logins().clone()]);
    let known = tokio::task::spawn_blocking(move || keyring.list()).await;
    let known = known.map_err(broke_off)??;
    let known = known.into_iter();
    Ok(Json(
        known
            .map(|(registry, user)| LoginView { registry, user })
            .collect(),
    ))
}

/// Checks a user and a password at a registry, and keeps them for pulls and pushes.
#[utoipa::path(
    post,
    path = "/v1/registries",
    request_body = LoginBody,
    responses(
        (status = 200, body = LoginView),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "The registry does not let them in"),
        (status = 502, body = Problem, content_type = "application/problem+json", description = "It cannot be reached"),
    )
)]
pub(super) async fn login(
    State(plane): Shared,
    Hushed(body): Hushed<LoginBody>,
) -> Result<(Extension<Target>, Json<LoginView>), Problem> {
    // Where it is wrong is told, not what stands there: it may be the password.
    let registry = named(&body.registry)?;
    let registries = plane.registries.clone();
    let work = move || {
        let options = Options {
            credentials: Some(Credentials::Password {
                user: body.user.clone(),
                password: body.password.clone(),
            }),
            ..registries.anonymous(&registry)
        };
        check_login(&registry, &options)?;
        registries.log_in(&registry, &body.user, &body.password)?;
        let user = Some(body.user);
        Ok::<_, layby_image::Error>(LoginView { registry, user })
    };
    let done = plane.at_clients_pace(work).await.await;
    let login = done.map_err(broke_off)??;
    Ok((Extension(Target(login.registry.clone())), Json(login)))
}

/// Forgets a registry's user and password.
#[utoipa::path(
    delete,
    path = "/v1/registries",
    params(("registry" = String, Query)),
    responses(
        (status = 204, description = "They are gone"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn logout(State(plane): Shared, pairs: Pairs) -> Result<StatusCode, Problem> {
    let registry = named(query::get(&pairs, "registry").unwrap_or_default())?;
    let registries = plane.registries.clone();
    let name = registry.clone();
    let known = tokio::task::spawn_blocking(move || registries.log_out(&name)).await;
    match known.map_err(broke_off)?? {
        true => Ok(StatusCode::NO_CONTENT),
        false => {
            let text = format!("this node is not logged in to {registry}");
            Err(Problem::new(StatusCode::NOT_FOUND, "not-found", text))
        }
    }
}

/// A registry by its name, as references have it.
fn named(text: &str) -> Result<String, Problem> {
    let name = layby_image::client::registry_name(text);
    let probe = format!("{name}/x").parse::<layby_image::Reference>();
    match probe {
        Ok(reference) if reference.registry == name && name.len() <= MAX_NAME_BYTES => Ok(name),
        _ => Err(Problem::bad_request(format!(
            "{name:?} is no registry: write its host, with a port if it has one"
        ))),
    }
}
