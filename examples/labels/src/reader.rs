//! Asks mapi to read a picture.

use std::time::Duration;

use ureq::Agent;

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
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| {
                ReadError::Later(format!("{} answered what is no reading: {error}", self.url))
            });
        }
        let why = serde_json::from_slice::<Problem>(&body)
            .map_or_else(|_| status.to_string(), |problem| problem.error);
        match status.as_u16() {
            400 | 413 | 415 | 422 => Err(ReadError::Refused(why)),
            _ => Err(ReadError::Later(format!(
                "{} answered {status}: {why}",
                self.url
            ))),
        }
    }
}
