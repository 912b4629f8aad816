//! What people do with replicas and with what these keep: a shell in one, files out and in, figures, volumes.

use std::collections::BTreeMap;
use std::net::TcpStream;

use serde::{Deserialize, Serialize};

use crate::engine::{BoxFuture, BoxStream, EngineError};
use crate::mounts::VolumeReport;
use crate::names::ReplicaId;

/// A command to run in a container, with somebody at its other end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<(String, String)>,
    /// Where it starts; `None`: where the container did.
    pub working_dir: Option<String>,
    /// Whom it runs as; `None`: as the container.
    pub user: Option<String>,
    /// It gets a terminal of this size; `None`: pipes.
    pub tty: Option<TtySize>,
    /// It gets a standard input; else that is at its end.
    pub stdin: bool,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtySize {
    /// Its width.
    pub columns: u16,
    /// Its height.
    pub rows: u16,
}

/// What comes from a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEvent {
    /// Bytes of its standard output, or of its terminal.
    Stdout(Vec<u8>),
    /// Bytes of its standard error.
    Stderr(Vec<u8>),
    /// It ended with this code; nothing follows.
    Exit(i32),
    /// Its end will not be known; nothing follows.
    Failed(String),
}

/// A running command. Dropping both halves ends it.
pub struct ExecSession {
    /// What comes from it, until its end.
    pub output: BoxStream<'static, ExecEvent>,
    /// What goes to it.
    pub input: Box<dyn ExecInput>,
}

/// The way to a running command.
pub trait ExecInput: Send {
    /// Writes all of `bytes` to its standard input; waits while it does not read.
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), EngineError>>;
    /// Its standard input is at its end.
    fn close(&mut self);
    /// Its terminal has another size now; nothing without a terminal.
    fn resize(&mut self, size: TtySize) -> Result<(), EngineError>;
}

/// What a replica uses now: counters since it was made, and levels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaUsage {
    /// CPU time, in microseconds.
    pub cpu_us: u64,
    /// Memory charged to it, without what the kernel can drop at once (the inactive page cache), in bytes.
    pub memory_bytes: u64,
    /// The sum of its containers' limits; `None`: one has none.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes that came in by its network device.
    pub network_in_bytes: u64,
    /// Bytes that went out.
    pub network_out_bytes: u64,
    /// Bytes read from disks.
    pub disk_read_bytes: u64,
    /// Bytes written to disks.
    pub disk_write_bytes: u64,
    /// What its containers have written beside their volumes takes so many bytes of the disk.
    #[serde(default)]
    pub disk_bytes: u64,
}

/// What is found at a path in a container, links followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathReport {
    /// Where it is: absolute, without links.
    pub path: String,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// What of a container's files to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyOut {
    /// The container; `None`: the first.
    pub container: Option<String>,
    /// The file or folder.
    pub path: String,
    /// If the path is a link, what it leads to is meant.
    pub follow_link: bool,
}

/// Where to put files in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyIn {
    /// The container; `None`: the first.
    pub container: Option<String>,
    /// The folder; it must be there.
    pub path: String,
    /// Owners are as the tar has them (by number); else all belongs to the container's root.
    pub keep_owners: bool,
    /// An entry called `.wh.NAME` takes away what is called NAME there, as in a layer of an image (OCI image specification,
    /// "Whiteouts"), a folder gives way to a file of its name, and a file to a folder. What is mounted there stays.
    pub whiteouts: bool,
}

/// A tar stream, in pieces.
pub type TarStream = BoxStream<'static, Result<Vec<u8>, EngineError>>;

/// What people do with replicas and with what these keep. Apart from [`Engine`], since nothing is decided by it.
pub trait Access: Send + Sync + 'static {
    /// Runs a command in a container (`None`: the first) with somebody at its other end.
    fn attach<'a>(
        &'a self,
        replica: ReplicaId,
        container: Option<&'a str>,
        request: &'a ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, EngineError>>;

    /// A file or folder of a container as a tar. Its entries begin with the path's last name, or with `.` where that is
    /// `/` or `.`.
    fn copy_out<'a>(
        &'a self,
        replica: ReplicaId,
        order: &'a CopyOut,
    ) -> BoxFuture<'a, Result<TarStream, EngineError>>;

    /// Unpacks a tar into a folder of a container, never outside of it.
    fn copy_in<'a>(
        &'a self,
        replica: ReplicaId,
        order: &'a CopyIn,
        tar: TarStream,
    ) -> BoxFuture<'a, Result<(), EngineError>>;

    /// What is at `path` in a container.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if nothing is.
    fn stat<'a>(
        &'a self,
        replica: ReplicaId,
        container: Option<&'a str>,
        path: &'a str,
    ) -> BoxFuture<'a, Result<PathReport, EngineError>>;

    /// Connects to a port as a program in the replica would: also to one that listens on its loopback only.
    fn connect(
        &self,
        replica: ReplicaId,
        port: u16,
    ) -> BoxFuture<'_, Result<TcpStream, EngineError>>;

    /// What the replicas that run (or are frozen) use.
    fn usage(&self) -> BoxFuture<'_, Result<BTreeMap<ReplicaId, ReplicaUsage>, EngineError>>;

    /// What these replicas use, of those that run or are frozen. It is asked again and again, so it leaves out what takes
    /// long to find out: `disk_bytes` is 0.
    fn usage_of<'a>(
        &'a self,
        replicas: &'a [ReplicaId],
    ) -> BoxFuture<'a, Result<BTreeMap<ReplicaId, ReplicaUsage>, EngineError>>;

    /// The named volumes.
    fn volumes(&self) -> BoxFuture<'_, Result<Vec<VolumeReport>, EngineError>>;

    /// Makes a named volume; one that is there already is left as it is.
    fn make_volume<'a>(
        &'a self,
        name: &'a str,
        labels: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<VolumeReport, EngineError>>;

    /// Removes a named volume with all that is in it. One that a replica has mounted is refused.
    fn remove_volume<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), EngineError>>;
}
