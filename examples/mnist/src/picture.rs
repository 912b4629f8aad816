//! From a posted picture to the network's input: decoded within limits, then brought to the form of
//! MNIST's digits (light on dark, in a box of 20x20, centred by mass in 28x28).

use std::io::Cursor;

use image::codecs::{jpeg::JpegDecoder, png::PngDecoder};
use image::imageops::{self, FilterType};
use image::{DynamicImage, GrayImage, ImageDecoder, ImageError, Limits, Luma};
use thiserror::Error;

use crate::header::{self, Format, Header};

/// Width and height of the network's input, in pixels.
pub const SIDE: usize = 28;

/// The box that MNIST fits a digit into, in pixels.
const BOX: u32 = 20;

/// No side may be longer: scaling needs memory for each column. In pixels.
const SIDE_MAX: u32 = 16_384;

/// The most that decoding may take: what the container's 128 MiB leave beside bodies and binary.
pub const DECODING_MAX_BYTES: u64 = 64 << 20;

/// The network's input: 28 rows of 28 values, from 0 (background) to 1 (ink).
pub type Ink = [f32; SIDE * SIDE];

/// Why a picture cannot be read.
#[derive(Debug, Error)]
pub enum PictureError {
    /// Neither PNG nor JPEG.
    #[error("what was sent is not a picture: it must be a PNG or a JPEG")]
    NotAPicture,
    /// Width or height is 0.
    #[error("the picture has 0 pixels ({width}x{height})")]
    NoPixels {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// It would not fit into the service's memory, or one side is too long.
    #[error(
        "the picture is too large to decode here ({width}x{height} pixels): send a smaller one, \
         28x28 are enough"
    )]
    TooLarge {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// The header is that of a picture, the rest is not.
    #[error("the picture is damaged and cannot be decoded")]
    Damaged(#[source] ImageError),
    /// Nothing stands out from the background.
    #[error("the picture is blank: nothing stands out from its background")]
    Blank,
}

/// A picture without ink.
pub fn blank() -> Ink {
    [0.0; SIDE * SIDE]
}

/// Reads a PNG or JPEG of any size into the network's input.
///
/// # Errors
/// [`PictureError`]; a picture that is too large is refused by its header, before it is decoded.
pub fn read(bytes: &[u8]) -> Result<Ink, PictureError> {
    normalise(decode(bytes)?)
}

/// Decodes a PNG or JPEG to grey, turned upright as its metadata say.
///
/// # Errors
/// [`PictureError`], all but `Blank`.
pub fn decode(bytes: &[u8]) -> Result<GrayImage, PictureError> {
    let header = header::read(bytes).ok_or(PictureError::NotAPicture)?;
    match header.format {
        Format::Png => {
            let mut limits = Limits::no_limits();
            limits.max_alloc = Some(DECODING_MAX_BYTES);
            check_size(&header, 1)?;
            let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits);
            decode_with(&header, decoder.map_err(PictureError::Damaged)?)
        }
        Format::Jpeg { progressive } => {
            check_size(&header, if progressive { 9 } else { 3 })?;
            let decoder = JpegDecoder::new(Cursor::new(bytes));
            decode_with(&header, decoder.map_err(PictureError::Damaged)?)
        }
    }
}

/// Refuses what has no pixels, and what takes too much memory at so many bytes a pixel.
fn check_size(header: &Header, bytes_per_pixel: u64) -> Result<(), PictureError> {
    let &Header { width, height, .. } = header;
    if width == 0 || height == 0 {
        return Err(PictureError::NoPixels { width, height });
    }
    let pixels = u64::from(width) * u64::from(height);
    // One byte more for the grey picture that comes of it.
    if width.max(height) > SIDE_MAX || pixels * (bytes_per_pixel + 1) > DECODING_MAX_BYTES {
        return Err(PictureError::TooLarge { width, height });
    }
    Ok(())
}

fn decode_with(header: &Header, mut decoder: impl ImageDecoder) -> Result<GrayImage, PictureError> {
    let colour = decoder.color_type();
    // A picture with alpha is composited on a second grey plane.
    let planes = if colour.has_alpha() { 2 } else { 0 };
    check_size(header, u64::from(colour.bytes_per_pixel()) + planes)?;
    let orientation = decoder.orientation().map_err(PictureError::Damaged)?;
    let picture = DynamicImage::from_decoder(decoder).map_err(PictureError::Damaged)?;
    let grey = if colour.has_alpha() {
        composite(picture)
    } else {
        picture.into_luma8()
    };
    let mut upright = DynamicImage::ImageLuma8(grey);
    upright.apply_orientation(orientation);
    Ok(upright.into_luma8())
}

/// Puts a transparent picture on white if its visible part is mostly dark, else on black: ink on a
/// transparent page must not vanish, whatever its colour.
fn composite(picture: DynamicImage) -> GrayImage {
    let picture = picture.into_luma_alpha8();
    let (mut light, mut visible) = (0u64, 0u64);
    for pixel in picture.pixels() {
        let [grey, alpha] = pixel.0;
        light += u64::from(grey) * u64::from(alpha);
        visible += u64::from(alpha);
    }
    let paper: u32 = if light < visible * 128 { 255 } else { 0 };
    GrayImage::from_fn(picture.width(), picture.height(), |x, y| {
        let [grey, alpha] = picture.get_pixel(x, y).0.map(u32::from);
        Luma([((grey * alpha + paper * (255 - alpha)) / 255) as u8])
    })
}

/// Brings a grey picture to the form of MNIST's digits.
///
/// # Errors
/// [`PictureError::Blank`] when nothing stands out from the background.
pub fn normalise(mut grey: GrayImage) -> Result<Ink, PictureError> {
    lift(&mut grey)?;
    let (x, y, width, height) = bounds(&grey).ok_or(PictureError::Blank)?;
    let digit = imageops::crop_imm(&grey, x, y, width, height);
    let scale = f64::from(BOX) / f64::from(width.max(height));
    let scaled = |length: u32| ((f64::from(length) * scale).round() as u32).max(1);
    let (width, height) = (scaled(width), scaled(height));
    let digit = imageops::resize(&*digit, width, height, FilterType::Triangle);
    Ok(centre(&digit))
}

/// Takes the background away: afterwards it is 0 and the strongest ink is 255, whether the digit was
/// light on dark or dark on light.
fn lift(grey: &mut GrayImage) -> Result<(), PictureError> {
    let paper = background(grey);
    let (darkest, lightest) = grey.pixels().fold((255, 0), |(low, high), pixel| {
        (pixel.0[0].min(low), pixel.0[0].max(high))
    });
    let dark_on_light = paper - darkest > lightest - paper;
    let contrast = (paper - darkest).max(lightest - paper);
    if contrast < 16 {
        return Err(PictureError::Blank);
    }
    // What differs by less than a tenth is the paper's grain or the traces of JPEG.
    let (floor, contrast) = (u32::from(contrast) / 10, u32::from(contrast));
    for pixel in grey.pixels_mut() {
        let value = pixel.0[0];
        let ink = if dark_on_light {
            paper.saturating_sub(value)
        } else {
            value.saturating_sub(paper)
        };
        let ink = u32::from(ink);
        pixel.0[0] = if ink <= floor {
            0
        } else {
            (ink * 255 / contrast) as u8
        };
    }
    Ok(())
}

/// The median of the pixels along the border, which a digit seldom touches.
fn background(grey: &GrayImage) -> u8 {
    let (width, height) = grey.dimensions();
    let mut counts = [0u32; 256];
    let mut count = |x, y| counts[usize::from(grey.get_pixel(x, y).0[0])] += 1;
    for x in 0..width {
        count(x, 0);
        count(x, height - 1);
    }
    for y in 0..height {
        count(0, y);
        count(width - 1, y);
    }
    let mut left = width + height;
    for (value, count) in (0u8..=255).zip(counts) {
        if count >= left {
            return value;
        }
        left -= count;
    }
    255
}

/// The box around everything that has at least a quarter of the strongest ink: x, y, width, height.
fn bounds(ink: &GrayImage) -> Option<(u32, u32, u32, u32)> {
    let mut found: Option<(u32, u32, u32, u32)> = None;
    for (x, y, pixel) in ink.enumerate_pixels() {
        if pixel.0[0] >= 64 {
            let (left, top, right, bottom) = found.unwrap_or((x, y, x, y));
            found = Some((left.min(x), top.min(y), right.max(x), bottom.max(y)));
        }
    }
    found.map(|(left, top, right, bottom)| (left, top, right - left + 1, bottom - top + 1))
}

/// Puts a digit of at most 20x20 into 28x28 with its centre of mass in the middle, and stretches it
/// so that the strongest ink is 1 again (a thin line fades when it is made smaller).
fn centre(digit: &GrayImage) -> Ink {
    let (mut mass, mut moment_x, mut moment_y, mut strongest) = (0.0f32, 0.0f32, 0.0f32, 1u8);
    for (x, y, pixel) in digit.enumerate_pixels() {
        let ink = f32::from(pixel.0[0]);
        mass += ink;
        moment_x += ink * (x as f32 + 0.5);
        moment_y += ink * (y as f32 + 0.5);
        strongest = strongest.max(pixel.0[0]);
    }
    let offset = |moment: f32, length: u32| {
        let room = SIDE as f32 - length as f32;
        let wished = SIDE as f32 / 2.0 - moment / mass.max(1.0);
        wished.round().clamp(0.0, room) as usize
    };
    let left = offset(moment_x, digit.width());
    let top = offset(moment_y, digit.height());
    let mut ink = blank();
    for (x, y, pixel) in digit.enumerate_pixels() {
        let at = (top + y as usize) * SIDE + left + x as usize;
        ink[at] = f32::from(pixel.0[0]) / f32::from(strongest);
    }
    ink
}
