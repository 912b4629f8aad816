//! Meeting a registry's challenge: Basic, or a token from its token service (distribution, token and OAuth2
//! specifications).

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, header};
use serde::Deserialize;

use super::challenge::Challenge;
use super::credentials::Credentials;
use super::error::{Failure, Fault};
use super::host::{Base, is_loopback, origin};
use super::http::{Payload, Transport, refusal, shown_text};
use crate::percent;

/// The longest answer of a token service, in bytes.
const MAX_ANSWER_BYTES: u64 = 256 << 10;

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// The value of the Authorization header that meets the challenge. `scope` may name several, apart by spaces.
pub(super) fn meet(
    transport: &Transport,
    base: &Base,
    challenge: &Challenge,
    credentials: Option<&Credentials>,
    scope: &str,
) -> Result<String, Failure> {
    match challenge {
        Challenge::Basic => match credentials {
            Some(Credentials::Password { user, password }) => Ok(basic(user, password)),
            Some(Credentials::IdentityToken(_)) => Err(Failure::final_(
                Fault::Unauthorized,
                "wants a user and a password, and there is only an identity token",
            )),
            None => Err(Failure::final_(
                Fault::Unauthorized,
                "wants to know who asks",
            )),
        },
        Challenge::Bearer { realm, service } => {
            check_realm(realm, base)?;
            let service = service.as_deref();
            token(transport, realm, service, credentials, scope)
                .map(|token| format!("Bearer {token}"))
        }
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Passwords go there: over TLS, or on this machine, or to a registry that is spoken to without TLS anyway.
fn check_realm(realm: &str, base: &Base) -> Result<(), Failure> {
    // A registry elsewhere has no business with what listens here.
    if !is_loopback(&base.authority)
        && origin(realm).is_some_and(|(_, authority)| is_loopback(&authority))
    {
        return Err(Failure::final_(
            Fault::Broken,
            format!(
                "gives out its tokens at {}, which is this machine",
                shown_text(realm)
            ),
        ));
    }
    let plain = |authority: &str| {
        is_loopback(authority)
            || (base.scheme == "http" && base.authority.eq_ignore_ascii_case(authority))
    };
    match origin(realm) {
        Some((scheme, _)) if scheme == "https" => Ok(()),
        Some((_, authority)) if plain(&authority) => Ok(()),
        _ => Err(Failure::final_(
            Fault::Broken,
            format!(
                "gives out its tokens at {}, which is not https",
                shown_text(realm)
            ),
        )),
    }
}

fn token(
    transport: &Transport,
    realm: &str,
    service: Option<&str>,
    credentials: Option<&Credentials>,
    scope: &str,
) -> Result<String, Failure> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    pairs.extend(service.map(|service| ("service", service)));
    let mut headers = Vec::new();
    let response = match credentials {
        Some(Credentials::IdentityToken(refresh)) => {
            pairs.extend([
                ("grant_type", "refresh_token"),
                ("client_id", "layby"),
                ("refresh_token", refresh.as_str()),
            ]);
            pairs.extend(Some(("scope", scope)).filter(|_| !scope.is_empty()));
            headers.push((
                header::CONTENT_TYPE,
                "application/x-www-form-urlencoded".to_owned(),
            ));
            let form = joined(&pairs);
            transport.once(
                &Method::POST,
                realm,
                &headers,
                &Payload::Bytes(form.as_bytes()),
            )?
        }
        other => {
            // Each scope is a parameter of its own (token specification, `scope`).
            pairs.extend(scope.split_whitespace().map(|scope| ("scope", scope)));
            if let Some(Credentials::Password { user, password }) = other {
                pairs.push(("account", user.as_str()));
                headers.push((header::AUTHORIZATION, basic(user, password)));
            }
            let mark = if realm.contains('?') { '&' } else { '?' };
            let url = match pairs.is_empty() {
                true => realm.to_owned(),
                false => format!("{realm}{mark}{}", joined(&pairs)),
            };
            transport.once(&Method::GET, &url, &headers, &Payload::Nothing)?
        }
    };
    if response.status() != 200 {
        // Some services say 400 or 403 to a wrong password.
        let status = response.status();
        let mut failure = refusal(response, "refuses a token and");
        if let Failure::Registry { fault, .. } = &mut failure
            && status.is_client_error()
            && *fault != Fault::Busy
        {
            *fault = Fault::Unauthorized;
        }
        return Err(failure);
    }
    let mut bytes = Vec::new();
    let read = response
        .into_body()
        .into_reader()
        .take(MAX_ANSWER_BYTES)
        .read_to_end(&mut bytes);
    read.map_err(|_| Failure::passing(Fault::Unreachable, "broke off while it gave out a token"))?;
    // The token itself must not get into an error.
    let malformed = || Failure::final_(Fault::Broken, "gave out a token that is none");
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| malformed())?;
    let given = |token: &String| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    let token = answer
        .token
        .filter(given)
        .or(answer.access_token.filter(given));
    token.ok_or_else(malformed)
}

fn joined(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={}", percent::encode(value)))
        .collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_fetched_over_tls_only_and_from_this_machine_only_for_its_own_registries() {
        let base = |scheme, authority: &str| Base {
            scheme,
            authority: authority.to_owned(),
        };
        let public = base("https", "r.example.com");
        let plain = base("http", "r.lan:5000");
        assert!(check_realm("https://auth.example.com/token", &public).is_ok());
        let here = base("http", "localhost:5000");
        assert!(check_realm("http://127.0.0.1:5001/token", &here).is_ok());
        assert!(check_realm("http://r.lan:5000/token", &plain).is_ok());
        for realm in [
            "http://auth.example.com/token",
            "ftp://x/",
            "token",
            "https://u@x/t",
            "http://r.example.com/",
            "http://127.0.0.1:5001/token",
            "https://localhost/token",
            "https://[::1]:1/token",
        ] {
            assert!(check_realm(realm, &public).is_err(), "{realm}");
        }
        assert!(check_realm("http://auth.lan/token", &plain).is_err());
    }
}
