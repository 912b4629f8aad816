//! What the gateway itself answers: one sentence, whose fault it is, and whether to try again.

use std::fmt::Write;

use crate::codec::Refusal;
use crate::hold::Unserved;
use crate::route::Lost;

/// Who can mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    Client,
    Service,
    Layby,
}

/// An error answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    /// A word that programs can compare.
    kind: &'static str,
    blame: Blame,
    /// When to try again, in seconds; `None`: it would not help.
    retry_after_s: Option<u32>,
    sentence: String,
}

/// How the client wants it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    pub(crate) json: bool,
    /// It was a `HEAD`: no body.
    pub(crate) head: bool,
    /// The connection stays open.
    pub(crate) keep_alive: bool,
}

impl Answer {
    fn new(status: u16, kind: &'static str, blame: Blame, sentence: String) -> Self {
        Self {
            status,
            kind,
            blame,
            retry_after_s: None,
            sentence,
        }
    }

    fn retry(self, after_s: u32) -> Self {
        Self {
            retry_after_s: Some(after_s),
            ..self
        }
    }

    /// The request is not one that is taken.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        let sentence = format!("The request is not taken: {refusal}.");
        Self::new(refusal.status(), "bad_request", Blame::Client, sentence)
    }

    /// The request did not come in time.
    pub(crate) fn slow() -> Self {
        let sentence = "The request did not arrive in time.".to_owned();
        Self::new(408, "request_timeout", Blame::Client, sentence).retry(0)
    }

    /// The request leads nowhere.
    pub(crate) fn lost(lost: &Lost) -> Self {
        let sentence = match lost {
            Lost::UnknownHost(host) => format!(
                "No service has the host name \"{host}\": see `layby ls` for those there are."
            ),
            Lost::UnknownPath(host) => {
                format!("No service of the host name \"{host}\" has this path.")
            }
            Lost::NoPort(host) => format!(
                "The service at \"{host}\" has no HTTP port: set `x-layby.port` in its manifest."
            ),
            Lost::NoListener => "No service listens here any more.".to_owned(),
        };
        Self::new(404, "unknown_host", Blame::Client, sentence)
    }

    /// No replica was to be had for `service`.
    pub(crate) fn unserved(why: Unserved, service: &str, hold_deadline_ms: u64) -> Self {
        let seconds = hold_deadline_ms.div_ceil(1000);
        match why {
            Unserved::Disabled => {
                let sentence = format!("The service {service} is disabled.");
                Self::new(503, "disabled", Blame::Service, sentence)
            }
            Unserved::Refused | Unserved::ClientGone => {
                let sentence = format!("The service {service} has ended, or was never live.");
                Self::new(503, "not_live", Blame::Service, sentence)
            }
            Unserved::Stopping => {
                let sentence =
                    format!("The service {service} takes no more requests: the node ends.");
                Self::new(503, "stopping", Blame::Layby, sentence).retry(1)
            }
            Unserved::Full => {
                let sentence = format!("Too many wait for the service {service} already.");
                Self::new(503, "hold_queue_full", Blame::Service, sentence).retry(1)
            }
            Unserved::Unhealthy => {
                let sentence = format!(
                    "The service {service} runs, but none of its replicas answers its probe."
                );
                Self::new(503, "unhealthy", Blame::Service, sentence).retry(1)
            }
            Unserved::Busy => {
                let sentence = format!(
                    "All replicas of the service {service} were busy for {seconds} s, and no place came free."
                );
                Self::new(503, "all_busy", Blame::Service, sentence).retry(1)
            }
            Unserved::Late => {
                let sentence = format!("The service {service} was not ready within {seconds} s.");
                Self::new(504, "hold_deadline", Blame::Service, sentence).retry(1)
            }
        }
    }

    /// The replica closed the connection without an answer.
    pub(crate) fn unanswered(service: &str) -> Self {
        let sentence = format!("The service {service} closed the connection without an answer.");
        Self::new(502, "no_answer", Blame::Service, sentence)
    }

    /// The replica's answer is not HTTP.
    pub(crate) fn malformed(service: &str, refusal: Refusal) -> Self {
        let sentence = format!("The service {service} gave an answer that is not HTTP: {refusal}.");
        Self::new(502, "bad_answer", Blame::Service, sentence)
    }

    /// The gateway is at one of its own limits.
    pub(crate) fn busy() -> Self {
        let sentence = "The gateway has too many connections open.".to_owned();
        Self::new(503, "busy", Blame::Layby, sentence).retry(1)
    }

    /// The whole answer.
    pub(crate) fn render(&self, manner: Manner) -> Vec<u8> {
        let blame = match self.blame {
            Blame::Client => "client",
            Blame::Service => "service",
            Blame::Layby => "layby",
        };
        let (content_type, body) = if manner.json {
            let body = serde_json::json!({
                "error": { "kind": self.kind, "blame": blame, "retry": self.retry_after_s.is_some(),
                    "message": self.sentence }
            });
            ("application/json", format!("{body}\n"))
        } else {
            ("text/plain; charset=utf-8", format!("{}\n", self.sentence))
        };
        let mut text = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "Content-Type: {content_type}\r\nContent-Length: {}\r\n",
            body.len()
        );
        text.push_str("Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
        let _ = write!(text, "X-Layby-Error: {}; blame={blame}\r\n", self.kind);
        if let Some(seconds) = self.retry_after_s {
            let _ = write!(text, "Retry-After: {seconds}\r\n");
        }
        if !manner.keep_alive {
            text.push_str("Connection: close\r\n");
        }
        text.push_str("\r\n");
        if !manner.head {
            text.push_str(&body);
        }
        text.into_bytes()
    }
}

/// The reason phrase of a status code (RFC 9110, section 15).
fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        404 => "Not Found",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}
