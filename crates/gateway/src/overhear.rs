//! Overhears a tunnel: whether its client waits for an answer.
//!
//! Where a byte goes does not depend on it, only whether a replica that is to be stopped is given its time, and what was begun
//! there still goes to it; and whether one that cannot be served is told so. Where HTTP/1.1 is spoken, an exchange goes on
//! from the end of its request's head to the end of its answer. Of anything else no more is known than who spoke last: a client
//! that did may wait for an answer.

use std::collections::VecDeque;

use crate::codec::{
    Framing, HeadFinder, Hop, Method, Terms, parse_bare_response, parse_request, parse_response,
};

/// The longest name of a method that a request is known by.
const METHOD_BYTES: usize = 16;
/// So many requests of one client may be without an answer at once; with more it is no longer followed.
const PIPELINED: usize = 64;
/// What requests are read with: nothing of what is written anew is used.
const HOP: Hop<'static> = Hop {
    client: "",
    host: "localhost",
};

/// What was heard of a tunnel.
#[derive(Debug)]
pub(crate) struct Overheard {
    speech: Speech,
    /// The last word was the client's.
    owed: bool,
}

#[derive(Debug)]
enum Speech {
    /// Nothing was said yet.
    None,
    Http(Box<Http>),
    /// What is no HTTP, or cannot be followed.
    Other,
}

impl Default for Overheard {
    fn default() -> Self {
        Self {
            speech: Speech::None,
            owed: false,
        }
    }
}

impl Overheard {
    /// Of a connection that is known to speak no HTTP (any more).
    pub(crate) fn no_http() -> Self {
        Self {
            speech: Speech::Other,
            owed: false,
        }
    }

    /// The client said this, and the replica was told.
    pub(crate) fn asked(&mut self, bytes: &[u8]) {
        self.owed = true;
        if matches!(self.speech, Speech::None) {
            self.speech = match begins_a_request(bytes) {
                true => Speech::Http(Box::default()),
                false => Speech::Other,
            };
        }
        if let Speech::Http(http) = &mut self.speech
            && http.asked(bytes).is_none()
        {
            self.speech = Speech::Other;
        }
    }

    /// The replica said this, and the client was told.
    pub(crate) fn answered(&mut self, bytes: &[u8]) {
        self.owed = false;
        let is_followed = match &mut self.speech {
            Speech::Http(http) => http.answered(bytes).is_some(),
            Speech::None | Speech::Other => false,
        };
        if !is_followed {
            self.speech = Speech::Other;
        }
    }

    /// Whether it is known where an answer ends.
    pub(crate) fn is_followed(&self) -> bool {
        matches!(self.speech, Speech::Http(_))
    }

    /// Whether an exchange is under way, from the first byte of its request on, or the first one is still to come.
    pub(crate) fn is_amid(&self) -> bool {
        match &self.speech {
            Speech::None => true,
            Speech::Http(http) => !http.up.part.is_empty() || !http.asked.is_empty(),
            Speech::Other => false,
        }
    }

    /// Whether the client waits for an answer, or for the rest of one.
    pub(crate) fn awaits(&self) -> bool {
        match &self.speech {
            Speech::Http(http) => !http.asked.is_empty(),
            Speech::None | Speech::Other => self.owed,
        }
    }
}

/// Whether bytes could be what a request begins with: a method's name and a space, as far as they go.
fn begins_a_request(bytes: &[u8]) -> bool {
    let name = bytes.iter().take_while(|b| b.is_ascii_uppercase()).count();
    match bytes.get(name) {
        Some(next) => *next == b' ' && (1..=METHOD_BYTES).contains(&name),
        None => (1..=METHOD_BYTES).contains(&name),
    }
}

/// Whether bytes begin with the whole first line of a request in HTTP/1.
pub(crate) fn is_request(bytes: &[u8]) -> bool {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return false;
    };
    let line = bytes[..end].trim_ascii_end();
    let is_http = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
    is_http && begins_a_request(line)
}

/// A connection that speaks HTTP/1.1.
#[derive(Debug, Default)]
struct Http {
    /// The requests without a whole answer, as their answers are to be read.
    asked: VecDeque<Terms>,
    up: Half,
    down: Half,
    /// What heads are written to that nobody reads.
    scratch: Vec<u8>,
}

impl Http {
    /// `None`: it cannot be followed.
    fn asked(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            if self.up.body_goes_on(&mut bytes)? {
                continue;
            }
            let Some(Head { text, .. }) = self.up.head(&mut bytes, HeadFinder::request())? else {
                return begins_a_request(&self.up.part).then_some(());
            };
            self.scratch.clear();
            let request = parse_request(&text, HOP, &mut self.scratch).ok()?;
            self.up.body = request.body;
            self.asked.push_back(Terms {
                head: request.method == Method::Head,
                http10: request.http10,
                keep_alive: request.keep_alive,
                upgrade: request.upgrade,
            });
            (self.asked.len() <= PIPELINED).then_some(())?;
        }
        Some(())
    }

    /// `None`: it cannot be followed (any more).
    fn answered(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            if !self.down.body_goes_on(&mut bytes)? {
                let terms = *self.asked.front()?; // what nobody asked for is no answer
                let finder = HeadFinder::response();
                let Some(Head { text, bare }) = self.down.head(&mut bytes, finder)? else {
                    return Some(());
                };
                self.scratch.clear();
                let response = match bare {
                    true => parse_bare_response(&text, terms, &mut self.scratch),
                    false => parse_response(&text, terms, &mut self.scratch),
                };
                let response = response.ok()?;
                (response.status != 101).then_some(())?;
                if response.status < 200 {
                    continue; // the answer itself is still to come
                }
                self.down.body = response.body;
            }
            if self.down.body.is_done() {
                self.asked.pop_front();
            }
        }
        Some(())
    }
}

/// One direction.
#[derive(Debug)]
struct Half {
    /// What of a head came before the rest of it.
    part: Vec<u8>,
    finder: Option<HeadFinder>,
    body: Framing,
}

impl Default for Half {
    fn default() -> Self {
        Self {
            part: Vec::new(),
            finder: None,
            body: Framing::NONE,
        }
    }
}

/// A whole head.
struct Head {
    text: Vec<u8>,
    /// A line of it ends with a line feed alone.
    bare: bool,
}

impl Half {
    /// Takes what belongs to the body off the front of `bytes`; false: there is no body to go on with.
    fn body_goes_on(&mut self, bytes: &mut &[u8]) -> Option<bool> {
        if self.body.is_done() {
            return Some(false);
        }
        let taken = self.body.take(bytes).ok()?;
        *bytes = &bytes[taken..];
        Some(true)
    }

    /// Takes a head off the front of `bytes`, and what came of it before; `Some(None)`: it is not whole yet.
    fn head(&mut self, bytes: &mut &[u8], new: HeadFinder) -> Option<Option<Head>> {
        let before = self.part.len();
        self.part.extend_from_slice(bytes);
        let finder = self.finder.get_or_insert(new);
        let Some(len) = finder.find(&self.part).ok()? else {
            *bytes = &[];
            return Some(None);
        };
        let bare = finder.has_bare_lf();
        self.finder = None;
        let mut text = std::mem::take(&mut self.part);
        text.truncate(len);
        *bytes = &bytes[len - before..];
        Some(Some(Head { text, bare }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says these (`>` the client, `<` the replica), each also byte by byte, and gives whether the client waits after each.
    fn waits(said: &[&str]) -> Vec<bool> {
        let whole = after_each(said, usize::MAX);
        assert_eq!(after_each(said, 1), whole, "byte by byte");
        whole
    }

    fn after_each(said: &[&str], step: usize) -> Vec<bool> {
        let mut overheard = Overheard::default();
        let after = |text: &&str| {
            let (who, text) = text.split_at(1);
            for bytes in text.as_bytes().chunks(step.min(text.len().max(1))) {
                match who {
                    ">" => overheard.asked(bytes),
                    _ => overheard.answered(bytes),
                }
            }
            overheard.awaits()
        };
        said.iter().map(after).collect()
    }

    #[test]
    fn an_exchange_goes_on_from_the_head_of_its_request_to_the_end_of_its_answer() {
        let said = [
            ">GET / HTTP/1.1\r\nHost: a\r\n",
            ">\r\n",
            "<HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",
            "<ab",
            "<cd",
            ">POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n",
            ">ab",
            "<HTTP/1.1 100 Continue\r\n\r\n",
            "<HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
            "<0\r\n\r\n",
        ];
        let waits = waits(&said);
        let expected = [
            false, true, true, true, false, true, true, true, true, false,
        ];
        assert_eq!(waits, expected);
    }

    #[test]
    fn a_client_is_amid_an_exchange_before_its_first_word_and_from_the_first_byte_of_a_request_on()
    {
        let mut overheard = Overheard::default();
        assert!(overheard.is_amid(), "nothing was said yet");
        for part in ["G", "ET / HTTP/1.1\r\n", "Host: a\r\n\r\n"] {
            overheard.asked(part.as_bytes());
            assert!(overheard.is_amid(), "{part}");
        }
        overheard.answered(b"HTTP/1.1 204 No Content\r\n\r\n");
        assert!(!overheard.is_amid(), "between two of them");
        overheard.asked(b"GET");
        assert!(overheard.is_amid(), "the next one begins");
        let mut other = Overheard::default();
        other.asked(b"*1\r\n");
        assert!(!other.is_amid(), "no more is known of it");
        assert!(!Overheard::no_http().is_amid());
    }

    #[test]
    fn only_a_whole_line_that_names_http_is_a_request() {
        assert!(is_request(b"GET / HTTP/1.1\r\nHost: a"));
        assert!(is_request(b"HEAD / HTTP/1.0\n"));
        for other in [
            "",
            "GET / HTTP/1.1",
            "GET key\r\n",
            "PRI * HTTP/2.0\r\n",
            "a HTTP/1.1\n",
        ] {
            assert!(!is_request(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn an_answer_without_a_body_and_one_until_the_end_are_told_apart() {
        let head = ">HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
        let get = ">GET / HTTP/1.0\r\n\r\n";
        assert_eq!(
            waits(&[head, "<HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"]),
            [true, false]
        );
        let cgi = ["<HTTP/1.0 200 OK\nContent-Type: text/plain\n\n", "<more"];
        assert_eq!(waits(&[get, cgi[0], cgi[1]]), [true, true, true]);
    }

    #[test]
    fn of_requests_sent_ahead_each_has_an_answer() {
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let empty = "<HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(
            waits(&[&format!(">{get}{get}"), empty, empty]),
            [true, true, false]
        );
    }

    #[test]
    fn of_anything_else_the_last_word_counts() {
        assert_eq!(waits(&["<hello", ">helo", "<250"]), [false, true, false]);
        assert_eq!(waits(&[">\x16\x03\x01", "<\x16"]), [true, false]);
        assert_eq!(waits(&[">PING\r\n", "<+PONG\r\n"]), [true, false]);
        let upgrade =
            ">GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let switched =
            "<HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(
            waits(&[upgrade, switched, ">x", "<y"]),
            [true, false, true, false]
        );
        assert_eq!(waits(&[">GET nonsense\r\n\r\n", "<400"]), [true, false]);
        let unasked = "<HTTP/1.1 408 Request Timeout\r\n\r\n";
        assert_eq!(waits(&[">GET / HT", unasked]), [false, false]);
        assert!(!Overheard::no_http().awaits());
    }
}
