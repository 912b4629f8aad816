//! Pictures as people send them: every one of them shows a committed, held-out digit.

mod common;

use common::{committed_digits, encode};
use image::imageops::{self, FilterType};
use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use mnist::network::Network;
use mnist::picture;

/// Reads each committed digit, changed by `change`, and says which were not recognised.
fn misread(change: impl Fn(GrayImage) -> Vec<u8>) -> Vec<String> {
    let network = Network::trained().unwrap();
    let mut misread = Vec::new();
    for (name, digit, bytes) in committed_digits() {
        let grey = image::load_from_memory(&bytes).unwrap().into_luma8();
        let ink = picture::read(&change(grey)).unwrap();
        let guess = network.guess(&[ink]).unwrap()[0].digit;
        if guess != digit {
            misread.push(format!("{name} was read as {guess}"));
        }
    }
    misread
}

fn png(picture: impl Into<DynamicImage>) -> Vec<u8> {
    encode(&picture.into(), ImageFormat::Png)
}

fn mix(low: u8, high: u8, part: u8) -> u8 {
    let (low, high, part) = (i32::from(low), i32::from(high), i32::from(part));
    (low + (high - low) * part / 255) as u8
}

const NONE: [String; 0] = [];

#[test]
fn there_are_committed_digits_of_every_kind_and_all_are_recognised() {
    let mut kinds: Vec<u8> = committed_digits().iter().map(|digit| digit.1).collect();
    kinds.dedup();
    assert_eq!(kinds, (0..10).collect::<Vec<u8>>());
    assert_eq!(misread(png), NONE);
}

#[test]
fn dark_on_light_is_inverted() {
    assert_eq!(
        misread(|mut grey| {
            imageops::invert(&mut grey);
            png(grey)
        }),
        NONE
    );
}

#[test]
fn weak_ink_on_grey_paper_is_recognised() {
    assert_eq!(
        misread(|grey| {
            let faint = |pixel: &Luma<u8>| Luma([mix(190, 120, pixel.0[0])]);
            png(GrayImage::from_fn(grey.width(), grey.height(), |x, y| {
                faint(grey.get_pixel(x, y))
            }))
        }),
        NONE
    );
}

#[test]
fn blue_ink_on_yellow_paper_is_recognised() {
    assert_eq!(
        misread(|grey| {
            png(RgbImage::from_fn(grey.width(), grey.height(), |x, y| {
                let part = grey.get_pixel(x, y).0[0];
                Rgb([mix(250, 20, part), mix(240, 40, part), mix(170, 160, part)])
            }))
        }),
        NONE
    );
}

#[test]
fn ink_on_a_transparent_page_is_recognised_whatever_its_colour() {
    for ink in [0, 255] {
        assert_eq!(
            misread(|grey| {
                png(RgbaImage::from_fn(grey.width(), grey.height(), |x, y| {
                    Rgba([ink, ink, ink, grey.get_pixel(x, y).0[0]])
                }))
            }),
            NONE,
            "ink of {ink}"
        );
    }
}

#[test]
fn a_digit_in_the_corner_of_a_large_photograph_is_recognised() {
    assert_eq!(
        misread(|grey| {
            let mut page = GrayImage::from_pixel(1600, 1200, Luma([235]));
            let large = imageops::resize(&grey, 420, 420, FilterType::CatmullRom);
            for (x, y, pixel) in large.enumerate_pixels() {
                page.put_pixel(1100 + x, 60 + y, Luma([mix(235, 30, pixel.0[0])]));
            }
            encode(&page.into(), ImageFormat::Jpeg)
        }),
        NONE
    );
}

#[test]
fn sixteen_bits_a_channel_are_read() {
    assert_eq!(
        misread(|grey| png(DynamicImage::ImageLuma8(grey).into_luma16())),
        NONE
    );
}
