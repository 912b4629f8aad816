//! The body of a form, given out only as fast as it is used: what is read ahead of that is in memory.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::Error;
use axum::body::{Body, Bytes, HttpBody};
use http_body::Frame;

/// How much may be given out and not be used, the heads of a form's parts included.
const AHEAD_MAX_BYTES: usize = 1 << 20;

/// How often more is asked for, while so much is unused, by somebody who then finds what they need in what they have.
const ASKED_MAX: usize = 16;

/// A body that waits for whoever uses it, and breaks off where they ask for more again and again without using any: then one
/// thing, such as the head of a part, has no end.
pub struct Metered {
    body: Body,
    state: Arc<State>,
}

/// Counts what is used of a [`Metered`].
pub struct Meter(Arc<State>);

#[derive(Default)]
struct State {
    ahead_bytes: AtomicUsize,
    /// How often it has waited since something was used.
    asked: AtomicUsize,
}

/// More was read ahead than may be.
#[derive(Debug, thiserror::Error)]
#[error("a part of the form begins with more than {AHEAD_MAX_BYTES} bytes that say nothing")]
struct TooFar;

impl Metered {
    /// Another body for `body`, and the meter of it.
    pub fn new(body: Body) -> (Metered, Meter) {
        let state = Arc::new(State::default());
        let meter = Meter(Arc::clone(&state));
        (Metered { body, state }, meter)
    }
}

impl Meter {
    /// There is progress, and so many bytes more were used.
    pub fn used(&self, bytes: usize) {
        let less = |ahead: usize| Some(ahead.saturating_sub(bytes));
        // It always has a next value.
        let _ = self
            .0
            .ahead_bytes
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        self.0.asked.store(0, Ordering::SeqCst);
    }
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.state.ahead_bytes.load(Ordering::SeqCst) > AHEAD_MAX_BYTES {
            if self.state.asked.fetch_add(1, Ordering::SeqCst) >= ASKED_MAX {
                return Poll::Ready(Some(Err(Error::new(TooFar))));
            }
            // Whoever asks looks at what they have, and asks again.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            let ahead_bytes = &self.state.ahead_bytes;
            ahead_bytes.fetch_add(data.len(), Ordering::SeqCst);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use axum::body::{Body, Bytes, HttpBody};
    use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
    use http_body::Frame;

    use super::{AHEAD_MAX_BYTES, Meter, Metered};

    const FRAME_BYTES: usize = 64 << 10;

    /// Begins as said, and then never ends.
    struct Endless {
        begins: Option<&'static str>,
        given: Arc<AtomicUsize>,
    }

    impl HttpBody for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let next = match self.begins.take() {
                Some(begins) => Bytes::from_static(begins.as_bytes()),
                None => Bytes::from(vec![b'x'; FRAME_BYTES]),
            };
            self.given.fetch_add(next.len(), Ordering::SeqCst);
            Poll::Ready(Some(Ok(Frame::data(next))))
        }
    }

    /// A form that begins so, its meter, and how much of it was given.
    async fn form(begins: &'static str) -> (Multipart, Meter, Arc<AtomicUsize>) {
        let given = Arc::new(AtomicUsize::new(0));
        let endless = Endless {
            begins: Some(begins),
            given: Arc::clone(&given),
        };
        let (body, meter) = Metered::new(Body::new(endless));
        let mut request = Request::post("/")
            .header("content-type", "multipart/form-data; boundary=b")
            .body(Body::new(body))
            .unwrap();
        // Without a limit of the whole.
        DefaultBodyLimit::disable().apply(&mut request);
        let form = Multipart::from_request(request, &()).await.unwrap();
        (form, meter, given)
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(work)
    }

    #[test]
    fn a_head_without_an_end_is_not_waited_for() {
        block_on(async {
            let (mut form, _meter, given) = form("--b\r\nX: ").await;
            assert!(form.next_field().await.is_err());
            let given = given.load(Ordering::SeqCst);
            assert!(given <= AHEAD_MAX_BYTES + FRAME_BYTES, "{given}");
        });
    }

    #[test]
    fn a_part_comes_as_fast_as_it_is_used() {
        block_on(async {
            let begins = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n";
            let (mut form, meter, given) = form(begins).await;
            let mut field = form.next_field().await.unwrap().unwrap();
            meter.used(0);
            let mut used = 0;
            while used < 8 * AHEAD_MAX_BYTES {
                let chunk = field.chunk().await.unwrap().unwrap();
                used += chunk.len();
                meter.used(chunk.len());
                let ahead = given.load(Ordering::SeqCst) - used;
                assert!(ahead <= AHEAD_MAX_BYTES + FRAME_BYTES, "{ahead}");
            }
        });
    }
}
