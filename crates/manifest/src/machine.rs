//! Services in the machine's network (Compose `network_mode: host`, Kubernetes `hostNetwork`).

use layby_model::spec::Strategy;

use crate::draft::Draft;
use crate::report::Report;

/// The replicas take ports of the machine itself: what of such a service is not as elsewhere.
pub(crate) fn settle(draft: &mut Draft, report: &mut Report) {
    let spec = &mut draft.spec;
    let name = spec.name.as_str().to_owned();
    if !spec.published.is_empty() {
        let message = format!(
            "the ports of service {name:?} are not published: it is in the machine's network, and takes them there itself"
        );
        report.warn(&draft.place, message);
    }
    spec.published.clear();
    draft.published_at.clear();
    let is_net = |key: &String| key.starts_with("net.");
    if let Some(key) = spec.sandbox.sysctls.keys().find(|key| is_net(key)) {
        let message = format!(
            "{key:?} in \"sysctls\" of service {name:?} would be the machine's: it is in the machine's network"
        );
        report.error(&draft.place, message);
    }
    if spec.job.is_some() {
        let message = format!(
            "job {name:?} is in the machine's network: it does not find the services of the app by their names"
        );
        return report.warn(&draft.place, message);
    }
    let message = format!(
        "service {name:?} is in the machine's network: the services of the app do not find it by its name, and its next revision starts after the old one has stopped"
    );
    report.warn(&draft.place, message);
    // Two of them cannot listen on one port.
    spec.strategy = Strategy::StopFirst;
}
