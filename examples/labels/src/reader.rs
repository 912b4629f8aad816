//! Asks mapi to read a picture.

use std::time::Duration;

use ureq::Agent;
use ureq::http::StatusCode;

use crate::picture::MediaType;
use crate::reading::{Problem, Reading};

/// How long one picture may take, the wait for a replica that sleeps or is busy included.
const PATIENCE: Duration = Duration::from_secs(600);

const READING_MAX_BYTES: u64 = 8 << 20;

/// Whoever reads pictures. The call blocks.
pub trait Reader: Send + Sync {
    /// Reads one.
    ///
    /// # Errors
    /// When it cannot be read, now or at all.
    fn read(&self, bytes: &[u8], media_type: MediaType) -> Result<Reading, ReadError>;
}

/// Why a picture was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be, also not later.
    #[error("{0}")]
    Refused(String),
    /// It may be, later.
    #[error("{0}")]
    Later(String),
    /// It took too long: the machine may have been full, or it is the picture.
    #[error("{0}")]
    Slow(String),
}

/// mapi, by its address.
#[derive(Debug)]
pub struct Mapi {
    agent: Agent,
    url: String,
}

impl Mapi {
    /// `http://mapi:8000`
    pub fn new(url: &str) -> Mapi {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            // A connection that rests would keep a replica from sleeping, and die with it.
            .max_idle_connections(0)
            .build()
            .new_agent();
        Mapi {
            agent,
            url: format!("{}/v1/readings", url.trim_end_matches('/')),
        }
    }
}

impl Reader for Mapi {
    fn read(&self, bytes: &[u8], media_type: MediaType) -> Result<Reading, ReadError> {
        let later =
            |error: ureq::Error| ReadError::Later(format!("{} did not answer: {error}", self.url));
        let request = self
            .agent
            .post(&self.url)
            .header("content-type", media_type.as_str());
        let mut answer = request.send(bytes).map_err(later)?;
        let status = answer.status();
        let body = answer
            .body_mut()
            .with_config()
            .limit(READING_MAX_BYTES)
            .read_to_vec()
            .map_err(later)?;
        understood(&self.url, status, &body)
    }
}

/// What an answer means.
fn understood(url: &str, status: StatusCode, body: &[u8]) -> Result<Reading, ReadError> {
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|error| {
            ReadError::Later(format!("{url} answered what is no reading: {error}"))
        });
    }
    let problem = serde_json::from_slice::<Problem>(body).ok();
    let (why, slow) = problem.map_or_else(
        || (status.to_string(), false),
        |problem| (problem.error, problem.slow),
    );
    match status {
        // Those of the picture itself. A body that broke off (400) is whole the next time.
        StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY => Err(ReadError::Refused(why)),
        _ if slow => Err(ReadError::Slow(why)),
        _ => Err(ReadError::Later(format!("{url} answered {status}: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use ureq::http::StatusCode;

    use super::{ReadError, understood};

    #[test]
    fn only_what_is_wrong_with_the_picture_is_for_good() {
        let asked = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            understood("http://mapi", status, body.as_bytes()).unwrap_err()
        };
        let problem = r#"{"error": "this is neither a PNG nor a JPEG"}"#;
        for status in [413, 415, 422] {
            assert!(matches!(asked(status, problem), ReadError::Refused(_)));
        }
        for status in [200, 400, 404, 500, 502, 503, 504] {
            assert!(matches!(asked(status, problem), ReadError::Later(_)));
            assert!(matches!(asked(status, "<html>"), ReadError::Later(_)));
        }
        let slow = r#"{"error": "the picture was not read in time", "slow": true}"#;
        assert!(matches!(asked(504, slow), ReadError::Slow(_)));
    }
}
