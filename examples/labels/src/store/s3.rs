//! An S3 bucket, anybody's: requests are signed (Signature Version 4, in the query), and sent over HTTP or HTTPS.

use std::time::Duration;

use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use ureq::Agent;
use ureq::http::StatusCode;
use url::Url;

use crate::picture::BYTES_MAX;
use crate::store::{ObjectStore, StoreError};

/// For how long a signature holds: requests are sent right away.
const SIGNED_FOR: Duration = Duration::from_secs(300);

/// No object is larger; what is, is refused.
const OBJECT_MAX_BYTES: u64 = BYTES_MAX as u64 + (1 << 20);

/// A listing of a thousand keys is a tenth of this.
const LISTING_MAX_BYTES: u64 = 8 << 20;

/// How many pages of a listing are read: a million keys.
const PAGES_MAX: usize = 1_000;

/// How long one request may take, a store that sleeps and is woken by it included.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a bucket is, and who may use it.
#[derive(Clone, clap::Args)]
pub struct S3Settings {
    /// The S3 endpoint.
    #[arg(long, env = "LABELS_S3_ENDPOINT", default_value = "http://store:9000")]
    pub s3_endpoint: String,
    /// The bucket; it is made where it is not there.
    #[arg(long, env = "LABELS_S3_BUCKET", default_value = "labels")]
    pub s3_bucket: String,
    /// The bucket's region.
    #[arg(long, env = "LABELS_S3_REGION", default_value = "us-east-1")]
    pub s3_region: String,
    /// Put the bucket into the host name, and not into the path.
    #[arg(long, env = "LABELS_S3_VIRTUAL_HOST", default_value_t = false, action = clap::ArgAction::Set)]
    pub s3_virtual_host: bool,
    /// The access key.
    #[arg(
        long,
        env = "LABELS_S3_ACCESS_KEY",
        default_value = "labels",
        hide_env_values = true
    )]
    pub s3_access_key: String,
    /// The secret key.
    #[arg(
        long,
        env = "LABELS_S3_SECRET_KEY",
        default_value = "",
        hide_env_values = true
    )]
    pub s3_secret_key: String,
    /// A file with the secret key, instead of it.
    #[arg(long, env = "LABELS_S3_SECRET_KEY_FILE")]
    pub s3_secret_key_file: Option<std::path::PathBuf>,
}

/// A bucket.
pub struct S3Store {
    agent: Agent,
    bucket: Bucket,
    credentials: Credentials,
    endpoint: String,
}

impl S3Store {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// When the settings are no address, or the secret's file cannot be read.
    pub fn new(settings: &S3Settings) -> Result<S3Store, StoreError> {
        let endpoint: Url = settings.s3_endpoint.parse().map_err(|error| {
            StoreError::Settings(format!("{:?} is no address: {error}", settings.s3_endpoint))
        })?;
        let shown = endpoint.origin().ascii_serialization();
        let style = match settings.s3_virtual_host {
            true => UrlStyle::VirtualHost,
            false => UrlStyle::Path,
        };
        let bucket = Bucket::new(
            endpoint,
            style,
            settings.s3_bucket.clone(),
            settings.s3_region.clone(),
        )
        .map_err(|error| {
            StoreError::Settings(format!(
                "{shown} cannot be asked for that bucket: {error:?}"
            ))
        })?;
        let secret = match &settings.s3_secret_key_file {
            Some(file) => std::fs::read_to_string(file)
                .map_err(|error| {
                    StoreError::Settings(format!("cannot read {}: {error}", file.display()))
                })?
                .trim()
                .to_owned(),
            None => settings.s3_secret_key.clone(),
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .max_idle_connections_per_host(8)
            .build()
            .new_agent();
        Ok(S3Store {
            agent,
            bucket,
            credentials: Credentials::new(settings.s3_access_key.clone(), secret),
            endpoint: shown,
        })
    }

    /// Makes the bucket where it is not there. One that is somebody else's to make is taken as it is.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn make_bucket(&self) -> Result<(), StoreError> {
        if self.list_page("", None).is_ok() {
            return Ok(());
        }
        let url = self
            .bucket
            .create_bucket(&self.credentials)
            .sign(SIGNED_FOR);
        let answer = self.agent.put(url.as_str()).send_empty();
        let mut answer = answer.map_err(|cause| self.no_answer(cause))?;
        let status = answer.status();
        // Somebody else may have made it just now.
        if status.is_success() || status == StatusCode::CONFLICT {
            return Ok(());
        }
        Err(refused("to make the bucket", status, &mut answer))
    }

    fn list_page(&self, prefix: &str, token: Option<&str>) -> Result<Page, StoreError> {
        let what = || format!("the list of {prefix:?}");
        let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
        action.with_prefix(prefix);
        if let Some(token) = token {
            action.with_continuation_token(token);
        }
        let url = action.sign(SIGNED_FOR);
        let answer = self.agent.get(url.as_str()).call();
        let mut answer = answer.map_err(|cause| self.no_answer(cause))?;
        if answer.status() != StatusCode::OK {
            return Err(refused(&what(), answer.status(), &mut answer));
        }
        let body = answer
            .body_mut()
            .with_config()
            .limit(LISTING_MAX_BYTES)
            .read_to_string();
        let body = body.map_err(|cause| self.no_answer(cause))?;
        let listing =
            ListObjectsV2::parse_response(&body).map_err(|error| StoreError::Unreadable {
                what: what(),
                problem: format!("{error:?}"),
            })?;
        Ok(Page {
            keys: listing
                .contents
                .into_iter()
                .map(|content| content.key)
                .collect(),
            next: listing.next_continuation_token,
        })
    }

    fn no_answer(&self, cause: ureq::Error) -> StoreError {
        StoreError::NoAnswer {
            endpoint: self.endpoint.clone(),
            cause: Box::new(cause),
        }
    }
}

struct Page {
    keys: Vec<String>,
    next: Option<String>,
}

impl ObjectStore for S3Store {
    fn put(&self, key: &str, bytes: &[u8], media_type: &str) -> Result<(), StoreError> {
        let url = self
            .bucket
            .put_object(Some(&self.credentials), key)
            .sign(SIGNED_FOR);
        let request = self
            .agent
            .put(url.as_str())
            .header("content-type", media_type);
        let mut answer = request.send(bytes).map_err(|cause| self.no_answer(cause))?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(refused(
            &format!("to keep {key:?}"),
            answer.status(),
            &mut answer,
        ))
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let url = self
            .bucket
            .get_object(Some(&self.credentials), key)
            .sign(SIGNED_FOR);
        let answer = self.agent.get(url.as_str()).call();
        let mut answer = answer.map_err(|cause| self.no_answer(cause))?;
        match answer.status() {
            StatusCode::OK => {
                let body = answer
                    .body_mut()
                    .with_config()
                    .limit(OBJECT_MAX_BYTES)
                    .read_to_vec();
                body.map(Some).map_err(|cause| self.no_answer(cause))
            }
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(refused(&format!("to read {key:?}"), status, &mut answer)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut keys = Vec::new();
        let mut token: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let page = self.list_page(prefix, token.as_deref())?;
            keys.extend(page.keys);
            token = page.next;
            if token.is_none() {
                keys.sort_unstable();
                return Ok(keys);
            }
        }
        Err(StoreError::Unreadable {
            what: format!("the list of {prefix:?}"),
            problem: format!("it has more than {PAGES_MAX} pages"),
        })
    }
}

fn refused(
    what: &str,
    status: StatusCode,
    answer: &mut ureq::http::Response<ureq::Body>,
) -> StoreError {
    let body = answer
        .body_mut()
        .with_config()
        .limit(64 << 10)
        .read_to_string();
    let answer: String = body.unwrap_or_default().chars().take(300).collect();
    StoreError::Refused {
        what: what.to_owned(),
        status: status.as_u16(),
        answer,
    }
}
