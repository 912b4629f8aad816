//! The style sheet and the script, part of the binary. Their addresses change with them, so browsers keep them for good.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::digest::Digest;
use crate::web::fault::Fault;

/// One file.
pub struct Asset {
    name: String,
    media_type: &'static str,
    content: &'static str,
}

/// The style sheet.
pub static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "style",
        "css",
        "text/css; charset=utf-8",
        include_str!("assets/style.css"),
    )
});

/// What shows progress.
pub static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "progress",
        "js",
        "text/javascript; charset=utf-8",
        include_str!("assets/progress.js"),
    )
});

impl Asset {
    fn new(stem: &str, extension: &str, media_type: &'static str, content: &'static str) -> Asset {
        let digest = Digest::of(content.as_bytes());
        Asset {
            name: format!("{stem}-{}.{extension}", digest.short()),
            media_type,
            content,
        }
    }

    /// Its address.
    pub fn href(&self) -> String {
        format!("/assets/{}", self.name)
    }
}

/// Answers with one of them.
pub async fn asset(Path(name): Path<String>) -> Response {
    for asset in [&STYLE, &SCRIPT] {
        if asset.name == name {
            let headers = [
                (header::CONTENT_TYPE, asset.media_type),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
            ];
            return (headers, asset.content).into_response();
        }
    }
    Fault::NotFound.into_response()
}
