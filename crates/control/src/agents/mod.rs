//! SSH agents of those who ask for builds. Whoever asks keeps a connection open beside the build's; a step that connects to
//! the socket of `RUN --mount=type=ssh` is led over it to the agent on the asker's side. No key comes to the node.

pub mod wire;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use layby_image::build::agents::Agent;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::wire::Call;
use crate::api::Who;
use crate::api::types::Problem;

/// So many may lend agents at a time; so many times the same user or token.
const MAX_LINKS: usize = 64;
const MAX_OWN: usize = 16;
/// So many connections of steps may wait to be led on.
const WAITING: usize = 16;
/// The bytes of a key.
const KEY_BYTES: usize = 16;

/// Everybody who lends agents now.
#[derive(Default)]
pub(crate) struct Agents {
    links: Mutex<BTreeMap<String, Link>>,
}

/// Somebody who lends agents.
#[derive(Clone)]
pub(crate) struct Link {
    owner: String,
    calls: mpsc::Sender<Call>,
}

/// A place among those who lend; dropped, it is free.
pub(crate) struct Lent {
    agents: Arc<Agents>,
    /// What a build names it by.
    pub(crate) key: String,
    /// What steps ask for.
    pub(crate) calls: mpsc::Receiver<Call>,
}

impl Agents {
    /// Takes somebody in who lends agents.
    ///
    /// # Errors
    /// 409: too many do, or this one too often; or the machine has no randomness.
    pub(crate) fn enter(self: &Arc<Self>, who: &Who) -> Result<Lent, Problem> {
        let key = new_key().map_err(|error| Problem::failed(error.to_string()))?;
        let (calls, called) = mpsc::channel(WAITING);
        let mut links = self.links();
        if links.len() >= MAX_LINKS {
            let text = format!("{MAX_LINKS} lend SSH agents to builds already");
            return Err(Problem::conflict(text).hint("try again when one of the builds is done"));
        }
        let owner = who.owner.clone();
        let own = links.values().filter(|link| link.owner == owner).count();
        if own >= MAX_OWN {
            let text = format!("{} lends SSH agents to {MAX_OWN} builds already", who.name);
            return Err(Problem::conflict(text).hint("try again when one of them is done"));
        }
        links.insert(key.clone(), Link { owner, calls });
        Ok(Lent {
            agents: Arc::clone(self),
            key,
            calls: called,
        })
    }

    /// The one who lends under this key.
    ///
    /// # Errors
    /// 400: nobody does, or somebody else than who asks.
    pub(crate) fn find(&self, key: &str, who: &Who) -> Result<Link, Problem> {
        let found = self.links().get(key).cloned();
        let own = found.filter(|link| link.owner == who.owner);
        own.ok_or_else(|| {
            Problem::bad_request("the connection that lends SSH agents to the build is not there")
        })
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<String, Link>> {
        // Nothing panics while it is held.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// The agent that stands at this place among those lent, as the builder takes it.
    pub(crate) fn agent(&self, place: u16) -> Agent {
        let calls = self.calls.clone();
        Arc::new(move |stream: UnixStream| {
            let (step, over) = oneshot::channel::<()>();
            // Where nobody lends any more, or too many wait, the step sees its connection closed.
            let _ = calls.try_send(Call {
                place,
                stream,
                over,
            });
            Box::new(step)
        })
    }
}

impl Lent {
    /// Ends when no build has had anything of it for so long, or somewhat longer.
    pub(crate) async fn idle(&self, long: Duration) {
        let mut since = Instant::now();
        while since.elapsed() < long {
            tokio::time::sleep(long / 8).await;
            // One sender is kept for those who come; builds and their steps have others.
            let links = self.agents.links();
            let is_used = links
                .get(&self.key)
                .is_some_and(|link| link.calls.strong_count() > 1);
            if is_used {
                since = Instant::now();
            }
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.agents.links().remove(&self.key);
    }
}

fn new_key() -> std::io::Result<String> {
    let mut bytes = [0; KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_lent_to_whoever_lends_them_and_for_as_long_as_they_do() {
        let agents = Arc::new(Agents::default());
        let (me, mut other) = (Who::root(), Who::root());
        other.owner = "token 00".to_owned();
        let mut lent = agents.enter(&me).map_err(|p| p.detail).expect("room");
        let link = agents
            .find(&lent.key, &me)
            .map_err(|p| p.detail)
            .expect("mine");
        assert!(agents.find(&lent.key, &other).is_err());
        let (_near, far) = UnixStream::pair().expect("a pair");
        let step = link.agent(3)(far);
        let mut call = lent.calls.try_recv().expect("a call");
        assert_eq!(call.place, 3);
        assert!(
            call.over
                .try_recv()
                .is_err_and(|e| e == oneshot::error::TryRecvError::Empty)
        );
        drop(step);
        assert!(
            call.over
                .try_recv()
                .is_err_and(|e| e == oneshot::error::TryRecvError::Closed)
        );
        let all: Vec<Lent> = (1..MAX_LINKS)
            .flat_map(|n| {
                other.owner = format!("token {}", n / MAX_OWN);
                agents.enter(&other).ok()
            })
            .collect();
        assert_eq!(all.len(), MAX_LINKS - 1);
        assert!(agents.enter(&me).is_err(), "one too many");
        let key = lent.key.clone();
        drop(lent);
        assert!(agents.find(&key, &me).is_err());
        assert!(agents.enter(&me).is_ok());
    }

    #[tokio::test]
    async fn who_lends_agents_that_no_build_uses_is_let_go() {
        let long = Duration::from_millis(20);
        let agents = Arc::new(Agents::default());
        let me = Who::root();
        let lent = agents.enter(&me).map_err(|p| p.detail).expect("room");
        let link = agents.find(&lent.key, &me).map_err(|p| p.detail);
        let agent = link.expect("mine").agent(0);
        let used = tokio::time::timeout(4 * long, lent.idle(long));
        assert!(used.await.is_err(), "a build has it");
        drop(agent);
        lent.idle(long).await;
    }
}
