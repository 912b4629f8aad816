//! Errors as the registry answers them: a status and the JSON of distribution-spec 1.1, "Error Codes".

use http::header::{CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;

use super::body::{self, Outgoing};
use super::repository::MAX_REPOSITORIES;
use crate::Error;

/// The codes of the specification, and `UNKNOWN` for what is the node's own fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    TagInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    Unknown,
}

impl Code {
    fn text(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TagInvalid => "TAG_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The status that usually goes with it.
    fn status(self) -> StatusCode {
        match self {
            Self::BlobUnknown
            | Self::BlobUploadUnknown
            | Self::ManifestUnknown
            | Self::NameUnknown => StatusCode::NOT_FOUND,
            Self::BlobUploadInvalid
            | Self::DigestInvalid
            | Self::ManifestBlobUnknown
            | Self::ManifestInvalid
            | Self::NameInvalid
            | Self::SizeInvalid
            | Self::TagInvalid => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnedAway {
    /// There is no such token, or its secret is another.
    WrongSecret,
    /// The token with this name was good until some time ago.
    Expired(String),
    /// Too many secrets were wrong.
    TooManyTries {
        /// When the next try is listened to.
        retry_after_s: u64,
    },
}

impl TurnedAway {
    /// As an answer of the registry.
    pub fn into_response(self) -> Response<Outgoing> {
        let refusal = match self {
            Self::WrongSecret => Refusal {
                message: "wrong user name or password: they are a token's name and its secret (`layby token create`)"
                    .to_owned(),
                ..Refusal::who_are_you()
            },
            Self::Expired(name) => Refusal {
                message: format!("the token {name} has expired: make another with `layby token create`"),
                ..Refusal::who_are_you()
            },
            Self::TooManyTries { retry_after_s } => Refusal::new(
                Code::TooManyRequests,
                format!("too many wrong passwords: try again in {retry_after_s} s"),
            )
            .header(RETRY_AFTER, &retry_after_s.to_string()),
        };
        refusal.into_response()
    }
}

/// A request that is not done, and why.
#[derive(Debug)]
pub(super) struct Refusal {
    code: Code,
    status: StatusCode,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// With the code's usual status.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            message: message.into(),
            headers: Vec::new(),
        }
    }

    /// With another status.
    pub(super) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// With a header; one whose value cannot be sent is left out.
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// Nobody said who asks: the challenge that makes clients send their credentials (RFC 7617).
    pub(super) fn who_are_you() -> Self {
        let text =
            "log in with a token of this node: `layby token create NAME --pull --push` makes one";
        Self::new(Code::Unauthorized, text).header(
            WWW_AUTHENTICATE,
            "Basic realm=\"layby registry\", charset=\"UTF-8\"",
        )
    }

    /// The node has as many repositories as it may have.
    pub(super) fn too_many_repositories() -> Self {
        let text = format!("the registry has {MAX_REPOSITORIES} repositories: empty some first");
        Self::new(Code::TooManyRequests, text)
    }

    /// A range of a blob that has no such bytes (RFC 9110, 15.5.17).
    pub(super) fn no_such_range(size_bytes: u64) -> Self {
        Self::new(
            Code::SizeInvalid,
            format!("the blob has {size_bytes} bytes, and none in the range asked for"),
        )
        .status(StatusCode::RANGE_NOT_SATISFIABLE)
        .header(CONTENT_RANGE, &format!("bytes */{size_bytes}"))
    }

    /// As an answer.
    pub(super) fn into_response(self) -> Response<Outgoing> {
        let error = json!({"code": self.code.text(), "message": self.message, "detail": null});
        let text = json!({ "errors": [error] }).to_string();
        let mut response = Response::new(body::whole(text.into()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(self.headers);
        response
    }
}

/// An error of the store is the node's fault, and its operator's to mend.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(source) = cause {
            text = format!("{text}: {source}");
            cause = source.source();
        }
        match error {
            Error::DiskFull { .. } => {
                Self::new(Code::Unknown, text).status(StatusCode::INSUFFICIENT_STORAGE)
            }
            Error::IndexFull | Error::Busy => Self::new(Code::TooManyRequests, text),
            Error::NotFound { .. }
            | Error::BadReference { .. }
            | Error::Io { .. }
            | Error::Corrupt { .. }
            | Error::Malformed { .. }
            | Error::Archive(_)
            | Error::ArchiveRead(_)
            | Error::ArchiveWrite(_)
            | Error::Layer { .. }
            | Error::Dockerfile { .. }
            | Error::Registry(_)
            | Error::Context(_)
            | Error::Changed { .. }
            | Error::Build(_) => Self::new(Code::Unknown, text),
        }
    }
}
