//! Images of a deploy that come from other registries: which are pulled, by their policy, and pulling them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use layby_image::client::{Fault, Progress, Step};
use layby_image::{Error, Image, Reference};
use layby_model::spec::{PullPolicy, ServiceSpec};
use layby_model::{AppName, ServiceName};
use tokio::sync::mpsc;

use super::images::{self, Build};
use super::told::Told;
use crate::api::types::{Event, Problem};
use crate::reach::Reach;

/// How often it is told how far a pull is.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// One image to pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pull {
    /// For which service.
    pub(crate) service: String,
    /// The name, as the manifest has it.
    pub(crate) name: String,
    /// `None`: the machine's.
    pub(crate) platform: Option<String>,
    /// The digest of the one that the node has, where it may be used if the registry cannot be reached.
    held: Option<String>,
}

impl Pull {
    /// An image that a service ran once, by the digest of then.
    pub(super) fn by_digest(service: &ServiceName, reference: &Reference) -> Self {
        Self {
            service: service.to_string(),
            name: reference.to_string(),
            platform: None,
            held: None,
        }
    }
}

/// What has to be pulled: what is missing (or is there for another platform), and what always is.
pub(crate) async fn wanted(
    reach: &Arc<Reach>,
    app: &AppName,
    services: &[ServiceSpec],
    builds: &[Build],
) -> Result<Vec<Pull>, Problem> {
    let registries = &reach.plane().registries;
    let mut pulls: Vec<Pull> = Vec::new();
    for service in services {
        for container in service.all_containers() {
            let name = images::name(app, service, container);
            // What is built here is pulled nowhere.
            if container.build.is_some() || builds.iter().any(|build| build.tag == name) {
                continue;
            }
            let Ok(reference) = name.parse::<Reference>() else {
                continue; // what is wrong with it is said when it is looked up
            };
            if is_digest(&name) {
                continue; // an image of this node, and of no registry
            }
            let held = images::found(reach, &name).await?.ok();
            let fits = |image: &Image| match (&container.platform, &image.platform) {
                (Some(wanted), Some(found)) => same_platform(wanted, found),
                _ => true,
            };
            let held = held.filter(fits);
            let pull = match container.pull {
                PullPolicy::Missing => held.is_none(),
                PullPolicy::Always => true,
                PullPolicy::Never => false,
            };
            // What was pushed to the node's own registry is in the store, and nowhere else.
            if !pull || registries.is_own(&reference) {
                continue;
            }
            let pull = Pull {
                service: service.name.to_string(),
                name,
                platform: container.platform.clone(),
                held: held.map(|image| image.digest),
            };
            let same = |other: &Pull| other.name == pull.name && other.platform == pull.platform;
            if !pulls.iter().any(same) {
                pulls.push(pull);
            }
        }
    }
    Ok(pulls)
}

fn is_digest(name: &str) -> bool {
    let hex = name.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|c| c.is_ascii_hexdigit())
}

/// Whether an image says that it is for this platform; a variant that one of them leaves out is no difference.
fn same_platform(wanted: &str, found: &str) -> bool {
    let parse = |text: &str| text.parse::<layby_image::client::Platform>().ok();
    match (parse(wanted), parse(found)) {
        (Some(wanted), Some(found)) => {
            wanted.os == found.os
                && wanted.architecture == found.architecture
                && (wanted.variant.is_none()
                    || found.variant.is_none()
                    || wanted.variant == found.variant)
        }
        _ => true,
    }
}

/// Pulls one image after another for somebody, each with several layers at once, and tells how it goes.
pub(crate) async fn run(
    reach: &Arc<Reach>,
    pulls: Vec<Pull>,
    events: &mpsc::Sender<Event>,
) -> Result<(), Problem> {
    let plane = reach.plane();
    for pull in pulls {
        let (reach, registries) = (Arc::clone(reach), plane.registries.clone());
        let told = Told::new(events.clone());
        let work = move || {
            let screen = Screen::new(&pull, told);
            let reference: Reference = pull.name.parse()?;
            screen.say(format!("pulling from {}", reference.registry));
            let platform = pull.platform.as_deref();
            let pulled = registries.pull(&reach, &reference, platform, &|event| screen.take(event));
            match pulled {
                Ok(_) => screen.say("pulled".to_owned()),
                Err(Error::Registry(error)) if pull.held.is_some() && is_away(error.fault) => {
                    screen.warn(format!(
                        "{error}; the image that the node has of before is used"
                    ));
                }
                Err(error) => return Err(missing(&reach, &pull.name, error)),
            }
            Ok(())
        };
        let done: Result<(), Failed> = plane
            .at_clients_pace(work)
            .await
            .await
            .map_err(images::broke_off)?;
        done.map_err(|failed| failed.problem)?;
    }
    Ok(())
}

/// Whether the registry itself is not there, so that nothing is known of the image.
fn is_away(fault: Fault) -> bool {
    match fault {
        Fault::Unreachable | Fault::Busy => true,
        Fault::Unauthorized
        | Fault::Denied
        | Fault::NotFound
        | Fault::Platform
        | Fault::Broken
        | Fault::Refused
        | Fault::Cancelled => false,
    }
}

struct Failed {
    problem: Problem,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let problem = error.into();
        Self { problem }
    }
}

/// An image that is neither here nor can be had: both is said, and similar names of the store that who asks may see.
fn missing(reach: &Reach, name: &str, error: Error) -> Failed {
    let here = reach.find(name).err();
    let mut failed = Failed::from(error);
    let problem = &mut failed.problem;
    if problem.code.starts_with("registry-") || problem.code == "image-not-found" {
        if let Some(here @ Error::NotFound { .. }) = here {
            problem.detail = format!("{here}; {}", problem.detail);
        }
        if problem.code == "registry-unreachable" {
            let (hint, detail) = (problem.hint.take(), problem.detail.clone());
            *problem = Problem::new(StatusCode::NOT_FOUND, "image-not-found", detail);
            // It may be here under a name that is not for whoever asks.
            problem.hint = reach.hint(name).or(hint);
        }
        let usual = "check its name, give it a build, or load it with `layby image load`";
        let of_app = || reach.hint(name).unwrap_or_else(|| usual.to_owned());
        problem.hint.get_or_insert_with(of_app);
    }
    failed
}

/// Tells how far a pull is, in one line.
struct Screen {
    service: String,
    image: String,
    state: Mutex<State>,
}

struct State {
    told: Told,
    at: Instant,
    /// Bytes here and in all, and whether it is done, by digest.
    parts: BTreeMap<String, (u64, u64, bool)>,
}

impl Screen {
    fn new(pull: &Pull, told: Told) -> Self {
        Self {
            service: pull.service.clone(),
            image: pull.name.clone(),
            state: Mutex::new(State {
                told,
                at: Instant::now(),
                parts: BTreeMap::new(),
            }),
        }
    }

    fn say(&self, text: String) {
        let event = self.event(text);
        self.state().told.tell(event);
    }

    fn warn(&self, text: String) {
        self.state().told.tell(Event::Warning { text });
    }

    fn take(&self, progress: Progress) {
        let mut state = self.state();
        let part = state.parts.entry(progress.digest).or_default();
        match progress.step {
            Step::Waiting { of } => *part = (0, of, false),
            Step::Bytes { done, of } => *part = (done, of, false),
            Step::Done | Step::Held | Step::Unpacked | Step::Mounted => {
                *part = (part.1, part.1, true);
            }
            Step::Again { reason } => {
                let event = self.event(format!("tries again: the registry {reason}"));
                state.told.tell(event);
                return;
            }
        }
        if state.at.elapsed() < TELL_EVERY {
            return;
        }
        state.at = Instant::now();
        let (mut done, mut of, mut ready) = (0, 0, 0);
        for (bytes, all, is_done) in state.parts.values() {
            (done, of) = (done + bytes, of + all);
            ready += usize::from(*is_done);
        }
        let text = format!(
            "{:.1} of {:.1} MB, {ready} of {} parts",
            done as f64 / 1e6,
            of as f64 / 1e6,
            state.parts.len()
        );
        let event = self.event(text);
        state.told.tell(event);
    }

    fn event(&self, text: String) -> Event {
        Event::Pull {
            service: self.service.clone(),
            image: self.image.clone(),
            text,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
