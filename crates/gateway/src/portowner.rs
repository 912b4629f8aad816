//! Who listens on a port: found through /proc, as `ss -p` does.

use std::fs;
use std::net::IpAddr;

use layby_model::route::Socket;

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) pid: i32,
    /// Its command, at most 15 bytes.
    pub(crate) name: String,
}

/// The process that stands in the way of listening there; `None`: not to be seen from here (it is in
/// another PID namespace, or gone again).
pub(crate) fn find(socket: Socket) -> Option<Owner> {
    let tables = match socket.is_udp {
        true => ["/proc/net/udp", "/proc/net/udp6"],
        false => ["/proc/net/tcp", "/proc/net/tcp6"],
    };
    let inodes: Vec<u64> = tables
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| listening(&text, socket))
        .collect();
    let links: Vec<String> = inodes
        .iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if links.is_empty() {
        return None;
    }
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let holds = fs::read_dir(entry.path().join("fd"))
            .ok()?
            .flatten()
            .any(|fd| {
                let target = fs::read_link(fd.path());
                target.is_ok_and(|target| {
                    links.iter().any(|link| target.as_os_str() == link.as_str())
                })
            });
        if !holds {
            return None;
        }
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        Some(Owner {
            pid,
            name: name.trim().to_owned(),
        })
    })
}

/// The inodes of the sockets in a table as /proc/net/tcp that listen on the port of `socket`, at an address
/// that excludes it (see proc(5)).
fn listening(table: &str, socket: Socket) -> Vec<u64> {
    // Those of UDP listen as long as they are not connected: the kernel calls that closed.
    const LISTEN: &str = "0A";
    const CLOSED: &str = "07";
    let Socket { addr, is_udp } = socket;
    let state = if is_udp { CLOSED } else { LISTEN };
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (ip, port) = fields.get(1)?.split_once(':')?;
        let same_port = u16::from_str_radix(port, 16) == Ok(addr.port());
        let ip = parse_ip(ip)?;
        let overlaps = ip == addr.ip() || ip.is_unspecified() || addr.ip().is_unspecified();
        if same_port && overlaps && *fields.get(3)? == state {
            fields.get(9)?.parse().ok()
        } else {
            None
        }
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// An address as the kernel prints it: 32-bit words in the machine's byte order.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let words: Option<Vec<[u8; 4]>> = (0..text.len() / 8)
        .map(|at| {
            let word = u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok()?;
            Some(word.to_ne_bytes())
        })
        .collect();
    match words?.as_slice() {
        [word] => Some(IpAddr::from(*word)),
        [a, b, c, d] => {
            let bytes = [*a, *b, *c, *d].concat();
            let bytes: [u8; 16] = bytes.try_into().ok()?;
            Some(IpAddr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn tcp(addr: SocketAddr) -> Socket {
        let is_udp = false;
        Socket { addr, is_udp }
    }

    #[test]
    fn a_listening_socket_is_found_by_its_port_and_address() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:7531 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x 100 0 0 10 0\n\
            1: 0100007F:7531 0100007F:8888 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 x 100 0 0 10 0\n";
        let find = |addr: &str| listening(table, tcp(addr.parse().expect("an address")));
        assert_eq!(find("127.0.0.1:30001"), [4711]);
        assert_eq!(find("0.0.0.0:30001"), [4711]);
        assert!(find("127.0.0.2:30001").is_empty());
        assert!(find("127.0.0.1:30002").is_empty());
    }

    #[test]
    fn the_owner_of_a_socket_of_this_process_is_this_process() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = socket.local_addr().expect("its address");
        let pid = i32::try_from(std::process::id()).expect("a pid");
        assert_eq!(find(tcp(addr)).map(|owner| owner.pid), Some(pid));
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let udp = Socket {
            addr: socket.local_addr().expect("its address"),
            is_udp: true,
        };
        assert_eq!(find(udp).map(|owner| owner.pid), Some(pid));
    }
}
