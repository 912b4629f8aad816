//! The service over HTTP: what it answers, to good requests and to bad ones.

mod common;

use std::io::{Read, Write};

use common::{Reply, Service, committed_digits, encode, question};
use image::{DynamicImage, GrayImage, ImageFormat, Luma, RgbaImage};

/// The start of a PNG that claims to be so large, with a valid checksum over its header.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 0, 0, 0, 0]);
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    bytes.extend(&chunk);
    bytes.extend(crc32(&chunk).to_be_bytes());
    bytes
}

/// The checksum of PNG's chunks (RFC 2083, 15).
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// Where the frame header of a JPEG starts (T.81, B.2.2).
fn find_frame(jpeg: &[u8]) -> usize {
    let mut pairs = jpeg.windows(2);
    pairs.position(|pair| pair == [0xff, 0xc0]).unwrap()
}

/// The service still recognises a digit.
fn assert_lives(service: &Service) {
    let (_, digit, bytes) = &committed_digits()[0];
    let reply = service.post_picture(bytes);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["digit"], *digit);
}

#[test]
fn a_digit_is_answered_with_its_ten_probabilities() {
    let service = Service::start();
    for (name, digit, bytes) in committed_digits() {
        let reply = service.post_picture(&bytes);
        assert_eq!(reply.status, 200, "{name}");
        let answer = reply.json();
        assert_eq!(answer["digit"], digit, "{name}");
        let probabilities = answer["probabilities"].as_array().unwrap();
        assert_eq!(probabilities.len(), 10);
        let sum: f64 = probabilities.iter().map(|p| p.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-3, "{sum}");
    }
}

#[test]
fn the_path_without_its_slash_and_a_jpeg_are_taken_too() {
    let service = Service::start();
    let (_, digit, bytes) = &committed_digits()[10];
    let grey = image::load_from_memory(bytes).unwrap();
    let large = grey.resize(300, 300, image::imageops::FilterType::CatmullRom);
    let jpeg = encode(&large, ImageFormat::Jpeg);
    let reply = service.ask("POST", "/mnist", &question(&jpeg));
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["digit"], *digit);
}

#[test]
fn the_documentation_is_served_from_the_binary() {
    let service = Service::start();
    assert_eq!(service.get("/healthz").body, b"ok");
    let reply = service.get("/");
    assert_eq!(reply.status, 307);
    assert!(reply.head.contains("location: /docs/"), "{}", reply.head);
    assert_eq!(service.get("/docs").status, 303);
    let page = String::from_utf8(service.get("/docs/").body).unwrap();
    assert!(page.contains("swagger-ui"), "{page}");
    for linked in ["https://", "http://"] {
        assert!(
            !page.contains(linked),
            "the page loads from elsewhere: {page}"
        );
    }
    let script = service.get("/docs/swagger-ui-bundle.js");
    assert_eq!(script.status, 200);
    let document = service.get("/openapi.json").json();
    for path in ["/mnist/", "/healthz"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
}

#[test]
fn what_is_not_the_json_asked_for_is_refused() {
    let service = Service::start();
    for (body, cause) in [
        (&b""[..], "EOF while parsing a value"),
        (b"{", "EOF while parsing an object"),
        (b"[]", "invalid length 0"),
        (b"{\"base64\": 7}", "invalid type: integer `7`"),
        (b"{\"picture\": \"\"}", "missing field `base64`"),
        (b"{\"base64\": \"\xff\"}", "invalid unicode code point"),
    ] {
        let reply = service.post(body);
        assert_eq!(reply.status, 400);
        let error = reply.error();
        assert!(
            error.starts_with("the body is not JSON of the form"),
            "{error}"
        );
        assert!(error.contains(cause), "{error}");
    }
    assert_lives(&service);
}

#[test]
fn what_is_not_base64_is_refused() {
    let service = Service::start();
    let reply = service.post(b"{\"base64\": \"not base64!\"}");
    assert_eq!(reply.status, 400);
    let error = reply.error();
    assert!(
        error.starts_with("the value of base64 cannot be decoded: "),
        "{error}"
    );
    assert_lives(&service);
}

#[test]
fn what_is_not_a_picture_is_refused() {
    let service = Service::start();
    for bytes in [
        &b""[..],
        b"hello",
        b"GIF89a..........",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
    ] {
        let reply = service.post_picture(bytes);
        assert_eq!(reply.status, 422);
        let error = reply.error();
        assert_eq!(
            error,
            "what was sent is not a picture: it must be a PNG or a JPEG"
        );
    }
    assert_lives(&service);
}

#[test]
fn a_damaged_picture_is_refused() {
    let service = Service::start();
    let (_, _, whole) = &committed_digits()[0];
    let cut = &whole[..whole.len() / 2];
    let noise = DynamicImage::ImageLuma8(GrayImage::from_fn(64, 64, |x, y| Luma([(x * y) as u8])));
    let jpeg = encode(&noise, ImageFormat::Jpeg);
    // A JPEG that ends within its picture is shown as far as it goes; this one ends before.
    let frame = find_frame(&jpeg);
    for bytes in [cut, &png_header(28, 28), &jpeg[..frame + 20]] {
        let reply = service.post_picture(bytes);
        assert_eq!(reply.status, 422);
        let error = reply.error();
        assert!(error.starts_with("the picture is damaged"), "{error}");
    }
    assert_lives(&service);
}

#[test]
fn a_picture_without_pixels_is_refused() {
    let service = Service::start();
    let reply = service.post_picture(&png_header(0, 28));
    assert_eq!(reply.status, 422);
    assert_eq!(reply.error(), "the picture has 0 pixels (0x28)");
    let mut jpeg = encode(&DynamicImage::new_luma8(8, 8), ImageFormat::Jpeg);
    let frame = find_frame(&jpeg);
    jpeg[frame + 5..frame + 9].fill(0);
    let reply = service.post_picture(&jpeg);
    assert_eq!(reply.status, 422);
    assert_eq!(reply.error(), "the picture has 0 pixels (0x0)");
    assert_lives(&service);
}

#[test]
fn a_picture_that_would_not_fit_into_memory_is_refused_by_its_header() {
    let service = Service::start();
    for (width, height) in [
        (10_000, 10_000),
        (u32::MAX, u32::MAX),
        (1, 20_000),
        (6000, 6000),
    ] {
        let reply = service.post_picture(&png_header(width, height));
        assert_eq!(reply.status, 422, "{width}x{height}");
        let error = reply.error();
        let expected = format!("the picture is too large to decode here ({width}x{height} pixels)");
        assert!(error.starts_with(&expected), "{error}");
    }
    // Some 110 KB of a real picture would be 64 MB with its four channels.
    let bomb = DynamicImage::ImageRgba8(RgbaImage::new(4000, 4000));
    let reply = service.post_picture(&encode(&bomb, ImageFormat::Png));
    assert_eq!(reply.status, 422);
    assert_lives(&service);
}

#[test]
fn a_blank_picture_is_refused() {
    let service = Service::start();
    let white = DynamicImage::ImageLuma8(GrayImage::from_pixel(28, 28, Luma([255])));
    let reply = service.post_picture(&encode(&white, ImageFormat::Png));
    assert_eq!(reply.status, 422);
    let expected = "the picture is blank: nothing stands out from its background";
    assert_eq!(reply.error(), expected);
}

#[test]
fn a_body_of_a_gigabyte_is_refused_before_it_has_come() {
    let service = Service::start();
    let mut stream = service.connect();
    stream
        .write_all(b"POST /mnist/ HTTP/1.1\r\nHost: mnist\r\nContent-Length: 1073741824\r\n\r\n")
        .unwrap();
    // Not one byte of the body is sent.
    let reply = Reply::read(stream);
    assert_eq!(reply.status, 413);
    assert_eq!(
        reply.error(),
        "the body is larger than the 8 MiB that are read"
    );
    assert_lives(&service);
}

#[test]
fn a_client_that_sends_a_gigabyte_all_the_same_still_sees_the_refusal() {
    let service = Service::start();
    let mut stream = service.connect();
    stream
        .write_all(b"POST /mnist/ HTTP/1.1\r\nHost: mnist\r\nContent-Length: 1073741824\r\n\r\n")
        .unwrap();
    stream.write_all(&vec![b'a'; 1 << 20]).unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
    assert_lives(&service);
}

#[test]
fn a_body_without_a_length_is_refused_once_it_passes_the_limit() {
    let service = Service::start();
    let mut stream = service.connect();
    stream
        .write_all(b"POST /mnist/ HTTP/1.1\r\nHost: mnist\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    let mut chunk = b"100000\r\n".to_vec();
    chunk.resize(chunk.len() + 0x10_0000, b'a');
    chunk.extend(b"\r\n");
    // The last chunk never comes: the answer does not wait for it.
    for _ in 0..9 {
        stream.write_all(&chunk).unwrap();
    }
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
    assert_lives(&service);
}

#[test]
fn a_client_that_leaves_halfway_does_no_harm() {
    let service = Service::start();
    let mut stream = service.connect();
    stream
        .write_all(b"POST /mnist/ HTTP/1.1\r\nHost: mnist\r\nContent-Length: 1000\r\n\r\n{\"bas")
        .unwrap();
    drop(stream);
    assert_lives(&service);
}

#[test]
fn other_paths_and_methods_are_refused_in_the_same_form() {
    let service = Service::start();
    let reply = service.get("/nothing");
    assert_eq!(reply.status, 404);
    assert!(reply.error().starts_with("there is nothing at this path"));
    let reply = service.get("/mnist/");
    assert_eq!(reply.status, 405);
    assert!(
        reply
            .error()
            .starts_with("this path does not take that method")
    );
}

#[test]
fn a_request_under_way_is_answered_when_the_service_is_told_to_end() {
    let mut service = Service::start();
    let (_, digit, bytes) = &committed_digits()[3];
    let body = question(bytes);
    let (first, rest) = body.split_at(body.len() / 2);
    let mut stream = service.connect();
    let head = format!(
        "POST /mnist/ HTTP/1.1\r\nHost: mnist\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The service asks for the body: so the request is under way.
    let mut proceed = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut proceed).unwrap();
    stream.write_all(first).unwrap();
    service.ask_to_stop();
    stream.write_all(rest).unwrap();
    let reply = Reply::read(stream);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["digit"], *digit);
    service.wait().unwrap();
}
