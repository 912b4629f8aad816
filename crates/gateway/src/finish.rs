//! Phase 7: finish. Counts the request off and keeps the connection to the replica for the next.

use std::rc::Rc;

use crate::balance::Claim;
use crate::pool::Upstream;
use crate::service::ServiceState;
use crate::worker::Worker;

/// Ends a request whose answer was passed on; `keep`: the upstream takes another request on this
/// connection, for so many seconds if it said so.
pub(crate) fn finish(
    worker: &Rc<Worker>,
    service: &ServiceState,
    claim: Claim,
    port: u16,
    upstream: Upstream,
    keep: Option<Option<u64>>,
) {
    let replica = claim.upstream().replica;
    match keep {
        Some(keep_alive_s) if worker.view().replica(replica).is_some() => {
            let mut pool = worker.pool.borrow_mut();
            pool.put(replica, port, upstream, keep_alive_s);
        }
        _ => drop(upstream),
    }
    service.touch();
    drop(claim); // last: until here the replica is in use, its connection included
}
