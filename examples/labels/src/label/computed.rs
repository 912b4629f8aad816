//! Checks that compute: whether a label's numbers agree with each other.

use crate::label::fields::Fields;
use crate::label::nutrient::Nutrient;
use crate::label::quantity::{Amount, find_amounts, read_number};
use crate::label::rule::{Answer, Label};

/// By how much two declarations of the same quantity may differ: each is rounded (21 CFR 101.7(p), (q)).
const DUAL_TOLERANCE: f64 = 0.02;

/// By how much calories may differ from those computed (21 CFR 101.9(g)(5)), and by how many at least, since every
/// amount is rounded.
const CALORIES_TOLERANCE: f64 = 0.2;
const CALORIES_ROUNDING: f64 = 15.0;

/// Each "% Daily Value" follows from its amount.
pub fn daily_values(label: Label<'_>) -> Answer {
    let mut looked_at = 0;
    let mut wrong = Vec::new();
    for row in &label.fields.rows {
        let nutrient = Nutrient::named(&row.nutrient);
        let numbers = nutrient.and_then(|nutrient| {
            let amount = nutrient.amount(&row.amount)?;
            let (low, high) = nutrient.percent_range(amount)?;
            let (percent, _) = read_number(&row.daily_value)?;
            Some((low, high, percent))
        });
        let Some((low, high, percent)) = numbers else {
            continue;
        };
        looked_at += 1;
        if percent < low.floor() || percent > high.ceil() {
            let expected = range(low.ceil(), high.floor());
            wrong.push(format!(
                "{} of {} is {expected} %, and {percent} % is declared",
                row.amount, row.nutrient
            ));
        }
    }
    match (looked_at, wrong.is_empty()) {
        (0, _) => Answer::Fail("no row with an amount and a percentage was found".into()),
        (count, true) => Answer::Pass(format!("all {count} percentages follow from their amounts")),
        (_, false) => Answer::Fail(wrong.join("; ")),
    }
}

fn range(low: f64, high: f64) -> String {
    if high <= low {
        format!("{low}")
    } else {
        format!("{low} to {high}")
    }
}

/// Calories follow from fat, carbohydrate and protein (9, 4 and 4 for a gram).
pub fn calories(label: Label<'_>) -> Answer {
    let Some((declared, _)) = read_number(&label.fields.calories) else {
        return Answer::Fail("no calories were found".into());
    };
    let grams =
        ["Total Fat", "Total Carbohydrate", "Protein"].map(|name| grams(label.fields, name));
    let [Some(fat), Some(carbohydrate), Some(protein)] = grams else {
        return Answer::Fail("fat, carbohydrate or protein has no amount to compute from".into());
    };
    let computed = 9.0 * fat + 4.0 * carbohydrate + 4.0 * protein;
    let allowed = (computed * CALORIES_TOLERANCE).max(CALORIES_ROUNDING);
    let reason = format!(
        "{declared} are declared, and 9 x {fat} g of fat, 4 x {carbohydrate} g of carbohydrate and 4 x {protein} g of protein make {computed}"
    );
    if (declared - computed).abs() <= allowed {
        Answer::Pass(reason)
    } else {
        Answer::Fail(reason)
    }
}

/// No part is more than its whole.
pub fn parts(label: Label<'_>) -> Answer {
    let parts: [(&str, &[&str]); 3] = [
        ("Total Fat", &["Saturated Fat", "Trans Fat"]),
        ("Total Carbohydrate", &["Dietary Fiber", "Total Sugars"]),
        ("Total Sugars", &["Added Sugars"]),
    ];
    let mut looked_at = 0;
    let mut wrong = Vec::new();
    for (whole, parts) in parts {
        let Some(of_whole) = grams(label.fields, whole) else {
            continue;
        };
        let of_parts: Vec<f64> = parts
            .iter()
            .filter_map(|part| grams(label.fields, part))
            .collect();
        if of_parts.is_empty() {
            continue;
        }
        looked_at += 1;
        let sum: f64 = of_parts.iter().sum();
        // Each part may have been rounded up by half a gram.
        if sum > of_whole + 0.5 * (of_parts.len() as f64 + 1.0) {
            wrong.push(format!(
                "{} are {sum} g, and {whole} is {of_whole} g",
                parts.join(" and ")
            ));
        }
    }
    match (looked_at, wrong.is_empty()) {
        (0, _) => Answer::NotApplicable("no nutrient is declared together with its parts".into()),
        (_, true) => Answer::Pass("no part is more than its whole".into()),
        (_, false) => Answer::Fail(wrong.join("; ")),
    }
}

/// The net quantity is declared in metric and in customary units, and both say the same.
pub fn dual_quantity(label: Label<'_>) -> Answer {
    let declared = &label.fields.net_quantity;
    if declared.is_empty() {
        return Answer::Fail("no net quantity was found".into());
    }
    let of = |metric: bool| -> Option<Amount> {
        let amounts = find_amounts(declared).into_iter();
        amounts
            .filter(|amount| amount.unit.is_mass() || amount.unit.is_volume())
            .find(|amount| amount.unit.is_metric() == metric)
    };
    let (Some(metric), Some(customary)) = (of(true), of(false)) else {
        return Answer::Fail(format!(
            "{declared:?} is not in both metric and customary units"
        ));
    };
    if metric.unit.is_mass() != customary.unit.is_mass() {
        return Answer::Fail(format!(
            "{declared:?} gives a mass in one and a volume in the other"
        ));
    }
    let (metric, customary) = (metric.in_base(), customary.in_base());
    if (metric - customary).abs() > DUAL_TOLERANCE * metric.max(customary) {
        return Answer::Fail(format!(
            "{declared:?} declares {} in one and {} in the other",
            rounded(metric),
            rounded(customary)
        ));
    }
    Answer::Pass(format!("{declared:?} says the same in both"))
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn grams(fields: &Fields, nutrient: &str) -> Option<f64> {
    let declared = &fields.row(nutrient)?.amount;
    Nutrient::named(nutrient)?.amount(declared)
}

#[cfg(test)]
mod tests {
    use super::{calories, daily_values, dual_quantity, parts};
    use crate::label::fields::{Fields, Row};
    use crate::label::rule::{Answer, Label};

    fn fields(rows: &[(&str, &str, &str)]) -> Fields {
        let rows = rows.iter().map(|(nutrient, amount, daily_value)| Row {
            nutrient: (*nutrient).into(),
            amount: (*amount).into(),
            daily_value: (*daily_value).into(),
        });
        Fields {
            rows: rows.collect(),
            ..Fields::default()
        }
    }

    fn label(fields: &Fields) -> Label<'_> {
        Label { text: "", fields }
    }

    #[test]
    fn percentages_are_computed_from_amounts_with_their_rounding() {
        let good = fields(&[
            ("Total Fat", "8g", "10"),
            ("Saturated Fat", "1g", "5"),
            ("Sodium", "160mg", "7"),
            ("Vitamin D", "2mcg", "10"),
            ("Iron", "8mg", "45"),
            ("Trans Fat", "0g", ""),
        ]);
        let Answer::Pass(reason) = daily_values(label(&good)) else {
            panic!("{:?}", daily_values(label(&good)))
        };
        assert!(reason.contains("all 5"), "{reason}");
        let bad = fields(&[("Total Fat", "8g", "10"), ("Sodium", "160mg", "17")]);
        let Answer::Fail(reason) = daily_values(label(&bad)) else {
            panic!()
        };
        assert_eq!(reason, "160mg of Sodium is 7 %, and 17 % is declared");
    }

    #[test]
    fn calories_follow_from_what_has_them() {
        let rows = [
            ("Total Fat", "8g", ""),
            ("Total Carbohydrate", "37g", ""),
            ("Protein", "3g", ""),
        ];
        let mut granola = fields(&rows);
        granola.calories = "230".into();
        assert!(matches!(calories(label(&granola)), Answer::Pass(_)));
        granola.calories = "330".into();
        let Answer::Fail(reason) = calories(label(&granola)) else {
            panic!()
        };
        assert!(reason.ends_with("make 232"), "{reason}");
        granola.calories = String::new();
        assert_eq!(
            calories(label(&granola)),
            Answer::Fail("no calories were found".into())
        );
    }

    #[test]
    fn no_part_is_more_than_its_whole() {
        let good = fields(&[("Total Sugars", "12g", ""), ("Added Sugars", "10g", "")]);
        assert!(matches!(parts(label(&good)), Answer::Pass(_)));
        let bad = fields(&[("Total Sugars", "12g", ""), ("Added Sugars", "21g", "")]);
        assert!(matches!(parts(label(&bad)), Answer::Fail(_)));
        assert!(matches!(
            parts(label(&fields(&[]))),
            Answer::NotApplicable(_)
        ));
    }

    #[test]
    fn a_quantity_says_the_same_in_both_systems() {
        let of = |text: &str| {
            let fields = Fields {
                net_quantity: text.into(),
                ..Fields::default()
            };
            dual_quantity(label(&fields))
        };
        assert!(matches!(of("NET WT 12 OZ (340 g)"), Answer::Pass(_)));
        assert!(matches!(of("12 FL OZ (355 mL)"), Answer::Pass(_)));
        for bad in ["", "NET WT 340 g", "NET WT 12 OZ (430 g)", "12 OZ (340 mL)"] {
            assert!(matches!(of(bad), Answer::Fail(_)), "{bad}");
        }
    }
}
