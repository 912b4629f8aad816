//! The services that are watched, held awake, and which replicas of them run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use layby_control::api::types::ServiceDetail;
use layby_model::replica::Phase;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::client::Client;

/// From one try to be told to the next.
const AGAIN: Duration = Duration::from_secs(1);

/// The replicas of a service that files can be copied into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Running {
    /// The revision that is live.
    pub(super) revision: u32,
    /// Those of it that run.
    pub(super) replicas: BTreeSet<String>,
    /// All that there are: one that is not among them does not come back.
    pub(super) known: BTreeSet<String>,
}

impl Running {
    fn of(detail: &ServiceDetail) -> Self {
        let revision = detail.view.revision;
        let replicas = detail.replicas.iter().filter(|replica| {
            let up = matches!(replica.phase, Phase::Ready | Phase::Starting);
            let mut own = replica
                .containers
                .iter()
                .filter(|container| !container.init);
            replica.revision == revision && up && own.any(|container| container.pid.is_some())
        });
        Self {
            revision,
            replicas: replicas.map(|replica| replica.id.clone()).collect(),
            known: detail.replicas.iter().map(|r| r.id.clone()).collect(),
        }
    }
}

/// The services that are held. They are let go when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Held {
    tasks: JoinSet<()>,
    bell: Arc<Notify>,
}

impl Held {
    /// What is rung whenever something runs, or no longer does.
    pub(super) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    /// Holds the service at an API path, and tells what runs of it.
    pub(super) fn hold(&mut self, client: &Client, service: &str) -> watch::Receiver<Running> {
        let (tell, told) = watch::channel(Running::default());
        let (client, path) = (client.clone(), format!("{service}/hold"));
        let bell = self.bell();
        self.tasks.spawn(async move {
            loop {
                if let Ok(mut lines) = client.get_lines(&path, &[]).await {
                    while let Ok(Some(detail)) = lines.next::<ServiceDetail>().await {
                        let running = Running::of(&detail);
                        tell.send_if_modified(|known| {
                            let is_new = *known != running;
                            *known = running;
                            is_new
                        });
                        bell.notify_one();
                    }
                }
                // The node went, or the service: either may come back.
                tokio::time::sleep(AGAIN).await;
            }
        });
        told
    }
}
