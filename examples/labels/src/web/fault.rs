//! What can go wrong with a request, as a page that says what to do.

use std::error::Error;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::library::{EditError, UploadError};
use crate::store::StoreError;
use crate::web::page;

/// Every way in which a request can fail.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No such page.
    #[error("There is nothing at this address.")]
    NotFound,
    /// No such picture.
    #[error("There is no such picture. Its address is the SHA-256 of its file.")]
    NoPicture,
    /// Not this method.
    #[error("This address does not take that method.")]
    Method,
    /// A form that comes from somewhere else.
    #[error("This form was sent by another site, and nothing was changed.")]
    Foreign,
    /// A form without what it needs.
    #[error("{0}")]
    Form(String),
    /// More than is taken.
    #[error("{0}")]
    TooLarge(String),
    /// Somebody was faster.
    #[error(
        "Somebody has changed this picture since you loaded it, and your changes were not saved. Go back to copy them, then load the page anew."
    )]
    Changed,
    /// The store failed. What was sent may not have been saved.
    #[error("The store does not work, and nothing was saved. Try again in a moment.")]
    Store(#[source] StoreError),
    /// The index is not made yet.
    #[error("The pictures are being looked up in the store. This page tries again by itself.")]
    NotOpen(String),
    /// A mistake of our own.
    #[error("This failed; the cause is in the service's log.")]
    Failed,
}

impl Fault {
    /// The status that says the same.
    pub fn status(&self) -> StatusCode {
        match self {
            Fault::NotFound | Fault::NoPicture => StatusCode::NOT_FOUND,
            Fault::Method => StatusCode::METHOD_NOT_ALLOWED,
            Fault::Foreign => StatusCode::FORBIDDEN,
            Fault::Form(_) => StatusCode::BAD_REQUEST,
            Fault::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Fault::Changed => StatusCode::CONFLICT,
            Fault::Store(_) => StatusCode::BAD_GATEWAY,
            Fault::NotOpen(_) => StatusCode::SERVICE_UNAVAILABLE,
            Fault::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Fault::Store(error) => Some(sentence(error)),
            Fault::NotOpen(why) => Some(why.clone()),
            Fault::NotFound
            | Fault::NoPicture
            | Fault::Method
            | Fault::Foreign
            | Fault::Form(_)
            | Fault::TooLarge(_)
            | Fault::Changed
            | Fault::Failed => None,
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::Store(error)
    }
}

impl From<EditError> for Fault {
    fn from(error: EditError) -> Fault {
        match error {
            EditError::Unknown => Fault::NoPicture,
            EditError::Changed => Fault::Changed,
            EditError::Store(error) => Fault::Store(error),
        }
    }
}

impl From<UploadError> for Fault {
    fn from(error: UploadError) -> Fault {
        match error {
            UploadError::Picture(error) => Fault::Form(sentence(&error)),
            UploadError::Store(error) => Fault::Store(error),
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        if let Fault::Store(error) = &self {
            eprintln!("error: {}", sentence(error));
        }
        let status = self.status();
        let page = page::fault(status, &self.to_string(), self.detail().as_deref());
        let mut response = (status, page).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            headers.insert(header::REFRESH, HeaderValue::from_static("2"));
        }
        response
    }
}

/// An error and its causes.
pub fn sentence(error: &dyn Error) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        sentence = format!("{sentence}: {error}");
        cause = error.source();
    }
    sentence
}
