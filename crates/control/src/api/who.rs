//! Who asks. The listener knows: the Unix socket by the credentials of the process at its other end, HTTPS by its token.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::extract::connect_info::Connected;
use axum::http::Extensions;
use axum::http::request::Parts;
use axum::serve::IncomingStream;
use tokio::net::UnixListener;

use super::types::Problem;
use crate::tokens::Rights;

/// Where users stand with their numbers: passwd(5).
const USERS: &str = "/etc/passwd";

/// Where the local ones come from.
const LOCAL: &str = "local";

/// Who asks for something. Handlers take it as an argument; the gate has put it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    /// The user's name (or `uid 1000` where the machine knows none), or the token's.
    pub(crate) name: String,
    /// `local`, or the client's address.
    pub(crate) from: String,
    /// How it came in.
    pub(crate) via: Via,
    /// Whose what it makes is: no user and no other token, also of the same name, has this.
    pub(crate) owner: String,
    /// What it may do.
    pub(crate) rights: Rights,
}

/// How a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// By the node's Unix socket.
    Socket,
    /// By HTTPS, with a token.
    Token,
}

impl Who {
    /// Root, at the machine itself.
    pub(crate) fn root() -> Self {
        Self::local(&Peer {
            name: "root".to_owned(),
        })
    }

    /// A user of the machine.
    pub(super) fn local(peer: &Peer) -> Self {
        Self {
            name: peer.name.clone(),
            owner: format!("user {}", peer.name),
            from: LOCAL.to_owned(),
            via: Via::Socket,
            rights: Rights::all(),
        }
    }
}

/// The owner that a token with this hash is.
pub(super) fn token(hash: &[u8; 32]) -> String {
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("token {hex}")
}

impl<S: Sync> FromRequestParts<S> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let told = parts.extensions.get::<Self>().cloned();
        // A route beside the gate is nobody's.
        told.ok_or_else(|| Problem::failed("nobody has found out who asks; please report this"))
    }
}

/// What the listener wants to be told of a connection over the network, among the extensions of its requests: a good
/// token came over it.
#[derive(Clone)]
pub struct Known(pub Arc<dyn Fn() + Send + Sync>);

impl Known {
    /// Tells it.
    pub fn tell(&self) {
        (self.0)();
    }

    /// Tells the listener that a request comes from.
    pub(crate) fn of(extensions: &Extensions) {
        if let Some(known) = extensions.get::<Self>() {
            known.tell();
        }
    }
}

/// The process at the other end of a connection to the Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    name: String,
}

impl Peer {
    /// The user with this number.
    fn of(uid: u32) -> Self {
        let name = match uid {
            0 => Some("root".to_owned()),
            uid => user(&std::fs::read_to_string(USERS).unwrap_or_default(), uid),
        };
        Self {
            name: name.unwrap_or_else(|| format!("uid {uid}")),
        }
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        // Once per connection: `SO_PEERCRED` (unix(7)), as it was when that process connected.
        match stream.io().peer_cred() {
            Ok(credentials) => Self::of(credentials.uid()),
            Err(_) => Self {
                name: "unknown".to_owned(),
            },
        }
    }
}

/// The name of a user by its number, in the form of passwd(5).
fn user(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == uid && !name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[tokio::test]
    async fn who_did_not_come_through_the_gate_is_nobody() {
        let (mut parts, ()) = Request::new(()).into_parts();
        let refused = Who::from_request_parts(&mut parts, &()).await;
        assert_eq!(refused.map_err(|problem| problem.status), Err(500));
        parts.extensions.insert(Who::root());
        let told = Who::from_request_parts(&mut parts, &()).await;
        assert_eq!(told.ok(), Some(Who::root()));
    }

    #[test]
    fn a_user_is_known_by_its_number_and_an_unknown_one_is_its_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\n\nbroken\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(user(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(user(passwd, 1001), None);
        assert_eq!(Peer::of(0).name, "root");
        assert_eq!(Peer::of(4_000_000_000).name, "uid 4000000000");
    }
}
