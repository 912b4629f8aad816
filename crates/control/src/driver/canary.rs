//! What is shown of a canary: that it serves, and how it fares beside live.

use std::collections::BTreeMap;

use layby_model::plan::{Observed, Route};
use layby_model::replica::Phase;
use layby_model::route::Served;
use layby_model::{ReplicaId, RevisionId};

use super::Driver;
use super::show::Status;
use crate::api::types::{CanaryView, GivenView};
use crate::store::Row;

/// What replicas had been given when a canary began to serve: only what came after is compared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Begun {
    revision: RevisionId,
    served: BTreeMap<ReplicaId, Served>,
}

/// The canary of a service, without its counts.
pub(super) fn view(row: &Row, o: &Observed) -> Option<CanaryView> {
    let share = row.share.as_ref().filter(|_| !row.target_failed)?;
    let target = row.target.id;
    let mine = o.replicas.iter().filter(|r| r.revision == target);
    let ready = mine.filter(|r| r.phase == Phase::Ready).count();
    let serves = matches!(&o.published, Some(Route::Serve { canary, .. }) if !canary.is_empty());
    row.live.as_ref().map(|_| CanaryView {
        revision: target.0,
        share: share.to_string(),
        serves,
        replicas_ready: u32::try_from(ready).unwrap_or(u32::MAX),
        given: GivenView::default(),
        given_live: GivenView::default(),
    })
}

impl Driver {
    /// Remembers from when on a canary that begins to serve is compared with live.
    pub(super) fn note_canary(&mut self, serves: bool) {
        let revision = self.row().target.id;
        if serves
            && self
                .canary
                .as_ref()
                .is_none_or(|begun| begun.revision != revision)
        {
            let served = (self.plane.traffic)(&self.id).served;
            self.canary = Some(Begun { revision, served });
        }
    }
}

impl Status {
    /// All that the canary is to have is ready: it gets its share, or will once live is awake.
    pub(crate) fn canary_stands(&self) -> bool {
        let canary = self.detail.view.canary.as_ref();
        canary.is_some_and(|canary| canary.serves || canary.replicas_ready >= self.row.replicas)
    }

    /// The canary of the service, if there is one, with what it and live were given as of `served`.
    pub(crate) fn canary(&self, served: &BTreeMap<ReplicaId, Served>) -> Option<CanaryView> {
        let mut canary = self.detail.view.canary.clone()?;
        let target = RevisionId(canary.revision);
        let begun = self
            .canary
            .as_ref()
            .filter(|begun| begun.revision == target);
        let given = |revision: u32| {
            let mine = self
                .detail
                .replicas
                .iter()
                .filter(|r| r.revision == revision);
            let mut sum = GivenView::default();
            for (id, now) in mine.filter_map(|r| served.get_key_value(&r.id.parse().ok()?)) {
                let before = begun.and_then(|begun| begun.served.get(id)).copied();
                let before = before.unwrap_or_default();
                sum.requests += now.requests.saturating_sub(before.requests);
                sum.errors += now.errors.saturating_sub(before.errors);
            }
            sum
        };
        canary.given = given(canary.revision);
        canary.given_live = given(self.detail.view.revision);
        Some(canary)
    }
}
