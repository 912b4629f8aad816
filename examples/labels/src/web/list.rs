//! The list of pictures, with its search.

use axum::extract::{RawQuery, State};
use maud::{Markup, html};

use crate::index::{Filter, Picture, StateKind};
use crate::moment::{rfc3339, shown};
use crate::web::App;
use crate::web::form::{self, filter};
use crate::web::page::{Place, badge, category_options, counted, failures, page};

/// How many stand on one page.
const PAGE: usize = 50;

/// `GET /`
pub async fn show(State(app): State<App>, RawQuery(query): RawQuery) -> Markup {
    app.refresh_soon();
    let query = query.unwrap_or_default();
    let filter = filter(&query);
    let pairs = form::pairs(query.as_bytes());
    let number = form::value(&pairs, "page")
        .and_then(|page| page.parse().ok())
        .unwrap_or(1)
        .max(1);
    app.library().look(|index| {
        let found = index.find(&filter);
        let all = html! {
            div.title {
                h1 { "Pictures" }
                a.button.primary href="/upload" { "Upload pictures" }
            }
            (summary(index.len(), |state| index.count(state)))
            (search(&filter))
            (results(&app, &found, &filter, number))
        };
        page(
            "Pictures",
            Place::Pictures,
            if index.is_empty() { welcome() } else { all },
        )
    })
}

fn welcome() -> Markup {
    html! {
        section.empty {
            h1 { "No pictures yet" }
            p { "Upload photographs or scans of product labels. They are read one after the other, and you can correct what was recognised." }
            p { a.button.primary href="/upload" { "Upload pictures" } }
        }
    }
}

fn summary(all: usize, count: impl Fn(StateKind) -> usize) -> Markup {
    html! {
        ul.counts aria-label="How many pictures are where" {
            li { a href="/" { b { (all) } " in all" } }
            @for state in StateKind::ALL {
                li { a href={ "/?state=" (state.key()) } { b { (count(state)) } " " (state.title().to_lowercase()) } }
            }
        }
    }
}

fn search(filter: &Filter) -> Markup {
    html! {
        form.search method="get" action="/" role="search" {
            label { "Words" input type="search" name="q" value=(filter.words) placeholder="name, text or file"; }
            label { "Category"
                select name="category" { option value="" { "All" } (category_options(filter.category)) }
            }
            label { "State"
                select name="state" {
                    option value="" { "All" }
                    @for state in StateKind::ALL {
                        option value=(state.key()) selected[filter.state == Some(state)] { (state.title()) }
                    }
                }
            }
            label.check { input type="checkbox" name="failing" value="yes" checked[filter.failing]; "Only those that fail a rule" }
            button type="submit" { "Search" }
            @if *filter != Filter::default() { a href="/" { "Show all" } }
        }
    }
}

fn results(app: &App, found: &[&Picture], filter: &Filter, number: usize) -> Markup {
    let query = form::query(filter);
    let pages = found.len().div_ceil(PAGE).max(1);
    let number = number.min(pages);
    let to_page = |number: usize| match query.as_str() {
        "" => format!("/?page={number}"),
        query => format!("/?{query}&page={number}"),
    };
    html! {
        div.title {
            p.found { (counted(found.len(), "picture", "pictures")) }
            @if !found.is_empty() {
                p.exports { "Export these as "
                    a href={ "/export.csv?" (query) } download { "CSV" } " or "
                    a href={ "/export.json?" (query) } download { "JSON" }
                }
            }
        }
        @if found.is_empty() {
            p.none { "No picture fits that. " a href="/" { "Show all" } }
        } @else {
            table.pictures {
                thead { tr { th scope="col" { span.sr { "Picture" } } th scope="col" { "Product" } th scope="col" { "Net quantity" } th scope="col" { "State" } th scope="col" { "Rules" } th scope="col" { "Uploaded" } } }
                tbody { @for picture in found.iter().skip((number - 1) * PAGE).take(PAGE) { (row(app, picture)) } }
            }
            @if pages > 1 {
                nav.pages aria-label="Pages" {
                    @if number > 1 { a href=(to_page(number - 1)) rel="prev" { "Newer" } }
                    span { "Page " (number) " of " (pages) }
                    @if number < pages { a href=(to_page(number + 1)) rel="next" { "Older" } }
                }
            }
        }
    }
}

fn row(app: &App, picture: &Picture) -> Markup {
    let href = format!("/pictures/{}", picture.upload.sha256);
    let turn = app.queue().turn(&picture.upload.sha256);
    html! {
        tr {
            td.thumb { a href=(href) tabindex="-1" aria-hidden="true" { img src={ (href) "/thumbnail" } alt="" loading="lazy" width="64" height="64"; } }
            td { a.name href=(href) { (picture.title()) } span.sub { (picture.now.category.title()) " · " (picture.upload.file_name) } }
            td data-label="Net quantity" { (picture.now.fields.net_quantity) }
            td data-label="State" { (badge(&picture.now.state, turn.as_ref())) }
            td data-label="Rules" { (failures(picture)) }
            td data-label="Uploaded" {
                time datetime=(rfc3339(picture.upload.at_ms)) { (shown(picture.upload.at_ms)) }
                @if !picture.upload.who.is_empty() { span.sub { "by " (picture.upload.who) } }
            }
        }
    }
}
