//! Phase 6: retry. Whether a request may be sent again that got no answer (RFC 9110, section 9.2.2).

use crate::codec::Method;

/// A request that was sent, and whose connection closed before any byte of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unanswered {
    pub(crate) method: Method,
    /// The connection had carried another request before: the upstream may have closed it for idleness.
    pub(crate) reused: bool,
    /// It has no body.
    pub(crate) bodiless: bool,
    /// Bytes of the body went out that are not kept here.
    pub(crate) streamed: bool,
    /// It was already sent to another replica than the first.
    pub(crate) moved: bool,
}

/// How a request is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// On a new connection, to the same replica if it is still there.
    Anew,
    /// To another replica, or once there is one: this one went down under it, or because of it.
    Elsewhere,
}

/// Whether and how it is sent once more. Requests that no connection was found for were never sent: they wait and try again by
/// themselves. What a replica went down under is sent to one other, not to one after the other, and only if it does nothing
/// but read.
pub(crate) fn again(request: Unanswered) -> Option<Again> {
    if request.reused {
        let may = !request.streamed && request.method.is_idempotent();
        return may.then_some(Again::Anew);
    }
    let may = request.bodiless && request.method.is_safe() && !request.moved;
    may.then_some(Again::Elsewhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Unanswered = Unanswered {
        method: Method::Get,
        reused: true,
        bodiless: true,
        streamed: false,
        moved: false,
    };

    #[test]
    fn only_what_cannot_have_had_an_effect_twice_is_sent_twice() {
        assert_eq!(again(GET), Some(Again::Anew));
        for method in [Method::Head, Method::Safe, Method::Idempotent] {
            assert_eq!(again(Unanswered { method, ..GET }), Some(Again::Anew));
        }
        let method = Method::Other;
        assert_eq!(again(Unanswered { method, ..GET }), None);
        let streamed = true;
        assert_eq!(again(Unanswered { streamed, ..GET }), None);
    }

    #[test]
    fn what_only_reads_is_sent_to_one_other_replica() {
        let new = Unanswered {
            reused: false,
            ..GET
        };
        for method in [Method::Get, Method::Head, Method::Safe] {
            assert_eq!(again(Unanswered { method, ..new }), Some(Again::Elsewhere));
        }
        for method in [Method::Idempotent, Method::Other] {
            assert_eq!(again(Unanswered { method, ..new }), None);
        }
        let moved = true;
        assert_eq!(again(Unanswered { moved, ..new }), None);
        let bodiless = false;
        assert_eq!(again(Unanswered { bodiless, ..new }), None);
    }
}
