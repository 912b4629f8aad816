//! The upload: several pictures at once. The script sends them one by one and shows how far each is; the page alone does too,
//! without showing it.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Serialize;
use tokio::time::timeout;

use crate::digest::Digest;
use crate::label::category::Category;
use crate::library::UploadError;
use crate::moment::now_ms;
use crate::picture::BYTES_MAX;
use crate::web::App;
use crate::web::fault::{Fault, sentence};
use crate::web::form::{clean_who, who, who_cookie};
use crate::web::metered::{Meter, Metered};
use crate::web::page::{Place, category_options, counted, page};

/// How many pictures one form may bring.
const FILES_MAX: usize = 50;

/// How many parts a form may have: pictures, the other fields, and a few that nobody asked for.
const PARTS_MAX: usize = FILES_MAX + 20;

/// How many pictures are taken at the same time: each is in memory until the store has it.
pub const AT_ONCE: usize = 4;

/// How long one picture may take to come.
const PATIENCE: Duration = Duration::from_secs(300);

/// A category or a name.
const TEXT_MAX_BYTES: usize = 4 << 10;

/// All of a form.
pub const BODY_MAX_BYTES: usize = 200 << 20;

/// What became of one file.
#[derive(Debug, Serialize)]
struct Taken {
    file_name: String,
    /// Where it is, if it was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Digest>,
    /// Whether it was there before.
    known: bool,
    /// Why it was not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// `GET /upload`
pub async fn show(headers: HeaderMap) -> Markup {
    form(&who(&headers), None)
}

fn form(who: &str, refused: Option<&[Taken]>) -> Markup {
    let most = BYTES_MAX >> 20;
    page(
        "Upload",
        Place::Upload,
        html! {
            h1 { "Upload pictures" }
            @if let Some(refused) = refused { (report(refused)) }
            form.card method="post" action="/upload" enctype="multipart/form-data" data-upload {
                div.fields {
                    label { "Category" select name="category" { (category_options(Some(Category::Food))) } }
                    label { "Your name" input type="text" name="who" value=(who) autocomplete="name" maxlength="60"; }
                }
                label.drop {
                    span { b { "Choose pictures" } " or drop them here" }
                    input type="file" name="pictures" accept="image/png,image/jpeg" multiple required;
                    small { "PNG or JPEG, up to " (most) " MiB each, at most " (FILES_MAX) " at a time" }
                }
                button.primary type="submit" { "Upload" }
            }
            section.progress data-progress hidden {
                h2 { "Progress" }
                p data-sum role="status" {}
                ul.files data-files {}
                p { a.button href="/queue" { "To the queue" } }
            }
        },
    )
}

fn report(files: &[Taken]) -> Markup {
    let taken = files.iter().filter(|file| file.error.is_none()).count();
    html! {
        div.notice.bad role="alert" {
            p { (counted(files.len() - taken, "file was", "files were")) " not taken, " (taken) " were." }
            ul { @for file in files { @if let Some(error) = &file.error { li { b { (file.file_name) } ": " (error) } } } }
            @if taken > 0 { p { a href="/queue" { "To the queue" } } }
        }
    }
}

/// `POST /upload`: `category` and `who` first, then any number of `pictures`. Whoever accepts JSON gets it.
pub async fn take(
    State(app): State<App>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Fault> {
    let (head, body) = request.into_parts();
    let (body, meter) = Metered::new(body);
    let request = Request::from_parts(head, Body::new(body));
    let multipart = Multipart::from_request(request, &()).await;
    let mut multipart = multipart
        .map_err(|error| Fault::Form(format!("The form cannot be read: {}.", error.body_text())))?;
    let mut parts = 0;
    let mut category = Category::default();
    let mut who = who(&headers);
    let mut files: Vec<Taken> = Vec::new();
    let broken = |error: MultipartError| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Fault::TooLarge(format!(
            "The pictures have more than {} MiB together: upload fewer at a time.",
            BODY_MAX_BYTES >> 20
        )),
        _ => Fault::Form(format!("The form cannot be read: {}.", error.body_text())),
    };
    while let Some(mut field) = multipart.next_field().await.map_err(broken)? {
        meter.used(0);
        parts += 1;
        if parts > PARTS_MAX {
            return Err(Fault::TooLarge(format!(
                "The form has more than {PARTS_MAX} parts, and at most {FILES_MAX} pictures are taken at a time."
            )));
        }
        match field.name() {
            Some("category") => {
                let given = content(&mut field, TEXT_MAX_BYTES, &meter)
                    .await
                    .map_err(broken)?;
                category = text(given)?
                    .parse()
                    .map_err(|error| Fault::Form(sentence(&error)))?;
            }
            Some("who") => {
                let given = content(&mut field, TEXT_MAX_BYTES, &meter)
                    .await
                    .map_err(broken)?;
                who = clean_who(&text(given)?);
            }
            Some("pictures") => {
                let file_name = file_name(field.file_name());
                if files.len() >= FILES_MAX {
                    return Err(Fault::TooLarge(format!(
                        "At most {FILES_MAX} pictures are taken at a time."
                    )));
                }
                let _turn = app.uploads().acquire().await.map_err(|_| Fault::Failed)?;
                let late = |_| Fault::Form("The picture did not come in time.".into());
                let bytes = timeout(PATIENCE, content(&mut field, BYTES_MAX, &meter))
                    .await
                    .map_err(late)?
                    .map_err(broken)?;
                // A form without a file has one field without a name and without content.
                if !bytes.is_empty() || !file_name.is_empty() {
                    files.push(add(&app, bytes, file_name, category, who.clone()).await?);
                }
            }
            Some(_) | None => {
                content(&mut field, 0, &meter).await.map_err(broken)?;
            }
        }
    }
    if files.is_empty() {
        return Err(Fault::Form("The form has no picture in it.".into()));
    }
    let refused = files.iter().any(|file| file.error.is_some());
    let wants_json = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    let mut response = match (wants_json, refused) {
        (true, _) => Json(files).into_response(),
        (false, false) => Redirect::to("/queue").into_response(),
        (false, true) => {
            (StatusCode::UNPROCESSABLE_ENTITY, form(&who, Some(&files))).into_response()
        }
    };
    if let Some(cookie) = who_cookie(&who).filter(|_| !who.is_empty()) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// What a field holds, and of more than `most` bytes one too many: that is enough to know, and the rest is let go.
async fn content(
    field: &mut Field<'_>,
    most: usize,
    meter: &Meter,
) -> Result<Vec<u8>, MultipartError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await? {
        meter.used(chunk.len());
        let room = (most + 1).saturating_sub(bytes.len());
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    Ok(bytes)
}

fn text(bytes: Vec<u8>) -> Result<String, Fault> {
    if bytes.len() > TEXT_MAX_BYTES {
        return Err(Fault::TooLarge(
            "A category or a name is not that long.".into(),
        ));
    }
    String::from_utf8(bytes)
        .map_err(|_| Fault::Form("A category or a name of the form is no text.".into()))
}

async fn add(
    app: &App,
    bytes: Vec<u8>,
    file_name: String,
    category: Category,
    who: String,
) -> Result<Taken, Fault> {
    let name = file_name.clone();
    let added = app
        .blocking(move |library| library.upload(&bytes, &name, category, &who, now_ms()))
        .await?;
    match added {
        Ok(added) => Ok(Taken {
            file_name,
            sha256: Some(added.sha256),
            known: added.known,
            error: None,
        }),
        Err(UploadError::Picture(error)) => Ok(Taken {
            file_name,
            sha256: None,
            known: false,
            error: Some(sentence(&error)),
        }),
        Err(UploadError::Store(error)) => Err(Fault::Store(error)),
    }
}

/// The last part of what the browser says, without what names do not have.
fn file_name(given: Option<&str>) -> String {
    let given = given.unwrap_or_default();
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    last.chars()
        .filter(|char| !char.is_control())
        .take(120)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn a_file_keeps_only_the_last_part_of_its_name() {
        assert_eq!(file_name(Some("C:\\labels\\oat.png")), "oat.png");
        assert_eq!(file_name(Some("../../etc/pass\u{0}wd")), "passwd");
        assert_eq!(file_name(None), "");
    }
}
