//! What somebody may do on the node: a role, and perhaps only for some apps.

use std::collections::BTreeSet;
use std::sync::Arc;

use layby_model::AppName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::types::Problem;

/// What a token is good for; each role may all that those before it may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look: services, logs, events, images; no file and no secret of a container.
    Read,
    /// Change services, jobs, secrets and volumes, build and push images, and reach into containers.
    Deploy,
    /// Everything: tokens, the node itself, logins at registries, mounts of the machine's folders.
    Admin,
}

impl Role {
    /// As it is written.
    pub fn text(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Deploy => "deploy",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    pub(crate) fn of(text: &str) -> Option<Self> {
        [Self::Read, Self::Deploy, Self::Admin]
            .into_iter()
            .find(|role| role.text() == text)
    }
}

/// What the one who asks may do: handlers find it in `Who`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rights {
    /// Its role.
    pub(crate) role: Role,
    /// Only with these apps; `None`: with all, and with the node itself.
    apps: Option<Arc<BTreeSet<String>>>,
}

impl Rights {
    /// Root's.
    pub(crate) fn all() -> Self {
        Self {
            role: Role::Admin,
            apps: None,
        }
    }

    /// Nobody's.
    pub(crate) fn none() -> Self {
        Self::new(Role::Read, Some(BTreeSet::new()))
    }

    /// A token's.
    pub(crate) fn new(role: Role, apps: Option<BTreeSet<String>>) -> Self {
        Self {
            role,
            apps: apps.map(Arc::new),
        }
    }

    /// Whether it may do all with the node's folders and devices that the node's operator allows.
    pub(crate) fn is_admin(&self) -> bool {
        self.role == Role::Admin && self.is_whole()
    }

    /// Whether it is not limited to some apps.
    pub(crate) fn is_whole(&self) -> bool {
        self.apps.is_none()
    }

    /// The apps that it is limited to.
    pub(crate) fn apps(&self) -> Option<&BTreeSet<String>> {
        self.apps.as_deref()
    }

    /// Whether it may have to do with this app.
    pub(crate) fn covers(&self, app: &str) -> bool {
        self.apps.as_ref().is_none_or(|apps| apps.contains(app))
    }

    /// Whether it may have to do with what belongs to this app, or to none.
    pub(crate) fn covers_owner(&self, app: Option<&AppName>) -> bool {
        app.map_or(self.is_whole(), |app| self.covers(app.as_str()))
    }

    /// The same as an error.
    ///
    /// # Errors
    /// 403: it is for other apps.
    pub(crate) fn require(&self, app: &str) -> Result<(), Problem> {
        match self.covers(app) {
            true => Ok(()),
            false => Err(self.denied(&format!("the app {app}"))),
        }
    }

    /// That it may not have to do with `what`.
    pub(crate) fn denied(&self, what: &str) -> Problem {
        let apps: Vec<&str> = (self.apps.iter().flat_map(|apps| apps.iter()))
            .map(String::as_str)
            .collect();
        let text = format!("this token is for {} only, not for {what}", apps.join(", "));
        Problem::not_allowed(text)
            .hint("an admin makes another with `layby token create NAME --app APP`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_for_some_apps_covers_those_and_nothing_of_the_node() {
        let rights = Rights::new(Role::Admin, Some(BTreeSet::from(["shop".to_owned()])));
        assert!(rights.covers("shop") && !rights.covers("blog"));
        assert!(!rights.covers_owner(None), "what is nobody's is the node's");
        assert!(!rights.is_admin());
        let problem = rights.require("blog").expect_err("another app");
        assert_eq!(problem.status, 403);
        assert!(problem.detail.contains("shop") && problem.detail.contains("blog"));
        assert!(Rights::all().covers_owner(None) && Rights::all().is_admin());
    }

    #[test]
    fn roles_have_an_order_and_a_name() {
        assert!(Role::Read < Role::Deploy && Role::Deploy < Role::Admin);
        for role in [Role::Read, Role::Deploy, Role::Admin] {
            assert_eq!(Role::of(role.text()), Some(role));
            let json = serde_json::to_string(&role).expect("JSON");
            assert_eq!(json, format!("{:?}", role.text()));
        }
        assert_eq!(Role::of("root"), None);
    }
}
