//! The audit log: who changed what, when, from where, and how it ended. Never what was sent along.
//!
//! It is written beside the work: nobody waits for it, and when the disk is full, what cannot be written is counted and
//! the node goes on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use layby_model::error_chain;
use tokio::sync::{mpsc, oneshot};

use crate::api::Via;
use crate::api::Who;
use crate::plane::Plane;

/// What a login that failed is called.
pub(crate) const FAILED_LOGIN: &str = "login-failed";

/// So many records may wait for the disk.
const WAITING: usize = 1_024;
/// So many logins that failed may be among them: those are what others can make many of.
const WAITING_LOGINS: usize = 256;
/// From one write to the next: one write to the disk serves many records.
const PAUSE: Duration = Duration::from_millis(100);
/// So long does who reads wait at most for what was taken before.
const SETTLE: Duration = Duration::from_secs(5);
/// How long what waits may take to be written when the node ends.
const LAST_WRITE: Duration = Duration::from_secs(1);
/// The longest target, in bytes.
const MAX_TARGET: usize = 256;
/// After so many records it is looked whether old ones have to go.
const PRUNE_AFTER: usize = 500;

/// So many streams may be open whose ends are to be noted; beyond that the oldest are not.
const OPEN: usize = 4_096;

/// How many records are kept, of what was done and of logins that failed (those are what others can make many of).
pub(crate) const KEEP_DONE: u32 = 100_000;
/// As [`KEEP_DONE`].
pub(crate) const KEEP_FAILED_LOGINS: u32 = 10_000;
/// For how long.
pub(crate) const KEEP_DAYS: i64 = 90;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When it was answered.
    pub(crate) at: Timestamp,
    /// The user's or token's name.
    pub(crate) who: String,
    /// `local`, or an address.
    pub(crate) from: String,
    /// `socket` or `token`.
    pub(crate) via: String,
    /// What was asked for: a row's verb in the table of access.
    pub(crate) verb: String,
    /// On what: names, never values.
    pub(crate) target: String,
    /// The HTTP status of the answer.
    pub(crate) status: u16,
    /// How long it took to be answered, in milliseconds.
    pub(crate) took_ms: u64,
    /// The exit code that the stream of the answer ended with; `None`: it has none, or not yet.
    pub(crate) code: Option<i32>,
    /// By which the end of its stream is told.
    pub(crate) ticket: Option<Ticket>,
}

/// Stands for a record whose stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

impl Entry {
    /// What has just been answered.
    pub(crate) fn new(
        who: &Who,
        verb: &str,
        target: &str,
        status: StatusCode,
        took: Duration,
    ) -> Self {
        let via = match who.via {
            Via::Socket => "socket",
            Via::Token => "token",
        };
        Self {
            at: crate::clock::wall(),
            who: who.name.clone(),
            from: who.from.clone(),
            via: via.to_owned(),
            verb: verb.to_owned(),
            target: short(target),
            status: status.as_u16(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            code: None,
            ticket: None,
        }
    }
}

/// What a handler found to be the target, where neither path nor query names it: put it among an answer's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Target(pub(crate) String);

/// The names that say what a request is about: those in its path, and some of its query (the others may hold values).
pub(crate) fn named(places: &[(&str, String)], query: &[(String, String)]) -> String {
    let in_path: Vec<&str> = places.iter().map(|(_, value)| value.as_str()).collect();
    let of_query = query.iter().filter(|(name, _)| {
        matches!(
            name.as_str(),
            "app" | "service" | "reference" | "to" | "registry"
        )
    });
    let mut all = vec![in_path.join("/")];
    all.extend(of_query.map(|(_, value)| value.clone()));
    all.retain(|name| !name.is_empty());
    all.join(" ")
}

/// On one line, and no longer than it may be.
fn short(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { '?' } else { c });
    let mut kept = String::new();
    for c in plain {
        if kept.len() + c.len_utf8() > MAX_TARGET {
            break;
        }
        kept.push(c);
    }
    kept
}

/// Where records are put.
pub(crate) struct Ledger {
    send: mpsc::Sender<Message>,
    /// Taken by [`run`].
    receive: Mutex<Option<mpsc::Receiver<Message>>>,
    lost: AtomicU64,
    /// How many logins that failed wait.
    logins: AtomicUsize,
    tickets: AtomicU64,
}

enum Message {
    Entry(Box<Entry>),
    /// A stream ended so; `None`: nobody saw how.
    Ended(Ticket, Option<i32>),
    Flush(oneshot::Sender<()>),
}

impl Default for Ledger {
    fn default() -> Self {
        let (send, receive) = mpsc::channel(WAITING);
        Self {
            send,
            receive: Mutex::new(Some(receive)),
            lost: AtomicU64::new(0),
            logins: AtomicUsize::new(0),
            tickets: AtomicU64::new(0),
        }
    }
}

impl Ledger {
    /// Takes a record; never waits.
    pub(crate) fn note(&self, entry: Entry) {
        let is_login = entry.verb == FAILED_LOGIN;
        if is_login {
            let waiting = self.logins.fetch_add(1, Ordering::Relaxed);
            if waiting >= WAITING_LOGINS {
                self.logins.fetch_sub(1, Ordering::Relaxed);
                self.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        if self.send.try_send(Message::Entry(Box::new(entry))).is_err() {
            if is_login {
                self.logins.fetch_sub(1, Ordering::Relaxed);
            }
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A ticket for a record whose stream begins.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::Relaxed))
    }

    /// Notes how the stream of a record ended; `None`: nobody saw it. It may come before the record does. Never waits.
    pub(crate) fn ended(&self, ticket: Ticket, code: Option<i32>) {
        // Where there is no room, the record says that the end is not known.
        let _ = self.send.try_send(Message::Ended(ticket, code));
    }

    /// How many records could not be written in this life of the node.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until all that was taken is written, for whoever reads then; but not for long.
    pub(crate) async fn settle(&self) {
        self.flush(SETTLE).await;
    }

    /// The same for the end of the node, which waits less.
    pub(crate) async fn close(&self) {
        self.flush(LAST_WRITE).await;
    }

    async fn flush(&self, limit: Duration) {
        let (done, written) = oneshot::channel();
        let flushed = async {
            if self.send.send(Message::Flush(done)).await.is_ok() {
                let _ = written.await; // nobody writes any more
            }
        };
        let _ = tokio::time::timeout(limit, flushed).await; // a slow disk has less
    }
}

/// Writes what the ledger takes, as long as the control plane lives.
pub(crate) async fn run(plane: Arc<Plane>) {
    let receive = plane.ledger.receive.lock();
    let receive = receive.unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut receive) = receive else { return };
    let mut failing = false;
    let mut since_pruned = PRUNE_AFTER; // once at the start
    let mut messages = Vec::new();
    let mut streams = Streams::default();
    while receive.recv_many(&mut messages, WAITING).await > 0 {
        let mut entries: Vec<Entry> = Vec::new();
        let mut ends = Vec::new();
        let mut waiting = Vec::new();
        for message in messages.drain(..) {
            match message {
                Message::Entry(entry) => {
                    if entry.verb == FAILED_LOGIN {
                        plane.ledger.logins.fetch_sub(1, Ordering::Relaxed);
                    }
                    let mut entry = *entry;
                    streams.fill(&mut entry);
                    entries.push(entry);
                }
                Message::Ended(ticket, code) => {
                    let own = entries
                        .iter_mut()
                        .find(|entry| entry.ticket == Some(ticket));
                    match own {
                        Some(entry) => {
                            (entry.code, entry.ticket) = (code, None);
                        }
                        None => ends.extend(streams.end(ticket, code)),
                    }
                }
                Message::Flush(done) => waiting.push(done),
            }
        }
        let count = entries.len();
        since_pruned += count;
        let tickets: Vec<Option<Ticket>> = entries.iter().map(|entry| entry.ticket).collect();
        let written = match entries.is_empty() && ends.is_empty() {
            true => Ok(Vec::new()),
            false => plane.store.add_audit(entries, ends).await,
        };
        let written = written.map(|ids| streams.open(&tickets, &ids));
        match written {
            Ok(()) if failing => {
                failing = false;
                tracing::info!(lost = plane.ledger.lost(), "the audit log is written again");
            }
            Ok(()) => {}
            Err(error) => {
                plane.ledger.lost.fetch_add(count as u64, Ordering::Relaxed);
                if !failing {
                    tracing::warn!(
                        error = error_chain(&error),
                        "the audit log cannot be written"
                    );
                }
                failing = true;
            }
        }
        if since_pruned >= PRUNE_AFTER && !failing {
            since_pruned = 0;
            prune(&plane).await;
        }
        for done in waiting {
            let _ = done.send(()); // it has waited long enough
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Streams whose ends are to be noted.
#[derive(Debug, Default)]
struct Streams {
    /// The numbers of their records.
    open: BTreeMap<Ticket, i64>,
    /// Ends of those whose record is still to come.
    early: BTreeMap<Ticket, Option<i32>>,
}

impl Streams {
    /// Says in a record how its stream ended, if it has by now.
    fn fill(&mut self, entry: &mut Entry) {
        let end = entry.ticket.and_then(|ticket| self.early.remove(&ticket));
        if let Some(code) = end {
            (entry.code, entry.ticket) = (code, None);
        }
    }

    /// These were written, and have these numbers.
    fn open(&mut self, tickets: &[Option<Ticket>], ids: &[i64]) {
        let new = tickets.iter().zip(ids);
        let new = new.filter_map(|(ticket, id)| Some(((*ticket)?, *id)));
        self.open.extend(new);
        while self.open.len() > OPEN {
            self.open.pop_first();
        }
    }

    /// One has ended; the record to change, and what it is to say.
    fn end(&mut self, ticket: Ticket, code: Option<i32>) -> Option<(i64, i32)> {
        match self.open.remove(&ticket) {
            Some(id) => Some((id, code?)),
            None => {
                self.early.insert(ticket, code);
                while self.early.len() > OPEN {
                    self.early.pop_first();
                }
                None
            }
        }
    }
}

async fn prune(plane: &Plane) {
    let oldest = crate::clock::wall() - SignedDuration::from_hours(24 * KEEP_DAYS);
    let pruned = plane
        .store
        .prune_audit(KEEP_DONE, KEEP_FAILED_LOGINS, oldest);
    if let Err(error) = pruned.await {
        tracing::warn!(
            error = error_chain(&error),
            "old records of the audit log stay"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_things_and_holds_no_values() {
        let places = [("app", "shop".to_owned()), ("service", "web".to_owned())];
        let query = [
            ("command".to_owned(), "echo hunter2".to_owned()),
            ("env".to_owned(), "PASSWORD=hunter2".to_owned()),
            ("reference".to_owned(), "nginx:1".to_owned()),
        ];
        assert_eq!(named(&places, &query), "shop/web nginx:1");
        assert_eq!(named(&[], &[]), "");
    }

    #[test]
    fn the_end_of_a_stream_is_noted_whether_its_record_is_written_by_then_or_not() {
        let who = Who::root();
        let entry = |n| Entry {
            ticket: Some(Ticket(n)),
            ..Entry::new(&who, "up", "shop", StatusCode::OK, Duration::ZERO)
        };
        let mut streams = Streams::default();
        streams.open(&[Some(Ticket(1)), None, Some(Ticket(2))], &[7, 8, 9]);
        assert_eq!(streams.end(Ticket(2), Some(3)), Some((9, 3)));
        assert_eq!(streams.end(Ticket(1), None), None, "nobody saw it");
        assert_eq!(streams.end(Ticket(3), Some(1)), None, "it is too early");
        let mut late = entry(3);
        streams.fill(&mut late);
        assert_eq!((late.code, late.ticket), (Some(1), None));
        assert!(streams.open.is_empty() && streams.early.is_empty());
    }

    #[test]
    fn a_target_is_one_short_line() {
        assert_eq!(short("a\nb\u{1b}[2J"), "a?b?[2J");
        assert_eq!(short(&"é".repeat(200)).len(), MAX_TARGET);
    }

    #[test]
    fn a_ledger_that_nobody_empties_counts_what_it_loses() {
        let ledger = Ledger::default();
        let who = Who::root();
        for _ in 0..WAITING + 3 {
            let entry = Entry::new(&who, "wake", "shop/web", StatusCode::OK, Duration::ZERO);
            ledger.note(entry);
        }
        assert_eq!(ledger.lost(), 3);
        let ledger = Ledger::default();
        for _ in 0..WAITING {
            let status = StatusCode::UNAUTHORIZED;
            ledger.note(Entry::new(&who, FAILED_LOGIN, "", status, Duration::ZERO));
        }
        let lost = ledger.lost();
        ledger.note(Entry::new(
            &who,
            "wake",
            "shop/web",
            StatusCode::OK,
            Duration::ZERO,
        ));
        assert_eq!(ledger.lost(), lost, "strangers leave room");
    }
}
