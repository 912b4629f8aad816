//! Tokens: made, listed and taken away. A secret is shown once; only its hash is kept.

mod doorman;
mod rights;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;

use axum::http::StatusCode;
use jiff::SignedDuration;
use layby_model::AppName;
use sha2::{Digest, Sha256};

use crate::api::types::{NewToken, Problem, TokenBody, TokenView};
use crate::plane::Plane;
use crate::store::Token;

pub(crate) use doorman::Doorman;
pub(crate) use rights::Rights;
pub use rights::Role;

/// So many tokens may a node have.
const MAX_TOKENS: usize = 1_000;
/// How a secret begins, so that one that leaked is recognised.
const PREFIX: &str = "lyb_";
/// The random bytes of a secret.
const SECRET_BYTES: usize = 24;
/// The longest name and the longest pattern.
const MAX_TEXT: usize = 128;
/// So many apps may a token be limited to.
const MAX_APPS: usize = 100;

/// Makes a token.
///
/// # Errors
/// A name that is taken or is none, or nothing that the token would be good for.
pub(crate) async fn create(plane: &Plane, body: TokenBody) -> Result<NewToken, Problem> {
    check(&body)?;
    let turn = plane.doorman.turn().await;
    if plane.doorman.len() >= MAX_TOKENS {
        return Err(
            Problem::conflict(format!("there are {MAX_TOKENS} tokens already"))
                .hint("`layby token rm` takes one away"),
        );
    }
    let now = crate::clock::wall();
    let expires_at = match body.expires_s {
        None => None,
        Some(seconds) => {
            let length = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            let end = now.checked_add(length);
            Some(end.map_err(|_| Problem::bad_request("the token would expire too late"))?)
        }
    };
    let secret = new_secret()
        .map_err(|error| Problem::failed(format!("no random numbers can be had: {error}")))?;
    let apps: BTreeSet<String> = body.apps.into_iter().collect();
    let (pull, push) = at_registry(body.role, body.pull, body.push);
    let token = Token {
        name: body.name,
        hash: secret_hash(&secret),
        pull,
        push,
        repository: (body.repository).unwrap_or_else(|| repositories_of(&apps)),
        role: body.role,
        apps: (!apps.is_empty()).then_some(apps),
        created_at: now,
        expires_at,
    };
    if !plane.store.add_token(token.clone()).await? {
        return Err(
            Problem::conflict(format!("there is a token {} already", token.name)).hint(format!(
                "`layby token rm {}` first, or another name",
                token.name
            )),
        );
    }
    turn.admit(plane.store.tokens().await?);
    Ok(NewToken {
        token: view(&token),
        secret,
    })
}

/// Every token.
pub(crate) async fn list(plane: &Plane) -> Result<Vec<TokenView>, Problem> {
    Ok(plane.store.tokens().await?.iter().map(view).collect())
}

/// Takes a token away: it is good for nothing from then on.
///
/// # Errors
/// There is none of that name.
pub(crate) async fn remove(plane: &Plane, name: &str) -> Result<(), Problem> {
    let turn = plane.doorman.turn().await;
    if !plane.store.remove_token(name).await? {
        let text = format!("there is no token {name}");
        return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", text)
            .hint("`layby token ls` shows what there is"));
    }
    turn.admit(plane.store.tokens().await?);
    Ok(())
}

/// What is kept of a secret. It is random and long: a slow hash would guard nothing more.
pub(crate) fn secret_hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// What a token may at the registry: what is said, else what its role means.
fn at_registry(role: Option<Role>, pull: bool, push: bool) -> (bool, bool) {
    match role {
        Some(_) if pull || push => (pull, push),
        Some(role) => (true, role >= Role::Deploy),
        None => (pull, push),
    }
}

/// The repositories of these apps; without any: all.
fn repositories_of(apps: &BTreeSet<String>) -> String {
    if apps.is_empty() {
        return "*".to_owned();
    }
    let of_each: Vec<String> = apps.iter().map(|app| format!("{app}/*")).collect();
    of_each.join(",")
}

fn new_secret() -> std::io::Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{PREFIX}{hex}"))
}

fn check(body: &TokenBody) -> Result<(), Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if body.name.is_empty() || body.name.len() > MAX_TEXT || !body.name.chars().all(plain) {
        return Err(Problem::bad_request(format!(
            "{:?} is no name for a token: 1 to {MAX_TEXT} letters, digits, `-`, `_` and `.`",
            body.name
        )));
    }
    if body.name == "root" {
        // Events say `root` of who pushed over the node's socket.
        return Err(Problem::bad_request("a token cannot be called root"));
    }
    if body.role.is_none() && !body.pull && !body.push {
        return Err(Problem::bad_request(
            "the token would be good for nothing: say a role, pull or push",
        ));
    }
    if body.apps.len() > MAX_APPS {
        let text = format!("a token can be limited to {MAX_APPS} apps at most");
        return Err(Problem::bad_request(text));
    }
    for app in &body.apps {
        AppName::new(app).map_err(|error| Problem::bad_request(error.to_string()))?;
    }
    if body.role == Some(Role::Admin) && !body.apps.is_empty() {
        return Err(Problem::bad_request(
            "an admin has to do with the whole node, and so not with some apps only: say the role deploy",
        ));
    }
    let patterns = body.repository.as_deref().unwrap_or("*");
    let lower = |c: char| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.' | '/' | '*')
    };
    let is_pattern =
        |text: &str| !text.is_empty() && text.len() <= MAX_TEXT && text.chars().all(lower);
    match patterns.split(',').find(|text| !is_pattern(text)) {
        None if patterns.split(',').count() <= MAX_APPS => Ok(()),
        None => Err(Problem::bad_request(format!(
            "a token can have {MAX_APPS} patterns of repositories at most"
        ))),
        Some(pattern) => Err(Problem::bad_request(format!(
            "{pattern:?} names no repositories: a name such as team/app, in which * stands for any characters"
        ))),
    }
}

fn view(token: &Token) -> TokenView {
    TokenView {
        name: token.name.clone(),
        pull: token.pull,
        push: token.push,
        repository: token.repository.clone(),
        role: token.role,
        apps: token.apps.iter().flatten().cloned().collect(),
        created_at: token.created_at.to_string(),
        expires_at: token.expires_at.map(|at| at.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_means_something_at_the_registry_unless_it_is_said() {
        assert_eq!(at_registry(None, true, false), (true, false));
        assert_eq!(at_registry(Some(Role::Read), false, false), (true, false));
        assert_eq!(at_registry(Some(Role::Deploy), false, false), (true, true));
        assert_eq!(at_registry(Some(Role::Admin), true, false), (true, false));
        let apps = BTreeSet::from(["blog".to_owned(), "shop".to_owned()]);
        assert_eq!(repositories_of(&apps), "blog/*,shop/*");
        assert_eq!(repositories_of(&BTreeSet::new()), "*");
    }
}
