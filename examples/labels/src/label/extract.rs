//! Finds the fields in a recognised text, line by line. It forgives what character recognition gets wrong: a letter in a
//! word, an O for a zero.

use crate::label::fields::{Fields, Row};
use crate::label::nutrient::{NUTRIENTS, Nutrient};
use crate::label::quantity::{find_amounts, read_amount, read_number};

/// No text of a label is longer, in lines; what comes behind is not looked at.
const LINES_MAX: usize = 2_000;

/// Lines that end what runs over several lines (ingredients, allergens).
const HEADINGS: [&str; 15] = [
    "ingredients",
    "contains",
    "nutrition facts",
    "supplement facts",
    "net wt",
    "net weight",
    "net contents",
    "manufactured",
    "distributed by",
    "packed by",
    "made by",
    "directions",
    "warning",
    "keep ",
    "lot ",
];

const MAKERS: [&str; 6] = [
    "manufactured by",
    "manufactured for",
    "distributed by",
    "packed by",
    "packed for",
    "made by",
];

/// All fields that can be found in a text.
pub fn extract(text: &str) -> Fields {
    let lines: Vec<&str> = text.lines().take(LINES_MAX).map(str::trim).collect();
    let facts = facts(&lines);
    Fields {
        name: name(&lines).to_owned(),
        net_quantity: net_quantity(&lines).unwrap_or_default().to_owned(),
        serving_size: facts
            .iter()
            .find_map(|line| serving_size(line))
            .unwrap_or_default(),
        servings: facts
            .iter()
            .find_map(|line| servings(line))
            .unwrap_or_default(),
        calories: facts
            .iter()
            .find_map(|line| calories(line))
            .unwrap_or_default(),
        rows: rows(facts),
        ingredients: paragraph(&lines, "ingredients"),
        contains: paragraph(&lines, "contains"),
        maker: maker(&lines),
    }
}

/// Whether the text has a panel of that title (`Nutrition Facts`, `Supplement Facts`).
pub fn has_panel(text: &str, title: &str) -> bool {
    let title = title.to_lowercase();
    text.lines()
        .any(|line| after(line.trim(), &title).is_some())
}

/// The lines of the facts panel: from its title to its foot note.
fn facts<'a, 'b>(lines: &'b [&'a str]) -> &'b [&'a str] {
    let is_title = |line: &&str| {
        after(line, "nutrition facts").is_some() || after(line, "supplement facts").is_some()
    };
    let Some(start) = lines.iter().position(is_title) else {
        return &[];
    };
    let panel = &lines[start + 1..];
    let is_foot = |line: &&str| {
        let line = line.trim_start_matches(['*', '+', '†', ' ']);
        after(line, "the % daily value").is_some()
            || after(line, "percent daily values").is_some()
            || after(line, "ingredients").is_some()
    };
    &panel[..panel.iter().position(is_foot).unwrap_or(panel.len())]
}

/// The first line that has a word in it and is no heading.
fn name<'a>(lines: &[&'a str]) -> &'a str {
    let has_word = |line: &str| line.chars().filter(|char| char.is_alphabetic()).count() >= 3;
    let is_name = |line: &&&str| has_word(line) && !is_heading(line);
    lines.iter().find(is_name).copied().unwrap_or_default()
}

/// The line that says so, else one that has an amount in both systems of units, else one that is nothing but an amount.
fn net_quantity<'a>(lines: &[&'a str]) -> Option<&'a str> {
    let says_so = |line: &str| {
        let net = ["net wt", "net weight", "net contents", "net "];
        net.iter().any(|phrase| after(line, phrase).is_some()) && !find_amounts(line).is_empty()
    };
    let has_both = |line: &str| {
        let amounts = find_amounts(line);
        amounts.iter().any(|amount| amount.unit.is_metric())
            && amounts.iter().any(|amount| !amount.unit.is_metric())
            && serving_size(line).is_none()
    };
    let is_amount = |line: &str| read_amount(line).is_some_and(|(_, rest)| rest.trim().is_empty());
    let ways: [&dyn Fn(&str) -> bool; 3] = [&says_so, &has_both, &is_amount];
    ways.iter()
        .find_map(|way| lines.iter().find(|line| way(line)).copied())
}

fn serving_size(line: &str) -> Option<String> {
    let rest = after(line, "serving size")?;
    let rest = rest.trim_start_matches([':', ' ']);
    (!rest.is_empty()).then(|| rest.to_owned())
}

/// `8 servings per container`, `About 8 servings`, `Servings Per Container: 8`.
fn servings(line: &str) -> Option<String> {
    let lower = line.to_lowercase();
    if let Some(count) = lower.find(" serving").and_then(|at| line.get(..at)) {
        let digits = count.trim_start_matches(|char: char| !char.is_ascii_digit());
        return read_number(digits).map(|_| count.trim().to_owned());
    }
    let rest = after(line, "servings per container")?.trim_start_matches([':', ' ']);
    (!rest.is_empty()).then(|| rest.to_owned())
}

fn calories(line: &str) -> Option<String> {
    let rest = after(line, "calories")?.trim_start_matches([':', ' ']);
    let number: String = rest
        .split_whitespace()
        .next()?
        .chars()
        .map(as_digit)
        .collect();
    is_number(&number).then_some(number)
}

fn rows(facts: &[&str]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for line in facts {
        let Some(row) = row(line) else { continue };
        if rows.iter().all(|known| known.nutrient != row.nutrient) {
            rows.push(row);
        }
    }
    rows
}

/// One row: a nutrient, an amount, a percentage; one of the two may be missing.
fn row(line: &str) -> Option<Row> {
    let line = line.trim_start_matches(['•', '*', '-', '.', '|', ' ']);
    let (nutrient, rest) = added_sugars(line).or_else(|| nutrient(line))?;
    let mut row = Row {
        nutrient: nutrient.name.to_owned(),
        ..Row::default()
    };
    let words: Vec<&str> = rest.split_whitespace().collect();
    for (at, word) in words.iter().enumerate() {
        let word =
            word.trim_matches(|char: char| !(char.is_alphanumeric() || "<%.".contains(char)));
        if let Some(percent) = word.strip_suffix('%') {
            // The sign may stand apart from its number.
            let apart = at.checked_sub(1).and_then(|before| words.get(before));
            let percent = if percent.is_empty() {
                apart.copied().unwrap_or_default()
            } else {
                percent
            };
            let percent = number(percent);
            if row.daily_value.is_empty() && is_number(&percent) {
                row.daily_value = percent;
            }
        } else if row.amount.is_empty() {
            row.amount = amount(word, words.get(at + 1).copied()).unwrap_or_default();
        }
    }
    (!row.amount.is_empty() || !row.daily_value.is_empty()).then_some(row)
}

/// `Includes 10g Added Sugars 20%` has its amount before its name.
fn added_sugars(line: &str) -> Option<(&'static Nutrient, &str)> {
    let rest = after(line, "includes").or_else(|| after(line, "incl."))?;
    rest.to_lowercase()
        .contains("sugar")
        .then_some((Nutrient::named("Added Sugars")?, rest))
}

/// The nutrient whose name, or another name of it, the line begins with: the one with the fewest wrong letters.
fn nutrient(line: &str) -> Option<(&'static Nutrient, &str)> {
    let names = NUTRIENTS.iter().flat_map(|nutrient| {
        let names = std::iter::once(&nutrient.name).chain(nutrient.aliases);
        names.map(move |name| (nutrient, name))
    });
    let found = names.filter_map(|(nutrient, name)| {
        let (wrong, rest) = prefix(line, &name.to_lowercase())?;
        Some((wrong, std::cmp::Reverse(name.len()), nutrient, rest))
    });
    let best = found.min_by_key(|(wrong, length, ..)| (*wrong, *length));
    best.map(|(_, _, nutrient, rest)| (nutrient, rest))
}

/// `8g`, `8 g`, `Og`, `<1g`: as the label prints it, with digits for the letters that look like them.
fn amount(word: &str, next: Option<&str>) -> Option<String> {
    let (less, word) = match word.strip_prefix('<') {
        Some(rest) => ("<", rest),
        None => ("", word),
    };
    let end = word
        .find(|char: char| !is_digit_like(char))
        .unwrap_or(word.len());
    // An l may be a one or the unit's own: only mass is declared in this table, so it is a one.
    let (digits, unit) = word.split_at(end);
    let unit = match (unit, next) {
        ("", Some(next)) => next,
        ("q", _) => "g",
        (unit, _) => unit,
    };
    let text = format!("{}{unit}", number(digits));
    let (amount, rest) = read_amount(&text)?;
    (amount.unit.is_mass() && rest.is_empty()).then(|| format!("{less}{text}"))
}

fn number(text: &str) -> String {
    text.chars().map(as_digit).collect()
}

fn is_number(text: &str) -> bool {
    read_number(text).is_some_and(|(_, rest)| rest.is_empty())
}

fn is_digit_like(char: char) -> bool {
    char.is_ascii_digit() || matches!(char, '.' | ',' | 'O' | 'o' | 'l' | 'I')
}

fn as_digit(char: char) -> char {
    match char {
        'O' | 'o' => '0',
        'l' | 'I' => '1',
        other => other,
    }
}

/// What stands behind a heading, to the next one or to an empty line; without its last full stop.
fn paragraph(lines: &[&str], heading: &str) -> String {
    let begins = |line: &&str| -> Option<usize> {
        let rest = after(line, heading)?;
        // `Contains` begins sentences as well: a colon, or nothing but the list, makes it the statement.
        let is_statement = rest.starts_with(':') || line.starts_with(&heading.to_uppercase());
        is_statement.then(|| line.len() - rest.len())
    };
    let Some((at, start)) = lines
        .iter()
        .enumerate()
        .find_map(|(at, line)| Some((at, begins(line)?)))
    else {
        return String::new();
    };
    let mut text = lines[at][start..].trim_start_matches([':', ' ']).to_owned();
    for line in &lines[at + 1..] {
        if line.is_empty() || is_heading(line) {
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(line);
    }
    // A full stop that was read as a comma is none the better for it.
    text.trim_end_matches(['.', ',', ' ']).to_owned()
}

fn maker(lines: &[&str]) -> String {
    let is_maker = |line: &&&str| MAKERS.iter().any(|phrase| after(line, phrase).is_some());
    lines
        .iter()
        .find(is_maker)
        .copied()
        .unwrap_or_default()
        .to_owned()
}

fn is_heading(line: &str) -> bool {
    HEADINGS
        .iter()
        .any(|heading| after(line, heading).is_some())
}

/// What stands behind a phrase that the line begins with, give or take a letter.
fn after<'a>(line: &'a str, phrase: &str) -> Option<&'a str> {
    prefix(line, phrase).map(|(_, rest)| rest)
}

/// How many letters of the phrase (in lower case) are wrong, and what stands behind it. One letter of six may be wrong,
/// two at most; what follows is another word.
fn prefix<'a>(line: &'a str, phrase: &str) -> Option<(usize, &'a str)> {
    let length = phrase.chars().count();
    let allowed = (length / 6).min(2);
    let mut best: Option<(usize, &str)> = None;
    for taken in length.saturating_sub(allowed.min(1))..=length + allowed.min(1) {
        let end = match line.char_indices().nth(taken) {
            Some((end, _)) => end,
            None if line.chars().count() == taken => line.len(),
            None => continue,
        };
        let (head, rest) = line.split_at(end);
        let continues = phrase.ends_with(char::is_alphanumeric)
            && rest.starts_with(|char: char| char.is_alphabetic());
        let wrong = strsim::levenshtein(&head.to_lowercase(), phrase);
        if wrong <= allowed && !continues && best.is_none_or(|(least, _)| wrong < least) {
            best = Some((wrong, rest));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::{extract, has_panel};

    const LABEL: &str = "OAT & HONEY GRANOLA
Crunchy whole grain clusters

NET WT 12 OZ (340 g)

Nutrition Facts
About 6 servings per container
Serving size 2/3 cup (55g)
Amount per serving
Calories 230
% Daily Value*
Total Fat 8g 10%
Saturated Fat lg 5%
Trans Fat Og
Cholesterol 0mg 0%
Sodium 160 mg 7 %
Total Carbohydrale 37g 13%
Dietary Fiber 4g 14%
Total Sugars 12g
Includes 10g Added Sugars 20%
Protein 3g
Vitamin D 2mcg 10%
Calcium 260mg 20%
Iron 8mg 45%
Potassium 240mg 6%
* The % Daily Value (DV) tells you how much a nutrient contributes

INGREDIENTS: WHOLE GRAIN OATS, SUGAR,
HONEY, ALMONDS, SALT.
CONTAINS: ALMONDS (TREE NUTS).
Distributed by Hill & Dale Foods, Portland, OR 97201
";

    #[test]
    fn all_fields_of_a_label_are_found() {
        let fields = extract(LABEL);
        assert_eq!(fields.name, "OAT & HONEY GRANOLA");
        assert_eq!(fields.net_quantity, "NET WT 12 OZ (340 g)");
        assert_eq!(fields.serving_size, "2/3 cup (55g)");
        assert_eq!(fields.servings, "About 6");
        assert_eq!(fields.calories, "230");
        assert_eq!(
            fields.ingredients,
            "WHOLE GRAIN OATS, SUGAR, HONEY, ALMONDS, SALT"
        );
        assert_eq!(fields.contains, "ALMONDS (TREE NUTS)");
        assert_eq!(
            fields.maker,
            "Distributed by Hill & Dale Foods, Portland, OR 97201"
        );
        assert_eq!(fields.rows.len(), 14);
    }

    #[test]
    fn rows_forgive_what_recognition_gets_wrong() {
        let fields = extract(LABEL);
        let row = |name: &str| {
            let row = fields
                .row(name)
                .unwrap_or_else(|| panic!("{name} in {fields:?}"));
            (row.amount.as_str(), row.daily_value.as_str())
        };
        assert_eq!(row("Total Fat"), ("8g", "10"));
        assert_eq!(row("Saturated Fat"), ("1g", "5"));
        assert_eq!(row("Trans Fat"), ("0g", ""));
        assert_eq!(row("Sodium"), ("160mg", "7"));
        assert_eq!(row("Total Carbohydrate"), ("37g", "13"));
        assert_eq!(row("Added Sugars"), ("10g", "20"));
        assert_eq!(row("Vitamin D"), ("2mcg", "10"));
    }

    #[test]
    fn a_text_without_a_label_has_no_fields_but_its_first_line() {
        let fields = extract("Dear Sir,\nit contains nothing.\n");
        assert_eq!(fields.name, "Dear Sir,");
        assert_eq!(fields.contains, "");
        assert!(fields.rows.is_empty());
        assert_eq!(extract("").name, "");
        assert!(!has_panel("Dear Sir", "Nutrition Facts"));
        assert!(has_panel("x\nNutrilion Facts\n", "Nutrition Facts"));
    }

    #[test]
    fn a_quantity_in_both_systems_is_the_net_quantity_also_without_the_word() {
        let fields = extract("SPRING WATER\n16.9 FL OZ (500 mL)\n");
        assert_eq!(fields.net_quantity, "16.9 FL OZ (500 mL)");
    }
}
