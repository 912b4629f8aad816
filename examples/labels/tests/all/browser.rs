//! The pages in a headless Chromium, with the real OCR behind them: upload, progress, correction, export; with JavaScript
//! and without. Screenshots of every page go to cargo's folder for tests' files.

mod driver;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use labels::library::Library;
use labels::reader::Mapi;
use labels::samples;
use labels::store::memory::MemoryStore;

use crate::common::{agent, fonts, reply, serve, wait};
use crate::ocr::mapi;
use driver::{Browser, Driver};

/// Narrow as a telephone, and as wide as a desk.
const WIDTHS: [u32; 2] = [380, 1280];

fn samples_in(folder: &Path, count: u32) -> Vec<PathBuf> {
    samples::write(&fonts(), folder, count).unwrap();
    (1..=count)
        .map(|number| folder.join(format!("sample-{number:02}.png")))
        .collect()
}

fn screenshot(browser: &Browser, name: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    for width in WIDTHS {
        browser.resize(width, 1000);
        let height = browser.run("return document.documentElement.scrollHeight");
        browser.resize(
            width,
            height
                .as_u64()
                .map_or(1000, |height| height.clamp(1000, 5000)) as u32,
        );
        std::fs::write(
            folder.join(format!("{name}-{width}.png")),
            browser.screenshot(),
        )
        .unwrap();
    }
}

/// What every page owes to those who do not see it, or see it on a telephone.
fn assert_is_accessible(browser: &Browser, name: &str) {
    let unlabelled = browser.run(
        "return [...document.querySelectorAll('input, select, textarea')]
            .filter((one) => one.type !== 'hidden' && !one.labels?.length && !one.ariaLabel)
            .map((one) => one.outerHTML)",
    );
    assert_eq!(unlabelled, serde_json::json!([]), "{name}");
    let others = browser.run(
        "return [document.querySelectorAll('h1').length, document.documentElement.lang,
            document.querySelectorAll('img:not([alt])').length, document.querySelectorAll('main').length]",
    );
    assert_eq!(others, serde_json::json!([1, "en", 0, 1]), "{name}");
    browser.resize(WIDTHS[0], 900);
    let over = browser
        .run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(over, 0, "{name} is wider than a telephone");
    browser.resize(WIDTHS[1], 1000);
}

#[test]
#[ignore = "needs Debian's chromium-driver and tesseract-ocr: cargo xtask test --examples"]
fn an_analyst_uploads_watches_corrects_and_exports() {
    let (mapi, _mapi_runtime) = mapi();
    let library = Arc::new(Library::new(Arc::new(MemoryStore::default())));
    let (addr, _runtime) = serve(library, Arc::new(Mapi::new(&format!("http://{mapi}"))));
    let url = |path: &str| format!("http://{addr}{path}");
    wait(|| match reply(agent().get(url("/healthz")).call()).status {
        200 => Ok(()),
        other => Err(other.to_string()),
    });
    let folder = tempfile::tempdir().unwrap();
    let pictures = samples_in(folder.path(), 6);
    let driver = Driver::start();
    let browser = driver.open(true);

    browser.go(&url("/"));
    screenshot(&browser, "empty");
    browser.go(&url("/upload"));
    assert_is_accessible(&browser, "upload");
    screenshot(&browser, "upload");
    let paths: Vec<&str> = pictures.iter().map(|path| path.to_str().unwrap()).collect();
    browser.type_into("input[name=pictures]", &paths.join("\n"));
    assert!(browser.text(".drop b").contains("6 pictures chosen"));
    browser.type_into("input[name=who]", "Ada Lovelace");
    browser.click("[data-upload] button");
    browser.wait_for_text("[data-files]", "Reading");
    screenshot(&browser, "progress");
    browser.wait_for_text("[data-sum]", "6 of 6 read.");

    for (path, name) in [
        ("/", "list"),
        ("/queue", "queue"),
        ("/rules", "rules"),
        ("/nothing", "fault"),
    ] {
        browser.go(&url(path));
        assert_is_accessible(&browser, name);
        screenshot(&browser, name);
    }

    // One with a wrong percentage, by the way it is drawn.
    browser.go(&url("/?q=maple&failing=yes"));
    browser.click(".pictures .name");
    browser.wait_for_text("h1", "MAPLE GRANOLA");
    assert!(
        browser
            .text(".checks")
            .contains("Each % Daily Value follows from its amount")
    );
    assert_is_accessible(&browser, "picture");
    screenshot(&browser, "picture");
    browser.clear("[name='daily_value:Total Fat']");
    browser.type_into("[name='daily_value:Total Fat']", "10");
    browser.clear("[name=name]");
    browser.type_into("[name=name]", "Maple Granola, corrected");
    browser.click("button[name=reviewed]");
    browser.wait_for_text(".notice", "Saved: 3 changes.");
    assert_eq!(browser.text("h1"), "Maple Granola, corrected");
    assert!(browser.text(".history").contains("Ada Lovelace"));
    screenshot(&browser, "corrected");
    browser.click(".next");
    browser.wait_for_text(".badge", "To review");

    browser.go(&url("/?q=corrected&state=reviewed"));
    assert!(browser.text(".found").contains("1 picture"));
    let export = browser.attribute(".exports a", "href");
    let csv = reply(agent().get(&export).call()).text();
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert!(csv.contains("\"Maple Granola, corrected\""), "{csv}");
    assert_eq!(browser.complaints(), [""; 0], "the browser complained");
}

#[test]
#[ignore = "needs Debian's chromium-driver and tesseract-ocr: cargo xtask test --examples"]
fn everything_works_without_javascript() {
    let (mapi, _mapi_runtime) = mapi();
    let library = Arc::new(Library::new(Arc::new(MemoryStore::default())));
    let (addr, _runtime) = serve(library, Arc::new(Mapi::new(&format!("http://{mapi}"))));
    let url = |path: &str| format!("http://{addr}{path}");
    let folder = tempfile::tempdir().unwrap();
    let pictures = samples_in(folder.path(), 1);
    let driver = Driver::start();
    let browser = driver.open(false);
    browser.go(&url("/upload"));
    browser.type_into("input[name=pictures]", pictures[0].to_str().unwrap());
    browser.type_into("input[name=who]", "Ada");
    browser.click("[data-upload] button");
    // The page of the queue loads itself anew until all is read.
    browser.wait_for_text("[data-sum]", "All read: 1 picture.");
    browser.click(".files .name");
    browser.wait_for_text("h1", "SEA SALT CRACKERS");
    browser.clear("[name=servings]");
    browser.type_into("[name=servings]", "9");
    browser.click(".actions button.primary");
    browser.wait_for_text(".notice", "Saved: 1 change.");
}
