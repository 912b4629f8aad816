//! The sockets that a parent has handed down (sd_listen_fds(3)), and those that it is given to hold.
//!
//! A parent hands down what it listens on by itself (a socket unit, say), and what the node gave it to hold in an
//! earlier life: those bear names that begin with [`OURS`]. A parent's own are taken by their addresses, or by the names that the
//! parent gives them (`FileDescriptorName=`, systemd.socket(5)): [`HTTP`], [`REGISTRY`] and [`API`].

use std::env;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use layby_gateway::{Keep, Keeper};
use listenfd::ListenFd;

use super::notify::Notify;

/// What the names of sockets begin with that the node gave its parent to hold. No unit's name has a slash.
const OURS: &str = "layby/";

/// What a parent calls the socket of the gateway for HTTP, whatever its address.
pub(crate) const HTTP: &str = "http";
/// What a parent calls the registry's.
pub(crate) const REGISTRY: &str = "registry";
/// What a parent calls that of the API on HTTPS.
pub(crate) const API: &str = "api";

/// What was handed down and is not yet in use.
#[derive(Debug)]
pub(crate) struct Handed {
    tcp: Vec<Socket<TcpListener>>,
    unix: Vec<Socket<UnixListener>>,
    notify: Arc<Notify>,
}

#[derive(Debug)]
struct Socket<T> {
    /// The name under which the node gave it away; `None`: it is its parent's own.
    name: Option<String>,
    /// What its parent calls its own; may be empty.
    label: String,
    socket: T,
}

impl Handed {
    /// As the environment says. To be called before there is any other thread: it takes out of the environment what is
    /// for this process alone.
    ///
    /// # Errors
    /// Something was handed down that is no listening socket of TCP or of Unix, or two sockets for one part of the node.
    pub(crate) fn from_env() -> Result<Self> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut sockets = ListenFd::from_env();
        let (mut tcp, mut unix) = (Vec::new(), Vec::new());
        for at in 0..sockets.len() {
            let given = names.get(at).copied().unwrap_or_default();
            let is_ours = given.starts_with(OURS);
            let name = is_ours.then(|| given.to_owned());
            let label = if is_ours { "" } else { given }.to_owned();
            // Both close it on exec: no container is to have it.
            if let Ok(Some(socket)) = sockets.take_tcp_listener(at) {
                tcp.push(Socket {
                    name,
                    label,
                    socket,
                });
            } else if let Ok(Some(socket)) = sockets.take_unix_listener(at) {
                unix.push(Socket {
                    name,
                    label,
                    socket,
                });
            } else {
                bail!(
                    "what is handed down as number {at} of LISTEN_FDS is no socket to listen on: a socket unit for Layby \
                     has nothing but ListenStream="
                );
            }
        }
        refuse_two(&tcp)?;
        let notify = Arc::new(Notify::from_env());
        Ok(Self { tcp, unix, notify })
    }

    /// The way to whoever handed them down.
    pub(crate) fn notify(&self) -> Arc<Notify> {
        Arc::clone(&self.notify)
    }

    /// The socket that listens on `addr`, if there is one.
    pub(crate) fn tcp(&mut self, addr: SocketAddr) -> Option<TcpListener> {
        let at = |socket: &Socket<TcpListener>| socket.socket.local_addr().ok() == Some(addr);
        let at = self.tcp.iter().position(at)?;
        Some(self.tcp.swap_remove(at).socket)
    }

    /// The address of the socket that its parent calls `label`.
    pub(crate) fn named_addr(&self, label: &str) -> Option<SocketAddr> {
        let named = self.tcp.iter().find(|socket| socket.label == label);
        named.and_then(|socket| socket.socket.local_addr().ok())
    }

    /// Tells where its parent's name for a socket counts more than an option that says another address.
    pub(crate) fn tell_overridden(&self, label: &str, asked: Option<SocketAddr>) {
        if let (Some(named), Some(asked)) = (self.named_addr(label), asked)
            && named != asked
        {
            tracing::warn!(
                "--{label} says {asked}; the socket on {named} is used instead, which was handed down as {label}"
            );
        }
    }

    /// Tells which of its parent's sockets no part of the node has taken: what connects there is answered by nobody.
    pub(crate) fn tell_unused(&self) {
        let tcp = self.tcp.iter().filter(|socket| socket.name.is_none());
        let tcp = tcp.filter_map(|socket| Some(socket.socket.local_addr().ok()?.to_string()));
        let unix = self.unix.iter().filter(|socket| socket.name.is_none());
        let unix = unix.filter_map(|socket| {
            let addr = socket.socket.local_addr().ok()?;
            Some(addr.as_pathname()?.display().to_string())
        });
        for addr in tcp.chain(unix) {
            tracing::warn!(
                "the socket on {addr}, which was handed down, is used by no part of the node"
            );
        }
    }

    /// The socket that its parent calls `label`, if there is one.
    pub(crate) fn named_tcp(&mut self, label: &str) -> Option<TcpListener> {
        let at = self.tcp.iter().position(|socket| socket.label == label)?;
        Some(self.tcp.swap_remove(at).socket)
    }

    /// The socket that the node gave away as `name`, if there is one: it listens where it did before.
    pub(crate) fn own_tcp(&mut self, name: &str) -> Option<TcpListener> {
        let name = own_name(name);
        let at = |socket: &Socket<TcpListener>| socket.name.as_ref() == Some(&name);
        let at = self.tcp.iter().position(at)?;
        Some(self.tcp.swap_remove(at).socket)
    }

    /// The socket that listens at `path`, if there is one and clients find it there; and whether it is a parent's own.
    pub(crate) fn unix(&mut self, path: &Path) -> Option<(UnixListener, bool)> {
        let at = |socket: &Socket<UnixListener>| {
            let addr = socket.socket.local_addr();
            addr.is_ok_and(|addr| addr.as_pathname() == Some(path))
        };
        let at = self.unix.iter().position(at)?;
        let Socket { name, socket, .. } = self.unix.swap_remove(at);
        path.exists().then_some((socket, name.is_none()))
    }

    /// Gives a socket away to be held, as `name`.
    pub(crate) fn hold(&self, name: &str, socket: &impl AsFd) {
        self.notify.hold(&own_name(name), socket);
    }

    /// Has the socket of that name let go of.
    pub(crate) fn let_go(&self, name: &str) {
        self.notify.let_go(&own_name(name));
    }

    /// What the gateway gets: all but what is called after another part of the node, or listens on the addresses of
    /// `others`, or did so in an earlier life.
    pub(crate) fn gateway(
        &mut self,
        http: SocketAddr,
        others: &[SocketAddr],
    ) -> layby_gateway::Handed {
        let is_gateways = |socket: &Socket<TcpListener>| {
            let addr = socket.socket.local_addr();
            addr.is_ok_and(|addr| match &socket.name {
                Some(name) => *name == name_of(addr),
                None if [REGISTRY, API].contains(&&*socket.label) => false,
                None => socket.label == HTTP || !others.contains(&addr),
            })
        };
        let sockets = self.tcp.extract_if(.., |socket| is_gateways(socket));
        let (kept, parents): (Vec<_>, Vec<_>) = sockets.partition(|socket| socket.name.is_some());
        for addr in parents
            .iter()
            .filter_map(|one| one.socket.local_addr().ok())
        {
            // One on all addresses of both kinds stands for all of IPv4.
            let is_all = addr.ip().is_unspecified() && http.ip().is_unspecified();
            if addr != http && !(is_all && addr.port() == http.port()) {
                tracing::info!(
                    "the socket on {addr}, which was handed down, is used once a service publishes that port, and by nobody until then"
                );
            }
        }
        let sockets = |sockets: Vec<Socket<TcpListener>>| {
            let sockets = sockets.into_iter().map(|socket| socket.socket);
            sockets.collect()
        };
        let (kept, parents) = (sockets(kept), sockets(parents));
        let notify = Arc::clone(&self.notify);
        let keeper: Keeper = Box::new(move |keep| match keep {
            Keep::Hold(addr, socket) => notify.hold(&name_of(addr), socket),
            Keep::LetGo(addr) => notify.let_go(&name_of(addr)),
        });
        let keeper = self.notify.is_heard().then_some(keeper);
        layby_gateway::Handed::new(parents, kept, keeper)
    }
}

/// Refuses several sockets of which one part of the node would take one: what came to the others would wait for ever.
fn refuse_two(tcp: &[Socket<TcpListener>]) -> Result<()> {
    for label in [HTTP, REGISTRY, API] {
        let named = tcp.iter().filter(|socket| socket.label == label);
        let mut addrs = named.filter_map(|socket| socket.socket.local_addr().ok());
        if let (Some(first), Some(second)) = (addrs.next(), addrs.next()) {
            bail!(
                "two sockets are handed down as {label}, on {first} and on {second}: name one so; [::] with \
                 BindIPv6Only=both listens on all addresses of IPv4, too"
            );
        }
    }
    Ok(())
}

fn own_name(name: &str) -> String {
    format!("{OURS}{name}")
}

/// Names are put in one line with colons between them.
fn name_of(addr: SocketAddr) -> String {
    own_name(&addr.to_string().replace(':', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(sockets: &[(&str, bool)]) -> (Handed, Vec<SocketAddr>) {
        let (mut tcp, mut addrs) = (Vec::new(), Vec::new());
        for (given, is_ours) in sockets {
            let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
            addrs.push(socket.local_addr().expect("an address"));
            tcp.push(Socket {
                name: is_ours.then(|| own_name(given)),
                label: if *is_ours { "" } else { given }.to_owned(),
                socket,
            });
        }
        let (unix, notify) = (Vec::new(), Arc::default());
        (Handed { tcp, unix, notify }, addrs)
    }

    #[test]
    fn two_sockets_for_one_part_are_refused_and_the_second_is_named() {
        let (two, addrs) = handed(&[("x", false), ("x", false), (API, false), (API, false)]);
        let refused = refuse_two(&two.tcp).expect_err("two").to_string();
        assert!(refused.contains(&addrs[3].to_string()), "{refused}");
        let (one, _) = handed(&[(HTTP, false), (API, false), ("x", false), ("x", false)]);
        refuse_two(&one.tcp).expect("one of each");
    }

    #[test]
    fn the_gateway_gets_neither_what_is_called_after_another_part_nor_what_that_listens_on() {
        let all = [
            ("layby.socket", false),
            (API, false),
            (REGISTRY, false),
            ("", false),
            ("https", true),
        ];
        let (mut handed, addrs) = handed(&all);
        assert_eq!(handed.named_addr(API), Some(addrs[1]));
        drop(handed.gateway(addrs[0], &[addrs[3]]));
        let addr = |socket: TcpListener| socket.local_addr().expect("an address");
        assert_eq!(handed.named_tcp(API).map(addr), Some(addrs[1]));
        assert!(handed.named_tcp(API).is_none(), "it is in use");
        assert_eq!(handed.named_tcp(REGISTRY).map(addr), Some(addrs[2]));
        assert_eq!(handed.tcp(addrs[3]).map(addr), Some(addrs[3]));
        assert_eq!(handed.own_tcp("https").map(addr), Some(addrs[4]));
        assert!(handed.tcp(addrs[0]).is_none(), "the gateway has it");
    }
}
