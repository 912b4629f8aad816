//! Pictures: what is taken for one, and how it is decoded within bounds.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The largest file that is taken: a photograph of a good camera.
pub const BYTES_MAX: usize = 20 << 20;

/// The most pixels that are decoded.
pub const PIXELS_MAX: u64 = 26_000_000;

/// The most bytes that a decoded picture may take: so many pixels in colour and with transparency, but half as many with 16
/// bits for each.
const DECODED_MAX_BYTES: u64 = 4 * PIXELS_MAX;

/// The longer side of a thumbnail, in pixels.
const THUMBNAIL_MAX: u32 = 320;

/// What is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum MediaType {
    /// PNG
    #[serde(rename = "image/png")]
    Png,
    /// JPEG
    #[serde(rename = "image/jpeg")]
    Jpeg,
}

impl MediaType {
    /// As in a Content-Type.
    pub fn as_str(self) -> &'static str {
        match self {
            MediaType::Png => "image/png",
            MediaType::Jpeg => "image/jpeg",
        }
    }

    /// How names of such files end.
    pub fn extension(self) -> &'static str {
        match self {
            MediaType::Png => "png",
            MediaType::Jpeg => "jpg",
        }
    }
}

/// What a picture's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its format, by its first bytes and not by its name.
    pub media_type: MediaType,
    /// In pixels, as it is stored (before it is turned upright).
    pub width: u32,
    /// In pixels.
    pub height: u32,
}

/// Why something is not taken as a picture.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// Another format, or none.
    #[error("this is neither a PNG nor a JPEG")]
    Format,
    /// More bytes than are taken.
    #[error("the file is larger than the {} MiB that are taken", BYTES_MAX >> 20)]
    Bytes,
    /// More pixels than are decoded.
    #[error("the picture has {width} x {height} pixels, and at most {} million are taken, or half as many with 16 bits for each colour", PIXELS_MAX / 1_000_000)]
    Pixels {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// It is cut short or damaged.
    #[error("the picture cannot be read: it is cut short or damaged")]
    Broken(#[source] ImageError),
}

/// Looks at a picture's first bytes, and refuses what would not be read later.
///
/// # Errors
/// As [`PictureError`] says.
pub fn header(bytes: &[u8]) -> Result<Header, PictureError> {
    if bytes.len() > BYTES_MAX {
        return Err(PictureError::Bytes);
    }
    let media_type = match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => MediaType::Png,
        Ok(ImageFormat::Jpeg) => MediaType::Jpeg,
        Ok(_) | Err(_) => return Err(PictureError::Format),
    };
    let decoder = decoder(bytes)?;
    let (width, height) = decoder.dimensions();
    let is_too_large = u64::from(width) * u64::from(height) > PIXELS_MAX
        || decoder.total_bytes() > DECODED_MAX_BYTES;
    if is_too_large || width == 0 || height == 0 {
        return Err(PictureError::Pixels { width, height });
    }
    Ok(Header {
        media_type,
        width,
        height,
    })
}

/// Decodes a picture and turns it upright, as its Exif orientation says.
///
/// # Errors
/// As [`PictureError`] says; by its header where that suffices.
pub fn decode(bytes: &[u8]) -> Result<DynamicImage, PictureError> {
    header(bytes)?;
    let mut decoder = decoder(bytes)?;
    let orientation = decoder.orientation().map_err(PictureError::Broken)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(PictureError::Broken)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// A small JPEG of it.
///
/// # Errors
/// As [`decode`].
pub fn thumbnail(bytes: &[u8]) -> Result<Vec<u8>, PictureError> {
    let small = decode(bytes)?
        .thumbnail(THUMBNAIL_MAX, THUMBNAIL_MAX)
        .into_rgb8();
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 80)
        .encode_image(&small)
        .map_err(PictureError::Broken)?;
    Ok(jpeg)
}

fn decoder(bytes: &[u8]) -> Result<impl ImageDecoder + '_, PictureError> {
    let reader = ImageReader::new(Cursor::new(bytes));
    let reader = reader
        .with_guessed_format()
        .map_err(|error| PictureError::Broken(error.into()))?;
    reader.into_decoder().map_err(PictureError::Broken)
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, ImageFormat};

    use super::{MediaType, PictureError, decode, header, thumbnail};

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        DynamicImage::new_rgb8(640, 400)
            .write_to(&mut bytes, format)
            .unwrap();
        bytes.into_inner()
    }

    #[test]
    fn a_picture_is_known_by_its_bytes() {
        let png = encoded(ImageFormat::Png);
        let header = header(&png).unwrap();
        assert_eq!((header.width, header.height), (640, 400));
        assert_eq!(header.media_type, MediaType::Png);
        let small = decode(&thumbnail(&encoded(ImageFormat::Jpeg)).unwrap()).unwrap();
        assert_eq!((small.width(), small.height()), (320, 200));
    }

    #[test]
    fn what_is_no_picture_is_refused_with_the_reason() {
        assert!(matches!(header(b"GIF89a"), Err(PictureError::Format)));
        assert!(matches!(header(b""), Err(PictureError::Format)));
        // It says that it is large, and has nothing behind that.
        let mut huge = encoded(ImageFormat::Png);
        huge[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
        let said = header(&huge);
        assert!(
            matches!(
                said,
                Err(PictureError::Pixels { .. } | PictureError::Broken(_))
            ),
            "{said:?}"
        );
        let png = encoded(ImageFormat::Png);
        assert!(matches!(
            decode(&png[..png.len() / 2]),
            Err(PictureError::Broken(_))
        ));
    }
}
