//! The export: whatever a search finds, for spreadsheets and for programs.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::digest::Digest;
use crate::edit::Edit;
use crate::index::{Picture, State as PictureState};
use crate::label::category::Category;
use crate::label::fields::{Field, Fields, SIMPLE};
use crate::label::nutrient::NUTRIENTS;
use crate::label::rule::{Outcome, Verdict};
use crate::moment::rfc3339;
use crate::web::App;
use crate::web::form::filter;

/// One picture for programs.
#[derive(Debug, Serialize)]
struct Exported<'a> {
    sha256: &'a Digest,
    file_name: &'a str,
    category: Category,
    state: &'static str,
    uploaded_at: String,
    uploaded_by: &'a str,
    fields: &'a Fields,
    text: &'a str,
    checks: &'a [Outcome],
    edits: Vec<&'a Edit>,
}

/// `GET /export.json`, with the query of a search.
pub async fn json(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    let filter = filter(&query.unwrap_or_default());
    let answer = app.library().look(|index| {
        let found = index.find(&filter);
        Json(found.into_iter().map(exported).collect::<Vec<_>>()).into_response()
    });
    as_file(answer, "labels.json")
}

fn exported(picture: &Picture) -> Exported<'_> {
    Exported {
        sha256: &picture.upload.sha256,
        file_name: &picture.upload.file_name,
        category: picture.now.category,
        state: picture.now.state.kind().key(),
        uploaded_at: rfc3339(picture.upload.at_ms),
        uploaded_by: &picture.upload.who,
        fields: &picture.now.fields,
        text: &picture.now.text,
        checks: &picture.now.outcomes,
        edits: picture.edits.values().collect(),
    }
}

/// `GET /export.csv`, with the query of a search: a row for each picture, two columns for each nutrient.
pub async fn csv(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    let filter = filter(&query.unwrap_or_default());
    let text = app.library().look(|index| {
        let mut text = line(&head());
        for picture in index.find(&filter) {
            text.push_str(&line(&cells(picture)));
        }
        text
    });
    let answer = ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], text).into_response();
    as_file(answer, "labels.csv")
}

fn as_file(answer: Response, name: &str) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    ([(header::CONTENT_DISPOSITION, disposition)], answer).into_response()
}

fn head() -> Vec<String> {
    let mut head: Vec<String> = [
        "sha256",
        "file_name",
        "category",
        "state",
        "uploaded_at",
        "uploaded_by",
        "failed_rules",
    ]
    .map(String::from)
    .into();
    head.extend(SIMPLE.iter().map(ToString::to_string));
    for nutrient in &NUTRIENTS {
        head.push(format!("{} amount", nutrient.name));
        head.push(format!("{} %DV", nutrient.name));
    }
    head
}

fn cells(picture: &Picture) -> Vec<String> {
    let failed = picture
        .now
        .outcomes
        .iter()
        .filter(|outcome| outcome.verdict == Verdict::Fail);
    let failed: Vec<&str> = failed.map(|outcome| outcome.rule.as_str()).collect();
    let mut cells = vec![
        picture.upload.sha256.to_string(),
        picture.upload.file_name.clone(),
        picture.now.category.to_string(),
        state(&picture.now.state),
        rfc3339(picture.upload.at_ms),
        picture.upload.who.clone(),
        failed.join(" "),
    ];
    cells.extend(
        SIMPLE
            .iter()
            .map(|field| picture.now.fields.get(field).to_owned()),
    );
    for nutrient in &NUTRIENTS {
        let name = nutrient.name.to_owned();
        cells.push(
            picture
                .now
                .fields
                .get(&Field::Amount(name.clone()))
                .to_owned(),
        );
        cells.push(picture.now.fields.get(&Field::DailyValue(name)).to_owned());
    }
    cells
}

fn state(state: &PictureState) -> String {
    state.kind().key().to_owned()
}

/// One line (RFC 4180). A cell that a spreadsheet would take for a formula gets an apostrophe before it.
fn line(cells: &[String]) -> String {
    let mut line = String::new();
    for (at, cell) in cells.iter().enumerate() {
        if at > 0 {
            line.push(',');
        }
        let guard = if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
            "'"
        } else {
            ""
        };
        if cell.contains(['"', ',', '\n', '\r']) || !guard.is_empty() {
            line.push('"');
            line.push_str(guard);
            line.push_str(&cell.replace('"', "\"\""));
            line.push('"');
        } else {
            line.push_str(cell);
        }
    }
    line.push_str("\r\n");
    line
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn cells_are_quoted_where_they_must_be_and_no_formula_is_one() {
        let cells = ["plain", "a, b", "say \"so\"", "two\nlines", "=1+1", ""].map(String::from);
        assert_eq!(
            line(&cells),
            "plain,\"a, b\",\"say \"\"so\"\"\",\"two\nlines\",\"'=1+1\",\r\n"
        );
    }
}
