//! What people do with replicas, in memory.

use std::collections::BTreeMap;
use std::net::TcpStream;

use layby_model::ReplicaId;
use layby_model::access::{
    Access, CopyIn, CopyOut, ExecRequest, ExecSession, PathReport, ReplicaUsage, TarStream,
};
use layby_model::engine::{BoxFuture, EngineError};
use layby_model::mounts::VolumeReport;

use super::Fake;

fn not_yet<T: Send + 'static>(what: &str) -> BoxFuture<'static, Result<T, EngineError>> {
    let text = format!("this engine cannot {what} yet");
    Box::pin(async move { Err(EngineError::Failed(text)) })
}

impl Access for Fake {
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
