//! What people do with replicas, done by their shims.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use layby_model::access::{
    Access, CopyIn, CopyOut, ExecRequest, ExecSession, PathReport, ReplicaUsage, TarStream,
};
use layby_model::engine::{BoxFuture, EngineError};
use layby_model::mounts::VolumeReport;
use layby_model::{ReplicaId, error_chain};
use layby_runtime::{dial, protocol};

use super::blocking::blocking;
use super::volumes::VolumeError;
use super::{Embedded, files, measure, session};

impl Embedded {
    /// The socket of the shim of a replica that takes commands now, and the name of the container that is meant.
    fn place(
        &self,
        replica: ReplicaId,
        container: Option<&str>,
    ) -> Result<(PathBuf, String), EngineError> {
        let (entry, _) = self.shared.running(replica)?;
        let container = entry.container(replica, container)?;
        Ok((self.shared.socket(replica), container))
    }

    /// The same of a replica whose files can be reached.
    fn place_of_files(
        &self,
        replica: ReplicaId,
        container: Option<&str>,
    ) -> Result<(PathBuf, String), EngineError> {
        let (entry, _) = self.shared.with_files(replica)?;
        let container = entry.container(replica, container)?;
        Ok((self.shared.socket(replica), container))
    }
}

impl Access for Embedded {
    fn attach<'a>(
        &'a self,
        replica: ReplicaId,
        container: Option<&'a str>,
        request: &'a ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, EngineError>> {
        Box::pin(async move {
            let (socket, container) = self.place(replica, container)?;
            let request = protocol::Attach {
                container,
                argv: request.argv.clone(),
                env: request.env.clone(),
                cwd: request.working_dir.clone(),
                user: request.user.clone(),
                tty: request.tty.map(|size| (size.columns, size.rows)),
                stdin: request.stdin,
            };
            session::attach(socket, request).await
        })
    }

    fn copy_out<'a>(
        &'a self,
        replica: ReplicaId,
        order: &'a CopyOut,
    ) -> BoxFuture<'a, Result<TarStream, EngineError>> {
        Box::pin(async move {
            let (socket, container) = self.place_of_files(replica, order.container.as_deref())?;
            let copy = protocol::Copy::Out {
                path: order.path.clone(),
                follow_link: order.follow_link,
            };
            files::copy_out(socket, protocol::CopyRequest { container, copy }).await
        })
    }

    fn copy_in<'a>(
        &'a self,
        replica: ReplicaId,
        order: &'a CopyIn,
        tar: TarStream,
    ) -> BoxFuture<'a, Result<(), EngineError>> {
        Box::pin(async move {
            let (socket, container) = self.place_of_files(replica, order.container.as_deref())?;
            let copy = protocol::Copy::In {
                path: order.path.clone(),
                keep_owners: order.keep_owners,
                whiteouts: order.whiteouts,
            };
            files::copy_in(socket, protocol::CopyRequest { container, copy }, tar).await
        })
    }

    fn stat<'a>(
        &'a self,
        replica: ReplicaId,
        container: Option<&'a str>,
        path: &'a str,
    ) -> BoxFuture<'a, Result<PathReport, EngineError>> {
        Box::pin(async move {
            let (socket, container) = self.place_of_files(replica, container)?;
            files::stat(socket, container, path.to_owned()).await
        })
    }

    fn connect(
        &self,
        replica: ReplicaId,
        port: u16,
    ) -> BoxFuture<'_, Result<TcpStream, EngineError>> {
        Box::pin(async move {
            let (entry, _) = self.shared.running(replica)?;
            let bundle = self.shared.bundle(replica);
            let connected = blocking(move || dial::connect(&bundle, entry.address, port)).await;
            connected.map_err(|error| {
                let why = error.sentence();
                EngineError::Failed(format!("{why}: does replica {replica} listen on it?"))
            })
        })
    }

    fn usage(&self) -> BoxFuture<'_, Result<BTreeMap<ReplicaId, ReplicaUsage>, EngineError>> {
        Box::pin(measure::usage(&self.shared))
    }

    fn usage_of<'a>(
        &'a self,
        replicas: &'a [ReplicaId],
    ) -> BoxFuture<'a, Result<BTreeMap<ReplicaId, ReplicaUsage>, EngineError>> {
        Box::pin(measure::usage_of(&self.shared, replicas))
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
