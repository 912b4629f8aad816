//! What a picture says of itself in its first bytes: format and size, before anything is decoded.

/// The formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Portable Network Graphics (RFC 2083).
    Png,
    /// JPEG (ITU-T T.81).
    Jpeg {
        /// A progressive one is decoded only once all of its coefficients are held in memory.
        progressive: bool,
    },
}

/// Format and size of a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The format.
    pub format: Format,
    /// The width as written, 0 included.
    pub width: u32,
    /// The height as written, 0 included.
    pub height: u32,
}

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Reads the header; `None` when the bytes are neither a PNG nor a JPEG, or end too early.
pub fn read(bytes: &[u8]) -> Option<Header> {
    if let Some(rest) = bytes.strip_prefix(PNG_SIGNATURE) {
        return read_png(rest);
    }
    read_jpeg(bytes.strip_prefix(b"\xff\xd8")?)
}

/// The first chunk of a PNG is IHDR: length, name, then width and height (RFC 2083, 4.1.1).
fn read_png(rest: &[u8]) -> Option<Header> {
    let (_, rest) = rest.split_first_chunk::<4>()?;
    let (width, rest) = rest.strip_prefix(b"IHDR")?.split_first_chunk::<4>()?;
    let (height, _) = rest.split_first_chunk::<4>()?;
    Some(Header {
        format: Format::Png,
        width: u32::from_be_bytes(*width),
        height: u32::from_be_bytes(*height),
    })
}

/// Goes from marker to marker up to the frame header, which holds the size (T.81, B.2.2).
fn read_jpeg(mut rest: &[u8]) -> Option<Header> {
    loop {
        let (&[start, marker], after) = rest.split_first_chunk::<2>()?;
        if start != 0xff {
            return None;
        }
        match marker {
            // A marker may be preceded by any number of fill bytes.
            0xff => rest = &rest[1..],
            // These stand alone, without a length.
            0x01 | 0xd0..=0xd7 => rest = after,
            // The frame headers; C4, C8 and CC are something else.
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                let &[_, _, _precision, high, low, wide, narrow] = after.first_chunk::<7>()?;
                return Some(Header {
                    format: Format::Jpeg {
                        progressive: marker & 0x03 == 2,
                    },
                    width: u32::from(u16::from_be_bytes([wide, narrow])),
                    height: u32::from(u16::from_be_bytes([high, low])),
                });
            }
            // The scan or the end, and no frame header before it.
            0xd9 | 0xda => return None,
            _ => {
                let length = usize::from(u16::from_be_bytes(*after.first_chunk::<2>()?));
                rest = after.get(length.max(2)..)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, Header, read};

    #[test]
    fn the_size_of_a_png_is_read_from_its_first_chunk() {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
        bytes.extend([0, 0, 0x27, 0x10, 0, 0, 0, 0]);
        let header = read(&bytes).unwrap();
        assert_eq!((header.width, header.height), (10_000, 0));
        assert_eq!(header.format, Format::Png);
        assert_eq!(read(&bytes[..20]), None);
    }

    #[test]
    fn the_size_of_a_jpeg_is_read_from_its_frame_header() {
        // A comment, a fill byte and a Huffman table stand before the (progressive) frame header.
        let mut bytes = b"\xff\xd8\xff\xfe\0\x04hi\xff\xff\xc4\0\x03x".to_vec();
        bytes.extend(b"\xff\xc2\0\x0b\x08\x01\x00\x02\x03\x01");
        let expected = Header {
            format: Format::Jpeg { progressive: true },
            width: 0x203,
            height: 0x100,
        };
        assert_eq!(read(&bytes), Some(expected));
    }

    #[test]
    fn no_bytes_whatever_make_the_reader_panic() {
        let mut random = crate::random::Random::new(3);
        for length in 0..400 {
            let mut bytes = b"\xff\xd8".to_vec();
            for _ in 0..length {
                let byte = random.next_u64() as u8;
                bytes.extend(if byte < 99 { vec![0xff] } else { vec![byte] });
            }
            read(&bytes);
            read(&bytes[2..]);
        }
        assert_eq!(read(b"GIF89a"), None);
        assert_eq!(read(b""), None);
    }
}
