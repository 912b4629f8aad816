//! The image's HEALTHCHECK: asks the service next to it, for a scratch image holds no curl.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};

const WAIT_MAX: Duration = Duration::from_secs(2);

/// Asks `GET /healthz` of the service that listens on `listen`.
///
/// # Errors
/// When it cannot be reached within two seconds or does not answer 200.
pub fn check(listen: SocketAddr) -> anyhow::Result<()> {
    let address = reachable(listen);
    let mut stream = TcpStream::connect_timeout(&address, WAIT_MAX)
        .with_context(|| format!("nothing listens on {address}"))?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    stream.set_write_timeout(Some(WAIT_MAX))?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut status = [0; b"HTTP/1.1 200".len()];
    stream
        .read_exact(&mut status)
        .with_context(|| format!("{address} does not answer"))?;
    let status = String::from_utf8_lossy(&status);
    ensure!(
        status == "HTTP/1.1 200",
        "{address} answered {status} to GET /healthz"
    );
    Ok(())
}

/// Who listens on every address is asked on the loopback one.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::{check, reachable};

    #[test]
    fn the_unspecified_address_is_asked_on_loopback() {
        let address = reachable("0.0.0.0:8051".parse().unwrap());
        assert_eq!(address.to_string(), "127.0.0.1:8051");
        let address = reachable("10.1.2.3:80".parse().unwrap());
        assert_eq!(address.to_string(), "10.1.2.3:80");
    }

    #[test]
    fn a_port_on_which_nothing_listens_is_unhealthy() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = check(address).unwrap_err();
        assert_eq!(error.to_string(), format!("nothing listens on {address}"));
    }
}
