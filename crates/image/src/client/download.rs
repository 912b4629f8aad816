//! One blob on its way here: in order, never more than promised, taken up again where it broke off.

use std::io::{self, Read};
use std::sync::atomic::Ordering;

use http::{HeaderMap, Method, Response, header};
use ureq::Body;

use super::backoff::wait;
use super::error::{Failure, Fault};
use super::http::{Ask, Payload, Session, refusal};
use super::progress::{Meter, Step};
use crate::layout::Descriptor;

/// How much is handed on at a time, in bytes.
const PIECE_BYTES: usize = 128 << 10;

/// Fetches a blob and hands it on piece by piece. Its digest is the taker's to check.
pub(super) fn fetch(
    session: &Session<'_>,
    repository: &str,
    scope: &str,
    part: &Descriptor,
    meter: &mut Meter<'_>,
    take: &mut dyn FnMut(Vec<u8>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut transfer = Transfer {
        session,
        url: session.url(&format!("{repository}/blobs/{}", part.digest)),
        scope,
        part,
        done: 0,
        ranges: true,
    };
    let options = session.options;
    let mut failed = 0;
    while transfer.done < part.size || failed == 0 {
        let before = transfer.done;
        let failure = match transfer.attempt(meter, take) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        // A bad line that still brings something on is no reason to give up.
        failed = if transfer.done > before {
            1
        } else {
            failed + 1
        };
        let Some(pause) = options.retry.next(&failure, failed) else {
            return Err(failure);
        };
        if let Failure::Registry { reason, .. } = &failure {
            let reason = reason.clone();
            meter.step(Step::Again { reason });
        }
        wait(pause, &options.cancel)?;
    }
    Ok(())
}

struct Transfer<'a> {
    session: &'a Session<'a>,
    url: String,
    scope: &'a str,
    part: &'a Descriptor,
    /// Bytes that were handed on.
    done: u64,
    /// Whether the registry is believed to answer ranges rightly.
    ranges: bool,
}

impl Transfer<'_> {
    fn attempt(
        &mut self,
        meter: &mut Meter<'_>,
        take: &mut dyn FnMut(Vec<u8>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut headers = Vec::new();
        let from = if self.ranges { self.done } else { 0 };
        if from > 0 {
            headers.push((header::RANGE, format!("bytes={from}-")));
        }
        let response = self.session.send(&Ask {
            method: Method::GET,
            url: self.url.clone(),
            headers,
            body: Payload::Nothing,
            scope: self.scope,
        })?;
        let skip = self.begin(&response, from)?;
        let mut body = response.into_body().into_reader();
        if skip > 0 {
            // It sent all of it anew: what was handed on already is passed over. The digest tells if it differs.
            let passed = io::copy(&mut (&mut body).take(skip), &mut io::sink());
            if !matches!(passed, Ok(n) if n == skip) {
                return Err(self.broke_off(passed.err()));
            }
        }
        loop {
            if self.session.options.cancel.load(Ordering::Relaxed) {
                return Err(Failure::cancelled());
            }
            let left = self.part.size - self.done;
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            // One byte more than there may be, to see that there is none.
            let most = left.saturating_add(1).min(PIECE_BYTES as u64);
            let read = (&mut body).take(most).read_to_end(&mut piece);
            let n = piece.len() as u64;
            if n > left {
                return Err(self.broken(
                    format!("than the {} bytes of its manifest", self.part.size),
                    "sends more",
                ));
            }
            if n > 0 {
                take(piece)?;
                self.done += n;
                meter.at(self.done);
            }
            match read {
                Err(error) => return Err(self.broke_off(Some(error))),
                Ok(0) if self.done < self.part.size => return Err(self.broke_off(None)),
                Ok(0) => return Ok(()),
                Ok(_) => {}
            }
        }
    }

    /// Checks how the answer begins. How many bytes of it are known already.
    fn begin(&mut self, response: &Response<Body>, from: u64) -> Result<u64, Failure> {
        let size = self.part.size;
        match response.status().as_u16() {
            200 => match content_length(response.headers()) {
                Some(length) if length != size => Err(self.broken(
                    format!("of {length} bytes instead of {size}"),
                    "sends a blob",
                )),
                _ => Ok(self.done),
            },
            206 if from > 0 => {
                if content_range(response.headers()) == Some((from, size)) {
                    return Ok(0);
                }
                // Its ranges are not to be relied on; the whole still may.
                self.ranges = false;
                Err(Failure::passing(
                    Fault::Broken,
                    format!(
                        "sends another part of {} than it was asked for",
                        self.part.digest
                    ),
                ))
            }
            416 if from > 0 => {
                self.ranges = false;
                let reason = format!("does not continue {}", self.part.digest);
                Err(Failure::passing(Fault::Broken, reason))
            }
            404 => Err(Failure::final_(
                Fault::NotFound,
                format!(
                    "does not have {}, which the manifest names",
                    self.part.digest
                ),
            )),
            status if (200..400).contains(&status) => {
                Err(self.broken(format!("with status {status}"), "answers"))
            }
            _ => Err(self.refused(response)),
        }
    }

    fn refused(&self, response: &Response<Body>) -> Failure {
        let status = response.status();
        let mut empty = Response::new(Body::builder().data(Vec::new()));
        *empty.status_mut() = status;
        *empty.headers_mut() = response.headers().clone();
        refusal(empty, "")
    }

    fn broke_off(&self, error: Option<io::Error>) -> Failure {
        let why = match error.filter(|error| error.kind() == io::ErrorKind::TimedOut) {
            Some(_) => "sends nothing any more",
            None => "broke off",
        };
        let (done, size) = (self.done, self.part.size);
        let reason = format!("{why} after {done} of {size} bytes of {}", self.part.digest);
        Failure::passing(Fault::Unreachable, reason)
    }

    fn broken(&self, reason: String, verb: &str) -> Failure {
        let reason = format!("{verb} {reason} ({})", self.part.digest);
        Failure::final_(Fault::Broken, reason)
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The first byte and the whole size of `bytes FIRST-LAST/SIZE` that goes to the end (RFC 9110, section 14.4).
fn content_range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size): (u64, u64, u64) =
        (first.parse().ok()?, last.parse().ok()?, size.parse().ok()?);
    (last.checked_add(1) == Some(size)).then_some((first, size))
}
