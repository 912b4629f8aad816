//! The kinds of products, each with rules of its own.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A kind of product.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// Packaged food.
    #[default]
    Food,
    /// A drink.
    Beverage,
    /// A dietary supplement.
    Supplement,
    /// A cosmetic product.
    Cosmetic,
}

impl Category {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Category; 4] = [
        Category::Food,
        Category::Beverage,
        Category::Supplement,
        Category::Cosmetic,
    ];

    /// As in addresses and files: `food`.
    pub fn key(self) -> &'static str {
        match self {
            Category::Food => "food",
            Category::Beverage => "beverage",
            Category::Supplement => "supplement",
            Category::Cosmetic => "cosmetic",
        }
    }

    /// As people read it: `Packaged food`.
    pub fn title(self) -> &'static str {
        match self {
            Category::Food => "Packaged food",
            Category::Beverage => "Beverage",
            Category::Supplement => "Dietary supplement",
            Category::Cosmetic => "Cosmetic",
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.key())
    }
}

impl FromStr for Category {
    type Err = UnknownCategory;

    fn from_str(text: &str) -> Result<Category, UnknownCategory> {
        let found = Category::ALL.into_iter().find(|one| one.key() == text);
        found.ok_or_else(|| UnknownCategory(text.to_owned()))
    }
}

/// There is no such category.
#[derive(Debug, thiserror::Error)]
#[error("there is no category {0:?}: it is food, beverage, supplement or cosmetic")]
pub struct UnknownCategory(String);
