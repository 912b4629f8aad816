//! One picture: what it shows, what was found in it, what the rules say, who changed what.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use tokio::sync::OwnedSemaphorePermit;

use crate::digest::Digest;
use crate::edit::{Change, Edit, Reply, ReplyOutcome};
use crate::index::{Picture, State as PictureState};
use crate::label::fields::{Field, SIMPLE};
use crate::label::nutrient::NUTRIENTS;
use crate::label::rule::{Outcome, Verdict};
use crate::library::Library;
use crate::moment::{now_ms, rfc3339, shown};
use crate::reading::Reading;
use crate::store::StoreError;
use crate::web::fault::{Fault, sentence};
use crate::web::form::{self, clean_who, who, who_cookie};
use crate::web::page::{Place, badge, category_options, counted, failures, page};
use crate::web::{App, Turns};

/// Lines of which the machine is less sure than this are worth a look.
const SURE: f32 = 75.0;

/// How many new rows the table offers.
const NEW_ROWS: usize = 2;

/// The longest value of a field, in characters; a text may be longer.
const VALUE_MAX_CHARS: usize = 5_000;
const TEXT_MAX_CHARS: usize = 100_000;

/// `GET /pictures/{sha256}`
pub async fn show(
    State(app): State<App>,
    Path(sha256): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Markup, Fault> {
    let sha256: Digest = sha256.parse().map_err(|_| Fault::NoPicture)?;
    let of = sha256.clone();
    if let Err(error) = app
        .blocking(move |library| library.load_picture(&of))
        .await?
    {
        // What is known can be shown all the same.
        eprintln!("warning: {}", sentence(&error));
    }
    let pairs = form::pairs(query.unwrap_or_default().as_bytes());
    let saved = form::value(&pairs, "saved").and_then(|count| count.parse().ok());
    let who = who(&headers);
    app.library().look(|index| {
        let picture = index.get(&sha256).ok_or(Fault::NoPicture)?;
        Ok(page(
            picture.title(),
            Place::Elsewhere,
            whole(&app, picture, index.next_to_review(picture), &who, saved),
        ))
    })
}

fn whole(
    app: &App,
    picture: &Picture,
    next: Option<&Picture>,
    who: &str,
    saved: Option<usize>,
) -> Markup {
    let upload = &picture.upload;
    let href = format!("/pictures/{}", upload.sha256);
    let turn = app.queue().turn(&upload.sha256);
    html! {
        div.ways {
            a.back href="/" { "Pictures" }
            @if let Some(next) = next {
                a.next href={ "/pictures/" (next.upload.sha256) } { "Next to review: " (next.title()) }
            }
        }
        div.title {
            h1 { (picture.title()) }
            p { (badge(&picture.now.state, turn.as_ref())) " " (failures(picture)) }
        }
        @match saved {
            Some(0) => p.notice role="status" { "Nothing was different, so nothing was saved." },
            Some(count) => p.notice.good role="status" { "Saved: " (counted(count, "change", "changes")) "." },
            None => {},
        }
        div.split {
            div.look {
                a href={ (href) "/original" } { img.original src={ (href) "/original" } alt={ "The label of " (picture.title()) } width=(upload.width) height=(upload.height); }
                p.sub {
                    (upload.file_name) " · " (upload.width) " × " (upload.height) " · " (upload.size_bytes.div_ceil(1024)) " kB · uploaded "
                    time datetime=(rfc3339(upload.at_ms)) { (shown(upload.at_ms)) }
                    @if !upload.who.is_empty() { " by " (upload.who) }
                }
            }
            div.work {
                @match &picture.reply {
                    None => section.card data-wait=(upload.sha256) {
                        h2 { "Not read yet" }
                        p role="status" { "It is in the queue. Once it is read, its fields stand here." }
                        noscript { p { a href=(href) { "Look again" } } }
                    },
                    Some((_, Reply { outcome: ReplyOutcome::Refused(why), .. })) => section.card {
                        h2 { "It cannot be read" }
                        p { (why) }
                        (again(&href, picture, who))
                    },
                    Some((_, Reply { outcome: ReplyOutcome::Reading(reading), .. })) => {
                        (check_list(&picture.now.outcomes))
                        (edit_form(&href, picture, who, reading))
                        (again(&href, picture, who))
                    },
                }
                (history(&picture.edits))
            }
        }
    }
}

fn check_list(outcomes: &[Outcome]) -> Markup {
    let of = |verdict: Verdict| {
        outcomes
            .iter()
            .filter(move |outcome| outcome.verdict == verdict)
    };
    let failed = of(Verdict::Fail).count();
    html! {
        section.card aria-labelledby="checks" {
            h2 #checks { "Check list" }
            p { (counted(of(Verdict::Pass).count(), "rule passes", "rules pass")) ", " (counted(failed, "fails", "fail")) "." }
            ul.checks { @for outcome in of(Verdict::Fail) { (check_item(outcome)) } }
            details {
                summary { "What passes, and what does not apply" }
                ul.checks {
                    @for outcome in of(Verdict::Pass).chain(of(Verdict::NotApplicable)) { (check_item(outcome)) }
                }
            }
        }
    }
}

fn check_item(outcome: &Outcome) -> Markup {
    let (class, sign, word) = match outcome.verdict {
        Verdict::Pass => ("pass", "✓", "Passes"),
        Verdict::Fail => ("fail", "✗", "Fails"),
        Verdict::NotApplicable => ("skip", "–", "Does not apply"),
    };
    html! {
        li.(class) data-rule=(outcome.rule) {
            span.sign aria-hidden="true" { (sign) }
            div { span.sr { (word) ": " } b { (outcome.title) } span.reason { (outcome.reason) } span.source { (outcome.source) } }
        }
    }
}

fn edit_form(href: &str, picture: &Picture, who: &str, reading: &Reading) -> Markup {
    let now = &picture.now;
    let reviewed = now.state == PictureState::Reviewed;
    html! {
        form.card method="post" action=(href) {
            h2 { "What the label says" }
            input type="hidden" name="version" value=(picture.version());
            div.fields {
                (simple(&SIMPLE[0], now.fields.get(&SIMPLE[0])))
                label { "Category" select name="category" { (category_options(Some(now.category))) } }
                @for field in &SIMPLE[1..] { (simple(field, now.fields.get(field))) }
            }
            table.nutrition {
                caption { "Nutrition table" }
                thead { tr { th scope="col" { "Nutrient" } th scope="col" { "Amount" } th scope="col" { "% Daily Value" } } }
                tbody {
                    @for row in &now.fields.rows {
                        tr {
                            th scope="row" { (row.nutrient) }
                            td { input name=(Field::Amount(row.nutrient.clone())) value=(row.amount) aria-label={ (row.nutrient) ", amount" }; }
                            td { input name=(Field::DailyValue(row.nutrient.clone())) value=(row.daily_value) inputmode="numeric" aria-label={ (row.nutrient) ", percent daily value" }; }
                        }
                    }
                    @for number in 0..NEW_ROWS { (new_row(number, picture)) }
                }
            }
            details open[reading.confidence < SURE] {
                summary { "Recognised text" }
                p.sub { (reading.engine) ", " (format!("{:.0}", reading.confidence)) " % sure, in " (format!("{:.1}", reading.took_ms as f64 / 1e3)) " s" }
                (unsure(reading))
                textarea name="text" rows="16" aria-label="Recognised text" spellcheck="false" { "\n" (now.text) }
                p.sub { "Fields are found anew in a corrected text; those that you corrected yourself stay." }
            }
            div.actions {
                label { "Your name" input name="who" value=(who) required maxlength="60" autocomplete="name"; }
                button.primary type="submit" { "Save" }
                @if reviewed {
                    button type="submit" name="reviewed" value="no" { "Save, not reviewed" }
                } @else {
                    button type="submit" name="reviewed" value="yes" { "Save as reviewed" }
                }
            }
        }
    }
}

fn simple(field: &Field, value: &str) -> Markup {
    let class = match field {
        Field::NetQuantity => Some("two"),
        Field::ServingSize | Field::Servings | Field::Calories => None,
        _ => Some("wide"),
    };
    html! {
        label class=[class] { (field.title())
            @if *field == Field::Ingredients {
                textarea name=(field) rows="3" { "\n" (value) }
            } @else {
                input name=(field) value=(value);
            }
        }
    }
}

fn new_row(number: usize, picture: &Picture) -> Markup {
    let missing = NUTRIENTS
        .iter()
        .filter(|nutrient| picture.now.fields.row(nutrient.name).is_none());
    html! {
        tr.new {
            td { select name={ "new-" (number) } aria-label="Another nutrient" {
                option value="" { "Add …" }
                @for nutrient in missing { option value=(nutrient.name) { (nutrient.name) } }
            } }
            td { input name={ "new-amount-" (number) } aria-label="Its amount"; }
            td { input name={ "new-daily-value-" (number) } inputmode="numeric" aria-label="Its percent daily value"; }
        }
    }
}

fn unsure(reading: &Reading) -> Markup {
    let unsure = reading
        .lines
        .iter()
        .filter(|line| !line.text.is_empty() && line.confidence < SURE);
    html! {
        @if unsure.clone().count() > 0 {
            p.sub { "Worth a look:" }
            ul.unsure { @for line in unsure.take(8) { li { (line.text) " " span.sub { (format!("{:.0}", line.confidence)) " %" } } } }
        }
    }
}

fn again(href: &str, picture: &Picture, who: &str) -> Markup {
    html! {
        form.again method="post" action={ (href) "/again" } {
            input type="hidden" name="version" value=(picture.version());
            input type="hidden" name="who" value=(who);
            button type="submit" { "Read it again" }
            span.sub { "Corrections stay." }
        }
    }
}

fn history(edits: &BTreeMap<String, Edit>) -> Markup {
    html! {
        @if !edits.is_empty() {
            section.card aria-labelledby="history" {
                h2 #history { "History" }
                ol.history {
                    @for edit in edits.values().rev() {
                        li {
                            p { b { (if edit.who.is_empty() { "Somebody" } else { &edit.who }) } ", " time datetime=(rfc3339(edit.at_ms)) { (shown(edit.at_ms)) } }
                            ul { @for change in &edit.changes { (changed(change)) } }
                        }
                    }
                }
            }
        }
    }
}

fn changed(change: &Change) -> Markup {
    html! {
        @match change.field {
            Field::Text => li { "corrected the recognised text" },
            Field::Reading => li { "had it read again" },
            Field::Reviewed => li { (if change.after == "yes" { "reviewed it" } else { "took the review back" }) },
            _ => li {
                (change.field.title()) ": "
                @if change.before.is_empty() { em { "nothing" } } @else { del { (change.before) } }
                " → "
                @if change.after.is_empty() { em { "nothing" } } @else { ins { (change.after) } }
            },
        }
    }
}

/// `POST /pictures/{sha256}`
pub async fn edit(
    State(app): State<App>,
    Path(sha256): Path<String>,
    body: Bytes,
) -> Result<Response, Fault> {
    let sha256: Digest = sha256.parse().map_err(|_| Fault::NoPicture)?;
    let pairs = form::pairs(&body);
    let who = named(&pairs)?;
    save(&app, sha256, &pairs, who, wanted(&pairs)?).await
}

/// `POST /pictures/{sha256}/again`
pub async fn read_again(
    State(app): State<App>,
    Path(sha256): Path<String>,
    body: Bytes,
) -> Result<Response, Fault> {
    let sha256: Digest = sha256.parse().map_err(|_| Fault::NoPicture)?;
    let pairs = form::pairs(&body);
    let who = clean_who(form::value(&pairs, "who").unwrap_or_default());
    let wanted = BTreeMap::from([(Field::Reading, "again".to_owned())]);
    save(&app, sha256, &pairs, who, wanted).await
}

async fn save(
    app: &App,
    sha256: Digest,
    pairs: &[(String, String)],
    who: String,
    wanted: BTreeMap<Field, String>,
) -> Result<Response, Fault> {
    let version = form::value(pairs, "version").unwrap_or_default().to_owned();
    let (of, by) = (sha256.clone(), who.clone());
    let saved = app
        .blocking(move |library| {
            // What others wrote since counts as well.
            library.load_picture(&of)?;
            library.edit(&of, &version, &by, now_ms(), &wanted)
        })
        .await??;
    let mut response = Redirect::to(&format!("/pictures/{sha256}?saved={saved}")).into_response();
    if let Some(cookie) = who_cookie(&who).filter(|_| !who.is_empty()) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

fn named(pairs: &[(String, String)]) -> Result<String, Fault> {
    let who = clean_who(form::value(pairs, "who").unwrap_or_default());
    if who.is_empty() {
        return Err(Fault::Form(
            "A change needs your name: it is written down who made it.".into(),
        ));
    }
    Ok(who)
}

/// What the form wants to stand where. A name that is no field is left out: buttons and the like have one, too.
fn wanted(pairs: &[(String, String)]) -> Result<BTreeMap<Field, String>, Fault> {
    let mut wanted = BTreeMap::new();
    for (name, value) in pairs {
        let Ok(field) = name.parse::<Field>() else {
            continue;
        };
        let most = if field == Field::Text {
            TEXT_MAX_CHARS
        } else {
            VALUE_MAX_CHARS
        };
        if value.chars().count() > most {
            return Err(Fault::TooLarge(format!(
                "{} has more than {most} characters.",
                field.title()
            )));
        }
        // The text keeps its last line end, all else is one line.
        let value = match field {
            Field::Text => value.clone(),
            _ => value.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        if field != Field::Reading {
            wanted.insert(field, value);
        }
    }
    for number in 0..NEW_ROWS {
        let Some(nutrient) = form::value(pairs, &format!("new-{number}")) else {
            continue;
        };
        if !NUTRIENTS.iter().any(|known| known.name == nutrient) {
            continue;
        }
        let given = |what: &str| {
            form::value(pairs, &format!("new-{what}-{number}"))
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        wanted.insert(Field::Amount(nutrient.to_owned()), given("amount"));
        wanted.insert(Field::DailyValue(nutrient.to_owned()), given("daily-value"));
    }
    Ok(wanted)
}

/// `GET /pictures/{sha256}/original`
pub async fn original(
    State(app): State<App>,
    Path(sha256): Path<String>,
) -> Result<Response, Fault> {
    let sha256: Digest = sha256.parse().map_err(|_| Fault::NoPicture)?;
    let media_type = app
        .library()
        .look(|index| index.get(&sha256).map(|picture| picture.upload.media_type));
    let media_type = media_type.ok_or(Fault::NoPicture)?;
    let turn = app.turn(Turns::Originals).await?;
    let get = move |library: &Library| {
        let bytes = library.original(&sha256)?;
        Ok::<_, StoreError>(bytes.map(|bytes| Sent { bytes, _turn: turn }))
    };
    let sent = app.blocking(get).await??.ok_or(Fault::NoPicture)?;
    Ok(picture(media_type.as_str(), Bytes::from_owner(sent)))
}

/// A picture that is being sent: its turn is over once the last of it is.
struct Sent {
    bytes: Vec<u8>,
    _turn: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// `GET /pictures/{sha256}/thumbnail`
pub async fn thumbnail(
    State(app): State<App>,
    Path(sha256): Path<String>,
) -> Result<Response, Fault> {
    let sha256: Digest = sha256.parse().map_err(|_| Fault::NoPicture)?;
    let small = match app.0.thumbnails.kept(&sha256) {
        Some(kept) => Some(kept),
        None => {
            // First the turn, then the picture: who waits holds neither memory nor a thread.
            let turn = app.turn(Turns::Thumbnails).await?;
            let keeper = app.clone();
            let make = move |library: &Library| {
                let _turn = turn;
                keeper.0.thumbnails.make(library, &sha256)
            };
            app.blocking(make).await??
        }
    };
    let small = small.ok_or(Fault::NoPicture)?;
    Ok(picture("image/jpeg", small.to_vec().into()))
}

/// What never changes: its address is its content's. Opened by itself, it may do nothing.
fn picture(media_type: &'static str, bytes: Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (
            header::CACHE_CONTROL,
            "private, max-age=31536000, immutable",
        ),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; sandbox",
        ),
    ];
    (headers, bytes).into_response()
}
