//! The nutrients that labels declare, with their daily values (21 CFR 101.9(c)(8)(iv) and (c)(9)) and how they are rounded.

use crate::label::quantity::{Unit, read_amount};

/// A nutrient of the table.
#[derive(Debug, PartialEq)]
pub struct Nutrient {
    /// As labels print it.
    pub name: &'static str,
    /// Other names that labels use for it.
    pub aliases: &'static [&'static str],
    /// The unit that it is declared in.
    pub unit: Unit,
    /// What an adult needs a day, in that unit; `None` where no value was set.
    pub daily_value: Option<f64>,
    /// Whether it must be declared on a food (101.9(c)(1) to (8)).
    pub mandatory: bool,
    /// How its amount is rounded.
    pub steps: Steps,
}

/// The rounding of an amount: below a bound by one step, above by another (101.9(c)(1) to (7)).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steps {
    below: f64,
    small: f64,
    large: f64,
}

const fn steps(below: f64, small: f64, large: f64) -> Steps {
    Steps {
        below,
        small,
        large,
    }
}

const FAT: Steps = steps(5.0, 0.5, 1.0);
const GRAM: Steps = steps(1.0, 1.0, 1.0);

const fn nutrient(
    name: &'static str,
    aliases: &'static [&'static str],
    unit: Unit,
    daily_value: Option<f64>,
    mandatory: bool,
    steps: Steps,
) -> Nutrient {
    Nutrient {
        name,
        aliases,
        unit,
        daily_value,
        mandatory,
        steps,
    }
}

/// In the order in which a label lists them.
pub const NUTRIENTS: [Nutrient; 26] = [
    nutrient("Total Fat", &["Fat"], Unit::Gram, Some(78.0), true, FAT),
    nutrient(
        "Saturated Fat",
        &["Sat. Fat", "Sat Fat"],
        Unit::Gram,
        Some(20.0),
        true,
        FAT,
    ),
    nutrient("Trans Fat", &[], Unit::Gram, None, true, FAT),
    nutrient("Polyunsaturated Fat", &[], Unit::Gram, None, false, FAT),
    nutrient("Monounsaturated Fat", &[], Unit::Gram, None, false, FAT),
    nutrient(
        "Cholesterol",
        &["Cholest."],
        Unit::Milligram,
        Some(300.0),
        true,
        steps(5.0, 5.0, 5.0),
    ),
    nutrient(
        "Sodium",
        &[],
        Unit::Milligram,
        Some(2300.0),
        true,
        steps(140.0, 5.0, 10.0),
    ),
    nutrient(
        "Total Carbohydrate",
        &["Total Carb.", "Total Carbohydrates", "Total Carbs"],
        Unit::Gram,
        Some(275.0),
        true,
        GRAM,
    ),
    nutrient(
        "Dietary Fiber",
        &["Fiber", "Dietary Fibre"],
        Unit::Gram,
        Some(28.0),
        true,
        GRAM,
    ),
    nutrient("Total Sugars", &["Sugars"], Unit::Gram, None, true, GRAM),
    nutrient(
        "Added Sugars",
        &["Incl. Added Sugars"],
        Unit::Gram,
        Some(50.0),
        true,
        GRAM,
    ),
    nutrient("Sugar Alcohol", &[], Unit::Gram, None, false, GRAM),
    nutrient("Protein", &[], Unit::Gram, Some(50.0), true, GRAM),
    nutrient(
        "Vitamin D",
        &["Vit. D"],
        Unit::Microgram,
        Some(20.0),
        true,
        steps(1.0, 0.1, 0.1),
    ),
    nutrient(
        "Calcium",
        &[],
        Unit::Milligram,
        Some(1300.0),
        true,
        steps(1.0, 10.0, 10.0),
    ),
    nutrient(
        "Iron",
        &[],
        Unit::Milligram,
        Some(18.0),
        true,
        steps(1.0, 0.1, 0.1),
    ),
    nutrient(
        "Potassium",
        &["Potas."],
        Unit::Milligram,
        Some(4700.0),
        true,
        steps(1.0, 10.0, 10.0),
    ),
    nutrient(
        "Vitamin A",
        &["Vit. A"],
        Unit::Microgram,
        Some(900.0),
        false,
        steps(1.0, 10.0, 10.0),
    ),
    nutrient(
        "Vitamin C",
        &["Vit. C"],
        Unit::Milligram,
        Some(90.0),
        false,
        steps(1.0, 1.0, 1.0),
    ),
    nutrient(
        "Vitamin E",
        &["Vit. E"],
        Unit::Milligram,
        Some(15.0),
        false,
        steps(1.0, 0.1, 0.1),
    ),
    nutrient(
        "Vitamin B6",
        &["Vit. B6"],
        Unit::Milligram,
        Some(1.7),
        false,
        steps(1.0, 0.1, 0.1),
    ),
    nutrient(
        "Vitamin B12",
        &["Vit. B12"],
        Unit::Microgram,
        Some(2.4),
        false,
        steps(1.0, 0.1, 0.1),
    ),
    nutrient(
        "Folate",
        &[],
        Unit::Microgram,
        Some(400.0),
        false,
        steps(1.0, 5.0, 5.0),
    ),
    nutrient(
        "Niacin",
        &[],
        Unit::Milligram,
        Some(16.0),
        false,
        steps(1.0, 0.1, 0.1),
    ),
    nutrient(
        "Magnesium",
        &[],
        Unit::Milligram,
        Some(420.0),
        false,
        steps(1.0, 5.0, 5.0),
    ),
    nutrient(
        "Zinc",
        &[],
        Unit::Milligram,
        Some(11.0),
        false,
        steps(1.0, 0.1, 0.1),
    ),
];

impl Nutrient {
    /// Its place in the order of labels.
    pub fn rank(name: &str) -> usize {
        let position = NUTRIENTS.iter().position(|one| one.name == name);
        position.unwrap_or(NUTRIENTS.len())
    }

    /// The nutrient of that very name.
    pub fn named(name: &str) -> Option<&'static Nutrient> {
        NUTRIENTS.iter().find(|one| one.name == name)
    }

    /// A declared amount in the nutrient's unit: `8g` is 8.0 for fat, `0.1 g` is 100.0 for sodium. `None` when
    /// that is no amount of a mass.
    pub fn amount(&self, declared: &str) -> Option<f64> {
        let declared = declared.trim().trim_start_matches('<').trim();
        let (amount, rest) = read_amount(declared)?;
        let of_mass = rest.trim().is_empty() && amount.unit.is_mass();
        of_mass.then(|| amount.value * amount.unit.in_base() / self.unit.in_base())
    }

    /// The percentages that may stand beside an amount, both ends included: a label may compute from the rounded
    /// amount or from the one before it was rounded, and rounds the percentage again.
    pub fn percent_range(&self, amount: f64) -> Option<(f64, f64)> {
        let daily_value = self.daily_value?;
        let Steps {
            below,
            small,
            large,
        } = self.steps;
        let half = if amount < below { small } else { large } / 2.0;
        let low = ((amount - half) / daily_value * 100.0).max(0.0);
        let high = (amount + half) / daily_value * 100.0;
        let rounding = |percent: f64| self.percent_step(percent) / 2.0;
        Some(((low - rounding(low)).max(0.0), high + rounding(high)))
    }

    /// By how much its percentage is rounded (101.9(c)(8)(iii) for vitamins and minerals, (d)(7)(ii) for the rest).
    fn percent_step(&self, percent: f64) -> f64 {
        match (self.is_micronutrient(), percent) {
            (false, _) => 1.0,
            (true, percent) if percent <= 10.0 => 2.0,
            (true, percent) if percent <= 50.0 => 5.0,
            (true, _) => 10.0,
        }
    }

    fn is_micronutrient(&self) -> bool {
        Nutrient::rank(self.name) > Nutrient::rank("Protein")
    }
}

#[cfg(test)]
mod tests {
    use super::Nutrient;

    #[test]
    fn amounts_are_read_in_the_nutrients_unit() {
        let sodium = Nutrient::named("Sodium").unwrap();
        assert_eq!(sodium.amount("160mg"), Some(160.0));
        assert_eq!(sodium.amount("0.5 g"), Some(500.0));
        assert_eq!(sodium.amount("< 5 mg"), Some(5.0));
        for none in ["", "some", "5 mL", "5 mg of it"] {
            assert_eq!(sodium.amount(none), None, "{none}");
        }
    }

    #[test]
    fn a_percentage_may_come_from_either_side_of_the_rounding() {
        let fat = Nutrient::named("Total Fat").unwrap();
        let (low, high) = fat.percent_range(8.0).unwrap();
        assert!(low < 10.0 && 10.0 < high && high < 12.0, "{low} {high}");
        assert_eq!(
            Nutrient::named("Trans Fat").unwrap().percent_range(1.0),
            None
        );
    }
}
