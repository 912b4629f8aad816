//! What every request goes through, in this order: who asks, what they may do, whether the request is as the document
//! says, the work itself, and the record of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use layby_image::registry::TurnedAway;
use serde_json::Value;
use tokio::sync::oneshot;

use super::access::{self, Rule};
use super::params::{self, Params};
use super::types::Problem;
use super::who::{self, Known, Peer, Via, Who};
use super::{ending, hints, mend, once, operations, sse};
use crate::audit::{self, Entry, Target, Ticket};
use crate::clock::wall;
use crate::plane::Plane;
use crate::store::StoreError;
use crate::tokens::Rights;

/// So long is read what is still being sent of a request that is refused.
const TAKE_IN: Duration = Duration::from_secs(5);

/// Which way a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The Unix socket: whoever may use it is as good as root.
    Socket,
    /// The network, over TLS: with a token.
    Network,
}

/// What the gate knows.
#[derive(Clone)]
pub(super) struct Gate {
    plane: Arc<Plane>,
    door: Door,
    params: Arc<HashMap<(String, String), Params>>,
}

impl Gate {
    /// Before the routes of this document.
    pub(super) fn new(plane: Arc<Plane>, door: Door, document: &Value) -> Self {
        let paths = document["paths"].as_object().into_iter().flatten();
        let params = paths.flat_map(|(path, methods)| {
            let methods = methods.as_object().into_iter().flatten();
            methods.map(|(method, operation)| {
                let key = (method.to_uppercase(), path.clone());
                (key, Params::of(operation))
            })
        });
        Self {
            params: Arc::new(params.collect()),
            plane,
            door,
        }
    }

    /// Who asks, and what they may do.
    fn enter(&self, request: &Request) -> Result<Who, Box<(Who, Refused)>> {
        let extensions = request.extensions();
        if self.door == Door::Socket {
            let peer = extensions.get::<ConnectInfo<Peer>>();
            return Ok(peer.map_or_else(Who::root, |ConnectInfo(peer)| Who::local(peer)));
        }
        let peer = extensions.get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map(|ConnectInfo(addr)| addr.ip().to_canonical());
        let who = |name: &str| Who {
            name: name.to_owned(),
            from: peer.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string()),
            via: Via::Token,
            owner: String::new(), // of nothing
            rights: Rights::none(),
        };
        match self.plane.doorman.known(request.headers(), peer) {
            Ok(Some(token)) => match token.role {
                Some(role) => Ok(Who {
                    rights: Rights::new(role, token.apps),
                    owner: who::token(&token.hash),
                    ..who(&token.name)
                }),
                None => Err(Box::new(match self.plane.doorman.count(peer) {
                    Ok(()) => (who(&token.name), Refused::ForRegistry(token.name)),
                    Err(retry_after_s) => (who("-"), Refused::TooOften { retry_after_s }),
                })),
            },
            Ok(None) => Err(Box::new((who("-"), Refused::Nobody))),
            Err(TurnedAway::Expired(name)) => Err(Box::new((who(&name), Refused::Expired(name)))),
            Err(TurnedAway::WrongSecret) => Err(Box::new((who("-"), Refused::Unknown))),
            Err(TurnedAway::TooManyTries { retry_after_s }) => {
                Err(Box::new((who("-"), Refused::TooOften { retry_after_s })))
            }
        }
    }

    /// What the table and the document say of a request; `target` is what it is about.
    fn judge(
        &self,
        rule: &Rule,
        rights: &Rights,
        request: &Request,
        target: &mut String,
    ) -> Result<(), Problem> {
        let pairs = params::pairs(request.uri())?;
        let places = params::places(rule.path, request.uri().path())?;
        *target = audit::named(&places, &pairs); // also of what is refused
        access::check(rule, rights, &places, &pairs)?;
        let key = (rule.method.to_owned(), rule.path.to_owned());
        if let Some(params) = self.params.get(&key) {
            params.check(&pairs)?;
        }
        Ok(())
    }
}

/// How an answer is to be given.
#[derive(Debug, Clone, Copy)]
struct Manner {
    /// As server-sent events.
    events: bool,
    /// As an operation.
    operation: bool,
}

impl Gate {
    /// What was asked for, in the manner that it was asked for, and once.
    async fn work(
        &self,
        call: &Call,
        mut request: Request,
        next: Next,
    ) -> Result<Response, Problem> {
        let (rule, who) = (call.rule, &call.who);
        let (manner, uri) = self.manner(rule, &request)?;
        if let Some(uri) = uri {
            *request.uri_mut() = uri;
        }
        let key = match rule.method {
            "POST" => once::key(request.headers(), who)?,
            _ => None,
        };
        let carry_out = async |request: Request| {
            let response = next.run(request).await;
            let response = match rule.verb {
                Some(_) => ending::watch(&self.plane, response),
                None => response,
            };
            let response = hints::fit(response, &who.rights).await;
            let order = operations::Order {
                verb: rule.verb.unwrap_or_default(),
                target: &call.target,
                who,
                asked_at: call.asked_at,
            };
            match manner {
                Manner {
                    operation: true, ..
                } => operations::take(&self.plane, order, response).await,
                Manner { events: true, .. } => sse::turn(rule.path, response),
                _ => response,
            }
        };
        Ok(match key {
            Some(key) => once::answer(&self.plane, key, request, carry_out).await,
            None => carry_out(request).await,
        })
    }

    /// The manner, and the URI that a handler is to see instead.
    fn manner(&self, rule: &Rule, request: &Request) -> Result<(Manner, Option<Uri>), Problem> {
        let (headers, uri) = (request.headers(), request.uri());
        let key = (rule.method.to_owned(), rule.path.to_owned());
        let has = |name| (self.params.get(&key)).is_some_and(|params| params.has(name));
        let events = sse::accepts(headers, sse::KIND);
        let said = params::pairs(uri)?;
        let detach = has("detach")
            && (said.iter())
                .any(|(name, value)| name == "detach" && matches!(&**value, "true" | "1"));
        let operation = rule.method == "POST" && operations::is_asked(headers, detach);
        let uri = match (operation, events) {
            // The operation is over when what it is about is.
            (true, _) if detach => sse::with(uri, &[("detach", String::new())]),
            (false, true) => sse::query(rule.path, has("watch"), headers, uri)?,
            (true, _) | (false, false) => None,
        };
        Ok((Manner { events, operation }, uri))
    }
}

/// Why somebody is not let in.
enum Refused {
    /// No token was shown.
    Nobody,
    /// There is no such token.
    Unknown,
    /// The token of this name was good until some time ago.
    Expired(String),
    /// The token of this name has no role.
    ForRegistry(String),
    /// There were too many that are good for nothing here.
    TooOften { retry_after_s: u64 },
}

/// The gate itself.
pub(super) async fn pass(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let who = match gate.enter(&request) {
        Ok(who) => {
            Known::of(request.extensions());
            who
        }
        Err(refused) => return turn_away(&gate.plane, &refused.0, &refused.1),
    };
    let path = request.extensions().get::<MatchedPath>().cloned();
    let rule = path
        .as_ref()
        .and_then(|path| access::rule(request.method(), path.as_str()));
    let Some(rule) = rule else {
        let documented = path.is_some_and(|path| {
            let key = (
                request.method().as_str().to_owned(),
                path.as_str().to_owned(),
            );
            gate.params.contains_key(&key)
        });
        return match documented {
            true => {
                Problem::not_allowed("nobody may do this: the table of access has no row for it")
                    .into_response()
            }
            // No such path, or method: the router says so.
            false => mend::mend(next.run(request).await).await,
        };
    };
    let mut call = Call {
        rule,
        who,
        target: String::new(),
        begun,
        asked_at: wall(),
    };
    if let Err(problem) = gate.judge(rule, &call.who.rights, &request, &mut call.target) {
        take_in(&gate.plane, request.into_body());
        return call.end(&gate.plane, problem.into_response()).await;
    }
    request.extensions_mut().insert(call.who.clone());
    if rule.verb.is_none() {
        return call.carry_out(&gate, request, next).await; // who goes needs to see nothing
    }
    // Apart from who asks: who hangs up in the midst of it finds all of it done, and recorded.
    let (reply, replied) = oneshot::channel();
    let plane = Arc::clone(&gate.plane);
    plane.spawn(async move {
        let response = call.carry_out(&gate, request, next).await;
        let _ = reply.send(response); // it may have hung up
    });
    let ended = |_| Problem::from(StoreError::Closed).into_response();
    replied.await.unwrap_or_else(ended)
}

/// Reads what is still being sent of a request that is refused: a connection that is closed before loses the answer, and
/// its sender sees only that it broke.
fn take_in(plane: &Plane, mut body: Body) {
    if body.is_end_stream() {
        return;
    }
    plane.spawn(async move {
        let rest = async { while let Some(Ok(_)) = body.frame().await {} };
        // Whoever has read the answer hangs up.
        let _ = tokio::time::timeout(TAKE_IN, rest).await;
    });
}

/// A request that is let in.
struct Call {
    rule: &'static Rule,
    who: Who,
    target: String,
    begun: Instant,
    asked_at: Timestamp,
}

impl Call {
    async fn carry_out(self, gate: &Gate, request: Request, next: Next) -> Response {
        let done = gate.work(&self, request, next).await;
        let response = done.unwrap_or_else(Problem::into_response);
        self.end(&gate.plane, response).await
    }

    /// The answer in its form, and the record of it.
    async fn end(self, plane: &Plane, response: Response) -> Response {
        let response = mend::mend(response).await;
        let mut response = match response.status().is_success() {
            true => response, // its lines are fitted as they come
            false => hints::fit(response, &self.who.rights).await,
        };
        let told = response.extensions_mut().remove::<Target>();
        let ticket = response.extensions_mut().remove::<Ticket>();
        if let Some(verb) = self.rule.verb {
            let target = told.map_or(self.target, |Target(name)| name);
            let (status, took) = (response.status(), self.begun.elapsed());
            let entry = Entry::new(&self.who, verb, &target, status, took);
            plane.ledger.note(Entry { ticket, ..entry });
        }
        response
    }
}

/// 401 with what would let in; 403 for a token that is for something else; 429 after too many wrong ones.
fn turn_away(plane: &Plane, who: &Who, refused: &Refused) -> Response {
    let (problem, header, value) = match refused {
        Refused::Nobody => (
            Problem::unauthorized("this takes a token").hint(
                "an admin makes one on the node: `layby token create NAME --role ROLE`; then `layby login URL`",
            ),
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(r#"Bearer realm="layby""#),
        ),
        Refused::Unknown => (
            Problem::unauthorized("this token is not known here")
                .hint("`layby login URL` takes another"),
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(r#"Bearer realm="layby", error="invalid_token""#),
        ),
        Refused::Expired(name) => (
            Problem::unauthorized(format!("the token {name} has expired"))
                .hint("an admin makes another on the node: `layby token create`"),
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(
                r#"Bearer realm="layby", error="invalid_token", error_description="expired""#,
            ),
        ),
        Refused::ForRegistry(name) => (
            Problem::not_allowed(format!("the token {name} is for the registry only"))
                .hint("an admin makes one for the node: `layby token create NAME --role ROLE`"),
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(r#"Bearer realm="layby", error="insufficient_scope""#),
        ),
        Refused::TooOften { retry_after_s } => (
            Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-tries",
                "too many tokens from this address were not known here, or had expired",
            )
            .hint(format!("try again in {retry_after_s} s")),
            header::RETRY_AFTER,
            HeaderValue::from(*retry_after_s),
        ),
    };
    let mut response = problem.into_response();
    // One who is refused for coming too often would fill the log.
    let recorded = match refused {
        Refused::Unknown | Refused::Expired(_) | Refused::ForRegistry(_) => true,
        Refused::Nobody | Refused::TooOften { .. } => false,
    };
    if recorded {
        let status = response.status();
        let entry = Entry::new(who, audit::FAILED_LOGIN, "", status, Duration::ZERO);
        plane.ledger.note(entry);
    }
    response.headers_mut().insert(header, value);
    response
}
