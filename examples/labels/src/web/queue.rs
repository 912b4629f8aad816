//! The queue, as a page and as JSON for the script that keeps it current.

use std::time::Instant;

use axum::Json;
use axum::extract::{RawQuery, State};
use maud::{Markup, html};
use serde::Serialize;

use crate::digest::Digest;
use crate::index::{Filter, Index, Picture, State as PictureState, StateKind};
use crate::queue::Turn;
use crate::web::App;
use crate::web::form;
use crate::web::page::{Place, counted, page, shown_state};

/// How many are shown, the newest.
const SHOWN_MAX: usize = 100;

/// What the script asks for.
#[derive(Debug, Serialize)]
pub struct Queue {
    /// How many wait, those that are being read included.
    queued: usize,
    /// How many are being read.
    reading: usize,
    /// How many pictures there are in all.
    pictures: usize,
    /// In one sentence.
    sum: String,
    /// The newest, or those that were asked for (`?ids=SHA256,SHA256`).
    shown: Vec<Shown>,
}

/// One picture.
#[derive(Debug, Serialize)]
struct Shown {
    sha256: Digest,
    title: String,
    file_name: String,
    /// A class of the style sheet.
    state: &'static str,
    /// What it says.
    shown: &'static str,
    /// More about it.
    note: String,
}

/// `GET /queue`
pub async fn show(State(app): State<App>) -> Markup {
    let queue = current(&app, None);
    page(
        "Queue",
        Place::Queue,
        html! {
            @if queue.queued > 0 { noscript { meta http-equiv="refresh" content="3"; } }
            h1 { "Queue" }
            section.progress data-queue {
                p data-sum role="status" { (queue.sum) }
                progress data-bar max=(queue.pictures.max(1)) value=(queue.pictures - queue.queued) aria-label="Pictures that are read" {}
                @if queue.shown.is_empty() { p { a.button.primary href="/upload" { "Upload pictures" } } }
                ul.files data-files {
                    @for one in &queue.shown {
                        li data-id=(one.sha256) {
                            a.name href={ "/pictures/" (one.sha256) } { (one.title) }
                            span.sub { (one.file_name) }
                            span.badge.(one.state) { (one.shown) }
                            span.note { (one.note) }
                        }
                    }
                }
            }
        },
    )
}

/// `GET /queue.json`
pub async fn json(State(app): State<App>, RawQuery(query): RawQuery) -> Json<Queue> {
    let pairs = form::pairs(query.unwrap_or_default().as_bytes());
    let ids = form::value(&pairs, "ids").map(|ids| -> Vec<Digest> {
        ids.split(',')
            .filter_map(|id| id.parse().ok())
            .take(SHOWN_MAX)
            .collect()
    });
    Json(current(&app, ids.as_deref()))
}

fn current(app: &App, ids: Option<&[Digest]>) -> Queue {
    let reading = app.queue().reading();
    app.library().look(|index| {
        let queued = index.count(StateKind::Queued);
        let pictures = match ids {
            Some(ids) => ids.iter().filter_map(|id| index.get(id)).collect(),
            None => newest(index),
        };
        Queue {
            queued,
            reading,
            pictures: index.len(),
            sum: match (queued, index.len()) {
                (0, 0) => "No picture was uploaded yet.".into(),
                (0, all) => format!("All read: {}.", counted(all, "picture", "pictures")),
                (queued, all) => {
                    let waiting = queued.saturating_sub(reading);
                    format!(
                        "{} of {all} to be read: {reading} under way, {waiting} waiting.",
                        counted(queued, "picture", "pictures")
                    )
                }
            },
            shown: pictures
                .into_iter()
                .map(|picture| shown(app, picture))
                .collect(),
        }
    })
}

/// Those that are to be read first, in their order, then the newest.
fn newest(index: &Index) -> Vec<&Picture> {
    let all = index.find(&Filter::default());
    let (mut queued, done): (Vec<&Picture>, Vec<&Picture>) = all
        .into_iter()
        .partition(|picture| picture.now.state == PictureState::Queued);
    queued.reverse();
    queued.into_iter().chain(done).take(SHOWN_MAX).collect()
}

fn shown(app: &App, picture: &Picture) -> Shown {
    let turn = app.queue().turn(&picture.upload.sha256);
    let (state, shown) = shown_state(&picture.now.state, turn.as_ref());
    let note = match (&picture.now.state, turn) {
        (PictureState::Queued, Some(Turn::Reading { since, .. })) => {
            format!("for {} s", since.elapsed().as_secs())
        }
        (PictureState::Queued, Some(Turn::Later { at, why, tries, .. })) => {
            let seconds = at.saturating_duration_since(Instant::now()).as_secs() + 1;
            format!(
                "in {seconds} s, after {}: {why}",
                counted(tries as usize, "try", "tries")
            )
        }
        (PictureState::Queued, None) => String::new(),
        (PictureState::Refused(why), _) => why.clone(),
        (PictureState::ToReview | PictureState::Reviewed, _) => match picture.failures() {
            0 => "all rules pass".into(),
            count => counted(count, "rule fails", "rules fail"),
        },
    };
    Shown {
        sha256: picture.upload.sha256.clone(),
        title: picture.title().to_owned(),
        file_name: picture.upload.file_name.clone(),
        state,
        shown,
        note,
    }
}
