//! Draws a label: black on white, with lines between the rows of its panel, as on a carton.

use std::path::Path;

use ab_glyph::{Font, FontVec, PxScale, ScaleFont, point};
use anyhow::Context;
use image::{GrayImage, Luma};

use crate::samples::product::{Panel, Product};

const WIDTH: u32 = 900;
const MARGIN: u32 = 50;
const PANEL_WIDTH: u32 = 620;
/// What is left free above a panel, and below it.
const AROUND_PANEL: u32 = 26;

/// The fonts that labels are set in.
#[derive(Debug)]
pub struct Fonts {
    plain: FontVec,
    bold: FontVec,
}

/// A label as a picture, and what it says.
#[derive(Debug)]
pub struct Drawn {
    /// Black on white.
    pub picture: GrayImage,
    /// Line by line.
    pub text: String,
}

/// One line of a label.
struct Set {
    left: String,
    right: String,
    /// The height of its letters in pixels; by it goes the distance to the next.
    size: f32,
    bold: bool,
    /// How far it is set in.
    indent: u32,
    /// What is ruled below it, in pixels.
    rule: u32,
    in_panel: bool,
}

impl Fonts {
    /// Reads `DejaVuSans.ttf` and `DejaVuSans-Bold.ttf` of a folder (Debian's package fonts-dejavu-core).
    ///
    /// # Errors
    /// When they are not there.
    pub fn read(folder: &Path) -> anyhow::Result<Fonts> {
        let read = |name: &str| {
            let path = folder.join(name);
            let bytes = std::fs::read(&path).with_context(|| {
                format!(
                    "cannot read {}: it is in Debian's package fonts-dejavu-core",
                    path.display()
                )
            })?;
            FontVec::try_from_vec(bytes).with_context(|| format!("{} is no font", path.display()))
        };
        Ok(Fonts {
            plain: read("DejaVuSans.ttf")?,
            bold: read("DejaVuSans-Bold.ttf")?,
        })
    }
}

/// What a product's label says, line by line.
pub fn text(product: &Product) -> String {
    let mut text = String::new();
    for line in lines(product) {
        text.push_str(&line.left);
        if !line.right.is_empty() {
            text.push(' ');
            text.push_str(&line.right);
        }
        text.push('\n');
    }
    text
}

/// Draws a product's label.
pub fn draw(product: &Product, fonts: &Fonts) -> Drawn {
    let lines = lines(product);
    let advance =
        |line: &Set| (line.size * 1.45) as u32 + line.rule + if line.rule > 0 { 8 } else { 0 };
    let height = MARGIN * 2 + lines.iter().map(advance).sum::<u32>() + 2 * AROUND_PANEL;
    let mut picture = GrayImage::from_pixel(WIDTH, height, Luma([255]));
    let mut top = MARGIN;
    let mut panel: Option<(u32, u32)> = None;
    let mut was_in_panel = false;
    for line in &lines {
        if line.in_panel != was_in_panel {
            top += AROUND_PANEL;
            was_in_panel = line.in_panel;
        }
        let font = if line.bold { &fonts.bold } else { &fonts.plain };
        let left = MARGIN + line.indent + if line.in_panel { 14 } else { 0 };
        write(&mut picture, font, line.size, left, top, &line.left);
        if !line.right.is_empty() {
            let right = MARGIN + PANEL_WIDTH - 14;
            let width = width(font, line.size, &line.right);
            write(
                &mut picture,
                font,
                line.size,
                right - width,
                top,
                &line.right,
            );
        }
        let next = top + advance(line);
        if line.rule > 0 {
            rule(
                &mut picture,
                MARGIN + 10,
                next - line.rule - 4,
                PANEL_WIDTH - 20,
                line.rule,
            );
        }
        if line.in_panel {
            let begun = panel.map_or(top, |(begun, _)| begun);
            panel = Some((begun, next));
        }
        top = next;
    }
    if let Some((begun, end)) = panel {
        frame(&mut picture, begun - 8, end + 4);
    }
    Drawn {
        picture,
        text: text(product),
    }
}

fn lines(product: &Product) -> Vec<Set> {
    let mut lines = vec![plain(product.name, 46.0, true)];
    lines.extend(product.lines.iter().map(|line| plain(line, 26.0, false)));
    lines.push(plain(&product.net_quantity, 28.0, true));
    if let Some(panel) = &product.panel {
        lines.extend(panel_lines(panel));
    }
    let mut statements = vec![format!("INGREDIENTS: {}", product.ingredients)];
    if !product.contains.is_empty() {
        statements.push(format!("CONTAINS: {}", product.contains));
    }
    if !product.maker.is_empty() {
        statements.push(product.maker.to_owned());
    }
    statements.push(format!("LOT {:04}", product.lot));
    for statement in statements {
        lines.extend(
            wrapped(&statement)
                .into_iter()
                .map(|line| plain(&line, 22.0, false)),
        );
    }
    lines
}

fn panel_lines(panel: &Panel) -> Vec<Set> {
    let in_panel = |left: &str, right: &str, size: f32, bold: bool, rule: u32| Set {
        left: left.to_owned(),
        right: right.to_owned(),
        size,
        bold,
        indent: 0,
        rule,
        in_panel: true,
    };
    let servings = match panel.servings {
        1 => "1 serving per container".to_owned(),
        count => format!("{count} servings per container"),
    };
    let mut lines = vec![
        in_panel(panel.title, "", 44.0, true, 2),
        in_panel(&servings, "", 24.0, false, 0),
        in_panel("Serving size", panel.serving_size, 24.0, true, 10),
        in_panel("Amount per serving", "", 20.0, true, 0),
    ];
    if let Some(calories) = panel.calories {
        lines.push(in_panel("Calories", &calories.to_string(), 36.0, true, 6));
    }
    lines.push(in_panel("", "% Daily Value*", 20.0, true, 2));
    for (name, amount, percent) in &panel.rows {
        let percent = percent.map_or(String::new(), |percent| format!("{percent}%"));
        let left = match *name {
            "Added Sugars" => format!("Includes {amount} Added Sugars"),
            name => format!("{name} {amount}"),
        };
        lines.push(Set {
            indent: match *name {
                "Saturated Fat" | "Trans Fat" | "Dietary Fiber" | "Total Sugars" => 24,
                "Added Sugars" => 48,
                _ => 0,
            },
            ..in_panel(&left, &percent, 24.0, false, 2)
        });
    }
    lines.push(in_panel(
        "* The % Daily Value tells you how much a nutrient in a",
        "",
        17.0,
        false,
        0,
    ));
    lines.push(in_panel(
        "serving of food contributes to a daily diet.",
        "",
        17.0,
        false,
        0,
    ));
    lines
}

fn plain(text: &str, size: f32, bold: bool) -> Set {
    Set {
        left: text.to_owned(),
        right: String::new(),
        size,
        bold,
        indent: 0,
        rule: 0,
        in_panel: false,
    }
}

/// Breaks a statement into lines that fit.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        if lines[last].len() + word.len() > 58 {
            lines.push(word.to_owned());
        } else {
            if !lines[last].is_empty() {
                lines[last].push(' ');
            }
            lines[last].push_str(word);
        }
    }
    lines
}

fn width(font: &FontVec, size: f32, text: &str) -> u32 {
    let font = font.as_scaled(PxScale::from(size));
    text.chars()
        .map(|char| font.h_advance(font.glyph_id(char)))
        .sum::<f32>() as u32
}

fn write(picture: &mut GrayImage, font: &FontVec, size: f32, left: u32, top: u32, text: &str) {
    let scaled = font.as_scaled(PxScale::from(size));
    let mut x = left as f32;
    let baseline = top as f32 + scaled.ascent();
    for char in text.chars() {
        let id = scaled.glyph_id(char);
        let glyph = id.with_scale_and_position(PxScale::from(size), point(x, baseline));
        x += scaled.h_advance(id);
        let Some(outline) = scaled.outline_glyph(glyph) else {
            continue;
        };
        let bounds = outline.px_bounds();
        outline.draw(|dx, dy, coverage| {
            let (x, y) = (bounds.min.x as u32 + dx, bounds.min.y as u32 + dy);
            if x < picture.width() && y < picture.height() {
                let pixel = picture.get_pixel_mut(x, y);
                pixel.0 = [(f32::from(pixel.0[0]) * (1.0 - coverage)) as u8];
            }
        });
    }
}

fn rule(picture: &mut GrayImage, left: u32, top: u32, width: u32, height: u32) {
    for y in top..(top + height).min(picture.height()) {
        for x in left..(left + width).min(picture.width()) {
            picture.put_pixel(x, y, Luma([0]));
        }
    }
}

fn frame(picture: &mut GrayImage, top: u32, bottom: u32) {
    for (left, width) in [(MARGIN - 4, 3), (MARGIN + PANEL_WIDTH, 3)] {
        rule(picture, left, top, width, bottom - top);
    }
    for top in [top, bottom - 3] {
        rule(picture, MARGIN - 4, top, PANEL_WIDTH + 4, 3);
    }
}
