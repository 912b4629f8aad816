//! The products: a few, in many sizes and amounts. Some of their labels are wrong on purpose, as real ones are.

use crate::label::category::Category;
use crate::label::nutrient::Nutrient;

/// What stands on one label.
#[derive(Debug, Clone)]
pub struct Product {
    /// Which kind it is.
    pub category: Category,
    /// What it is called, in large letters.
    pub name: &'static str,
    /// What stands below its name.
    pub lines: Vec<String>,
    /// How much is in it.
    pub net_quantity: String,
    /// `Nutrition Facts` or `Supplement Facts`, and what stands in that panel.
    pub panel: Option<Panel>,
    /// What it is made of.
    pub ingredients: &'static str,
    /// Which allergens are in it.
    pub contains: &'static str,
    /// Who made it.
    pub maker: &'static str,
    /// Of which lot it is: no two labels are the same.
    pub lot: u32,
}

/// A facts panel.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Its title.
    pub title: &'static str,
    /// The number of servings.
    pub servings: u32,
    /// What one serving is.
    pub serving_size: &'static str,
    /// The calories of one, where they are declared.
    pub calories: Option<u32>,
    /// Name, amount with its unit, percentage.
    pub rows: Vec<(&'static str, String, Option<u32>)>,
}

/// The product of that number, the same each time. Numbers that leave a rest of 5 when divided by 7 declare a wrong
/// percentage, those divisible by 6 leave out who made them.
pub fn product(number: u32) -> Product {
    let mut product = match number % 5 {
        0 => granola(number),
        1 => crackers(number),
        2 => drink(number),
        3 => supplement(number),
        _ => lotion(number),
    };
    if number % 7 == 5
        && let Some(panel) = &mut product.panel
        && let Some((.., percent)) = panel
            .rows
            .iter_mut()
            .find(|(.., percent)| percent.is_some())
    {
        *percent = percent.map(|percent| percent + 17);
    }
    if number.is_multiple_of(6) {
        product.maker = "";
    }
    product
}

fn granola(number: u32) -> Product {
    let ounces = 10 + number % 9;
    Product {
        category: Category::Food,
        name: ["OAT & HONEY GRANOLA", "MAPLE GRANOLA", "ALMOND MUESLI"][number as usize / 5 % 3],
        lines: vec!["Crunchy whole grain clusters".into()],
        net_quantity: ounces_and_grams(ounces),
        panel: Some(food_panel(
            5 + number % 4,
            "2/3 cup (55g)",
            [8, 1, 0, 160, 37, 4, 12, 10, 3],
            number,
        )),
        ingredients: "WHOLE GRAIN OATS, SUGAR, HONEY, ALMONDS, CANOLA OIL, SALT, CINNAMON.",
        contains: "TREE NUTS.",
        maker: "Distributed by Hill & Dale Foods, Portland, OR 97201",
        lot: number,
    }
}

fn crackers(number: u32) -> Product {
    let ounces = 6 + number % 7;
    Product {
        category: Category::Food,
        name: ["SEA SALT CRACKERS", "CHEDDAR CRISPS", "RYE THINS"][number as usize / 5 % 3],
        lines: vec!["Baked, not fried".into()],
        net_quantity: ounces_and_grams(ounces),
        panel: Some(food_panel(
            6 + number % 5,
            "16 crackers (31g)",
            [5, 1, 0, 230, 21, 1, 3, 2, 3],
            number,
        )),
        ingredients: "WHEAT FLOUR, SUNFLOWER OIL, WHEY, SEA SALT, BARLEY MALT EXTRACT, YEAST.",
        contains: "WHEAT, MILK.",
        maker: "Manufactured by Northern Oven Company, Duluth, MN 55802",
        lot: number,
    }
}

fn drink(number: u32) -> Product {
    let (ounces, millilitres) = [(12, 355), (16, 473), (20, 591)][number as usize / 5 % 3];
    Product {
        category: Category::Beverage,
        name: ["APPLE SPRITZ", "GINGER LEMONADE", "CHERRY SODA"][number as usize / 5 % 3],
        lines: vec![
            "Sparkling drink from concentrate".into(),
            "CONTAINS 10% JUICE".into(),
        ],
        net_quantity: format!("{ounces} FL OZ ({millilitres} mL)"),
        panel: Some(food_panel(
            1,
            "1 bottle",
            [0, 0, 0, 45, 39, 0, 38, 30, 0],
            number,
        )),
        ingredients: "CARBONATED WATER, SUGAR, APPLE JUICE CONCENTRATE, CITRIC ACID, NATURAL FLAVORS.",
        contains: "",
        maker: "Packed by Blue Valley Beverages, Yakima, WA 98901",
        lot: number,
    }
}

fn supplement(number: u32) -> Product {
    let count = 30 * (1 + number % 4);
    Product {
        category: Category::Supplement,
        name: ["DAILY MINERALS", "VITAMIN D COMPLEX", "BONE SUPPORT"][number as usize / 5 % 3],
        lines: vec!["Dietary Supplement".into()],
        net_quantity: format!("{count} Tablets"),
        panel: Some(Panel {
            title: "Supplement Facts",
            servings: count,
            serving_size: "1 tablet",
            calories: None,
            rows: [
                ("Vitamin D", "20mcg"),
                ("Calcium", "260mg"),
                ("Magnesium", "105mg"),
                ("Zinc", "11mg"),
            ]
            .into_iter()
            .map(|(name, amount)| row(name, amount.into()))
            .collect(),
        }),
        ingredients: "CALCIUM CARBONATE, MAGNESIUM OXIDE, CELLULOSE, ZINC OXIDE, CHOLECALCIFEROL.",
        contains: "",
        maker: "Manufactured for Plainview Health, Austin, TX 78701",
        lot: number,
    }
}

fn lotion(number: u32) -> Product {
    let (ounces, millilitres) = [(8, 237), (12, 355), (16, 473)][number as usize / 5 % 3];
    Product {
        category: Category::Cosmetic,
        name: ["LAVENDER HAND LOTION", "OAT BODY WASH", "CITRUS SHAMPOO"][number as usize / 5 % 3],
        lines: vec!["For all skin types".into()],
        net_quantity: format!("{ounces} FL OZ ({millilitres} mL)"),
        panel: None,
        ingredients: "WATER, GLYCERIN, CETEARYL ALCOHOL, SHEA BUTTER, LAVENDER OIL, CITRIC ACID.",
        contains: "",
        maker: "Distributed by Meadow & Moss, Burlington, VT 05401",
        lot: number,
    }
}

fn ounces_and_grams(ounces: u32) -> String {
    let grams = (f64::from(ounces) * 28.349_523).round();
    format!("NET WT {ounces} OZ ({grams} g)")
}

/// Fat, saturated fat, trans fat, sodium, carbohydrate, fiber, sugars, added sugars, protein; a little more of some of
/// them by the number.
fn food_panel(servings: u32, serving_size: &'static str, amounts: [u32; 9], number: u32) -> Panel {
    let [
        fat,
        saturated,
        trans,
        sodium,
        carbohydrate,
        fiber,
        sugars,
        added,
        protein,
    ] = amounts;
    let more = number % 3;
    let (carbohydrate, sodium) = (carbohydrate + more, sodium + 10 * more);
    let rows = [
        ("Total Fat", format!("{fat}g")),
        ("Saturated Fat", format!("{saturated}g")),
        ("Trans Fat", format!("{trans}g")),
        ("Cholesterol", "0mg".to_owned()),
        ("Sodium", format!("{sodium}mg")),
        ("Total Carbohydrate", format!("{carbohydrate}g")),
        ("Dietary Fiber", format!("{fiber}g")),
        ("Total Sugars", format!("{sugars}g")),
        ("Added Sugars", format!("{added}g")),
        ("Protein", format!("{protein}g")),
        ("Vitamin D", "2mcg".to_owned()),
        ("Calcium", format!("{}mg", 130 + 10 * more)),
        ("Iron", "2mg".to_owned()),
        ("Potassium", format!("{}mg", 160 + 20 * more)),
    ];
    Panel {
        title: "Nutrition Facts",
        servings,
        serving_size,
        calories: Some((9 * fat + 4 * carbohydrate + 4 * protein).next_multiple_of(10)),
        rows: rows
            .into_iter()
            .map(|(name, amount)| row(name, amount))
            .collect(),
    }
}

/// With the percentage that follows from the amount; protein goes without, as on most labels.
fn row(name: &'static str, amount: String) -> (&'static str, String, Option<u32>) {
    let percent = Nutrient::named(name)
        .filter(|_| name != "Protein")
        .and_then(|nutrient| {
            let value = nutrient.amount(&amount)?;
            Some((value / nutrient.daily_value? * 100.0).round() as u32)
        });
    (name, amount, percent)
}

#[cfg(test)]
mod tests {
    use super::product;
    use crate::label::category::Category;
    use crate::label::extract::extract;
    use crate::label::rule::{Label, Verdict, check};
    use crate::samples::draw::text;

    #[test]
    fn labels_that_are_right_pass_all_rules_and_those_made_wrong_fail() {
        for number in 1..=40 {
            let product = product(number);
            let text = text(&product);
            let fields = extract(&text);
            assert_eq!(fields.name, product.name);
            let outcomes = check(
                product.category,
                Label {
                    text: &text,
                    fields: &fields,
                },
            );
            let failed: Vec<&str> = outcomes
                .iter()
                .filter(|outcome| outcome.verdict == Verdict::Fail)
                .map(|outcome| outcome.rule.as_str())
                .collect();
            let mut expected = Vec::new();
            if number % 6 == 0 {
                expected.push("maker");
            }
            if number % 7 == 5 && product.category != Category::Cosmetic {
                expected.push("daily-values");
            }
            assert_eq!(failed, expected, "{number}: {outcomes:#?}\n{text}");
        }
    }
}
