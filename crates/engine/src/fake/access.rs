//! What people do with replicas, in memory.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use layby_model::ReplicaId;
use layby_model::access::{
    Access, CopyIn, CopyOut, ExecRequest, ExecSession, PathReport, ReplicaUsage, TarStream,
};
use layby_model::engine::{BoxFuture, EngineError};
use layby_model::mounts::VolumeReport;
use layby_model::replica::ReplicaReport;

use super::body::Body;
use super::{Fake, missing, session};
use crate::lifecycle::Actual;

/// How much of a tar is held at once, in bytes.
const MAX_TAR_BYTES: usize = 64 << 20;

impl Fake {
    /// A replica that takes commands now.
    fn awake(&self, replica: ReplicaId, container: Option<&str>) -> Result<Arc<Body>, EngineError> {
        let entry = self.shared.roster.get(replica);
        let entry = entry.ok_or_else(|| missing(replica))?;
        entry.container(replica, container)?;
        if !matches!(entry.actual, Actual::Running | Actual::Ready) {
            let text = format!("replica {replica} does not run: wake its service first");
            return Err(EngineError::NotFound(text));
        }
        self.shared.body(replica).ok_or_else(|| missing(replica))
    }
}

impl Access for Fake {
    fn attach<'a>(
        &'a self,
        replica: ReplicaId,
        container: Option<&'a str>,
        request: &'a ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, EngineError>> {
        Box::pin(async move {
            let body = self.awake(replica, container)?;
            Ok(session::attach(body, request))
        })
    }

    fn copy_out<'a>(
        &'a self,
        replica: ReplicaId,
        order: &'a CopyOut,
    ) -> BoxFuture<'a, Result<TarStream, EngineError>> {
        Box::pin(async move {
            let body = self.awake(replica, order.container.as_deref())?;
            let tar = body.files.copy_out(order)?;
            Ok(Box::pin(stream::iter([Ok(tar)])) as TarStream)
        })
    }

    fn copy_in<'a>(
        &'a self,
        replica: ReplicaId,
        order: &'a CopyIn,
        mut tar: TarStream,
    ) -> BoxFuture<'a, Result<(), EngineError>> {
        Box::pin(async move {
            let body = self.awake(replica, order.container.as_deref())?;
            let mut whole = Vec::new();
            while let Some(piece) = tar.next().await {
                whole.extend(piece?);
                if whole.len() > MAX_TAR_BYTES {
                    return Err(EngineError::Failed("no space is left".to_owned()));
                }
            }
            body.files.copy_in(order, &whole)
        })
    }

    fn stat<'a>(
        &'a self,
        replica: ReplicaId,
        container: Option<&'a str>,
        path: &'a str,
    ) -> BoxFuture<'a, Result<PathReport, EngineError>> {
        Box::pin(async move { self.awake(replica, container)?.files.stat(path) })
    }

    fn connect(
        &self,
        replica: ReplicaId,
        port: u16,
    ) -> BoxFuture<'_, Result<TcpStream, EngineError>> {
        Box::pin(async move {
            let address = self.awake(replica, None)?.address;
            let connected = tokio::net::TcpStream::connect((address, port)).await;
            let connected = connected.and_then(tokio::net::TcpStream::into_std);
            connected.map_err(|error| {
                EngineError::Failed(format!(
                    "cannot connect to port {port}: {error}: does replica {replica} listen on it?"
                ))
            })
        })
    }

    fn usage(&self) -> BoxFuture<'_, Result<BTreeMap<ReplicaId, ReplicaUsage>, EngineError>> {
        Box::pin(async move {
            let reports = self.shared.roster.reports(None);
            Ok(running(&reports).map(|r| (r.id, used(r))).collect())
        })
    }

    fn usage_of<'a>(
        &'a self,
        replicas: &'a [ReplicaId],
    ) -> BoxFuture<'a, Result<BTreeMap<ReplicaId, ReplicaUsage>, EngineError>> {
        Box::pin(async move {
            let reports = self.shared.roster.reports(None);
            let asked = running(&reports).filter(|r| replicas.contains(&r.id));
            Ok(asked.map(|r| (r.id, used(r))).collect())
        })
    }

    fn volumes(&self) -> BoxFuture<'_, Result<Vec<VolumeReport>, EngineError>> {
        Box::pin(async move { Ok(self.shared.volumes.list(&self.shared.roster)) })
    }

    fn make_volume<'a>(
        &'a self,
        name: &'a str,
        labels: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<VolumeReport, EngineError>> {
        let made = self.shared.volumes.make(name, None, labels);
        Box::pin(async move { Ok(made) })
    }

    fn remove_volume<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), EngineError>> {
        Box::pin(async move { self.shared.volumes.remove(name, &self.shared.roster) })
    }
}

/// Those that have processes.
fn running(reports: &[ReplicaReport]) -> impl Iterator<Item = &ReplicaReport> {
    reports.iter().filter(|report| {
        let mut containers = report.containers.iter();
        containers.any(|container| container.pid.is_some())
    })
}

fn used(report: &ReplicaReport) -> ReplicaUsage {
    ReplicaUsage {
        cpu_us: report.run * 1_000,
        memory_bytes: 1 << 20,
        memory_limit_bytes: Some(64 << 20),
        pids: report.containers.len() as u64,
        ..ReplicaUsage::default()
    }
}
