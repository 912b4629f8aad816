//! One blob on its way out (distribution-spec, "Pushing blobs"): asked for, mounted from elsewhere, or sent.

use http::{HeaderMap, Method, header};

use super::backoff::wait;
use super::error::{Failure, Fault};
use super::http::{Ask, Payload, Session, refusal};
use super::progress::{Meter, Step};
use crate::Store;
use crate::layout::Descriptor;
use crate::percent;

/// What all blobs of a push share.
pub(super) struct Upload<'a> {
    pub(super) store: &'a Store,
    pub(super) session: &'a Session<'a>,
    pub(super) repository: &'a str,
    /// Other repositories there that have the same content.
    pub(super) siblings: &'a [String],
    pub(super) scope: &'a str,
}

/// What came of asking for an upload.
enum Begun {
    /// It is there now, by a mount.
    Mounted,
    /// It is to be sent to this URL.
    At(String),
}

impl Upload<'_> {
    /// Brings one blob there.
    pub(super) fn send(&self, part: &Descriptor, meter: &mut Meter<'_>) -> Result<(), Failure> {
        let options = self.session.options;
        meter.step(Step::Waiting { of: part.size });
        let mut failed = 0;
        loop {
            let failure = match self.attempt(part, meter) {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            failed += 1;
            let Some(pause) = options.retry.next(&failure, failed) else {
                return Err(failure);
            };
            if let Failure::Registry { reason, .. } = &failure {
                let reason = reason.clone();
                meter.step(Step::Again { reason });
            }
            wait(pause, &options.cancel)?;
        }
    }

    fn attempt(&self, part: &Descriptor, meter: &mut Meter<'_>) -> Result<(), Failure> {
        if self.is_there(part)? {
            meter.step(Step::Held);
            return Ok(());
        }
        // One that does not have it, or does not mount, begins an upload instead.
        let query = match self.siblings.first() {
            Some(sibling) => format!(
                "?mount={}&from={}",
                percent::encode(&part.digest),
                percent::encode(sibling)
            ),
            None => String::new(),
        };
        match self.begin(&query)? {
            Begun::Mounted => meter.step(Step::Mounted),
            Begun::At(url) => self.bytes(part, &url, meter)?,
        }
        Ok(())
    }

    fn is_there(&self, part: &Descriptor) -> Result<bool, Failure> {
        let response = self.session.send(
            &self.ask(
                Method::HEAD,
                self.session
                    .url(&format!("{}/blobs/{}", self.repository, part.digest)),
                Payload::Nothing,
            ),
        )?;
        match response.status().as_u16() {
            200 => Ok(true),
            // Some answer so for a repository that does not exist yet; whether one may push shows next.
            404 | 403 => Ok(false),
            _ => Err(refusal(response, "")),
        }
    }

    fn begin(&self, query: &str) -> Result<Begun, Failure> {
        let url = self
            .session
            .url(&format!("{}/blobs/uploads/{query}", self.repository));
        let response = self
            .session
            .send(&self.ask(Method::POST, url.clone(), Payload::Nothing))?;
        match response.status().as_u16() {
            201 => Ok(Begun::Mounted),
            202 => Ok(Begun::At(self.session.location(&url, response.headers())?)),
            _ => Err(refusal(response, "takes no upload: it")),
        }
    }

    fn bytes(&self, part: &Descriptor, url: &str, meter: &mut Meter<'_>) -> Result<(), Failure> {
        let chunk = self.session.options.chunk_bytes;
        if chunk == 0 || part.size <= chunk {
            return self.finish(part, url, 0, part.size, meter);
        }
        let path = self.store.blob_path(&part.digest)?;
        let meter = std::cell::RefCell::new(meter);
        let (mut url, mut from) = (url.to_owned(), 0);
        while from < part.size {
            let length = chunk.min(part.size - from);
            let sent = |n: u64| meter.borrow_mut().at(from + n);
            let mut ask = self.ask(
                Method::PATCH,
                url.clone(),
                Payload::Part {
                    path: &path,
                    from,
                    length,
                    sent: &sent,
                },
            );
            ask.headers = vec![
                (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
                (
                    header::CONTENT_RANGE,
                    format!("{from}-{}", from + length - 1),
                ),
            ];
            let response = self.session.send(&ask)?;
            match response.status().as_u16() {
                202 => {}
                _ => return Err(refusal(response, "does not take a part of a blob: it")),
            }
            // It says how much it has; on anything else than all that was sent, it is begun anew.
            from += length;
            if received(response.headers()).is_some_and(|got| got != from) {
                let reason = format!("lost a part of {}", part.digest);
                return Err(Failure::passing(Fault::Broken, reason));
            }
            url = self.session.location(&url, response.headers())?;
        }
        let meter = meter.into_inner();
        self.finish(part, &url, part.size, 0, meter)
    }

    /// The last request: what is left of the blob, and its digest.
    fn finish(
        &self,
        part: &Descriptor,
        url: &str,
        from: u64,
        length: u64,
        meter: &mut Meter<'_>,
    ) -> Result<(), Failure> {
        let path = self.store.blob_path(&part.digest)?;
        let mark = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{mark}digest={}", percent::encode(&part.digest));
        let cell = std::cell::RefCell::new(meter);
        let sent = |n: u64| cell.borrow_mut().at(from + n);
        let body = match length {
            0 => Payload::Nothing,
            _ => Payload::Part {
                path: &path,
                from,
                length,
                sent: &sent,
            },
        };
        let mut ask = self.ask(Method::PUT, url, body);
        ask.headers = vec![(header::CONTENT_TYPE, "application/octet-stream".to_owned())];
        let response = self.session.send(&ask)?;
        match response.status().as_u16() {
            201 | 204 => {
                cell.into_inner().step(Step::Done);
                Ok(())
            }
            _ => Err(refusal(response, "does not take a blob: it")),
        }
    }

    fn ask<'b>(&'b self, method: Method, url: String, body: Payload<'b>) -> Ask<'b> {
        Ask {
            method,
            url,
            headers: Vec::new(),
            body,
            scope: self.scope,
        }
    }
}

/// How many bytes a Range header (`0-LAST`) says that it has.
fn received(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(header::RANGE)?.to_str().ok()?;
    let (_, last) = text.trim().trim_start_matches("bytes=").split_once('-')?;
    last.parse::<u64>().ok()?.checked_add(1)
}
