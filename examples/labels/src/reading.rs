//! What the OCR API answers: the words between mapi and whoever asks it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::label::category::Category;
use crate::label::fields::Fields;
use crate::label::rule::Outcome;

/// One picture, read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Reading {
    /// What read it, with its version.
    #[schema(example = "tesseract 5.3.0")]
    pub engine: String,
    /// The SHA-256 of the picture's bytes.
    pub sha256: String,
    /// The picture's width in pixels, upright.
    pub width: u32,
    /// The picture's height in pixels, upright.
    pub height: u32,
    /// All lines, with an empty one between blocks.
    pub text: String,
    /// The lines, in the order of the text.
    pub lines: Vec<Line>,
    /// How sure the engine is, 0 to 100: the mean over all words.
    pub confidence: f32,
    /// The fields found in the text.
    pub fields: Fields,
    /// How long reading took, in milliseconds. What came from the cache took as long when it was read.
    pub took_ms: u64,
}

/// One line of text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Line {
    /// Its words.
    pub text: String,
    /// How sure the engine is, 0 to 100: the mean over its words.
    pub confidence: f32,
    /// Left, top, width, height, in pixels of the upright picture.
    pub at: [u32; 4],
}

/// What the rules are asked about.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Question {
    /// The kind of product.
    pub category: Category,
    /// The label's whole text; without it, rules that look for words find none.
    #[serde(default)]
    pub text: String,
    /// The label's fields; without them they are found in the text.
    pub fields: Option<Fields>,
}

/// What the rules say.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CheckList {
    /// The fields that were looked at.
    pub fields: Fields,
    /// Each rule of the category.
    pub outcomes: Vec<Outcome>,
}

/// Why something was refused, in one sentence.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The sentence.
    #[schema(example = "this is neither a PNG nor a JPEG")]
    pub error: String,
    /// Whether it was only the time that did not suffice.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub slow: bool,
}
