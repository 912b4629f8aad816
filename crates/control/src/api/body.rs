//! The JSON body of a request, read whole before a handler is called. What is wrong with it is a problem.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::types::Problem;

/// What a body says.
pub(super) struct Said<T>(pub(super) T);

/// What a body says, if there is one.
pub(super) struct MaySay<T>(pub(super) T);

/// What a body says that may hold a secret: of what is wrong with it only the place is told.
pub(super) struct Hushed<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Said<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let body = whole(request, state).await?;
        read(&body).map(Self).map_err(Problem::into_response)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for MaySay<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let body = whole(request, state).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        read(&body).map(Self).map_err(Problem::into_response)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Hushed<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let body = whole(request, state).await?;
        hushed(&body).map(Self).map_err(Problem::into_response)
    }
}

/// The bytes, as far as the router takes so many.
async fn whole<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Response> {
    let read = Bytes::from_request(request, state).await;
    read.map_err(IntoResponse::into_response) // which becomes a problem on its way out
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad_request(format!("the body: {error}")))
}

/// Reads a body that may hold a secret. The reader's own words would show some of it.
pub(super) fn hushed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let name = std::any::type_name::<T>();
        let name = name.rsplit("::").next().unwrap_or(name);
        let (line, column) = (error.line(), error.column());
        let text = format!("the body is not what `{name}` says, at line {line}, column {column}");
        Problem::bad_request(text)
    })
}

#[cfg(test)]
mod tests {
    use super::super::types::{LoginBody, ScaleBody};
    use super::*;

    #[test]
    fn what_is_wrong_is_told_and_of_a_secret_only_where() {
        let wrong = read::<ScaleBody>(br#"{"replicas":"many"}"#).expect_err("no number");
        assert!(wrong.detail.contains("many"), "{}", wrong.detail);
        let wrong = hushed::<LoginBody>(br#"{"password":["hunter2"]}"#);
        let Err(wrong) = wrong else {
            panic!("it is no text");
        };
        let text = "the body is not what `LoginBody` says, at line 1, column 12";
        assert_eq!((wrong.status, &*wrong.detail), (400, text));
    }
}
