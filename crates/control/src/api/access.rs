//! Who may do what: one row for each endpoint. What has no row is for nobody.
//!
//! A row says which role an endpoint takes, how an app's token is held to its apps there, and what the audit log calls it.
//! A new endpoint gets its row here; a test compares the table with the OpenAPI document.

use axum::http::Method;

use super::params;
use super::types::Problem;
use crate::tokens::{Rights, Role};
use Role::{Admin, Deploy, Read};

/// How an endpoint has to do with apps, for a token that is limited to some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// Nothing of any app: all may.
    Nothing,
    /// With the app that its path names as `{app}`.
    App,
    /// With the apps that its query names, as `app=APP` and `service=APP/SERVICE`: one at least.
    Named,
    /// The handler shows and touches only what the token's apps have: it takes `Who`, and looks at its rights.
    Sifted,
    /// With the whole node: not for a token that is limited to apps.
    Node,
}
use About::{App, Named, Node, Nothing, Sifted};

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The method; GET means HEAD too.
    pub(crate) method: &'static str,
    /// The path, as the router has it.
    pub(crate) path: &'static str,
    /// Who is let in.
    pub(crate) role: Role,
    /// Apps.
    pub(crate) about: About,
    /// What the audit log calls it; `None`: it changes nothing, and is not in the log.
    pub(crate) verb: Option<&'static str>,
}

/// Something that is only looked at.
const fn look(path: &'static str, role: Role, about: About) -> Rule {
    Rule {
        method: "GET",
        path,
        role,
        about,
        verb: None,
    }
}

/// Something that changes something, or reaches into a container.
const fn act(
    method: &'static str,
    path: &'static str,
    role: Role,
    about: About,
    verb: &'static str,
) -> Rule {
    Rule {
        method,
        path,
        role,
        about,
        verb: Some(verb),
    }
}

/// All of them, by path.
#[rustfmt::skip]
pub(crate) const RULES: &[Rule] = &[
    look("/v1/agents", Deploy, Nothing),
    act("POST", "/v1/apps", Deploy, Sifted, "up"),
    act("DELETE", "/v1/apps/{app}", Deploy, App, "down"),
    look("/v1/audit", Admin, Node),
    act("POST", "/v1/builds", Deploy, Sifted, "build"),
    // It changes only what the node keeps of the caller's own files.
    Rule { method: "POST", path: "/v1/contexts", role: Deploy, about: Nothing, verb: None },
    look("/v1/events", Read, Sifted),
    look("/v1/images", Read, Sifted),
    act("DELETE", "/v1/images", Deploy, Sifted, "image-rm"),
    look("/v1/images/inspect", Read, Sifted),
    act("POST", "/v1/images/load", Deploy, Node, "image-load"),
    act("POST", "/v1/images/prune", Admin, Node, "image-prune"),
    act("POST", "/v1/images/pull", Deploy, Node, "image-pull"),
    act("POST", "/v1/images/push", Deploy, Sifted, "image-push"),
    // All files of an image are in it.
    act("GET", "/v1/images/save", Deploy, Sifted, "image-save"),
    act("POST", "/v1/images/tag", Deploy, Sifted, "image-tag"),
    look("/v1/jobs", Read, Sifted),
    look("/v1/jobs/{app}/{job}", Read, App),
    act("DELETE", "/v1/jobs/{app}/{job}", Deploy, App, "job-rm"),
    act("POST", "/v1/jobs/{app}/{job}/resume", Deploy, App, "job-resume"),
    look("/v1/jobs/{app}/{job}/runs", Read, App),
    act("POST", "/v1/jobs/{app}/{job}/runs", Deploy, App, "job-run"),
    look("/v1/jobs/{app}/{job}/runs/{run}", Read, App),
    act("DELETE", "/v1/jobs/{app}/{job}/runs/{run}", Deploy, App, "job-stop"),
    look("/v1/jobs/{app}/{job}/runs/{run}/logs", Read, App),
    act("POST", "/v1/jobs/{app}/{job}/suspend", Deploy, App, "job-suspend"),
    look("/v1/logs", Read, Named),
    look("/v1/operations/{id}", Read, Sifted),
    // It reads what is sent along, and changes nothing.
    Rule { method: "POST", path: "/v1/manifests", role: Deploy, about: Sifted, verb: None },
    Rule { method: "POST", path: "/v1/manifests/config", role: Read, about: Nothing, verb: None },
    look("/v1/networks", Read, Sifted),
    act("POST", "/v1/networks", Admin, Node, "network-create"),
    look("/v1/networks/{name}", Read, Sifted),
    act("DELETE", "/v1/networks/{name}", Admin, Node, "network-rm"),
    act("POST", "/v1/node/stop", Admin, Node, "node-stop"),
    look("/v1/openapi.json", Read, Nothing),
    look("/v1/powers", Read, Sifted),
    act("PUT", "/v1/powers/{name}", Admin, Node, "power-set"),
    act("DELETE", "/v1/powers/{name}", Admin, Node, "power-rm"),
    look("/v1/registries", Read, Node),
    act("POST", "/v1/registries", Admin, Node, "login"),
    act("DELETE", "/v1/registries", Admin, Node, "logout"),
    look("/v1/secrets", Read, Sifted),
    act("POST", "/v1/secrets", Deploy, Sifted, "secret-set"),
    act("POST", "/v1/secrets/rotate-key", Admin, Node, "key-rotate"),
    act("DELETE", "/v1/secrets/{name}", Deploy, Sifted, "secret-rm"),
    look("/v1/services", Read, Sifted),
    look("/v1/services/{app}/{service}", Read, App),
    act("DELETE", "/v1/services/{app}/{service}", Deploy, App, "rm"),
    act("POST", "/v1/services/{app}/{service}/abort", Deploy, App, "abort"),
    act("POST", "/v1/services/{app}/{service}/deploy", Deploy, App, "deploy"),
    // It shows values of variables.
    look("/v1/services/{app}/{service}/diff", Deploy, App),
    act("POST", "/v1/services/{app}/{service}/disable", Deploy, App, "disable"),
    act("POST", "/v1/services/{app}/{service}/doze", Deploy, App, "doze"),
    act("POST", "/v1/services/{app}/{service}/enable", Deploy, App, "enable"),
    // A command sees the secrets of its container, and so do files.
    act("GET", "/v1/services/{app}/{service}/exec", Deploy, App, "exec"),
    act("GET", "/v1/services/{app}/{service}/files", Deploy, App, "copy-out"),
    act("PUT", "/v1/services/{app}/{service}/files", Deploy, App, "copy-in"),
    look("/v1/services/{app}/{service}/files/stat", Deploy, App),
    act("GET", "/v1/services/{app}/{service}/forward", Deploy, App, "port-forward"),
    look("/v1/services/{app}/{service}/history", Read, App),
    // While it lasts the service stays awake.
    look("/v1/services/{app}/{service}/hold", Deploy, App),
    look("/v1/services/{app}/{service}/logs", Read, App),
    look("/v1/services/{app}/{service}/power", Read, App),
    act("POST", "/v1/services/{app}/{service}/power", Deploy, App, "power"),
    act("POST", "/v1/services/{app}/{service}/promote", Deploy, App, "promote"),
    act("POST", "/v1/services/{app}/{service}/redeploy", Deploy, App, "redeploy"),
    act("POST", "/v1/services/{app}/{service}/restart", Deploy, App, "restart"),
    act("POST", "/v1/services/{app}/{service}/rollback", Deploy, App, "rollback"),
    look("/v1/services/{app}/{service}/rollout", Read, App),
    act("GET", "/v1/services/{app}/{service}/run", Deploy, App, "run"),
    act("POST", "/v1/services/{app}/{service}/runs", Deploy, App, "run"),
    look("/v1/services/{app}/{service}/scale", Read, App),
    act("POST", "/v1/services/{app}/{service}/scale", Deploy, App, "scale"),
    act("POST", "/v1/services/{app}/{service}/sleep", Deploy, App, "sleep"),
    act("POST", "/v1/services/{app}/{service}/wake", Deploy, App, "wake"),
    look("/v1/state", Admin, Node),
    act("POST", "/v1/state/export", Admin, Node, "state-export"),
    act("POST", "/v1/state/import", Admin, Node, "state-import"),
    look("/v1/tokens", Admin, Node),
    act("POST", "/v1/tokens", Admin, Node, "token-create"),
    act("DELETE", "/v1/tokens/{name}", Admin, Node, "token-rm"),
    look("/v1/usage", Read, Sifted),
    look("/v1/version", Read, Nothing),
    look("/v1/volumes", Read, Sifted),
    act("POST", "/v1/volumes", Deploy, Node, "volume-create"),
    look("/v1/volumes/{name}", Read, Sifted),
    act("DELETE", "/v1/volumes/{name}", Deploy, Sifted, "volume-rm"),
];

/// The row of an endpoint.
pub(crate) fn rule(method: &Method, path: &str) -> Option<&'static Rule> {
    let method = match *method {
        Method::HEAD => "GET",
        ref other => other.as_str(),
    };
    RULES
        .iter()
        .find(|rule| rule.method == method && rule.path == path)
}

/// Whether somebody with these rights may do what the rule is about, with these parts of the path and of the query.
///
/// # Errors
/// 403, saying what would be needed.
pub(crate) fn check(
    rule: &Rule,
    rights: &Rights,
    path: &[(&str, String)],
    query: &[(String, String)],
) -> Result<(), Problem> {
    if rights.role < rule.role {
        let (has, needs) = (rights.role.text(), rule.role.text());
        let text = format!("this token has the role {has}, and this takes the role {needs}");
        return Err(Problem::not_allowed(text)
            .hint("an admin makes another with `layby token create NAME --role ROLE`"));
    }
    if rights.is_whole() {
        return Ok(());
    }
    match rule.about {
        About::Nothing | About::Sifted => Ok(()),
        About::App => {
            let app = path.iter().find(|(name, _)| *name == "app");
            rights.require(app.map_or("", |(_, app)| app.as_str()))
        }
        About::Named => {
            let mut named = params::apps(query).peekable();
            if named.peek().is_none() {
                return Err(Problem::bad_request(
                    "neither service= nor app= names anything",
                ));
            }
            named.try_for_each(|app| rights.require(app))
        }
        About::Node => Err(rights
            .denied("the node itself")
            .hint("an admin makes one without --app: `layby token create NAME --role ROLE`")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn shop(role: Role) -> Rights {
        Rights::new(role, Some(BTreeSet::from(["shop".to_owned()])))
    }

    fn status(
        method: &Method,
        path: &str,
        rights: &Rights,
        app: &str,
        query: &[(&str, &str)],
    ) -> u16 {
        let rule = rule(method, path).expect("a rule");
        let query: Vec<_> = (query.iter())
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let path = [("app", app.to_owned())];
        check(rule, rights, &path, &query).map_or_else(|problem| problem.status, |()| 200)
    }

    #[test]
    fn no_route_is_without_a_row_and_no_row_without_a_route() {
        let document: serde_json::Value =
            serde_json::from_str(&crate::api::openapi()).expect("JSON");
        let mut routes = BTreeSet::from(["GET /v1/openapi.json".to_owned()]);
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for method in methods.as_object().expect("methods").keys() {
                routes.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
        let rows: BTreeSet<String> = RULES
            .iter()
            .map(|rule| format!("{} {}", rule.method, rule.path))
            .collect();
        assert_eq!(rows.len(), RULES.len(), "a row stands there twice");
        assert_eq!(routes, rows);
    }

    #[test]
    fn what_changes_something_takes_more_than_the_role_read_and_is_in_the_log() {
        // What shows a caller nothing but its own file is no change.
        let acts = RULES.iter().filter(|rule| rule.method != "GET");
        for rule in acts.filter(|rule| rule.path != "/v1/manifests/config") {
            assert!(rule.role >= Deploy, "{rule:?}");
            assert!(
                rule.verb.is_some() || ["/v1/contexts", "/v1/manifests"].contains(&rule.path),
                "{rule:?}"
            );
        }
        for rule in RULES.iter().filter(|rule| rule.verb.is_some()) {
            assert!(rule.role >= Deploy, "{rule:?}");
        }
        let of_apps = RULES.iter().filter(|rule| rule.path.contains("{app}"));
        for rule in of_apps {
            assert_eq!(rule.about, App, "{rule:?}");
        }
    }

    #[test]
    fn a_role_may_what_those_before_it_may() {
        let (wake, tokens) = ("/v1/services/{app}/{service}/wake", "/v1/tokens");
        for (role, may_wake, may_list) in [(Read, 403, 403), (Deploy, 200, 403), (Admin, 200, 200)]
        {
            let rights = Rights::new(role, None);
            assert_eq!(status(&Method::POST, wake, &rights, "shop", &[]), may_wake);
            assert_eq!(status(&Method::GET, tokens, &rights, "", &[]), may_list);
        }
    }

    #[test]
    fn an_apps_token_reaches_no_other_app_and_not_the_node() {
        let rights = shop(Admin);
        let one = "/v1/services/{app}/{service}";
        assert_eq!(status(&Method::GET, one, &rights, "shop", &[]), 200);
        assert_eq!(status(&Method::HEAD, one, &rights, "blog", &[]), 403);
        assert_eq!(status(&Method::GET, "/v1/tokens", &rights, "", &[]), 403);
        let logs = |query: &[(&str, &str)]| status(&Method::GET, "/v1/logs", &rights, "", query);
        assert_eq!(logs(&[("app", "shop"), ("service", "shop/web")]), 200);
        assert_eq!(logs(&[("app", "shop"), ("service", "blog/web")]), 403);
        assert_eq!(logs(&[("tail", "1")]), 400);
    }
}
