//! The page of rules: what is checked, for whom, and where it is written.

use maud::{Markup, html};

use crate::label::category::Category;
use crate::label::rule::rules_of;
use crate::web::page::{Place, page};

/// `GET /rules`
pub async fn show() -> Markup {
    page(
        "Rules",
        Place::Rules,
        html! {
            h1 { "Rules" }
            p.lead { "Each picture is checked by the rules of its category, at once and after each correction. The sources are the law of the United States." }
            nav.jump aria-label="Categories" { @for category in Category::ALL { a href={ "#" (category.key()) } { (category.title()) } } }
            @for category in Category::ALL {
                section id=(category.key()) {
                    h2 { (category.title()) }
                    table.rules {
                        thead { tr { th scope="col" { "Rule" } th scope="col" { "Source" } } }
                        tbody { @for rule in rules_of(category) { tr { td { (rule.title) } td.source { (rule.source) } } } }
                    }
                }
            }
        },
    )
}
