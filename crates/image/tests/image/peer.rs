//! A registry of the tests' own, in memory and on loopback, whose every answer a test may spoil.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// One answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The connection breaks after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// What Content-Length says, if not the truth.
    pub(crate) length: Option<usize>,
}

impl Answer {
    pub(crate) fn of(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

type Hook = Box<dyn FnMut(&Asked, Answer) -> Answer + Send>;

#[derive(Default)]
struct Shelf {
    blobs: BTreeMap<String, Vec<u8>>,
    /// By repository and tag or digest: media type and bytes.
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    /// What has come of uploads.
    uploads: BTreeMap<String, Vec<u8>>,
    /// How many uploads were begun: an ended one's id is no other's.
    begun: usize,
    asked: Vec<Asked>,
    hook: Option<Hook>,
}

/// The registry; it ends with the process.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
}

impl Peer {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = Self {
            addr: listener.local_addr().unwrap(),
            shelf: Arc::default(),
        };
        let accepting = peer.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let peer = accepting.clone();
                thread::spawn(move || peer.connection(&stream));
            }
        });
        peer
    }

    /// Every answer from now on goes through `hook`.
    pub(crate) fn spoil(&self, hook: impl FnMut(&Asked, Answer) -> Answer + Send + 'static) {
        self.shelf.lock().unwrap().hook = Some(Box::new(hook));
    }

    pub(crate) fn put_blob(&self, digest: &str, bytes: &[u8]) {
        let mut shelf = self.shelf.lock().unwrap();
        shelf.blobs.insert(digest.to_owned(), bytes.to_owned());
    }

    pub(crate) fn put_manifest(
        &self,
        repository: &str,
        name: &str,
        media_type: &str,
        bytes: &[u8],
    ) {
        let mut shelf = self.shelf.lock().unwrap();
        let value = (media_type.to_owned(), bytes.to_owned());
        shelf
            .manifests
            .insert((repository.to_owned(), name.to_owned()), value);
    }

    pub(crate) fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        self.shelf.lock().unwrap().blobs.get(digest).cloned()
    }

    pub(crate) fn manifest(&self, repository: &str, name: &str) -> Option<Vec<u8>> {
        let shelf = self.shelf.lock().unwrap();
        let key = (repository.to_owned(), name.to_owned());
        shelf.manifests.get(&key).map(|(_, bytes)| bytes.clone())
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shelf.lock().unwrap().asked.clone()
    }

    /// How many requests there were with that method whose path holds `part`.
    pub(crate) fn count(&self, method: &str, part: &str) -> usize {
        let asked = self.asked();
        asked
            .iter()
            .filter(|a| a.method == method && a.path.contains(part))
            .count()
    }

    fn connection(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some(asked) = read(&mut reader) {
            let answer = {
                let mut shelf = self.shelf.lock().unwrap();
                let answer = shelf.answer(&asked);
                shelf.asked.push(asked.clone());
                match shelf.hook.as_mut() {
                    Some(hook) => hook(&asked, answer),
                    None => answer,
                }
            };
            let cut = answer.cut;
            if write(stream, &asked, answer).is_err() || cut.is_some() {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|text| text.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Asked {
        method,
        path,
        headers,
        body,
    })
}

fn write(mut stream: &TcpStream, asked: &Asked, answer: Answer) -> std::io::Result<()> {
    let length = answer.length.unwrap_or(answer.body.len());
    let mut text = format!(
        "HTTP/1.1 {} X\r\nContent-Length: {length}\r\n",
        answer.status
    );
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(());
    }
    let end = answer.cut.unwrap_or(usize::MAX).min(answer.body.len());
    stream.write_all(&answer.body[..end])
}

impl Shelf {
    /// What a registry without faults answers.
    fn answer(&mut self, asked: &Asked) -> Answer {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let query: BTreeMap<&str, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key, value.replace("%3A", ":").replace("%2F", "/")))
            .collect();
        let Some(rest) = path.strip_prefix("/v2/") else {
            return Answer::of(404);
        };
        if rest.is_empty() {
            return Answer::of(200).body("{}");
        }
        if let Some((repository, name)) = rest.split_once("/manifests/") {
            let key = (repository.to_owned(), name.to_owned());
            return match asked.method.as_str() {
                "PUT" => {
                    let kind = asked
                        .headers
                        .get("content-type")
                        .cloned()
                        .unwrap_or_default();
                    self.manifests.insert(key, (kind, asked.body.clone()));
                    Answer::of(201)
                }
                _ => match self.manifests.get(&key) {
                    Some((kind, bytes)) => Answer::of(200)
                        .header("Content-Type", kind)
                        .body(bytes.clone()),
                    None => Answer::of(404).body(
                        r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
                    ),
                },
            };
        }
        if let Some((repository, id)) = rest.split_once("/blobs/uploads/") {
            return self.upload(asked, repository, id, &query);
        }
        let Some((_, digest)) = rest.split_once("/blobs/") else {
            return Answer::of(404);
        };
        let Some(bytes) = self.blobs.get(digest) else {
            return Answer::of(404);
        };
        let range = asked.headers.get("range").and_then(|text| {
            let from = text.strip_prefix("bytes=")?.strip_suffix('-')?;
            from.parse::<usize>().ok()
        });
        match range {
            Some(from) if from < bytes.len() => {
                let text = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                Answer::of(206)
                    .header("Content-Range", &text)
                    .body(&bytes[from..])
            }
            Some(_) => Answer::of(416),
            None => Answer::of(200).body(bytes.clone()),
        }
    }

    fn upload(
        &mut self,
        asked: &Asked,
        repository: &str,
        id: &str,
        query: &BTreeMap<&str, String>,
    ) -> Answer {
        let location = |id: &str| format!("/v2/{repository}/blobs/uploads/{id}?state=x");
        match asked.method.as_str() {
            "POST" => {
                if let Some(digest) = query.get("mount")
                    && self.blobs.contains_key(digest)
                {
                    return Answer::of(201);
                }
                self.begun += 1;
                let id = format!("u{}", self.begun);
                self.uploads.insert(id.clone(), Vec::new());
                Answer::of(202).header("Location", &location(&id))
            }
            "PATCH" => {
                let Some(known) = self.uploads.get_mut(id) else {
                    return Answer::of(404);
                };
                known.extend(&asked.body);
                let range = format!("0-{}", known.len().max(1) - 1);
                Answer::of(202)
                    .header("Location", &location(id))
                    .header("Range", &range)
            }
            "PUT" => {
                let Some(mut bytes) = self.uploads.remove(id) else {
                    return Answer::of(404);
                };
                bytes.extend(&asked.body);
                let digest = query.get("digest").cloned().unwrap_or_default();
                self.blobs.insert(digest, bytes);
                Answer::of(201)
            }
            _ => Answer::of(405),
        }
    }
}
