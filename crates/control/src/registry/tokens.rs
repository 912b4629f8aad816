//! Tokens: made, listed and taken away. A secret is shown once; only its hash is kept.

use std::fs::File;
use std::io::Read;

use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use crate::api::types::{NewToken, Problem, TokenBody, TokenView};
use crate::plane::Plane;
use crate::store::Token;

/// So many tokens may a node have.
const MAX_TOKENS: usize = 1_000;
/// How a secret begins, so that one that leaked is recognised.
const PREFIX: &str = "lyb_";
/// The random bytes of a secret.
const SECRET_BYTES: usize = 24;
/// The longest name and the longest pattern.
const MAX_TEXT: usize = 128;

/// Makes a token.
///
/// # Errors
/// A name that is taken or is none, or nothing that the token would be good for.
pub(crate) async fn create(plane: &Plane, body: TokenBody) -> Result<NewToken, Problem> {
    check(&body)?;
    if plane.desk.doorman.count() >= MAX_TOKENS {
        return Err(
            Problem::conflict(format!("there are {MAX_TOKENS} tokens already"))
                .hint("`layby token rm` takes one away"),
        );
    }
    let now = Timestamp::now();
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
    let token = Token {
        name: body.name,
        hash: secret_hash(&secret),
        pull: body.pull,
        push: body.push,
        repository: body.repository.unwrap_or_else(|| "*".to_owned()),
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
    plane.desk.doorman.admit(plane.store.tokens().await?);
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
    if !plane.store.remove_token(name).await? {
        let text = format!("there is no token {name}");
        return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", text)
            .hint("`layby token ls` shows what there is"));
    }
    plane.desk.doorman.admit(plane.store.tokens().await?);
    Ok(())
}

/// What is kept of a secret. It is random and long: a slow hash would guard nothing more.
pub(crate) fn secret_hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
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
    if !body.pull && !body.push {
        return Err(Problem::bad_request(
            "the token would be good for nothing: say pull, push or both",
        ));
    }
    let pattern = body.repository.as_deref().unwrap_or("*");
    let lower = |c: char| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.' | '/' | '*')
    };
    if pattern.is_empty() || pattern.len() > MAX_TEXT || !pattern.chars().all(lower) {
        return Err(Problem::bad_request(format!(
            "{pattern:?} names no repositories: a name such as team/app, in which * stands for any characters"
        )));
    }
    Ok(())
}

fn view(token: &Token) -> TokenView {
    TokenView {
        name: token.name.clone(),
        pull: token.pull,
        push: token.push,
        repository: token.repository.clone(),
        created_at: token.created_at.to_string(),
        expires_at: token.expires_at.map(|at| at.to_string()),
    }
}
