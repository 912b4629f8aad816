//! What people do with replicas, done by their shims.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::Arc;

use layby_model::access::{
    Access, CopyIn, CopyOut, ExecRequest, ExecSession, PathReport, ReplicaUsage, TarStream,
};
use layby_model::engine::{BoxFuture, EngineError};
use layby_model::mounts::VolumeReport;
use layby_model::{ReplicaId, error_chain};

use super::Embedded;
use super::blocking::blocking;
use super::volumes::VolumeError;

fn not_yet<T: Send + 'static>(what: &str) -> BoxFuture<'static, Result<T, EngineError>> {
    let text = format!("this engine cannot {what} yet");
    Box::pin(async move { Err(EngineError::Failed(text)) })
}

impl Access for Embedded {
    fn attach<'a>(
        &'a self,
        _replica: ReplicaId,
        _container: Option<&'a str>,
        _request: &'a ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, EngineError>> {
        not_yet("run commands with a terminal")
    }

    fn copy_out<'a>(
        &'a self,
        _replica: ReplicaId,
        _order: &'a CopyOut,
    ) -> BoxFuture<'a, Result<TarStream, EngineError>> {
        not_yet("copy files")
    }

    fn copy_in<'a>(
        &'a self,
        _replica: ReplicaId,
        _order: &'a CopyIn,
        _tar: TarStream,
    ) -> BoxFuture<'a, Result<(), EngineError>> {
        not_yet("copy files")
    }

    fn stat<'a>(
        &'a self,
        _replica: ReplicaId,
        _container: Option<&'a str>,
        _path: &'a str,
    ) -> BoxFuture<'a, Result<PathReport, EngineError>> {
        not_yet("look at files")
    }

    fn connect(
        &self,
        _replica: ReplicaId,
        _port: u16,
    ) -> BoxFuture<'_, Result<TcpStream, EngineError>> {
        not_yet("connect to replicas")
    }

    fn usage(&self) -> BoxFuture<'_, Result<BTreeMap<ReplicaId, ReplicaUsage>, EngineError>> {
        not_yet("measure replicas")
    }

    fn volumes(&self) -> BoxFuture<'_, Result<Vec<VolumeReport>, EngineError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let used = shared.roster.volumes();
            let listed = blocking(move || shared.volumes.list(&used)).await;
            let failed = |error| EngineError::Failed(format!("cannot list the volumes: {error}"));
            listed.map_err(failed)
        })
    }

    fn make_volume<'a>(
        &'a self,
        name: &'a str,
        labels: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<VolumeReport, EngineError>> {
        let shared = Arc::clone(&self.shared);
        let (name, labels) = (name.to_owned(), labels.clone());
        Box::pin(async move {
            let used = shared.roster.volumes();
            let made = blocking(move || shared.volumes.make(&name, &labels, &used)).await;
            made.map_err(from_volume)
        })
    }

    fn remove_volume<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), EngineError>> {
        let shared = Arc::clone(&self.shared);
        let name = name.to_owned();
        Box::pin(async move {
            let used_by = {
                let (shared, name) = (Arc::clone(&shared), name.clone());
                move || shared.roster.volumes().remove(&name).unwrap_or_default()
            };
            let removed = blocking(move || shared.volumes.remove(&name, used_by)).await;
            removed.map_err(from_volume)
        })
    }
}

fn from_volume(error: VolumeError) -> EngineError {
    let text = error_chain(&error);
    match error {
        VolumeError::BadName { .. }
        | VolumeError::InUse { .. }
        | VolumeError::BadSubpath { .. } => EngineError::Conflict(text),
        VolumeError::NotFound { .. } | VolumeError::NoExternal { .. } => {
            EngineError::NotFound(text)
        }
        VolumeError::Io { .. } => EngineError::Failed(text),
    }
}
