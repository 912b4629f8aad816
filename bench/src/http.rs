//! A warm HTTP client: one connection, one request at a time, timed to the last byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(90);

/// A connection that stays open.
#[derive(Debug)]
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: String,
    pub(crate) body: Vec<u8>,
    /// From the request's first byte to the answer's last.
    pub(crate) taken: Duration,
}

impl Connection {
    /// Connects.
    pub(crate) fn open(addr: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect(addr).with_context(|| format!("cannot connect to {addr}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            reader: BufReader::new(stream),
        })
    }

    /// Connects, or gives up soon: a first packet that is lost, since the address is not up yet, would be sent again
    /// after a whole second.
    fn try_open(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, Duration::from_millis(20))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            reader: BufReader::new(stream),
        })
    }

    /// `GET path`: the time until the whole answer, which has to be a 200.
    pub(crate) fn get(&mut self, host: &str, path: &str) -> Result<Duration> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = self.send(request.as_bytes())?;
        if answer.status != "200" {
            bail!(
                "{host}{path} answered {}: {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            );
        }
        Ok(answer.taken)
    }

    /// Sends a request as it is and reads the answer, which says how long it is.
    pub(crate) fn send(&mut self, request: &[u8]) -> Result<Answer> {
        let started = Instant::now();
        self.reader.get_mut().write_all(request)?;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            line.clear();
            self.reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        Ok(Answer {
            status,
            body,
            taken: started.elapsed(),
        })
    }
}

/// Asks `addr` again and again until it answers for the first time.
pub(crate) fn first_answer(addr: SocketAddr, host: &str, path: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        if let Ok(mut connection) = Connection::try_open(addr)
            && connection.get(host, path).is_ok()
        {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            bail!("{addr} never answered");
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}
