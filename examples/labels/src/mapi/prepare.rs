//! Makes of a picture what tesseract reads best: grey, upright, large enough, and without the rules and frames of tables.

use image::imageops::{FilterType, resize};
use image::{DynamicImage, GrayImage, Luma};

/// Letters of a label in a picture whose longer side is smaller are too small to be read well.
const SIDE_MIN: u32 = 1_200;

/// Darker pixels than this may belong to a rule.
const DARK: u8 = 110;

/// A rule is at least so long, in pixels; letters have no strokes like that.
const RULE_LENGTH_MIN: u32 = 120;

/// A rule is at most so thick, in pixels. What is thicker is a picture, or a dark ground with light letters on it.
const RULE_THICKNESS_MAX: u32 = 16;

/// A picture for tesseract.
#[derive(Debug)]
pub struct Prepared {
    /// In the format PGM (P5), which needs no decoder of its own.
    pub pgm: Vec<u8>,
    /// How many times it was enlarged.
    pub scale: u32,
    /// The upright picture's width in pixels.
    pub width: u32,
    /// The upright picture's height in pixels.
    pub height: u32,
}

/// Makes it grey, and enlarges it where it is small.
pub fn prepare(picture: DynamicImage) -> Prepared {
    let (width, height) = (picture.width(), picture.height());
    // What is transparent is paper.
    let grey = if picture.color().has_alpha() {
        on_white(&picture)
    } else {
        picture.into_luma8()
    };
    let scale = SIDE_MIN.div_ceil(width.max(height).max(1)).clamp(1, 3);
    let grey = match scale {
        1 => grey,
        scale => resize(&grey, width * scale, height * scale, FilterType::CatmullRom),
    };
    let grey = without_rules(grey);
    let mut pgm = format!("P5\n{} {}\n255\n", grey.width(), grey.height()).into_bytes();
    pgm.extend_from_slice(grey.as_raw());
    Prepared {
        pgm,
        scale,
        width,
        height,
    }
}

/// Paints over straight lines, lying and standing: tesseract reads what is between them as one with them.
fn without_rules(mut grey: GrayImage) -> GrayImage {
    let (width, height) = grey.dimensions();
    for (lines, length, lying) in [(height, width, true), (width, height, false)] {
        let least = (length / 8).max(RULE_LENGTH_MIN);
        let place = |line: u32, at: u32| if lying { (at, line) } else { (line, at) };
        for line in 0..lines {
            let mut begun = None;
            for at in 0..=length {
                let (x, y) = place(line, at);
                let is_dark = at < length && grey.get_pixel(x, y).0[0] < DARK;
                match (begun, is_dark) {
                    (None, true) => begun = Some(at),
                    (Some(from), false) => {
                        if at - from >= least {
                            paint_over(&mut grey, line, from..at, lying);
                        }
                        begun = None;
                    }
                    (Some(_), true) | (None, false) => {}
                }
            }
        }
    }
    grey
}

/// Paints over one line of a rule, but not where it crosses something thicker, such as a letter. Its soft edges go with it.
fn paint_over(grey: &mut GrayImage, line: u32, run: std::ops::Range<u32>, lying: bool) {
    let lines = if lying { grey.height() } else { grey.width() };
    for at in run {
        let place = |line: u32| if lying { (at, line) } else { (line, at) };
        let is_dark = |line: u32| {
            let (x, y) = place(line);
            grey.get_pixel(x, y).0[0] < DARK
        };
        let before = (0..line)
            .rev()
            .take_while(|line| is_dark(*line))
            .take(RULE_THICKNESS_MAX as usize)
            .count();
        let behind = (line + 1..lines)
            .take_while(|line| is_dark(*line))
            .take(RULE_THICKNESS_MAX as usize)
            .count();
        if before + 1 + behind > RULE_THICKNESS_MAX as usize {
            continue;
        }
        let from = line.saturating_sub(u32::from(before == 0));
        let to = (line + u32::from(behind == 0)).min(lines - 1);
        for line in from..=to {
            let (x, y) = place(line);
            grey.put_pixel(x, y, Luma([u8::MAX]));
        }
    }
}

fn on_white(picture: &DynamicImage) -> GrayImage {
    let mut grey = GrayImage::new(picture.width(), picture.height());
    for (to, from) in grey.pixels_mut().zip(picture.to_luma_alpha8().pixels()) {
        let [luma, alpha] = from.0.map(u32::from);
        let blended = (luma * alpha + 255 * (255 - alpha)) / 255;
        to.0 = [u8::try_from(blended).unwrap_or(u8::MAX)];
    }
    grey
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, GrayImage, Luma, Rgba, RgbaImage};

    use super::{prepare, without_rules};

    #[test]
    fn what_is_transparent_is_white_and_what_is_small_is_enlarged() {
        let picture = RgbaImage::from_pixel(600, 400, Rgba([0, 0, 0, 0]));
        let prepared = prepare(DynamicImage::ImageRgba8(picture));
        assert_eq!(
            (prepared.width, prepared.height, prepared.scale),
            (600, 400, 2)
        );
        assert!(prepared.pgm.starts_with(b"P5\n1200 800\n255\n"));
        assert!(prepared.pgm.ends_with(&[255; 100]));
    }

    #[test]
    fn rules_and_frames_go_and_letters_and_dark_grounds_stay() {
        let mut grey = GrayImage::from_pixel(600, 400, Luma([255]));
        let mut fill = |left: u32, top: u32, width: u32, height: u32| {
            for y in top..top + height {
                for x in left..left + width {
                    grey.put_pixel(x, y, Luma([0]));
                }
            }
        };
        fill(20, 50, 500, 4); // a rule
        fill(20, 50, 3, 300); // a frame
        fill(100, 100, 40, 60); // a letter
        fill(200, 200, 300, 100); // a dark ground
        let clean = without_rules(grey);
        for (x, y, is_dark) in [
            (300, 52, false),
            (21, 200, false),
            (120, 130, true),
            (350, 250, true),
            (350, 201, true),
        ] {
            assert_eq!(clean.get_pixel(x, y).0[0] == 0, is_dark, "{x} {y}");
        }
    }
}
