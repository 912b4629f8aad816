//! mapi with the real tesseract: how well it reads, and what it refuses. The labels are drawn here, so the truth is at hand.

use std::net::SocketAddr;

use image::ImageFormat;
use labels::mapi::cache::Cache;
use labels::mapi::server;
use labels::mapi::tesseract::Tesseract;
use labels::reading::Reading;
use labels::samples::accuracy::character_error_rate;
use labels::samples::draw::{Fonts, draw};
use labels::samples::product::product;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::common::{Reply, agent, fonts, reply};

/// mapi with the tesseract of this machine.
pub(crate) fn mapi() -> (SocketAddr, Runtime) {
    let runtime = Runtime::new().unwrap();
    let tesseract = runtime.block_on(Tesseract::find()).expect("tesseract");
    (serve(&runtime, tesseract), runtime)
}

/// mapi on a free port of 127.0.0.1.
fn serve(runtime: &Runtime, tesseract: Tesseract) -> SocketAddr {
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let router = server::router(tesseract, Cache::new(None));
        let never = std::future::pending();
        tokio::spawn(labels::serve::serve(
            listener,
            router,
            never,
            server::DRAIN_MAX,
        ));
        addr
    })
}

fn post(addr: SocketAddr, path: &str, body: &[u8]) -> Reply {
    reply(agent().post(format!("http://{addr}{path}")).send(body))
}

#[test]
#[ignore = "needs Debian's tesseract-ocr: cargo xtask test --examples"]
fn clean_labels_are_read_with_at_most_three_wrong_characters_of_a_hundred() {
    let (addr, _runtime) = mapi();
    let fonts = Fonts::read(&fonts()).unwrap();
    let mut worst = 0.0f64;
    let mut sum = 0.0;
    let count = 10;
    for number in 1..=count {
        let product = product(number);
        let drawn = draw(&product, &fonts);
        let mut png = std::io::Cursor::new(Vec::new());
        drawn.picture.write_to(&mut png, ImageFormat::Png).unwrap();
        let answer = post(addr, "/v1/readings", &png.into_inner());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let reading: Reading = serde_json::from_slice(&answer.bytes).unwrap();
        let rate = character_error_rate(&drawn.text, &reading.text);
        println!(
            "{number:>2} {:<22} {:>5.2} % wrong, {} ms",
            product.name,
            rate * 100.0,
            reading.took_ms
        );
        if rate > 0.01 {
            println!("{}", reading.text);
        }
        assert_eq!(reading.fields.name, product.name);
        assert_eq!(reading.fields.net_quantity, product.net_quantity);
        let rows = product.panel.as_ref().map_or(0, |panel| panel.rows.len());
        assert_eq!(reading.fields.rows.len(), rows, "{}", reading.text);
        worst = worst.max(rate);
        sum += rate;
    }
    println!(
        "character error rate: {:.2} % in the mean, {:.2} % at worst",
        sum / f64::from(count) * 100.0,
        worst * 100.0
    );
    assert!(worst <= 0.03, "{worst}");
}

#[test]
fn mapi_refuses_what_it_cannot_read_and_says_what_it_can() {
    // Nothing here comes as far as to be read.
    let runtime = Runtime::new().unwrap();
    let version = "none".to_owned();
    let addr = serve(&runtime, Tesseract { version });
    let refused = post(addr, "/v1/readings", b"no picture");
    assert_eq!(refused.status, 422);
    assert_eq!(refused.json()["error"], "this is neither a PNG nor a JPEG");
    let large = vec![0; labels::picture::BYTES_MAX + 1];
    assert_eq!(post(addr, "/v1/readings", &large).status, 413);
    assert_eq!(post(addr, "/v1/checks", b"{}").status, 400);
    let question = br#"{"category": "food", "text": "GRANOLA\nNET WT 12 OZ (340 g)\n"}"#;
    let answer = post(addr, "/v1/checks", question).json();
    assert_eq!(answer["fields"]["name"], "GRANOLA");
    assert_eq!(answer["outcomes"][0]["verdict"], "pass");
    let document = reply(agent().get(format!("http://{addr}/openapi.json")).call()).json();
    for path in ["/v1/readings", "/v1/checks", "/healthz"] {
        assert!(document["paths"][path].is_object(), "{path} in {document}");
    }
    assert_eq!(
        reply(agent().get(format!("http://{addr}/docs")).call()).status,
        404
    );
}
