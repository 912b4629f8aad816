//! The pages over HTTP: what analysts do, and what they and others do wrong.

use labels::dataset;

use crate::common::{GRANOLA, Webapp, picture, version};

#[test]
fn pictures_are_uploaded_with_a_plain_form_and_known_by_their_content() {
    let webapp = Webapp::start();
    assert!(webapp.get("/").text().contains("No pictures yet"));
    let (one, two) = (picture(1), picture(2));
    let reply = webapp.upload(
        "supplement",
        &[("one.png", &one), ("two.png", &two)],
        "text/html",
    );
    assert_eq!((reply.status, reply.header("location")), (303, "/queue"));
    assert!(
        reply.header("set-cookie").starts_with("who=Ada;"),
        "{}",
        reply.header("set-cookie")
    );
    let again = webapp
        .upload("food", &[("again.png", &one)], "application/json")
        .json();
    assert_eq!(again[0]["known"], true);
    let list = webapp.get("/").text();
    for part in ["one.png", "two.png", "Dietary supplement", "by Ada"] {
        assert!(list.contains(part), "{part} in {list}");
    }
    assert!(!list.contains("again.png"));
    let path = format!("/pictures/{}", again[0]["sha256"].as_str().unwrap());
    let original = webapp.get(&format!("{path}/original"));
    assert_eq!(
        (original.header("content-type"), &original.bytes),
        ("image/png", &one)
    );
    assert!(original.header("cache-control").contains("immutable"));
    for _ in 0..10 {
        let again = webapp.get(&format!("{path}/original"));
        assert_eq!(again.status, 200, "one that was sent keeps nobody waiting");
    }
    let thumbnail = webapp.get(&format!("{path}/thumbnail"));
    assert_eq!(
        (thumbnail.status, thumbnail.header("content-type")),
        (200, "image/jpeg")
    );
}

#[test]
fn what_is_no_picture_is_told_and_the_others_are_taken() {
    let webapp = Webapp::start();
    let good = picture(1);
    let reply = webapp.upload(
        "food",
        &[("good.png", &good), ("notes.txt", b"milk, eggs")],
        "text/html",
    );
    assert_eq!(reply.status, 422);
    let page = reply.text();
    assert!(page.contains("1 file was not taken, 1 were"), "{page}");
    assert!(
        page.contains("notes.txt</b>: this is neither a PNG nor a JPEG"),
        "{page}"
    );
    assert_eq!(webapp.upload("food", &[("", b"")], "").status, 400);
    let reply = webapp.upload("cars", &[("good.png", &good)], "");
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("there is no category"));
    let reply = webapp.upload(&"x".repeat(100_000), &[("good.png", &good)], "");
    assert_eq!(reply.status, 413, "{}", reply.text());
    let huge = vec![0; labels::picture::BYTES_MAX + 1];
    let reply = webapp
        .upload("food", &[("huge.png", &huge)], "application/json")
        .json();
    assert!(
        reply[0]["error"]
            .as_str()
            .unwrap()
            .contains("larger than the 20 MiB"),
        "{reply}"
    );
}

#[test]
fn a_label_is_read_checked_corrected_and_its_history_kept() {
    let webapp = Webapp::start();
    let wrong = GRANOLA
        .replace("Sodium 160mg 7%", "Sodium 160mg 77%")
        .replace("GRANOLA\n", "GRANOIA\n");
    let path = webapp.read("food", &wrong);
    let page = webapp.get(&path).text();
    assert!(
        page.contains("160mg of Sodium is 7 %, and 77 % is declared"),
        "{page}"
    );
    assert!(page.contains("1 rule fails"), "{page}");

    let version_seen = version(&page);
    let form = [
        ("version", version_seen.as_str()),
        ("who", "Ada"),
        ("name", "OAT & HONEY GRANOLA"),
        ("net_quantity", "NET WT 12 OZ (340 g)"),
        ("daily_value:Sodium", "7"),
        ("new-0", "Zinc"),
        ("new-amount-0", "1.1mg"),
        ("new-daily-value-0", "10"),
        ("reviewed", "yes"),
    ];
    let saved = webapp.post(&path, &form);
    assert_eq!(
        (saved.status, saved.header("location")),
        (303, format!("{path}?saved=5").as_str())
    );
    let page = webapp.get(&format!("{path}?saved=5")).text();
    for part in [
        "Saved: 5 changes",
        "All rules pass",
        "Reviewed",
        "<del>77</del> → <ins>7</ins>",
        "<del>OAT &amp; HONEY GRANOIA</del>",
        "<em>nothing</em> → <ins>1.1mg</ins>",
        "reviewed it",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    // The same form again, from a page that is old by now.
    let late = webapp.post(&path, &form);
    assert_eq!(late.status, 409);
    assert!(late.text().contains("Somebody has changed this picture"));
    let nothing = version(&page);
    let same = webapp.post(
        &path,
        &[
            ("version", &nothing),
            ("who", "Ada"),
            ("name", "OAT & HONEY GRANOLA"),
        ],
    );
    assert_eq!(same.header("location"), format!("{path}?saved=0"));
}

#[test]
fn a_corrected_text_is_searched_for_fields_anew() {
    let webapp = Webapp::start();
    let path = webapp.read("food", "GRANOLA\nNET WT 12 0Z\n");
    let seen = version(&webapp.get(&path).text());
    let text = GRANOLA.replace('\n', "\r\n");
    let form = [
        ("version", seen.as_str()),
        ("who", "Ada"),
        ("text", &text),
        ("name", "GRANOLA"),
    ];
    assert_eq!(webapp.post(&path, &form).status, 303);
    let page = webapp.get(&path).text();
    assert!(page.contains("<h1>OAT &amp; HONEY GRANOLA</h1>"), "{page}");
    assert!(page.contains("All rules pass"), "{page}");
    assert!(page.contains("corrected the recognised text"), "{page}");
}

#[test]
fn a_picture_that_cannot_be_read_says_why_and_can_be_read_again() {
    let webapp = Webapp::start();
    let blank = picture(9);
    let path = webapp.uploaded("food", "blank.png", &blank);
    webapp.wait_for(&path, "refused");
    let page = webapp.get(&path).text();
    assert!(page.contains("there is no text in it"), "{page}");
    webapp.reader.tell(&blank, GRANOLA);
    let reply = webapp.post(
        &format!("{path}/again"),
        &[("version", version(&page).as_str()), ("who", "")],
    );
    assert_eq!(reply.status, 303);
    webapp.wait_for(&path, "to-review");
}

#[test]
fn a_search_and_the_exports_show_the_same_pictures() {
    let webapp = Webapp::start();
    let granola = webapp.read("food", GRANOLA);
    webapp.read("cosmetic", "LAVENDER LOTION\n8 FL OZ (237 mL)\n");
    for (query, granola, lotion) in [
        ("", true, true),
        ("q=honey+oats", true, false),
        ("category=cosmetic", false, true),
        ("failing=yes", false, true),
        ("state=reviewed", false, false),
    ] {
        for path in ["/", "/export.csv", "/export.json"] {
            let reply = webapp.get(&format!("{path}?{query}"));
            assert_eq!(reply.status, 200);
            let text = reply.text();
            assert_eq!(
                text.contains("HONEY GRANOLA"),
                granola,
                "{path}?{query}: {text}"
            );
            assert_eq!(
                text.contains("LAVENDER LOTION"),
                lotion,
                "{path}?{query}: {text}"
            );
        }
    }
    let csv = webapp.get("/export.csv?category=food");
    assert!(csv.header("content-disposition").contains("labels.csv"));
    let text = csv.text();
    let mut lines = text.lines();
    let columns = |line: &str| line.split(',').map(String::from).collect::<Vec<_>>();
    let head = columns(lines.next().unwrap());
    assert!(head.contains(&"Total Fat amount".to_owned()), "{head:?}");
    let row = lines.next().unwrap();
    assert!(
        row.contains("NET WT 12 OZ (340 g)") && row.contains(",8g,10,"),
        "{row}"
    );
    let json = webapp.get("/export.json?category=food").json();
    assert_eq!(json[0]["fields"]["rows"][0]["nutrient"], "Total Fat");
    assert_eq!(json[0]["checks"][0]["verdict"], "pass");
    assert_eq!(
        format!("/pictures/{}", json[0]["sha256"].as_str().unwrap()),
        granola
    );
}

#[test]
fn a_data_set_has_pictures_what_was_recognised_and_every_change() {
    let webapp = Webapp::start();
    let path = webapp.read("food", &GRANOLA.replace("HONEY", "HONFY"));
    webapp.read("food", "CRACKERS\n");
    let seen = version(&webapp.get(&path).text());
    let form = [
        ("version", seen.as_str()),
        ("who", "Ada"),
        ("name", "OAT & HONEY GRANOLA"),
        ("reviewed", "yes"),
    ];
    assert_eq!(webapp.post(&path, &form).status, 303);
    let folder = tempfile::tempdir().unwrap();
    let reviewed = dataset::export(&webapp.library, &folder.path().join("reviewed"), true).unwrap();
    assert_eq!((reviewed.pictures, reviewed.reviewed), (1, 1));
    let all = dataset::export(&webapp.library, folder.path(), false).unwrap();
    assert_eq!((all.pictures, all.reviewed), (2, 1));
    let lines = std::fs::read_to_string(folder.path().join("reviewed/labels.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(&lines).unwrap();
    assert!(
        line["recognised"]["text"]
            .as_str()
            .unwrap()
            .contains("HONFY")
    );
    assert_eq!(line["fields"]["name"], "OAT & HONEY GRANOLA");
    let change = &line["edits"][0]["changes"][1];
    assert_eq!(
        (&change["before"], &change["after"]),
        (&"OAT & HONFY GRANOLA".into(), &"OAT & HONEY GRANOLA".into())
    );
    let picture = folder
        .path()
        .join("reviewed")
        .join(line["picture"].as_str().unwrap());
    assert!(labels::picture::header(&std::fs::read(picture).unwrap()).is_ok());
}

#[test]
fn what_is_wrong_is_answered_with_a_page_that_says_so() {
    let webapp = Webapp::start();
    let path = webapp.read("food", GRANOLA);
    let unknown = format!("/pictures/{}", "0".repeat(64));
    for (path, status) in [
        ("/nothing", 404),
        ("/pictures/..%2f..%2fetc", 404),
        (unknown.as_str(), 404),
        ("/assets/other.css", 404),
        ("/?page=999&category=cars&state=lost", 200),
        ("/queue.json?ids=x,y", 200),
    ] {
        assert_eq!(webapp.get(path).status, status, "{path}");
    }
    assert_eq!(webapp.post("/", &[]).status, 405);
    assert_eq!(
        webapp.post(&path, &[("name", "x")]).status,
        400,
        "without a name of an analyst"
    );
    let seen = version(&webapp.get(&path).text());
    let form = [
        ("version", seen.as_str()),
        ("who", "Eve"),
        ("name", "Poison"),
    ];
    assert_eq!(
        webapp
            .post_from("https://evil.example", &path, &form)
            .status,
        403
    );
    assert!(!webapp.get(&path).text().contains("Poison"));
    let own = format!("http://{}", webapp.addr);
    webapp.store.set_down(true);
    let failed = webapp.post_from(&own, &path, &form);
    assert_eq!(failed.status, 502);
    assert!(failed.text().contains("nothing was saved"));
    assert_eq!(webapp.get(&path).status, 200, "what is known is shown");
    webapp.store.set_down(false);
    assert_eq!(webapp.post_from(&own, &path, &form).status, 303);
}

#[test]
fn pages_bind_the_browser_and_load_only_their_own() {
    let webapp = Webapp::start();
    let path = webapp.read("food", "<script>alert(1)</script>\n");
    for path in ["/", "/upload", "/queue", "/rules", path.as_str()] {
        let reply = webapp.get(path);
        assert_eq!(reply.status, 200, "{path}");
        assert!(
            reply
                .header("content-security-policy")
                .contains("default-src 'none'"),
            "{path}"
        );
        let page = reply.text();
        assert!(!page.contains("<script>alert"), "{page}");
        assert!(
            !page.contains("http://") && !page.contains("https://"),
            "{path} names another site: {page}"
        );
        for asset in page.split('"').filter(|part| part.starts_with("/assets/")) {
            let reply = webapp.get(asset);
            assert_eq!(reply.status, 200, "{asset}");
            assert!(reply.header("cache-control").contains("immutable"));
        }
    }
}

#[test]
fn a_form_that_says_nothing_is_refused() {
    let webapp = Webapp::start();
    let part = "--a-boundary-that-no-picture-has\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n\r\n";
    let reply = webapp.upload_raw(part.repeat(80).as_bytes());
    assert_eq!(reply.status, 413, "{}", reply.text());
    assert_eq!(webapp.upload_raw(b"").status, 400);
}
