//! Amounts with units: `454 g`, `1 lb`, `12 FL OZ`.

/// A unit that labels use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// µg
    Microgram,
    /// mg
    Milligram,
    /// g
    Gram,
    /// kg
    Kilogram,
    /// oz (avoirdupois)
    Ounce,
    /// lb
    Pound,
    /// mL
    Millilitre,
    /// L
    Litre,
    /// fl oz (United States)
    FluidOunce,
    /// pt (United States)
    Pint,
    /// qt (United States)
    Quart,
    /// gal (United States)
    Gallon,
    /// Pieces, by whatever name: count, tablets, capsules, softgels.
    Piece,
}

/// How each is written, in lower case; longer ones first, so that `fl oz` is not read as something else.
const SPELLINGS: [(&str, Unit); 37] = [
    ("fluid ounces", Unit::FluidOunce),
    ("fluid ounce", Unit::FluidOunce),
    ("millilitres", Unit::Millilitre),
    ("milliliters", Unit::Millilitre),
    ("micrograms", Unit::Microgram),
    ("milligrams", Unit::Milligram),
    ("kilograms", Unit::Kilogram),
    ("fl. oz.", Unit::FluidOunce),
    ("softgels", Unit::Piece),
    ("capsules", Unit::Piece),
    ("fl. oz", Unit::FluidOunce),
    ("tablets", Unit::Piece),
    ("gallons", Unit::Gallon),
    ("gallon", Unit::Gallon),
    ("ounces", Unit::Ounce),
    ("pounds", Unit::Pound),
    ("liters", Unit::Litre),
    ("litres", Unit::Litre),
    ("pieces", Unit::Piece),
    ("fl oz", Unit::FluidOunce),
    ("floz", Unit::FluidOunce),
    ("quart", Unit::Quart),
    ("count", Unit::Piece),
    ("pint", Unit::Pint),
    ("mcg", Unit::Microgram),
    ("gal", Unit::Gallon),
    ("lbs", Unit::Pound),
    ("µg", Unit::Microgram),
    ("mg", Unit::Milligram),
    ("kg", Unit::Kilogram),
    ("oz", Unit::Ounce),
    ("lb", Unit::Pound),
    ("ml", Unit::Millilitre),
    ("pt", Unit::Pint),
    ("qt", Unit::Quart),
    ("g", Unit::Gram),
    ("l", Unit::Litre),
];

impl Unit {
    /// So many grams, or millilitres, or pieces.
    pub fn in_base(self) -> f64 {
        match self {
            Unit::Microgram => 1e-6,
            Unit::Milligram => 1e-3,
            Unit::Gram | Unit::Millilitre | Unit::Piece => 1.0,
            Unit::Kilogram | Unit::Litre => 1e3,
            Unit::Ounce => 28.349_523_125,
            Unit::Pound => 453.592_37,
            Unit::FluidOunce => 29.573_529_562_5,
            Unit::Pint => 473.176_473,
            Unit::Quart => 946.352_946,
            Unit::Gallon => 3_785.411_784,
        }
    }

    /// Whether it measures mass.
    pub fn is_mass(self) -> bool {
        match self {
            Unit::Microgram
            | Unit::Milligram
            | Unit::Gram
            | Unit::Kilogram
            | Unit::Ounce
            | Unit::Pound => true,
            Unit::Millilitre
            | Unit::Litre
            | Unit::FluidOunce
            | Unit::Pint
            | Unit::Quart
            | Unit::Gallon
            | Unit::Piece => false,
        }
    }

    /// Whether it measures volume.
    pub fn is_volume(self) -> bool {
        !self.is_mass() && self != Unit::Piece
    }

    /// Whether it is metric.
    pub fn is_metric(self) -> bool {
        match self {
            Unit::Microgram
            | Unit::Milligram
            | Unit::Gram
            | Unit::Kilogram
            | Unit::Millilitre
            | Unit::Litre => true,
            Unit::Ounce
            | Unit::Pound
            | Unit::FluidOunce
            | Unit::Pint
            | Unit::Quart
            | Unit::Gallon
            | Unit::Piece => false,
        }
    }
}

/// A number of a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Amount {
    /// How many.
    pub value: f64,
    /// Of what.
    pub unit: Unit,
}

impl Amount {
    /// In grams, millilitres or pieces.
    pub fn in_base(self) -> f64 {
        self.value * self.unit.in_base()
    }
}

/// Reads the amount that a text begins with: it and what comes behind. `None` when it begins otherwise.
pub fn read_amount(text: &str) -> Option<(Amount, &str)> {
    let (value, rest) = read_number(text)?;
    let trimmed = rest.trim_start();
    for (spelling, unit) in SPELLINGS {
        let Some(head) = trimmed.get(..spelling.len()) else {
            continue;
        };
        let tail = &trimmed[spelling.len()..];
        let ends = !tail.starts_with(|next: char| next.is_alphanumeric());
        if ends && head.to_lowercase() == spelling {
            return Some((
                Amount { value, unit },
                tail.strip_prefix('.').unwrap_or(tail),
            ));
        }
    }
    None
}

/// All amounts of a text, in their order.
pub fn find_amounts(text: &str) -> Vec<Amount> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        // A digit within a word (`B12`) begins no amount.
        if first.is_ascii_digit()
            && !before.is_alphanumeric()
            && let Some((amount, tail)) = read_amount(rest)
        {
            found.push(amount);
            rest = tail;
            before = ' ';
            continue;
        }
        before = first;
        rest = &rest[first.len_utf8()..];
    }
    found
}

/// Reads `12`, `1.5`, `1,000`, `1/2` or `1 1/2`, and what comes behind.
pub fn read_number(text: &str) -> Option<(f64, &str)> {
    let (whole, rest) = read_decimal(text)?;
    if let Some((denominator, tail)) = rest.strip_prefix('/').and_then(read_decimal) {
        return (denominator > 0.0).then_some((whole / denominator, tail));
    }
    if let Some((numerator, tail)) = rest.strip_prefix(' ').and_then(read_decimal)
        && let Some((denominator, tail)) = tail.strip_prefix('/').and_then(read_decimal)
        && denominator > 0.0
    {
        return Some((whole + numerator / denominator, tail));
    }
    Some((whole, rest))
}

fn read_decimal(text: &str) -> Option<(f64, &str)> {
    let end = text
        .char_indices()
        .find(|(_, char)| !(char.is_ascii_digit() || matches!(char, '.' | ',')))
        .map_or(text.len(), |(at, _)| at);
    let digits = text[..end].trim_end_matches(['.', ',']);
    let value = digits.replace(',', "").parse().ok()?;
    Some((value, &text[digits.len()..]))
}

#[cfg(test)]
mod tests {
    use super::{Unit, find_amounts, read_number};

    #[test]
    fn amounts_are_found_however_they_are_written() {
        let found = |text: &str| -> Vec<(f64, Unit)> {
            let amounts = find_amounts(text).into_iter();
            amounts.map(|amount| (amount.value, amount.unit)).collect()
        };
        assert_eq!(
            found("NET WT 16 OZ (1 LB) 454g"),
            [(16.0, Unit::Ounce), (1.0, Unit::Pound), (454.0, Unit::Gram)]
        );
        assert_eq!(
            found("12 FL. OZ. (355 mL)"),
            [(12.0, Unit::FluidOunce), (355.0, Unit::Millilitre)]
        );
        assert_eq!(
            found("1 1/2 pint, 60 Capsules"),
            [(1.5, Unit::Pint), (60.0, Unit::Piece)]
        );
        assert_eq!(
            found("1,000 mcg of B12 and 5 gum"),
            [(1000.0, Unit::Microgram)]
        );
    }

    #[test]
    fn numbers_are_whole_decimal_or_fractions() {
        assert_eq!(read_number("2/3 cup"), Some((2.0 / 3.0, " cup")));
        assert_eq!(read_number("8."), Some((8.0, ".")));
        assert_eq!(read_number("1/0"), None);
        assert_eq!(read_number("x"), None);
    }
}
