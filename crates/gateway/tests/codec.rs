//! The codec, property by property: no input makes it panic, and how input is split changes nothing.

use layby_gateway::codec::{
    Framing, HeadFinder, Hop, Refusal, RequestHead, ResponseHead, Terms, parse_bare_response,
    parse_request, parse_response,
};
use proptest::prelude::*;

const HOP: Hop<'_> = Hop {
    client: "10.0.0.1",
    host: "127.0.0.1:80",
};

type Outcome = Result<Option<(RequestHead, Vec<u8>, Vec<u8>, bool)>, Refusal>;

/// Reads a request that arrives in `parts`: its head, what is sent on, its body, whether that is whole.
fn read(parts: &[&[u8]]) -> Outcome {
    let mut finder = HeadFinder::request();
    let mut input = Vec::new();
    let mut parts = parts.iter();
    let len = loop {
        if let Some(len) = finder.find(&input)? {
            break len;
        }
        match parts.next() {
            Some(part) => input.extend_from_slice(part),
            None => return Ok(None),
        }
    };
    let mut out = Vec::new();
    let head = parse_request(&input[..len], HOP, &mut out)?;
    input.drain(..len);
    let (mut rest, mut body) = (head.body, Vec::new());
    loop {
        let taken = rest.take(&input)?;
        body.extend_from_slice(&input[..taken]);
        match parts.next() {
            Some(part) if !rest.is_done() => input = part.to_vec(),
            _ => return Ok(Some((head, out, body, rest.is_done()))),
        }
    }
}

/// Reads the head of a response that arrives in `parts`: what is known of it, what the client is sent.
fn read_answer(parts: &[&[u8]], terms: Terms) -> Result<Option<(ResponseHead, Vec<u8>)>, Refusal> {
    let mut finder = HeadFinder::response();
    let mut input = Vec::new();
    for part in parts {
        input.extend_from_slice(part);
        let Some(len) = finder.find(&input)? else {
            continue;
        };
        let mut out = Vec::new();
        let parsed = match finder.has_bare_lf() {
            true => parse_bare_response(&input[..len], terms, &mut out)?,
            false => parse_response(&input[..len], terms, &mut out)?,
        };
        if parsed.verbatim {
            out.extend_from_slice(&input[..len]);
        }
        return Ok(Some((parsed, out)));
    }
    Ok(None)
}

/// Requests that are nearly right, so that all parts of the codec are reached.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "Host: a.localhost",
        "Host: b",
        "Connection: close",
        "Connection: x-a, keep-alive",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Content-Length: 3",
        "Content-Length: 07",
        "Content-Length: 3, 3",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "X-A: b",
        "X-Forwarded-For: 1.2.3.4",
        "Expect: 100-continue",
        "Accept: application/json",
        " folded",
        "X : y",
        "Keep-Alive: 3",
        "TE: trailers",
        "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ]);
    let first = prop::sample::select(vec![
        "GET / HTTP/1.1",
        "POST /a?b HTTP/1.1",
        "HEAD * HTTP/1.1",
        "GET http://a.localhost/x HTTP/1.1",
        "GET / HTTP/1.0",
        "CONNECT a:1 HTTP/1.1",
        "\r\nGET / HTTP/1.1",
        "GET /",
    ]);
    let body = prop::sample::select(vec![
        "",
        "abc",
        "3\r\nabc\r\n0\r\n\r\n",
        "3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\nGET",
        "a\r\n0123456789\r\n",
        "0\r\n\r\n",
        "z\r\n",
        "3\r\nabcd\r\n",
    ]);
    let end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\n"]);
    (first, prop::collection::vec((line, end), 0..8), body).prop_map(|(first, lines, body)| {
        let mut text = format!("{first}\r\n");
        for (line, end) in lines {
            text.push_str(line);
            text.push_str(end);
        }
        format!("{text}\r\n{body}").into_bytes()
    })
}

/// The lines of heads of responses that are nearly right.
fn answers() -> impl Strategy<Value = Vec<&'static str>> {
    let first = prop::sample::select(vec![
        "HTTP/1.1 200 OK",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 204 ",
        "HTTP/1.1 100 Continue",
        "HTTP/1.1 302",
        "HTTP/1.1 200 O\rK",
        "HTTP/2 200",
        "Status: 200",
    ]);
    let line = prop::sample::select(vec![
        "Content-Length: 3",
        "Content-Length: 3\r",
        "Transfer-Encoding: chunked",
        "Connection: close",
        "Connection: x-a",
        "Keep-Alive: timeout=5",
        "X-A: b",
        "X-Empty:",
        "X-B: a\rb",
        " folded",
        "X : y",
        "no header",
    ]);
    (first, prop::collection::vec(line, 0..6)).prop_map(|(first, lines)| {
        let mut all = vec![first];
        all.extend(lines);
        all.push("");
        all
    })
}

/// Header names in lower case.
fn names(head: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(head).to_lowercase();
    let lines = text.lines().skip(1).take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| Some(line.split_once(':')?.0.to_owned()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn how_a_request_is_split_changes_nothing(text in requests(), cut in any::<prop::sample::Index>()) {
        let whole = read(&[&text]);
        let at = cut.index(text.len() + 1);
        prop_assert_eq!(&read(&[&text[..at], &text[at..]]), &whole);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        prop_assert_eq!(&read(&bytes), &whole);
    }

    #[test]
    fn what_is_sent_on_is_read_as_the_same_request(text in requests()) {
        let Ok(Some((head, out, _, _))) = read(&[&text]) else { return Ok(()) };
        let mut again = Vec::new();
        let second = parse_request(&out, HOP, &mut again).expect("what is sent on is taken");
        prop_assert_eq!(second.body, head.body);
        prop_assert_eq!(second.method, head.method);
        prop_assert!(!second.http10);
        let names = names(&out);
        for once in ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"] {
            prop_assert_eq!(names.iter().filter(|name| *name == once).count(), 1, "{} in {:?}", once, names);
        }
        for never in ["keep-alive", "te", "x-a", "proxy-connection"] {
            let named = never != "x-a" || String::from_utf8_lossy(&text).contains("x-a,");
            prop_assert!(!named || !names.iter().any(|name| name == never), "{} in {:?}", never, names);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), near in requests(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let _ = read(&[&bytes]);
        let mut near = near;
        let at = at.index(near.len());
        near[at] = byte;
        let _ = read(&[&near]);
        let terms = Terms { head: false, http10: byte > 127, keep_alive: true, upgrade: byte % 2 == 0 };
        let _ = parse_response(&bytes, terms, &mut Vec::new());
        let answer = [b"HTTP/1.1 200 OK\r\n", near.as_slice()].concat();
        let _ = parse_response(&answer, terms, &mut Vec::new());
        let _ = parse_bare_response(&bytes, terms, &mut Vec::new());
        let _ = parse_bare_response(&answer, terms, &mut Vec::new());
        let _ = read_answer(&[&answer], terms);
        let _ = Framing::chunked().take(&bytes);
    }

    #[test]
    fn an_answer_with_bare_line_feeds_is_read_as_the_one_with_whole_line_ends(lines in answers(), bare in any::<u16>(), http10 in any::<bool>(), cut in any::<prop::sample::Index>()) {
        let terms = Terms { head: false, http10, keep_alive: true, upgrade: false };
        let with = |end: &dyn Fn(usize) -> &'static str| -> Vec<u8> {
            let ended = lines.iter().enumerate().map(|(at, line)| format!("{line}{}", end(at)));
            ended.collect::<String>().into_bytes()
        };
        let text = with(&|at| if bare >> at & 1 == 1 { "\n" } else { "\r\n" });
        let read = read_answer(&[&text], terms);
        let at = cut.index(text.len() + 1);
        prop_assert_eq!(&read_answer(&[&text[..at], &text[at..]], terms), &read);

        // A line that ends with a carriage return, and then a line feed, is whole: there is no bare one.
        if lines.iter().any(|line| line.ends_with('\r')) {
            return Ok(());
        }
        let whole = read_answer(&[&with(&|_| "\r\n")], terms);
        let known = |read: &Result<Option<(ResponseHead, Vec<u8>)>, Refusal>| {
            read.clone().map(|found| found.map(|(head, out)| (ResponseHead { verbatim: false, ..head }, out)))
        };
        prop_assert_eq!(known(&read), known(&whole));
        if let Ok(Some((_, out))) = read {
            let lf = out.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            for (at, _) in lf {
                prop_assert_eq!(out[at - 1], b'\r', "a bare line feed in {:?}", String::from_utf8_lossy(&out));
            }
        }
    }

    #[test]
    fn how_chunks_are_split_changes_nothing(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6), cut in 1..20usize) {
        let mut text = Vec::new();
        let mut content: Vec<u8> = Vec::new();
        for part in &parts {
            text.extend(format!("{:x};e=1\r\n", part.len()).bytes());
            text.extend(part);
            text.extend(b"\r\n");
            content.extend(part);
        }
        text.extend(b"0\r\nA: b\r\n\r\n");
        let end = text.len();
        text.extend(b"GET / HTTP/1.1");
        let mut framing = Framing::chunked();
        prop_assert_eq!(framing.take(&text), Ok(end));
        let mut framing = Framing::chunked();
        let (mut taken, mut unchunked) = (0, Vec::new());
        for bytes in text.chunks(cut) {
            let mut bytes = bytes;
            while !bytes.is_empty() && !framing.is_done() {
                let piece = framing.take_piece(bytes).expect("well formed");
                if piece.content {
                    unchunked.extend_from_slice(&bytes[..piece.len]);
                }
                taken += piece.len;
                bytes = &bytes[piece.len..];
            }
        }
        prop_assert_eq!(taken, end);
        prop_assert_eq!(unchunked, content);
    }
}
