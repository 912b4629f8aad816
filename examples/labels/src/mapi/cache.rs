//! Readings by content hash, in Redis. It may be away: then pictures are read, and it is asked again after a while.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one command may take, connecting and a cache that wakes included.
const PATIENCE: Duration = Duration::from_secs(2);

/// For how long it is not asked after it did not answer.
const PAUSE: Duration = Duration::from_secs(30);

/// How long a reading is kept, in seconds.
const KEPT_SECONDS: &str = "604800";

/// No reading is larger.
const VALUE_MAX_BYTES: usize = 8 << 20;

/// A Redis server, or nothing.
#[derive(Debug, Default)]
pub struct Cache {
    addr: Option<String>,
    rests_until: Mutex<Option<Instant>>,
}

impl Cache {
    /// The server at `host:port`; without one, nothing is cached.
    pub fn new(addr: Option<String>) -> Cache {
        Cache {
            addr: addr.filter(|addr| !addr.is_empty()),
            rests_until: Mutex::new(None),
        }
    }

    /// What was kept under this key.
    pub async fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.ask(&[b"GET", key.as_bytes()]).await
    }

    /// Keeps a value for a week, or until room is needed.
    pub async fn put(&self, key: &str, value: &[u8]) {
        self.ask(&[
            b"SET",
            key.as_bytes(),
            value,
            b"EX",
            KEPT_SECONDS.as_bytes(),
        ])
        .await;
    }

    async fn ask(&self, words: &[&[u8]]) -> Option<Vec<u8>> {
        let addr = self.addr.as_deref().filter(|_| !self.rests())?;
        let answer = match timeout(PATIENCE, command(addr, words)).await {
            Ok(answer) => answer,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut)),
        };
        match answer {
            Ok(value) => value,
            Err(error) => {
                eprintln!(
                    "the cache at {addr} did not answer, and is left alone for {PAUSE:?}: {error}"
                );
                *self
                    .rests_until
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PAUSE);
                None
            }
        }
    }

    fn rests(&self) -> bool {
        let until = *self
            .rests_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }
}

/// One command of the Redis protocol (RESP2), on a connection of its own: an idle one would keep the cache awake.
async fn command(addr: &str, words: &[&[u8]]) -> std::io::Result<Option<Vec<u8>>> {
    let mut stream = BufReader::new(TcpStream::connect(addr).await?);
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend(format!("${}\r\n", word.len()).bytes());
        request.extend_from_slice(word);
        request.extend(b"\r\n");
    }
    stream.write_all(&request).await?;
    let mut line = String::new();
    (&mut stream).take(1024).read_line(&mut line).await?;
    let line = line.trim_end();
    let unexpected = || std::io::Error::other(format!("it said {line:?}"));
    let Some(length) = line.strip_prefix('$') else {
        return if line == "+OK" {
            Ok(None)
        } else {
            Err(unexpected())
        };
    };
    let length: i64 = length.parse().map_err(|_| unexpected())?;
    let Ok(length) = usize::try_from(length) else {
        return Ok(None); // -1: there is no such key
    };
    if length > VALUE_MAX_BYTES {
        return Err(unexpected());
    }
    let mut value = vec![0; length];
    stream.read_exact(&mut value).await?;
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::Cache;

    /// Answers each connection with the next of these, and gives back what was asked.
    async fn serve(listener: TcpListener, answers: &'static [&'static str]) -> Vec<String> {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 1024];
            let read = stream.read(&mut bytes).await.unwrap();
            asked.push(String::from_utf8_lossy(&bytes[..read]).into_owned());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    }

    #[tokio::test]
    async fn values_are_asked_for_and_kept_in_redis_own_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cache = Cache::new(Some(listener.local_addr().unwrap().to_string()));
        let server = tokio::spawn(serve(
            listener,
            &["$-1\r\n", "+OK\r\n", "$3\r\nabc\r\n", "-ERR no\r\n"],
        ));
        assert_eq!(cache.get("k").await, None);
        cache.put("k", b"abc").await;
        assert_eq!(cache.get("k").await.as_deref(), Some(&b"abc"[..]));
        assert_eq!(cache.get("k").await, None);
        assert_eq!(cache.get("k").await, None, "it rests, and nobody is asked");
        let asked = server.await.unwrap();
        assert_eq!(asked[0], "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
        assert_eq!(
            asked[1],
            "*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$3\r\nabc\r\n$2\r\nEX\r\n$6\r\n604800\r\n"
        );
    }

    #[tokio::test]
    async fn without_a_server_nothing_is_cached() {
        for addr in [None, Some(String::new()), Some("127.0.0.1:1".into())] {
            let cache = Cache::new(addr);
            cache.put("k", b"abc").await;
            assert_eq!(cache.get("k").await, None);
        }
    }
}
