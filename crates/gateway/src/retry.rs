//! Phase 6: retry. Whether a request may be sent again that got no answer (RFC 9110, section 9.2.2).

use crate::codec::Method;

/// A request that was sent, and whose connection closed before any byte of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unanswered {
    pub(crate) method: Method,
    /// The connection had carried another request before: the upstream may have closed it for idleness.
    pub(crate) reused: bool,
    /// Bytes of the body went out that are not kept here.
    pub(crate) streamed: bool,
}

/// Whether it may be sent once more, on a new connection. Requests that no connection was found for were
/// never sent: they wait and try again by themselves.
pub(crate) fn may_retry(request: Unanswered) -> bool {
    request.reused && !request.streamed && request.method.is_idempotent()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_have_had_an_effect_twice_is_sent_twice() {
        let good = Unanswered {
            method: Method::Get,
            reused: true,
            streamed: false,
        };
        assert!(may_retry(good));
        let method = Method::Other;
        assert!(!may_retry(Unanswered { method, ..good }));
        let reused = false;
        assert!(!may_retry(Unanswered { reused, ..good }));
        let streamed = true;
        assert!(!may_retry(Unanswered { streamed, ..good }));
    }
}
