//! Who a request is from: a token's secret alone (Bearer, RFC 6750), or with the token's name (Basic, RFC 7617), or nobody.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use layby_image::registry::{Grant, TurnedAway};
use subtle::ConstantTimeEq;

use super::secret_hash;
use crate::store::Token;

/// After so many wrong secrets from one address ...
const TRIES: u32 = 20;
/// ... within this time, its wrong ones are not answered as such until the time is over. Right ones always are: many who
/// push may share an address, and no secret can be found by trying.
const WINDOW: Duration = Duration::from_secs(60);
/// So many addresses are remembered; beyond that, all of them share what is left.
const ADDRESSES: usize = 4_096;

/// Knows the tokens.
pub(crate) struct Doorman {
    anonymous_pull: bool,
    tokens: Mutex<BTreeMap<String, Token>>,
    /// Held from the write of a change to its being known here.
    turn: tokio::sync::Mutex<()>,
    failures: Mutex<BTreeMap<Option<IpAddr>, (u32, Instant)>>,
}

impl Doorman {
    /// Knows these tokens; with `anonymous_pull`, who says nothing may read.
    pub(crate) fn new(anonymous_pull: bool, tokens: Vec<Token>) -> Self {
        let doorman = Self {
            anonymous_pull,
            tokens: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            failures: Mutex::default(),
        };
        doorman.know(tokens);
        doorman
    }

    /// The turn to change tokens: one change after the other is written, read back and admitted. Otherwise an older list
    /// might be admitted last, and with it a token that has been taken away.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        Turn {
            doorman: self,
            _held: self.turn.lock().await,
        }
    }

    fn know(&self, tokens: Vec<Token>) {
        let named = tokens.into_iter().map(|token| (token.name.clone(), token));
        *self.tokens() = named.collect();
    }

    /// How many tokens there are.
    pub(crate) fn len(&self) -> usize {
        self.tokens().len()
    }

    /// What a request to the registry may do.
    ///
    /// # Errors
    /// The secret is wrong, its token has expired, or too many were wrong.
    pub(crate) fn grant(
        &self,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
    ) -> Result<Grant, TurnedAway> {
        let Some(token) = self.known(headers, client(headers, peer))? else {
            return Ok(Grant::anonymous(self.anonymous_pull));
        };
        Ok(Grant {
            who: Some(token.name),
            pull: token.pull,
            push: token.push,
            repositories: token.repository,
        })
    }

    /// Whose token a request from this address bears; `None`: it bears none.
    ///
    /// # Errors
    /// As [`Doorman::grant`].
    pub(crate) fn known(
        &self,
        headers: &HeaderMap,
        from: Option<IpAddr>,
    ) -> Result<Option<Token>, TurnedAway> {
        let token = match credentials(headers) {
            Ok(None) => return Ok(None),
            Ok(Some(said)) => self.find(&said),
            Err(TurnedAway::WrongSecret) => None,
            Err(other) => return Err(other),
        };
        let Some(token) = token else {
            self.fail(from)?;
            return Err(TurnedAway::WrongSecret);
        };
        if token
            .expires_at
            .is_some_and(|at| at <= crate::clock::wall())
        {
            self.fail(from)?;
            return Err(TurnedAway::Expired(token.name));
        }
        Ok(Some(token))
    }

    /// The token that these words are right for. Each token is compared, in a time that does not tell where it differs.
    fn find(&self, said: &Said) -> Option<Token> {
        let hash = secret_hash(&said.secret);
        let tokens = self.tokens();
        let mut found = None;
        for token in tokens.values() {
            if bool::from(token.hash.ct_eq(&hash)) {
                found = Some(token.clone());
            }
        }
        found.filter(|token| said.name.as_ref().is_none_or(|name| *name == token.name))
    }

    /// Counts one who is turned away, for whatever its token is not good.
    ///
    /// # Errors
    /// The seconds until this address is listened to again: too many were.
    pub(crate) fn count(&self, from: Option<IpAddr>) -> Result<(), u64> {
        self.count_at(from, Instant::now())
    }

    fn fail(&self, from: Option<IpAddr>) -> Result<(), TurnedAway> {
        let counted = self.count(from);
        counted.map_err(|retry_after_s| TurnedAway::TooManyTries { retry_after_s })
    }

    fn count_at(&self, from: Option<IpAddr>, now: Instant) -> Result<(), u64> {
        let mut failures = self.failures();
        failures.retain(|_, (_, since)| now < *since + WINDOW);
        let from = from.map(network);
        let has_place = failures.len() < ADDRESSES || failures.contains_key(&from);
        let (count, since) = (failures.entry(from.filter(|_| has_place))).or_insert((0, now));
        if *count >= TRIES {
            let left = (*since + WINDOW).saturating_duration_since(now);
            return Err(left.as_secs() + 1);
        }
        *count += 1;
        Ok(())
    }

    fn tokens(&self) -> MutexGuard<'_, BTreeMap<String, Token>> {
        // Nothing panics while it is held; a poisoned lock still holds whole entries.
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<Option<IpAddr>, (u32, Instant)>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by who changes the tokens.
pub(crate) struct Turn<'a> {
    doorman: &'a Doorman,
    _held: tokio::sync::MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// From now on, these tokens and no others; they were read in this turn.
    pub(crate) fn admit(self, tokens: Vec<Token>) {
        self.doorman.know(tokens);
    }
}

/// What a client says of itself. The secret alone says which token it is.
struct Said {
    name: Option<String>,
    secret: String,
}

/// Name and secret, where there are any: some clients send both empty when they have none.
fn credentials(headers: &HeaderMap) -> Result<Option<Said>, TurnedAway> {
    let Some(header) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    let text = header.to_str().map_err(|_| TurnedAway::WrongSecret)?;
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    if scheme.eq_ignore_ascii_case("bearer") {
        let secret = rest.trim().to_owned();
        return Ok(Some(Said { name: None, secret }));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(TurnedAway::WrongSecret);
    }
    let decoded = STANDARD.decode(rest.trim()).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let decoded = decoded.ok_or(TurnedAway::WrongSecret)?;
    let (name, secret) = decoded.split_once(':').ok_or(TurnedAway::WrongSecret)?;
    if name.is_empty() && secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(Said {
        name: Some(name.to_owned()),
        secret: secret.to_owned(),
    }))
}

/// The address that a request comes from: behind the node's own gateway, the one that it names last.
fn client(headers: &HeaderMap, peer: Option<IpAddr>) -> Option<IpAddr> {
    let forwarded = headers.get("x-forwarded-for");
    let last =
        forwarded.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
    match peer {
        Some(peer) if peer.is_loopback() => last.or(Some(peer)),
        other => other,
    }
}

/// What is counted as one client: with IPv6 a household or a machine has a /64 (RFC 6177).
fn network(from: IpAddr) -> IpAddr {
    match from {
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => four.into(),
            None => Ipv6Addr::from(u128::from(six) >> 64 << 64).into(),
        },
        four @ IpAddr::V4(_) => four,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn token(name: &str, secret: &str) -> Token {
        Token {
            name: name.into(),
            hash: secret_hash(secret),
            pull: true,
            push: false,
            repository: "team/*".into(),
            role: None,
            apps: None,
            created_at: jiff::Timestamp::UNIX_EPOCH,
            expires_at: None,
        }
    }

    fn basic(name: &str, secret: &str) -> HeaderMap {
        let text = format!("Basic {}", STANDARD.encode(format!("{name}:{secret}")));
        let value = HeaderValue::from_str(&text).expect("a header");
        HeaderMap::from_iter([(AUTHORIZATION, value)])
    }

    const PEER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

    #[test]
    fn a_token_is_good_for_what_it_says_and_nobody_for_nothing() {
        let doorman = Doorman::new(false, vec![token("ci", "s3")]);
        let grant = doorman
            .grant(&basic("ci", "s3"), PEER)
            .expect("it is right");
        assert_eq!(grant.who.as_deref(), Some("ci"));
        assert!(grant.may_pull("team/app") && !grant.may_push("team/app"));
        for (name, secret) in [("ci", "s4"), ("ci", ""), ("other", "s3"), ("", "s3")] {
            let refused = doorman.grant(&basic(name, secret), PEER);
            assert!(
                matches!(refused, Err(TurnedAway::WrongSecret)),
                "{name}:{secret}"
            );
        }
        for nobody in [HeaderMap::new(), basic("", "")] {
            let grant = doorman.grant(&nobody, PEER).expect("nobody is somebody");
            assert_eq!(grant, Grant::anonymous(false));
        }
        doorman.know(Vec::new());
        assert!(doorman.grant(&basic("ci", "s3"), PEER).is_err());
    }

    #[test]
    fn an_expired_token_says_so_only_to_who_has_it() {
        let expired = Token {
            expires_at: Some(jiff::Timestamp::UNIX_EPOCH),
            ..token("ci", "s3")
        };
        let doorman = Doorman::new(false, vec![expired]);
        let right = doorman.grant(&basic("ci", "s3"), PEER);
        assert!(matches!(right, Err(TurnedAway::Expired(name)) if name == "ci"));
        let wrong = doorman.grant(&basic("ci", "s4"), PEER);
        assert!(matches!(wrong, Err(TurnedAway::WrongSecret)));
        for _ in 0..TRIES {
            let _ = doorman.grant(&basic("ci", "s3"), PEER); // each is counted
        }
        let often = doorman.grant(&basic("ci", "s3"), PEER);
        assert!(matches!(often, Err(TurnedAway::TooManyTries { .. })));
    }

    #[test]
    fn who_is_wrong_too_often_is_told_to_wait_and_who_is_right_is_let_in() {
        let doorman = Doorman::new(false, vec![token("ci", "s3")]);
        for _ in 0..TRIES {
            assert!(doorman.grant(&basic("ci", "no"), PEER).is_err());
        }
        let wrong = doorman.grant(&basic("ci", "no"), PEER);
        assert!(matches!(wrong, Err(TurnedAway::TooManyTries { .. })));
        let right = doorman.grant(&basic("ci", "s3"), PEER);
        assert!(right.is_ok(), "others may be behind the same address");
        let other = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)));
        let wrong = doorman.grant(&basic("ci", "no"), other);
        assert!(matches!(wrong, Err(TurnedAway::WrongSecret)));
        let later = Instant::now() + WINDOW;
        assert!(doorman.count_at(PEER, later).is_ok());
    }

    #[test]
    fn the_secret_alone_says_which_token_it_is() {
        let doorman = Doorman::new(false, vec![token("ci", "s3"), token("me", "s4")]);
        let bearer = |secret: &str| {
            let value = HeaderValue::from_str(&format!("Bearer {secret}")).expect("a header");
            HeaderMap::from_iter([(AUTHORIZATION, value)])
        };
        let known = doorman.known(&bearer("s4"), PEER).expect("it is right");
        assert_eq!(known.map(|token| token.name).as_deref(), Some("me"));
        for wrong in ["s5", ""] {
            let refused = doorman.known(&bearer(wrong), PEER);
            assert!(matches!(refused, Err(TurnedAway::WrongSecret)), "{wrong:?}");
        }
    }

    #[test]
    fn wrong_secrets_fill_no_more_than_so_much_memory() {
        let doorman = Doorman::new(false, Vec::new());
        for n in 0..2 * ADDRESSES as u32 {
            let from = IpAddr::V4(std::net::Ipv4Addr::from(n));
            let _ = doorman.count(Some(from));
        }
        let new = Some(IpAddr::V4(std::net::Ipv4Addr::from(3 * ADDRESSES as u32)));
        assert!(
            doorman.count(new).is_err(),
            "those without a place share one"
        );
        let old = Some(IpAddr::V4(std::net::Ipv4Addr::from(0)));
        let tries = (0..).take_while(|_| doorman.count(old).is_ok()).count();
        assert_eq!(tries, TRIES as usize - 1, "one with a place has its own");
        assert!(doorman.failures().len() <= ADDRESSES + 1);
        let six: IpAddr = "2001:db8:1:2:3:4:5:6".parse().expect("an address");
        assert_eq!(network(six).to_string(), "2001:db8:1:2::");
    }

    #[test]
    fn behind_the_gateway_the_client_is_the_one_that_it_names() {
        let mut headers = HeaderMap::new();
        headers.insert(
            "x-forwarded-for",
            HeaderValue::from_static("10.0.0.9, 192.0.2.7"),
        );
        let loopback = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
        let named: Option<IpAddr> = "192.0.2.7".parse().ok();
        assert_eq!(client(&headers, loopback), named);
        assert_eq!(client(&headers, PEER), PEER, "anybody can write a header");
        assert_eq!(client(&HeaderMap::new(), loopback), loopback);
    }
}
