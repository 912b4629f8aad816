//! The host names by which those outside reach services: one Ingress (`networking.k8s.io/v1`) for the app.

use crate::convert::tree::{Map, maps};
use crate::convert::{App, Gathered, names, object, service};

/// Writes it, if a domain is said.
pub(super) fn write(app: &App<'_>, all: &mut Gathered) {
    let Some(domain) = &app.how.domain else {
        return;
    };
    let mut rules = Vec::new();
    for draft in app.services {
        let Some(port) = service::routed(app, draft) else {
            continue;
        };
        let own = names::service(draft.spec.name.as_str());
        let backend = Map::new()
            .text("name", own)
            .put("port", Map::new().plain("number", port));
        let path = Map::new()
            .text("path", "/")
            .text("pathType", "Prefix")
            .put("backend", Map::new().put("service", backend));
        // As the node calls it.
        let host = format!("{}.{}.{domain}", draft.spec.name, app.name);
        let http = Map::new().put("paths", maps([path]));
        rules.push(Map::new().text("host", host).put("http", http));
    }
    if rules.is_empty() {
        return;
    }
    let head = app.object("networking.k8s.io/v1", "Ingress", app.name, None);
    let body = Map::new().put("rules", maps(rules));
    let map = head.with(Map::new(), |map| map.put("spec", body));
    all.others.push(object("Ingress", app.name, map));
}
