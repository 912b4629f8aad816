//! UDP sockets that clients send to: from whom a datagram came and to which of the machine's addresses, so that the answer
//! comes from there.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    SockaddrStorage, bind, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use tokio::io::Interest;

/// The longest datagram, in bytes (RFC 768: its length has 16 bits).
pub(crate) const LONGEST: usize = 65_535;

/// The two ends between which datagrams of one client go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    pub(crate) client: SocketAddr,
    /// The machine's address that it sent to, where the socket has more than one.
    pub(crate) local: Option<IpAddr>,
}

/// Opens `addr`. `beside_own`: this process has a socket on the same port already, of all addresses or of one of them, and each
/// gets what is sent to its own. `virtual_`: the machine may not have the address yet.
pub(crate) fn open(addr: SocketAddr, beside_own: bool, virtual_: bool) -> io::Result<UdpSocket> {
    if !beside_own {
        // SO_REUSEPORT would share the port with any other process of the same user that sets it too.
        drop(bound(addr, false, virtual_)?);
    }
    let fd = bound(addr, true, virtual_)?;
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => setsockopt(&fd, sockopt::Ipv4PacketInfo, &true)?,
        IpAddr::V6(ip) if ip.is_unspecified() => {
            setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    Ok(UdpSocket::from(fd))
}

fn bound(addr: SocketAddr, shared: bool, virtual_: bool) -> io::Result<OwnedFd> {
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Datagram, flags, None)?;
    setsockopt(&fd, sockopt::ReusePort, &shared)?;
    if virtual_ {
        setsockopt(&fd, sockopt::IpFreebind, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
    Ok(fd)
}

/// A socket that datagrams of clients come to.
#[derive(Debug)]
pub(crate) struct Incoming(tokio::net::UdpSocket);

impl Incoming {
    /// Takes it over for this worker.
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        Ok(Self(tokio::net::UdpSocket::from_std(socket)?))
    }

    /// Takes the next datagram; one longer than `buffer` is cut off.
    pub(crate) async fn take(&self, buffer: &mut [u8]) -> io::Result<(usize, Ends)> {
        let fd = self.0.as_raw_fd();
        let take = || receive(fd, buffer);
        self.0.async_io(Interest::READABLE, take).await
    }

    /// Sends one to the client, if the kernel has room for it now.
    pub(crate) fn answer(&self, bytes: &[u8], ends: &Ends) -> io::Result<()> {
        let to = SockaddrStorage::from(ends.client);
        let (fd, slices) = (self.0.as_raw_fd(), [IoSlice::new(bytes)]);
        let flags = MsgFlags::MSG_DONTWAIT;
        match ends.local {
            None => sendmsg(fd, &slices, &[], flags, Some(&to)),
            Some(IpAddr::V4(ip)) => {
                let from = in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: in_addr {
                        s_addr: u32::from_ne_bytes(ip.octets()),
                    },
                    ipi_addr: in_addr { s_addr: 0 },
                };
                let from = [ControlMessage::Ipv4PacketInfo(&from)];
                sendmsg(fd, &slices, &from, flags, Some(&to))
            }
            Some(IpAddr::V6(ip)) => {
                let from = in6_pktinfo {
                    ipi6_addr: in6_addr {
                        s6_addr: ip.octets(),
                    },
                    ipi6_ifindex: 0,
                };
                let from = [ControlMessage::Ipv6PacketInfo(&from)];
                sendmsg(fd, &slices, &from, flags, Some(&to))
            }
        }?;
        Ok(())
    }
}

fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<(usize, Ends)> {
    let mut space = nix::cmsg_space!(in6_pktinfo);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut space), flags)?;
    let client = message.address.as_ref().and_then(address);
    let client = client.ok_or_else(|| io::Error::other("a datagram of nobody"))?;
    let local = message.cmsgs()?.find_map(|said| match said {
        ControlMessageOwned::Ipv4PacketInfo(to) => {
            let octets = to.ipi_spec_dst.s_addr.to_ne_bytes();
            Some(IpAddr::V4(Ipv4Addr::from(octets)))
        }
        ControlMessageOwned::Ipv6PacketInfo(to) => {
            Some(IpAddr::V6(Ipv6Addr::from(to.ipi6_addr.s6_addr)))
        }
        _ => None,
    });
    Ok((message.bytes, Ends { client, local }))
}

fn address(of: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = of.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| {
        of.as_sockaddr_in6()
            .map(|v6| SocketAddrV6::from(*v6).into())
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_answer_comes_from_the_address_that_was_sent_to() {
        for (any, sent_to) in [("0.0.0.0:0", "127.0.0.7"), ("127.0.0.1:0", "127.0.0.1")] {
            let socket = open(any.parse().expect("an address"), false, false).expect("a port");
            let port = socket.local_addr().expect("its address").port();
            let socket = Incoming::new(socket).expect("a socket");
            let client = tokio::net::UdpSocket::bind("127.0.0.1:0")
                .await
                .expect("one");
            client.send_to(b"ask", (sent_to, port)).await.expect("sent");
            let mut buffer = [0; 8];
            let (len, ends) = socket.take(&mut buffer).await.expect("a datagram");
            assert_eq!(&buffer[..len], b"ask");
            socket.answer(b"answer", &ends).expect("answered");
            let answer = client.recv_from(&mut buffer);
            let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
            let (len, from) = answer.expect("in time").expect("an answer");
            assert_eq!(&buffer[..len], b"answer");
            assert_eq!(from.to_string(), format!("{sent_to}:{port}"));
        }
    }

    #[test]
    fn a_port_is_shared_with_none_but_this_gateways_own() {
        let theirs = UdpSocket::bind("127.0.0.9:0").expect("a port");
        let addr = theirs.local_addr().expect("its address");
        assert!(open(addr, false, false).is_err());
        assert!(open(addr, true, false).is_err(), "they share nothing");
        drop(theirs);
        let own = open(addr, false, false).expect("it is free now");
        let any = SocketAddr::from(([0, 0, 0, 0], addr.port()));
        assert!(open(any, false, false).is_err());
        let all = open(any, true, false).expect("beside the own");
        drop((own, all));
        let elsewhere = SocketAddr::from(([203, 0, 113, 9], addr.port()));
        assert!(open(elsewhere, false, false).is_err());
        assert!(open(elsewhere, false, true).is_ok(), "it may come");
    }
}
