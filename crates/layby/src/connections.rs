//! Connections of those who come over the network: no more at a time than there is room for, none that says nothing for
//! long, and an end without cutting who is just being answered.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use layby_control::Known;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpUserTimeout;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

/// How long what was sent may wait for its reader, in milliseconds.
const UNREAD_MS: u32 = 60_000;
/// Between a connection that could not be taken and the next.
const AFTER_ERROR: Duration = Duration::from_millis(100);
/// The largest head of a request, in bytes.
const HEAD_BYTES: usize = 64 << 10;

/// What connections are held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// So many at a time; the others wait in the kernel.
    pub(crate) connections: usize,
    /// So many of one address; further ones are closed.
    pub(crate) per_address: usize,
    /// So many from which no good token has come yet; the oldest is closed for another.
    pub(crate) strangers: usize,
    /// So many of those of one address; further ones are closed.
    pub(crate) strangers_per_address: usize,
    /// How long the head of a request may take to come, also of the next one on a connection.
    pub(crate) head: Duration,
    /// How long it may take until a stream stands (TLS).
    pub(crate) handshake: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1_024,
            per_address: 1_024,
            strangers: 1_024,
            strangers_per_address: 1_024,
            head: Duration::from_secs(30),
            handshake: Duration::from_secs(10),
        }
    }
}

/// Serves `router`, with the addresses of its clients (`ConnectInfo`), until `closing` says so; then those that are just
/// being answered go on, and this ends with them. Dropped, it cuts them.
pub(crate) async fn serve<S, F>(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shake: impl Fn(TcpStream) -> F,
    mut closing: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(limits.connections));
    let guests = Arc::new(Guests::default());
    let mut open = JoinSet::new();
    loop {
        // It is never closed.
        let Ok(turn) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        while open.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closed(&mut closing) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Of one connection, or there are no files left: both pass.
                tracing::debug!(%error, "a connection could not be taken");
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            }
        };
        let Some(guest) = guests.welcome(peer.ip(), &limits) else {
            continue; // closed by being dropped
        };
        // Who does not read holds a connection only for so long (tcp(7)).
        let _ = setsockopt(&stream, TcpUserTimeout, &UNREAD_MS);
        // Small answers are not to wait for company.
        let _ = stream.set_nodelay(true);
        let stream = tokio::time::timeout(limits.handshake, shake(stream));
        let (router, closing) = (router.clone(), closing.clone());
        open.spawn(async move {
            let (_turn, guest) = (turn, Arc::new(guest));
            let weak = Arc::downgrade(&guest);
            let known = Known(Arc::new(move || {
                if let Some(guest) = weak.upgrade() {
                    guest.is_known();
                }
            }));
            let served = async {
                if let Ok(Ok(stream)) = stream.await {
                    answer(stream, (peer, known), router, limits.head, closing).await;
                }
            };
            tokio::select! {
                () = served => {}
                () = guest.leave.notified() => {} // closed by being dropped
            }
        });
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// Answers the requests of one connection.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    (peer, known): (SocketAddr, Known),
    router: Router,
    head: Duration,
    mut closing: watch::Receiver<bool>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(known.clone());
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    // Errors of single connections are theirs.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = closed(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Waits until it closes.
async fn closed(closing: &mut watch::Receiver<bool>) {
    // Whoever could say so is gone: that is the same.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// How many connections each address has, and which of them are strangers'.
#[derive(Debug, Default)]
struct Guests(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    counts: HashMap<IpAddr, Count>,
    /// The oldest first: where each is from, and what tells it to leave.
    strangers: BTreeMap<u64, (IpAddr, Arc<Notify>)>,
    next: u64,
}

/// The connections of one address.
#[derive(Debug, Default)]
struct Count {
    all: usize,
    strangers: usize,
}

impl Book {
    /// A stranger is one no more.
    fn strike(&mut self, number: u64) {
        if let Some((from, _)) = self.strangers.remove(&number)
            && let Some(count) = self.counts.get_mut(&from)
        {
            count.strangers -= 1;
        }
    }
}

/// One connection of an address.
#[derive(Debug)]
struct Guest {
    all: Arc<Guests>,
    from: IpAddr,
    number: u64,
    leave: Arc<Notify>,
}

impl Guests {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing panics while it is held; a poisoned lock still holds whole entries.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more; `None`: it has as many as it may.
    fn welcome(self: &Arc<Self>, from: IpAddr, limits: &Limits) -> Option<Guest> {
        let mut book = self.book();
        let full = |count: &Count| {
            count.all >= limits.per_address || count.strangers >= limits.strangers_per_address
        };
        if book.counts.get(&from).is_some_and(full) {
            return None;
        }
        if book.strangers.len() >= limits.strangers
            && let Some((&oldest, (_, leave))) = book.strangers.first_key_value()
        {
            leave.notify_one();
            book.strike(oldest);
        }
        let (number, leave) = (book.next, Arc::new(Notify::new()));
        book.next += 1;
        book.strangers.insert(number, (from, Arc::clone(&leave)));
        let count = book.counts.entry(from).or_default();
        count.all += 1;
        count.strangers += 1;
        Some(Guest {
            all: Arc::clone(self),
            from,
            number,
            leave,
        })
    }
}

impl Guest {
    /// A good token has come from it.
    fn is_known(&self) {
        self.all.book().strike(self.number);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut book = self.all.book();
        book.strike(self.number);
        if let Some(count) = book.counts.get_mut(&self.from) {
            count.all -= 1;
            if count.all == 0 {
                book.counts.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::extract::Extension;
    use axum::http::HeaderMap;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n";

    /// Says who asks.
    async fn begin(limits: Limits) -> (SocketAddr, watch::Sender<bool>, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port");
        let addr = listener.local_addr().expect("it has one");
        let said = |Extension(known): Extension<Known>,
                    Extension(ConnectInfo(peer)): Extension<ConnectInfo<SocketAddr>>,
                    headers: HeaderMap| async move {
            if headers.contains_key("authorization") {
                known.tell();
            }
            peer.ip().to_string()
        };
        let router = Router::new().fallback(said);
        let (close, closing) = watch::channel(false);
        let mut serving = JoinSet::new();
        let shake = |stream| async { Ok(stream) };
        serving.spawn(serve(listener, router, limits, shake, closing));
        (addr, close, serving)
    }

    /// Whether the other end has closed within a few seconds.
    async fn is_closed(stream: &mut TcpStream) -> bool {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
        read.await.is_ok()
    }

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(REQUEST).await.expect("to write");
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer));
        read.await.expect("in time").expect("to read");
        answer
    }

    #[tokio::test]
    async fn who_says_nothing_is_hung_up_on_and_makes_room_for_others() {
        let limits = Limits {
            connections: 2,
            head: Duration::from_millis(200),
            ..Limits::default()
        };
        let (addr, _close, _serving) = begin(limits).await;
        let mut silent = TcpStream::connect(addr).await.expect("to connect");
        let mut slow = TcpStream::connect(addr).await.expect("to connect");
        slow.write_all(b"GET / HTTP/1.1\r\nhost: ")
            .await
            .expect("to write");
        // There is room for two: this one waits until they are gone.
        let mut third = TcpStream::connect(addr).await.expect("to connect");
        let answer = ask(&mut third).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"),
            "{answer}"
        );
        assert!(is_closed(&mut silent).await && is_closed(&mut slow).await);
    }

    #[tokio::test]
    async fn strangers_make_room_for_each_other_and_leave_the_known_alone() {
        let limits = Limits {
            strangers: 2,
            strangers_per_address: 2,
            ..Limits::default()
        };
        let guests = Arc::new(Guests::default());
        let from = |n: u8| IpAddr::from([192, 0, 2, n]);
        let first = guests.welcome(from(1), &limits).expect("room");
        first.is_known();
        let second = guests
            .welcome(from(1), &limits)
            .expect("the first is known");
        let third = guests.welcome(from(1), &limits).expect("room for two");
        assert!(guests.welcome(from(1), &limits).is_none(), "two strangers");
        let fourth = guests.welcome(from(2), &limits).expect("others have room");
        let told = async |guest: &Guest| {
            let told = tokio::time::timeout(Duration::ZERO, guest.leave.notified());
            told.await.is_ok()
        };
        assert!(told(&second).await, "the oldest stranger leaves");
        assert!(!told(&first).await && !told(&third).await && !told(&fourth).await);
        drop((first, second, third, fourth));
        let book = guests.book();
        assert!(book.counts.is_empty() && book.strangers.is_empty());
    }

    #[tokio::test]
    async fn who_has_shown_a_good_token_is_not_closed_for_strangers() {
        let limits = Limits {
            strangers: 1,
            ..Limits::default()
        };
        let (addr, _close, _serving) = begin(limits).await;
        let mut known = TcpStream::connect(addr).await.expect("to connect");
        let good = b"GET / HTTP/1.1\r\nhost: node\r\nauthorization: good\r\n\r\n";
        known.write_all(good).await.expect("to write");
        let mut some = [0; 12];
        known.read_exact(&mut some).await.expect("to read");
        let mut silent = TcpStream::connect(addr).await.expect("to connect");
        let mut third = TcpStream::connect(addr).await.expect("to connect");
        assert!(is_closed(&mut silent).await, "it makes room");
        assert!(ask(&mut third).await.starts_with("HTTP/1.1 200"));
        assert!(
            ask(&mut known).await.contains("HTTP/1.1 200"),
            "it is there still"
        );
    }

    #[tokio::test]
    async fn one_address_does_not_take_all_the_room() {
        let limits = Limits {
            per_address: 1,
            ..Limits::default()
        };
        let (addr, close, mut serving) = begin(limits).await;
        let mut first = TcpStream::connect(addr).await.expect("to connect");
        let mut second = TcpStream::connect(addr).await.expect("to connect");
        assert!(is_closed(&mut second).await, "it has one already");
        assert!(ask(&mut first).await.starts_with("HTTP/1.1 200"));
        close.send_replace(true);
        let ended = tokio::time::timeout(Duration::from_secs(5), serving.join_next());
        assert!(ended.await.is_ok(), "nobody is being answered");
    }
}
