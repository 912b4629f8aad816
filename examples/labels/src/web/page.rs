//! What all pages have in common.

use axum::http::StatusCode;
use maud::{DOCTYPE, Markup, html};

use crate::index::{Picture, State, StateKind};
use crate::label::category::Category;
use crate::queue::Turn;
use crate::web::assets::{SCRIPT, STYLE};

/// The places of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The list of pictures.
    Pictures,
    /// The upload.
    Upload,
    /// The queue.
    Queue,
    /// The rules.
    Rules,
    /// None of these.
    Elsewhere,
}

/// A whole page.
pub fn page(title: &str, place: Place, main: Markup) -> Markup {
    let link = |to: Place, href: &str, name: &str| {
        html! { a href=(href) aria-current=[(to == place).then_some("page")] { (name) } }
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Labels" }
                link rel="stylesheet" href=(STYLE.href());
                script src=(SCRIPT.href()) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    a.brand href="/" { span.mark aria-hidden="true" { "≡" } "Labels" }
                    nav aria-label="Main" {
                        (link(Place::Pictures, "/", "Pictures"))
                        (link(Place::Upload, "/upload", "Upload"))
                        (link(Place::Queue, "/queue", "Queue"))
                        (link(Place::Rules, "/rules", "Rules"))
                    }
                }
                main #main { (main) }
                footer { "Checks are what a machine can see on a label. They are no legal advice." }
            }
        }
    }
}

/// A page about something that went wrong.
pub fn fault(status: StatusCode, what: &str, detail: Option<&str>) -> Markup {
    let title = status.canonical_reason().unwrap_or("Error");
    page(
        title,
        Place::Elsewhere,
        html! {
            section.fault {
                p.code { (status.as_u16()) }
                h1 { (title) }
                p { (what) }
                @if let Some(detail) = detail { p.detail { (detail) } }
                p { a.button href="/" { "To the pictures" } }
            }
        },
    )
}

/// A state as a badge.
pub fn badge(state: &State, turn: Option<&Turn>) -> Markup {
    let (class, text) = shown_state(state, turn);
    html! { span.badge.(class) { (text) } }
}

/// A class of the style sheet, and a word.
pub fn shown_state(state: &State, turn: Option<&Turn>) -> (&'static str, &'static str) {
    match (state.kind(), turn) {
        (StateKind::Queued, Some(Turn::Reading { .. })) => ("reading", "Reading"),
        (StateKind::Queued, Some(Turn::Later { .. })) => ("later", "Will be tried again"),
        (kind, _) => (kind.key(), kind.title()),
    }
}

/// How many rules fail, as a badge.
pub fn failures(picture: &Picture) -> Markup {
    html! {
        @if !picture.now.outcomes.is_empty() {
            @match picture.failures() {
                0 => span.badge.pass { "All rules pass" },
                1 => span.badge.fail { "1 rule fails" },
                count => span.badge.fail { (count) " rules fail" },
            }
        }
    }
}

/// A choice of a category.
pub fn category_options(chosen: Option<Category>) -> Markup {
    html! {
        @for category in Category::ALL {
            option value=(category.key()) selected[chosen == Some(category)] { (category.title()) }
        }
    }
}

/// A count with its noun.
pub fn counted(count: usize, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    }
}
