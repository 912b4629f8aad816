//! The check list: what a rule is, and what comes of it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::label::category::Category;
use crate::label::fields::Fields;
use crate::label::rules::RULES;

/// What a rule looks at.
#[derive(Debug, Clone, Copy)]
pub struct Label<'a> {
    /// The whole text, as far as it was recognised or corrected.
    pub text: &'a str,
    /// The fields, as found or corrected.
    pub fields: &'a Fields,
}

/// One line of the check list.
pub struct Rule {
    /// Its name in files and addresses, which never changes.
    pub id: &'static str,
    /// What must be so, as a sentence.
    pub title: &'static str,
    /// Where that is written.
    pub source: &'static str,
    /// The categories that it holds for.
    pub categories: &'static [Category],
    /// Looks at a label.
    pub check: fn(Label<'_>) -> Answer,
}

/// What a rule says of a label, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is so.
    Pass(String),
    /// It is not so, or cannot be seen on the label.
    Fail(String),
    /// There is nothing on this label that the rule speaks of.
    NotApplicable(String),
}

/// Pass, fail, or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is so.
    Pass,
    /// It is not so.
    Fail,
    /// The rule does not speak of this label.
    NotApplicable,
}

/// A rule and what it says of one label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// The rule's name.
    #[schema(example = "net-quantity-both")]
    pub rule: String,
    /// What must be so.
    pub title: String,
    /// Where that is written.
    #[schema(example = "21 CFR 101.7")]
    pub source: String,
    /// Whether it is.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
}

/// Applies all rules of a category, in the order of the list.
pub fn check(category: Category, label: Label<'_>) -> Vec<Outcome> {
    rules_of(category)
        .map(|rule| outcome(rule, label))
        .collect()
}

/// The rules of a category, in the order of the list.
pub fn rules_of(category: Category) -> impl Iterator<Item = &'static Rule> {
    RULES
        .iter()
        .filter(move |rule| rule.categories.contains(&category))
}

fn outcome(rule: &Rule, label: Label<'_>) -> Outcome {
    let (verdict, reason) = match (rule.check)(label) {
        Answer::Pass(reason) => (Verdict::Pass, reason),
        Answer::Fail(reason) => (Verdict::Fail, reason),
        Answer::NotApplicable(reason) => (Verdict::NotApplicable, reason),
    };
    Outcome {
        rule: rule.id.to_owned(),
        title: rule.title.to_owned(),
        source: rule.source.to_owned(),
        verdict,
        reason,
    }
}
