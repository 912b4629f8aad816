//! Strays: replicas of services that the store does not know (any more). They are removed.

use std::collections::BTreeMap;

use layby_model::engine::{Engine, EngineError, RunSpec, Workload};
use layby_model::replica::{Phase, ReplicaReport};
use layby_model::spec::ServiceSpec;

/// Orders the removal of `replicas`, and says so in the node's log.
pub(crate) async fn retire(engine: &dyn Engine, replicas: Vec<ReplicaReport>) {
    for stray in replicas
        .iter()
        .filter(|stray| stray.phase != Phase::Removing)
    {
        tracing::warn!(replica = %stray.id, service = %stray.service, "removing a replica of a service that is not deployed here");
    }
    retire_quietly(engine, replicas).await;
}

/// Orders the removal of `replicas`.
pub(crate) async fn retire_quietly(engine: &dyn Engine, replicas: Vec<ReplicaReport>) {
    for stray in replicas {
        if stray.phase == Phase::Removing {
            continue;
        }
        let mut order = Workload {
            service: stray.service.clone(),
            revision: stray.revision,
            generation: stray.generation,
            spec: nothing(&stray),
            replicas: BTreeMap::new(),
            retire: vec![stray.id],
        };
        let mut applied = engine.apply(&order).await;
        // Its service may have had a newer order since the one that made it: nobody gives any more.
        if let Err(EngineError::Stale { seen, .. }) = applied {
            order.generation = seen;
            applied = engine.apply(&order).await;
        }
        if let Err(error) = applied {
            tracing::warn!(replica = %stray.id, %error, "it could not be removed; trying again later");
        }
    }
}

/// Settings that run nothing: an order that only removes has no use for any.
fn nothing(stray: &ReplicaReport) -> RunSpec {
    RunSpec {
        service: ServiceSpec {
            progress_deadline_ms: Some(0),
            drain_ms: 0,
            ..ServiceSpec::new(stray.service.service.clone())
        },
        images: Vec::new(),
    }
}
