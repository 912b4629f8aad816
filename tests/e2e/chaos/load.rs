//! A light load: a request every few milliseconds, and what was wrong with the answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::node::get;

/// From the end of one request to the next.
const PAUSE: Duration = Duration::from_millis(15);

/// What the load is told, and what it saw.
#[derive(Default)]
struct Seen {
    /// Where the gateway is; `None`: no node runs.
    gateway: Mutex<Option<SocketAddr>>,
    /// Counts the lives of the node.
    life: AtomicU32,
    answered: AtomicU64,
    /// What was no answer, and in which life of the node it was asked for.
    unanswered: Mutex<Vec<(u32, String)>>,
    /// Answers that were not the service's.
    wrong: Mutex<Vec<String>>,
    over: AtomicBool,
}

/// Requests for the service, until it is dropped.
pub(super) struct Load {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub(super) fn begin(host: &'static str) -> Self {
        let seen = Arc::new(Seen::default());
        let of_thread = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            while !of_thread.over.load(Ordering::SeqCst) {
                ask(&of_thread, host);
                std::thread::sleep(PAUSE);
            }
        });
        Self {
            seen,
            thread: Some(thread),
        }
    }

    /// A node answers there from now on.
    pub(super) fn node_lives(&self, gateway: SocketAddr) {
        self.seen.life.fetch_add(1, Ordering::SeqCst);
        *self.seen.gateway.lock().expect("no poison") = Some(gateway);
    }

    /// It is gone, or is about to.
    pub(super) fn node_is_gone(&self) {
        *self.seen.gateway.lock().expect("no poison") = None;
    }

    /// What was wrong since the last time. Requests that were under way when a life of the node ended by order are no
    /// fault: `forgiven` says of a life that it did.
    pub(super) fn faults(&self, forgiven: &[u32]) -> Vec<String> {
        let mut faults = std::mem::take(&mut *self.seen.wrong.lock().expect("no poison"));
        let unanswered = std::mem::take(&mut *self.seen.unanswered.lock().expect("no poison"));
        let unforgiven = unanswered
            .into_iter()
            .filter(|(life, _)| !forgiven.contains(life));
        faults.extend(unforgiven.map(|(_, text)| text));
        faults
    }

    /// The number of this life of the node.
    pub(super) fn life(&self) -> u32 {
        self.seen.life.load(Ordering::SeqCst)
    }

    /// So many right answers so far.
    pub(super) fn answered(&self) -> u64 {
        self.seen.answered.load(Ordering::SeqCst)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.seen.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ask(seen: &Seen, host: &str) {
    let life = seen.life.load(Ordering::SeqCst);
    let Some(gateway) = *seen.gateway.lock().expect("no poison") else {
        return;
    };
    match get(gateway, host, "/") {
        Ok(reply) if reply.status == 200 && reply.body.starts_with("hello ") => {
            seen.answered.fetch_add(1, Ordering::SeqCst);
        }
        Ok(reply) if reply.status == 200 => {
            let text = format!("a wrong answer: {:?}", reply.body);
            seen.wrong.lock().expect("no poison").push(text);
        }
        Ok(reply) => {
            let text = format!("{}: {:?}", reply.status, reply.body);
            seen.unanswered
                .lock()
                .expect("no poison")
                .push((life, text));
        }
        Err(error) => {
            let text = format!("no answer: {error}");
            seen.unanswered
                .lock()
                .expect("no poison")
                .push((life, text));
        }
    }
}
