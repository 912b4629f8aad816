//! The rules, by the law of the United States. They look for what a machine can see on a label; they do not make it lawful.

use crate::label::category::Category::{self, Beverage, Cosmetic, Food, Supplement};
use crate::label::computed;
use crate::label::extract::has_panel;
use crate::label::nutrient::NUTRIENTS;
use crate::label::quantity::find_amounts;
use crate::label::rule::{Answer, Label, Rule};

const EDIBLE: &[Category] = &[Food, Beverage, Supplement];
const ALL: &[Category] = &[Food, Beverage, Supplement, Cosmetic];
const WITH_NUTRITION: &[Category] = &[Food, Beverage];

/// All rules, in the order of the check list: what must stand there, then what must agree.
pub const RULES: [Rule; 18] = [
    rule(
        "identity",
        "The label says what the product is",
        "21 CFR 101.3, 701.11",
        ALL,
        identity,
    ),
    rule(
        "identity-supplement",
        "It is called a dietary supplement",
        "21 CFR 101.3(g)",
        &[Supplement],
        called_supplement,
    ),
    rule(
        "net-quantity",
        "The net quantity is declared",
        "21 CFR 101.7, 701.13",
        ALL,
        net_quantity,
    ),
    rule(
        "net-quantity-both",
        "Metric and customary units are both given, and agree",
        "15 U.S.C. 1453(a)(2)",
        &[Food, Beverage, Cosmetic],
        computed::dual_quantity,
    ),
    rule(
        "net-quantity-fluid",
        "A drink is measured by volume",
        "21 CFR 101.7(a)",
        &[Beverage],
        fluid,
    ),
    rule(
        "net-quantity-pieces",
        "The number of tablets or capsules, or a mass, is declared",
        "21 CFR 101.7",
        &[Supplement],
        pieces,
    ),
    rule(
        "ingredients",
        "Ingredients are listed",
        "21 CFR 101.4, 701.3",
        ALL,
        ingredients,
    ),
    rule(
        "allergens",
        "Major allergens among the ingredients are named",
        "21 U.S.C. 343(w)",
        EDIBLE,
        allergens,
    ),
    rule(
        "maker",
        "Who made or distributes it is named",
        "21 CFR 101.5, 701.12",
        ALL,
        maker,
    ),
    rule(
        "nutrition-facts",
        "There is a panel \"Nutrition Facts\"",
        "21 CFR 101.9(d)",
        WITH_NUTRITION,
        nutrition_facts,
    ),
    rule(
        "supplement-facts",
        "There is a panel \"Supplement Facts\"",
        "21 CFR 101.36(e)",
        &[Supplement],
        supplement_facts,
    ),
    rule(
        "serving",
        "Serving size and servings per container are declared",
        "21 CFR 101.9(d)(3), 101.36(b)(1)",
        EDIBLE,
        serving,
    ),
    rule(
        "nutrients",
        "All mandatory nutrients are declared",
        "21 CFR 101.9(c)",
        WITH_NUTRITION,
        nutrients,
    ),
    rule(
        "daily-values",
        "Each % Daily Value follows from its amount",
        "21 CFR 101.9(c)(8)",
        EDIBLE,
        computed::daily_values,
    ),
    rule(
        "calories",
        "Calories follow from fat, carbohydrate and protein",
        "21 CFR 101.9(c)(1), (g)(5)",
        WITH_NUTRITION,
        computed::calories,
    ),
    rule(
        "parts",
        "No part is more than its whole",
        "21 CFR 101.9(c)",
        WITH_NUTRITION,
        computed::parts,
    ),
    rule(
        "juice",
        "The percentage of juice is declared",
        "21 CFR 101.30",
        &[Beverage],
        juice,
    ),
    rule(
        "claims",
        "Claims come with the statement that the FDA has not evaluated them",
        "21 CFR 101.93(c)",
        &[Supplement],
        claims,
    ),
];

const fn rule(
    id: &'static str,
    title: &'static str,
    source: &'static str,
    categories: &'static [Category],
    check: fn(Label<'_>) -> Answer,
) -> Rule {
    Rule {
        id,
        title,
        source,
        categories,
        check,
    }
}

/// The major allergens, and the words by which ingredients give them away.
const ALLERGENS: [(&str, &[&str]); 9] = [
    (
        "milk",
        &[
            "milk", "cream", "butter", "whey", "casein", "cheese", "lactose",
        ],
    ),
    ("eggs", &["egg", "eggs", "albumen"]),
    (
        "fish",
        &["cod", "salmon", "tuna", "anchovies", "anchovy", "fish"],
    ),
    ("shellfish", &["shrimp", "crab", "lobster", "shellfish"]),
    (
        "tree nuts",
        &[
            "almond",
            "almonds",
            "walnut",
            "walnuts",
            "cashews",
            "hazelnuts",
            "pecans",
            "pistachios",
        ],
    ),
    ("peanuts", &["peanut", "peanuts"]),
    ("wheat", &["wheat", "semolina", "spelt"]),
    ("soy", &["soy", "soya", "soybean", "soybeans"]),
    ("sesame", &["sesame", "tahini"]),
];

/// Those of which the law wants the kind: `almonds` names itself, `whey` does not say milk.
const NAMED_BY_KIND: [&str; 3] = ["fish", "shellfish", "tree nuts"];

/// What makes `butter`, `milk` and `cream` something else.
const NOT_MILK: [&str; 8] = [
    "peanut", "cocoa", "almond", "coconut", "shea", "oat", "soy", "rice",
];

fn identity(label: Label<'_>) -> Answer {
    let name = &label.fields.name;
    if name.chars().filter(|char| char.is_alphabetic()).count() >= 3 {
        Answer::Pass(format!("it is {name:?}"))
    } else {
        Answer::Fail("no name was found".into())
    }
}

fn called_supplement(label: Label<'_>) -> Answer {
    says(
        label,
        &["dietary supplement"],
        "the words \"dietary supplement\" were not found",
    )
}

fn net_quantity(label: Label<'_>) -> Answer {
    let declared = &label.fields.net_quantity;
    if declared.is_empty() {
        Answer::Fail("no net quantity was found".into())
    } else if find_amounts(declared).is_empty() {
        Answer::Fail(format!("{declared:?} has no number with a unit"))
    } else {
        Answer::Pass(format!("it is {declared:?}"))
    }
}

fn fluid(label: Label<'_>) -> Answer {
    let declared = &label.fields.net_quantity;
    if find_amounts(declared)
        .iter()
        .any(|amount| amount.unit.is_volume())
    {
        Answer::Pass(format!("{declared:?} is a volume"))
    } else {
        Answer::Fail(format!("{declared:?} is no volume"))
    }
}

fn pieces(label: Label<'_>) -> Answer {
    let declared = &label.fields.net_quantity;
    if find_amounts(declared)
        .iter()
        .any(|amount| !amount.unit.is_volume())
    {
        Answer::Pass(format!("{declared:?} says it"))
    } else {
        Answer::Fail(format!("{declared:?} does not say it"))
    }
}

fn ingredients(label: Label<'_>) -> Answer {
    match label
        .fields
        .ingredients
        .split(',')
        .filter(|one| !one.trim().is_empty())
        .count()
    {
        0 => Answer::Fail("no list of ingredients was found".into()),
        1 => Answer::Pass("1 ingredient is listed".into()),
        count => Answer::Pass(format!("{count} ingredients are listed")),
    }
}

/// An allergen counts as named when the statement "Contains" names it, or the ingredients do by its own name.
fn allergens(label: Label<'_>) -> Answer {
    let ingredients = label.fields.ingredients.to_lowercase();
    if ingredients.is_empty() {
        return Answer::Fail("no list of ingredients was found to look at".into());
    }
    let words: Vec<&str> = ingredients
        .split(|char: char| !char.is_alphanumeric())
        .collect();
    let contains = label.fields.contains.to_lowercase();
    let mut present = Vec::new();
    let mut unnamed = Vec::new();
    for (allergen, signs) in ALLERGENS {
        let gives_away = |at: usize| {
            let of_plants = at > 0 && NOT_MILK.contains(&words[at - 1]);
            signs.contains(&words[at]) && !(allergen == "milk" && of_plants)
        };
        let Some(at) = (0..words.len()).find(|at| gives_away(*at)) else {
            continue;
        };
        present.push(allergen);
        let singular = allergen.trim_end_matches('s');
        let in_statement =
            contains.contains(singular) || signs.iter().any(|sign| contains.contains(sign));
        let by_itself = NAMED_BY_KIND.contains(&allergen) || words[at].starts_with(singular);
        // Whoever makes the statement must make it whole.
        let is_named = in_statement || (contains.is_empty() && by_itself);
        if !is_named {
            unnamed.push(format!("{allergen} ({})", words[at]));
        }
    }
    if !unnamed.is_empty() {
        return Answer::Fail(format!("not named: {}", unnamed.join(", ")));
    }
    match present.is_empty() {
        true => Answer::NotApplicable("no major allergen is among the ingredients".into()),
        false => Answer::Pass(format!("named: {}", present.join(", "))),
    }
}

fn maker(label: Label<'_>) -> Answer {
    let maker = &label.fields.maker;
    if maker.is_empty() {
        Answer::Fail("nobody is named as maker, packer or distributor".into())
    } else {
        Answer::Pass(format!("it is {maker:?}"))
    }
}

fn nutrition_facts(label: Label<'_>) -> Answer {
    panel(label, "Nutrition Facts")
}

fn supplement_facts(label: Label<'_>) -> Answer {
    panel(label, "Supplement Facts")
}

fn panel(label: Label<'_>, title: &str) -> Answer {
    if has_panel(label.text, title) {
        Answer::Pass(format!(
            "it is there, with {} rows",
            label.fields.rows.len()
        ))
    } else {
        Answer::Fail(format!("no line begins with {title:?}"))
    }
}

fn serving(label: Label<'_>) -> Answer {
    match (
        label.fields.serving_size.as_str(),
        label.fields.servings.as_str(),
    ) {
        ("", "") => Answer::Fail("neither of them was found".into()),
        ("", _) => Answer::Fail("no serving size was found".into()),
        (_, "") => Answer::Fail("no number of servings was found".into()),
        (size, count) => Answer::Pass(format!("{count} of {size}")),
    }
}

fn nutrients(label: Label<'_>) -> Answer {
    let mandatory = NUTRIENTS.iter().filter(|nutrient| nutrient.mandatory);
    let is_missing = |name: &str| {
        label
            .fields
            .row(name)
            .is_none_or(|row| row.amount.is_empty())
    };
    let mut missing: Vec<&str> = mandatory
        .map(|nutrient| nutrient.name)
        .filter(|name| is_missing(name))
        .collect();
    if label.fields.calories.is_empty() {
        missing.insert(0, "Calories");
    }
    if missing.is_empty() {
        Answer::Pass("all of them are declared".into())
    } else {
        Answer::Fail(format!("missing: {}", missing.join(", ")))
    }
}

fn juice(label: Label<'_>) -> Answer {
    let text = label.text.to_lowercase();
    if !label.fields.ingredients.to_lowercase().contains("juice")
        && !label.fields.name.to_lowercase().contains("juice")
    {
        return Answer::NotApplicable("neither the name nor the ingredients speak of juice".into());
    }
    let says = text
        .lines()
        .any(|line| line.contains('%') && line.contains("juice"));
    if says {
        Answer::Pass("it is declared".into())
    } else {
        Answer::Fail("no line has a percentage of juice".into())
    }
}

fn claims(label: Label<'_>) -> Answer {
    let text = label.text.to_lowercase();
    let claims = ["supports", "promotes", "helps", "boosts", "maintains"];
    let Some(claim) = claims.iter().find(|claim| text.contains(*claim)) else {
        return Answer::NotApplicable("no claim was found".into());
    };
    // It runs over lines.
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.contains("not been evaluated by the food and drug") {
        Answer::Pass(format!("it {claim} something, and the statement is there"))
    } else {
        Answer::Fail(format!(
            "it {claim} something, and the statement was not found"
        ))
    }
}

fn says(label: Label<'_>, phrases: &[&str], otherwise: &str) -> Answer {
    let text = label.text.to_lowercase();
    match phrases.iter().find(|phrase| text.contains(*phrase)) {
        Some(phrase) => Answer::Pass(format!("it says {phrase:?}")),
        None => Answer::Fail(otherwise.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{RULES, allergens, claims, juice};
    use crate::label::category::Category;
    use crate::label::fields::Fields;
    use crate::label::rule::{Answer, Label, Verdict, check};

    fn made_of(ingredients: &str, contains: &str) -> Fields {
        Fields {
            ingredients: ingredients.into(),
            contains: contains.into(),
            ..Fields::default()
        }
    }

    fn of(fields: &Fields) -> Label<'_> {
        Label { text: "", fields }
    }

    #[test]
    fn rules_have_names_of_their_own_and_every_category_has_some() {
        let mut ids: Vec<&str> = RULES.iter().map(|rule| rule.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), RULES.len());
        for category in Category::ALL {
            let empty = Fields::default();
            let outcomes = check(category, of(&empty));
            assert!(outcomes.len() >= 5, "{category}");
            let passed = outcomes.iter().filter(|one| one.verdict == Verdict::Pass);
            assert_eq!(passed.count(), 0, "an empty label passes nothing");
        }
    }

    #[test]
    fn an_allergen_is_named_by_the_statement_or_by_its_own_name() {
        let pass = |ingredients, contains| {
            let fields = made_of(ingredients, contains);
            matches!(allergens(of(&fields)), Answer::Pass(_))
        };
        assert!(pass("OATS, ALMONDS, WHEY", "TREE NUTS, MILK"));
        assert!(pass("WHEAT FLOUR, SALT", ""));
        assert!(pass("Whole wheat, milk", ""));
        assert!(!pass("OATS, WHEY", ""), "whey does not say milk");
        assert!(
            !pass("WHEAT FLOUR, MILK", "WHEAT"),
            "the statement is not whole"
        );
        let none = made_of("OATS, COCOA BUTTER, SALT", "");
        assert!(matches!(allergens(of(&none)), Answer::NotApplicable(_)));
    }

    #[test]
    fn juice_and_claims_bind_only_who_makes_them() {
        let water = made_of("SPRING WATER", "");
        assert!(matches!(juice(of(&water)), Answer::NotApplicable(_)));
        let drink = made_of("WATER, APPLE JUICE", "");
        assert!(matches!(juice(of(&drink)), Answer::Fail(_)));
        let declared = Label {
            text: "CONTAINS 30% JUICE",
            fields: &drink,
        };
        assert!(matches!(juice(declared), Answer::Pass(_)));
        let text = "Supports bones.\nThis statement has not been evaluated\nby the Food and Drug Administration.";
        assert!(matches!(
            claims(Label {
                text,
                fields: &water
            }),
            Answer::Pass(_)
        ));
        assert!(matches!(
            claims(Label {
                text: "Supports bones",
                fields: &water
            }),
            Answer::Fail(_)
        ));
    }
}
