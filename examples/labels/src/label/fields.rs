//! What is known of a label, as it is printed there: numbers are read from it only when they are checked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::label::nutrient::Nutrient;

/// The fields of a label. What was not found is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Fields {
    /// What the product is called.
    #[schema(example = "Oat & Honey Granola")]
    pub name: String,
    /// How much there is in it.
    #[schema(example = "NET WT 12 OZ (340 g)")]
    pub net_quantity: String,
    /// How much one serving is.
    #[schema(example = "2/3 cup (55g)")]
    pub serving_size: String,
    /// How many servings there are in it.
    #[schema(example = "8")]
    pub servings: String,
    /// Calories of one serving.
    #[schema(example = "230")]
    pub calories: String,
    /// The nutrition table, in the order of the label.
    pub rows: Vec<Row>,
    /// What it is made of.
    pub ingredients: String,
    /// The allergens that the statement "Contains" names.
    pub contains: String,
    /// Who made, packed or distributed it.
    pub maker: String,
}

/// One row of the nutrition table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Row {
    /// The nutrient, by the name of [`crate::label::nutrient`] where it is known.
    #[schema(example = "Total Fat")]
    pub nutrient: String,
    /// Its amount in one serving.
    #[schema(example = "8g")]
    pub amount: String,
    /// The number under "% Daily Value", without its sign.
    #[schema(example = "10")]
    pub daily_value: String,
}

/// One thing of a label that an analyst can change. As a text: `name`, `amount:Total Fat`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// The recognised text as a whole.
    Text,
    /// The product's category.
    Category,
    /// Whether an analyst has looked at all of it: `yes` or `no`.
    Reviewed,
    /// That the picture is to be read anew: any value.
    Reading,
    /// [`Fields::name`]
    Name,
    /// [`Fields::net_quantity`]
    NetQuantity,
    /// [`Fields::serving_size`]
    ServingSize,
    /// [`Fields::servings`]
    Servings,
    /// [`Fields::calories`]
    Calories,
    /// [`Fields::ingredients`]
    Ingredients,
    /// [`Fields::contains`]
    Contains,
    /// [`Fields::maker`]
    Maker,
    /// The amount of a nutrient.
    Amount(String),
    /// The percentage of a nutrient.
    DailyValue(String),
}

/// Those of one line each that every label has, in the order of the form.
pub const SIMPLE: [Field; 8] = [
    Field::Name,
    Field::NetQuantity,
    Field::ServingSize,
    Field::Servings,
    Field::Calories,
    Field::Ingredients,
    Field::Contains,
    Field::Maker,
];

impl Field {
    /// As people read it.
    pub fn title(&self) -> String {
        match self {
            Field::Text => "Recognised text".into(),
            Field::Category => "Category".into(),
            Field::Reviewed => "Reviewed".into(),
            Field::Reading => "Reading".into(),
            Field::Name => "Name".into(),
            Field::NetQuantity => "Net quantity".into(),
            Field::ServingSize => "Serving size".into(),
            Field::Servings => "Servings".into(),
            Field::Calories => "Calories".into(),
            Field::Ingredients => "Ingredients".into(),
            Field::Contains => "Contains (allergens)".into(),
            Field::Maker => "Made or distributed by".into(),
            Field::Amount(nutrient) => format!("{nutrient}, amount"),
            Field::DailyValue(nutrient) => format!("{nutrient}, % Daily Value"),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Text => formatter.write_str("text"),
            Field::Category => formatter.write_str("category"),
            Field::Reviewed => formatter.write_str("reviewed"),
            Field::Reading => formatter.write_str("reading"),
            Field::Name => formatter.write_str("name"),
            Field::NetQuantity => formatter.write_str("net_quantity"),
            Field::ServingSize => formatter.write_str("serving_size"),
            Field::Servings => formatter.write_str("servings"),
            Field::Calories => formatter.write_str("calories"),
            Field::Ingredients => formatter.write_str("ingredients"),
            Field::Contains => formatter.write_str("contains"),
            Field::Maker => formatter.write_str("maker"),
            Field::Amount(nutrient) => write!(formatter, "amount:{nutrient}"),
            Field::DailyValue(nutrient) => write!(formatter, "daily_value:{nutrient}"),
        }
    }
}

/// There is no such field.
#[derive(Debug, thiserror::Error)]
#[error("there is no field {0:?}")]
pub struct UnknownField(String);

impl FromStr for Field {
    type Err = UnknownField;

    fn from_str(text: &str) -> Result<Field, UnknownField> {
        let plain = SIMPLE.iter().chain(&[
            Field::Text,
            Field::Category,
            Field::Reviewed,
            Field::Reading,
        ]);
        if let Some(field) = plain.clone().find(|field| field.to_string() == text) {
            return Ok(field.clone());
        }
        match text.split_once(':') {
            Some(("amount", nutrient)) if !nutrient.is_empty() => {
                Ok(Field::Amount(nutrient.into()))
            }
            Some(("daily_value", nutrient)) if !nutrient.is_empty() => {
                Ok(Field::DailyValue(nutrient.into()))
            }
            _ => Err(UnknownField(text.to_owned())),
        }
    }
}

impl Serialize for Field {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Field, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Fields {
    /// What stands in a field; empty for those that are not of the label itself (text, category, ...).
    pub fn get(&self, field: &Field) -> &str {
        match field {
            Field::Text | Field::Category | Field::Reviewed | Field::Reading => "",
            Field::Name => &self.name,
            Field::NetQuantity => &self.net_quantity,
            Field::ServingSize => &self.serving_size,
            Field::Servings => &self.servings,
            Field::Calories => &self.calories,
            Field::Ingredients => &self.ingredients,
            Field::Contains => &self.contains,
            Field::Maker => &self.maker,
            Field::Amount(nutrient) => self.row(nutrient).map_or("", |row| &row.amount),
            Field::DailyValue(nutrient) => self.row(nutrient).map_or("", |row| &row.daily_value),
        }
    }

    /// Writes a value into a field. A row comes with its first value and goes with its last.
    pub fn set(&mut self, field: &Field, value: &str) {
        let place = match field {
            Field::Text | Field::Category | Field::Reviewed | Field::Reading => return,
            Field::Name => &mut self.name,
            Field::NetQuantity => &mut self.net_quantity,
            Field::ServingSize => &mut self.serving_size,
            Field::Servings => &mut self.servings,
            Field::Calories => &mut self.calories,
            Field::Ingredients => &mut self.ingredients,
            Field::Contains => &mut self.contains,
            Field::Maker => &mut self.maker,
            Field::Amount(nutrient) => &mut self.row_mut(nutrient).amount,
            Field::DailyValue(nutrient) => &mut self.row_mut(nutrient).daily_value,
        };
        value.clone_into(place);
        self.rows
            .retain(|row| !(row.amount.is_empty() && row.daily_value.is_empty()));
    }

    /// The row of a nutrient.
    pub fn row(&self, nutrient: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.nutrient == nutrient)
    }

    fn row_mut(&mut self, nutrient: &str) -> &mut Row {
        let at = match self.rows.iter().position(|row| row.nutrient == nutrient) {
            Some(at) => at,
            None => {
                let rank = Nutrient::rank(nutrient);
                let later = |row: &Row| Nutrient::rank(&row.nutrient) > rank;
                let at = self.rows.iter().position(later).unwrap_or(self.rows.len());
                let row = Row {
                    nutrient: nutrient.to_owned(),
                    ..Row::default()
                };
                self.rows.insert(at, row);
                at
            }
        };
        &mut self.rows[at]
    }
}

#[cfg(test)]
mod tests {
    use super::{Field, Fields, SIMPLE};

    #[test]
    fn a_field_is_read_as_it_is_written() {
        let more = [
            Field::Text,
            Field::Category,
            Field::Reviewed,
            Field::Reading,
            Field::Amount("Total Fat".into()),
            Field::DailyValue("Zinc".into()),
        ];
        for field in SIMPLE.iter().chain(&more) {
            assert_eq!(field.to_string().parse::<Field>().unwrap(), *field);
        }
        assert!("amount:".parse::<Field>().is_err());
        assert!("colour".parse::<Field>().is_err());
    }

    #[test]
    fn a_row_comes_in_its_place_with_its_first_value_and_goes_with_its_last() {
        let mut fields = Fields::default();
        fields.set(&Field::Amount("Sodium".into()), "160mg");
        fields.set(&Field::DailyValue("Total Fat".into()), "10");
        let names = |fields: &Fields| -> Vec<String> {
            fields.rows.iter().map(|row| row.nutrient.clone()).collect()
        };
        assert_eq!(names(&fields), ["Total Fat", "Sodium"]);
        fields.set(&Field::DailyValue("Total Fat".into()), "");
        assert_eq!(names(&fields), ["Sodium"]);
        assert_eq!(fields.get(&Field::Amount("Sodium".into())), "160mg");
    }
}
