//! Idle connections to upstreams, kept per worker for the next request.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::os::fd::AsRawFd;
use std::task::{Context, Waker};

use layby_model::ReplicaId;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::net::TcpStream;

use crate::clock::now_ms;

/// Idle connections kept to one port of one replica, per worker.
const MAX_IDLE: usize = 512;
/// How long they are kept. Many servers close theirs after 5 s (Node.js, Uvicorn): a request sent at that
/// moment would be lost, and only an idempotent one may be sent again.
const KEEP_MS: u64 = 4000;
/// A connection idle for longer than this is looked at with a system call before it is used.
const FRESH_MS: u64 = 20;

/// An open connection to a replica.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) stream: TcpStream,
    /// It has carried a request before: the upstream may have been about to close it.
    pub(crate) reused: bool,
    since_ms: u64,
    until_ms: u64,
}

impl Upstream {
    /// One that was just opened.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            reused: false,
            since_ms: 0,
            until_ms: 0,
        }
    }

    /// Whether the upstream is known to have closed it, or to have spoken out of turn.
    fn is_stale(&self, now_ms: u64) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        if now_ms >= self.until_ms || self.stream.poll_read_ready(&mut cx).is_ready() {
            return true;
        }
        if now_ms - self.since_ms <= FRESH_MS {
            return false;
        }
        // The event may be waiting in epoll, unseen by the runtime: ask the socket itself.
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.stream.as_raw_fd(), &mut [0], flags) != Err(Errno::EAGAIN)
    }
}

/// A replica (48 bits) and a port of it (16 bits).
fn key(replica: ReplicaId, port: u16) -> u64 {
    replica.0 << 16 | u64::from(port)
}

/// Spreads keys that are small numbers already; nobody outside chooses them.
#[derive(Debug, Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(26);
    }
}

/// The idle connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: HashMap<u64, Vec<Upstream>, BuildHasherDefault<KeyHasher>>,
}

impl Pool {
    /// The connection to `port` of `replica` that was used last.
    pub(crate) fn take(&mut self, replica: ReplicaId, port: u16) -> Option<Upstream> {
        let idle = self.idle.get_mut(&key(replica, port))?;
        let now_ms = now_ms();
        while let Some(upstream) = idle.pop() {
            if !upstream.is_stale(now_ms) {
                return Some(upstream);
            }
        }
        None
    }

    /// Keeps a connection on which nothing is under way; for `keep_alive_s` at most, if the upstream said so.
    pub(crate) fn put(
        &mut self,
        replica: ReplicaId,
        port: u16,
        mut upstream: Upstream,
        keep_alive_s: Option<u64>,
    ) {
        let now_ms = now_ms();
        // Half a second early: the upstream's own timer began when it sent its last byte.
        let said_ms = keep_alive_s.map(|s| s.saturating_mul(1000).saturating_sub(500));
        upstream.reused = true;
        upstream.since_ms = now_ms;
        upstream.until_ms = now_ms + said_ms.unwrap_or(KEEP_MS).min(KEEP_MS);
        let idle = self.idle.entry(key(replica, port)).or_default();
        if idle.len() < MAX_IDLE {
            idle.push(upstream);
        }
    }

    /// Closes connections to replicas that are not `named`.
    pub(crate) fn keep_only(&mut self, named: impl Fn(ReplicaId) -> bool) {
        self.idle.retain(|key, _| named(ReplicaId(key >> 16)));
    }

    /// Closes what is stale; returns whether any are left.
    pub(crate) fn sweep(&mut self) -> bool {
        let now_ms = now_ms();
        self.idle.retain(|_, idle| {
            idle.retain(|upstream| {
                let mut cx = Context::from_waker(Waker::noop());
                now_ms < upstream.until_ms && upstream.stream.poll_read_ready(&mut cx).is_pending()
            });
            !idle.is_empty()
        });
        !self.idle.is_empty()
    }
}
