//! Services: what they are at, how awake they are, what they say.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use layby_model::state::Showing;
use layby_model::{ServiceId, Wakefulness};

use super::body::MaySay;
use super::canary;
use super::lines::lines;
use super::query::{self, Pairs};
use super::roll::{self, Roll};
use super::types::{DeployBody, Event, Problem, ServiceDetail, ServiceView};
use super::{Shared, Who};
use crate::addresses;
use crate::deploy;
use crate::driver::{DriverHandle, Request, Status, shown_spec};
use crate::plane::Plane;
use crate::room;
use crate::uses::Use;

/// How often it is looked whether what is watched has changed.
const WATCH: Duration = Duration::from_millis(250);

/// How long a service may take to be as awake as it was asked to.
const REACH_TIMEOUT: Duration = Duration::from_secs(60);

/// Every service of the node.
#[utoipa::path(
    get,
    path = "/v1/services",
    params(("watch" = Option<bool>, Query, description = "Go on: the whole list again whenever it changes, one a line")),
    responses((status = 200, content((Vec<ServiceView> = "application/json"), (String = "application/x-ndjson")))),
)]
pub(super) async fn list(State(plane): Shared, who: Who, pairs: Pairs) -> Response {
    let look = move || {
        let drivers = plane.all_drivers().into_iter();
        let drivers = drivers.filter(|(id, _)| who.rights.covers(id.app.as_str()));
        let views = drivers.map(|(id, driver)| view(&plane, &id, &driver));
        Ok::<_, Problem>(views.collect::<Vec<ServiceView>>())
    };
    match query::flag(&pairs, "watch") {
        true => lines(watched(move || std::future::ready(look()))),
        false => look().map(Json).into_response(),
    }
}

/// A service as lists show it, with what a canary of it was given so far.
fn view(plane: &Plane, id: &ServiceId, driver: &DriverHandle) -> ServiceView {
    let status = driver.status.borrow();
    let mut view = status.detail.view.clone();
    if view.canary.is_some() {
        view.canary = status.canary(&(plane.traffic)(id).served);
    }
    view
}

/// What is seen, again whenever it is another; it ends with what is looked at.
fn watched<T: PartialEq + Clone + Send + 'static, F>(
    look: impl Fn() -> F + Send + 'static,
) -> impl futures_util::Stream<Item = T> + Send
where
    F: Future<Output = Result<T, Problem>> + Send,
{
    futures_util::stream::unfold((look, None), |(look, last)| async move {
        loop {
            let now = look().await.ok()?;
            if last.as_ref() != Some(&now) {
                return Some((now.clone(), (look, Some(now))));
            }
            tokio::time::sleep(WATCH).await;
        }
    })
}

/// One service in full.
#[utoipa::path(
    get,
    path = "/v1/services/{app}/{service}",
    params(
        ("app" = String, Path),
        ("service" = String, Path),
        ("watch" = Option<bool>, Query, description = "Go on: the service again whenever something of it changes, one a line"),
    ),
    responses(
        (status = 200, content((ServiceDetail = "application/json"), (String = "application/x-ndjson"))),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn detail(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let (id, driver) = find(&plane, names)?;
    if query::flag(&pairs, "watch") {
        let look = move || std::future::ready(look_at(&plane, &id));
        return Ok(lines(watched(look)));
    }
    let mut detail = look_at(&plane, &id)?;
    let row = driver.status.borrow().row.clone();
    let ports = addresses::public_ports(&id, shown_spec(&row), plane.config.publish_on);
    for (port, chain) in (plane.dropped_ports)(ports).await {
        detail.conditions.push(format!(
            "a firewall drops what other machines send to port {port} (its {chain}): accept TCP port {port} there"
        ));
    }
    Ok(Json(detail).into_response())
}

/// One service in full, again whenever something of it changes. Wakes it, and as long as somebody listens it stays awake.
#[utoipa::path(
    get,
    path = "/v1/services/{app}/{service}/hold",
    params(("app" = String, Path), ("service" = String, Path)),
    responses(
        (status = 200, content_type = "application/x-ndjson", body = ServiceDetail, description = "One a line"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn hold(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (id, _) = find(&plane, names)?;
    let held = Use::begin(&plane, &id);
    let look = move || {
        let _ = &held; // kept until nobody listens
        std::future::ready(look_at(&plane, &id))
    };
    Ok(lines(watched(look)))
}

/// What a service is at now, but for what others do to it.
fn look_at(plane: &Plane, id: &ServiceId) -> Result<ServiceDetail, Problem> {
    let driver = plane.driver(id).ok_or_else(|| Problem::no_service(id))?;
    let status = Arc::clone(&driver.status.borrow());
    let mut detail = status.detail.clone();
    let now_ms = plane.clock.now_ms();
    let ends = status.ends.iter().map(|ending| ending.condition(now_ms));
    detail.conditions.extend(ends);
    let short = plane.scaling.found(id).and_then(|found| found.short);
    let short = short.filter(|_| detail.view.scales.is_some());
    (detail.conditions)
        .extend(short.map(|why| format!("it is not scaled as far as it needs: {why}")));
    detail.view = view(plane, id, &driver);
    let held = detail.last_wake.as_mut();
    if let Some(wake) = held.filter(|wake| wake.held_ms.is_some()) {
        // The gateway saw the request that was held to its end.
        let seen = (plane.traffic)(id).last_wake;
        wake.held_ms = seen.map(|timing| timing.held_ms).or(wake.held_ms);
    }
    Ok(detail)
}

/// Wakes a service, and answers when a replica of it is ready.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/wake",
    params(("app" = String, Path), ("service" = String, Path)),
    responses(
        (status = 200, body = ServiceView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Nothing of it is live"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "Not reached within 60 s"),
    )
)]
pub(super) async fn wake(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
) -> Result<Json<ServiceView>, Problem> {
    reach(&plane, names, Wakefulness::Awake).await
}

/// Freezes a service in memory, and answers when it is.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/doze",
    params(("app" = String, Path), ("service" = String, Path)),
    responses(
        (status = 200, body = ServiceView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Nothing of it is live"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "Not reached within 60 s"),
    )
)]
pub(super) async fn doze(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
) -> Result<Json<ServiceView>, Problem> {
    reach(&plane, names, Wakefulness::Dozing).await
}

/// Stops a service and keeps it prepared, and answers when it is.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/sleep",
    params(("app" = String, Path), ("service" = String, Path)),
    responses(
        (status = 200, body = ServiceView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Nothing of it is live"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "Not reached within 60 s"),
    )
)]
pub(super) async fn sleep(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
) -> Result<Json<ServiceView>, Problem> {
    reach(&plane, names, Wakefulness::Asleep).await
}

/// Deploys a service anew with another image or environment, and tells how it goes.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/deploy",
    params(
        ("canary" = Option<String>, Query, description = "Try it out on so many percent of the requests, `1%` to `99%`"),
        ("canary_header" = Option<String>, Query, description = "Try it out on requests with this header, `NAME` or `NAME=VALUE`"),
        ("canary_cookie" = Option<String>, Query, description = "Try it out on requests with this cookie, `NAME` or `NAME=VALUE`"),
    ),
    request_body = Option<DeployBody>,
    responses(
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such service, or no such image"),
    )
)]
pub(super) async fn deploy(
    State(plane): Shared,
    roll: Roll,
    MaySay(body): MaySay<DeployBody>,
) -> Result<Response, Problem> {
    let share = canary::share(&roll.pairs)?;
    roll::told(deploy::change(plane, &roll.id, body, share, roll.detach, roll.who).await)
}

/// Tells how the rollout of a service's newest revision goes until it is live or has failed; also one that a push has
/// just begun, or that is over.
#[utoipa::path(
    get,
    path = "/v1/services/{app}/{service}/rollout",
    params(("app" = String, Path), ("service" = String, Path)),
    responses(
        (status = 200, body = Event, content_type = "application/x-ndjson", description = "One event a line, the last is `done`"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn rollout(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
) -> Result<Response, Problem> {
    roll::told(deploy::follow(plane, &parse(names)?).await)
}

/// Asks a service to be so awake, and waits until it is.
async fn reach(
    plane: &Arc<Plane>,
    names: (String, String),
    wanted: Wakefulness,
) -> Result<Json<ServiceView>, Problem> {
    let (id, mut driver) = find(plane, names)?;
    if driver.status.borrow().row.removing {
        return Err(Problem::conflict(format!("{id} is being taken down")));
    }
    if !driver.status.borrow().row.enabled {
        return Err(Problem::conflict(format!("{id} is disabled"))
            .hint(format!("`layby enable {id}` brings it back")));
    }
    if driver.status.borrow().row.live.is_none() {
        return Err(Problem::conflict(format!("nothing of {id} is live yet"))
            .hint(format!("`layby status {id}` says why")));
    }
    let uses = plane.uses.of(&id);
    if wanted < Wakefulness::Awake && uses > 0 {
        return Err(Problem::conflict(in_use(&id, uses)).hint("end it first, or wait for its end"));
    }
    if wanted < Wakefulness::Awake {
        room::check(plane).await?;
    }
    let asked = driver.requests.try_send(Request::Want(wanted));
    asked.map_err(|_| {
        let text = format!("too many requests for {id} wait already");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text).hint("try again")
    })?;
    let lowest = plane.engine.traits().possible(wanted);
    let ends = |status: &Status| -> u32 {
        let replicas = status.detail.replicas.iter();
        replicas
            .flat_map(|r| &r.containers)
            .map(|c| c.restarts)
            .sum()
    };
    let ends_before = ends(&driver.status.borrow());
    let wake_before = driver.status.borrow().detail.last_wake;
    let mut lowered = false;
    let there = |status: &Arc<Status>| {
        // A request may wake it at once: then it was there.
        let showing = status.detail.view.wakefulness;
        lowered |= matches!(showing, Some(Showing::Dozing | Showing::Asleep));
        // It may be so fast that it is seen by this alone.
        lowered |= status.detail.last_wake != wake_before;
        let woken = lowered && wanted < Wakefulness::Awake && showing == Some(Showing::Awake);
        // One ready replica is awake enough, and whether that is written is nobody's concern.
        let awake =
            wanted == Wakefulness::Awake && status.detail.view.wakefulness == Some(Showing::Awake);
        // It ran, and ended again for good.
        let ended = wanted == Wakefulness::Awake
            && showing == Some(Showing::Ended)
            && ends(status) > ends_before;
        status.gone || awake || woken || ended || status.resting == Some(lowest)
    };
    let reached = tokio::time::timeout(REACH_TIMEOUT, driver.status.wait_for(there)).await;
    match reached {
        Ok(Ok(status)) if !status.gone => Ok(Json(status.detail.view.clone())),
        Ok(_) => Err(Problem::no_service(&id)),
        Err(_) => Err(Problem::timed_out(format!(
            "{id} is not {wanted} after {} s",
            REACH_TIMEOUT.as_secs()
        ))
        .hint(format!("`layby status {id}` says what it is at"))),
    }
}

/// What keeps a service from being put to sleep.
fn in_use(id: &ServiceId, uses: u32) -> String {
    match uses {
        1 => format!(
            "{id} is in use: a command, a copy, a forwarded connection or a restart of it goes on"
        ),
        uses => format!(
            "{id} is in use: {uses} commands, copies, forwarded connections or restarts of it go on"
        ),
    }
}

pub(super) fn find(
    plane: &Plane,
    names: (String, String),
) -> Result<(ServiceId, DriverHandle), Problem> {
    let id = parse(names)?;
    let driver = plane.driver(&id).ok_or_else(|| Problem::no_service(&id))?;
    Ok((id, driver))
}

pub(super) fn parse((app, service): (String, String)) -> Result<ServiceId, Problem> {
    let id = format!("{app}/{service}").parse();
    id.map_err(|error: layby_model::NameError| Problem::bad_request(error.to_string()))
}
