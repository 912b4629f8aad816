//! The queue: nothing is lost, whoever is killed.

use std::collections::BTreeMap;
use std::sync::Arc;

use labels::digest::Digest;
use labels::index::{State, StateKind};
use labels::label::fields::Field;

use crate::common::{GRANOLA, ToldReader, Webapp, picture, wait};

#[test]
fn pictures_are_read_a_few_at_a_time() {
    let webapp = Webapp::start();
    webapp.reader.hold(true);
    let pictures: Vec<Vec<u8>> = (0..10).map(picture).collect();
    for picture in &pictures {
        webapp.reader.tell(picture, GRANOLA);
    }
    let files: Vec<(&str, &[u8])> = pictures
        .iter()
        .map(|one| ("a.png", one.as_slice()))
        .collect();
    assert_eq!(webapp.upload("food", &files, "").status, 303);
    wait(|| match webapp.reader.reading() {
        4 => Ok(()),
        other => Err(format!("{other} are being read")),
    });
    let queue = webapp.get("/queue.json").json();
    assert_eq!(
        (&queue["queued"], &queue["reading"]),
        (&10.into(), &4.into())
    );
    webapp.reader.hold(false);
    wait(|| {
        match webapp
            .library
            .look(|index| index.count(StateKind::ToReview))
        {
            10 => Ok(()),
            other => Err(format!("{other} are read")),
        }
    });
    assert_eq!(webapp.reader.reading_most(), 4);
    assert_eq!(webapp.reader.asked(), 10, "each of them once");
}

#[test]
fn a_picture_whose_reader_is_killed_is_read_by_the_next() {
    let webapp = Webapp::start();
    webapp.reader.fail(2);
    let granola = picture(1);
    webapp.reader.tell(&granola, GRANOLA);
    let path = webapp.uploaded("food", "granola.png", &granola);
    webapp.wait_for(&path, "later");
    assert!(webapp.get("/queue").text().contains("it was killed"));
    webapp.wait_for(&path, "to-review");
}

#[test]
fn a_picture_whose_reading_panics_is_tried_again() {
    let webapp = Webapp::start();
    webapp.reader.panic(1);
    let granola = picture(1);
    webapp.reader.tell(&granola, GRANOLA);
    let path = webapp.uploaded("food", "granola.png", &granola);
    webapp.wait_for(&path, "to-review");
    assert_eq!(webapp.reader.asked(), 2);
}

#[test]
fn a_picture_that_takes_too_long_is_tried_three_times_and_then_refused() {
    let webapp = Webapp::start();
    webapp.reader.be_slow(3);
    let path = webapp.uploaded("food", "granola.png", &picture(1));
    webapp.wait_for(&path, "refused");
    assert_eq!(webapp.reader.asked(), 3);
    let page = webapp.get(&path).text();
    assert!(page.contains("it was not read in time, 3 times"), "{page}");
}

#[test]
fn what_is_written_last_counts_whatever_the_clock_did() {
    let webapp = Webapp::start();
    let path = webapp.read("food", GRANOLA);
    let sha256: Digest = path.rsplit('/').next().unwrap().parse().unwrap();
    let edit = |now_ms: u64, field: Field, after: &str| {
        let library = &webapp.library;
        let version = library.look(|index| index.get(&sha256).unwrap().version());
        let wanted = BTreeMap::from([(field, after.to_owned())]);
        library
            .edit(&sha256, &version, "Ada", now_ms, &wanted)
            .unwrap();
        library.look(|index| index.get(&sha256).unwrap().now.clone())
    };
    let ahead = labels::moment::now_ms() + 86_400_000;
    assert_eq!(edit(ahead, Field::Name, "First").fields.name, "First");
    // The clock is set back.
    assert_eq!(edit(5, Field::Name, "Second").fields.name, "Second");
    assert_eq!(edit(6, Field::Reviewed, "yes").state, State::Reviewed);
    webapp.reader.hold(true);
    assert_eq!(edit(7, Field::Reading, "again").state, State::Queued);
    webapp.reader.hold(false);
    webapp.wait_for(&path, "to-review");
    assert_eq!(webapp.reader.asked(), 2, "read again, once");
}

#[test]
fn an_upload_that_somebody_else_recorded_stays_as_it_is() {
    let first = Webapp::start();
    let second = Webapp::start_on(Arc::clone(&first.store), Arc::default());
    second.wait_until_open();
    let granola = picture(1);
    first.uploaded("beverage", "first.png", &granola);
    let reply = second.upload("food", &[("second.png", &granola)], "application/json");
    assert_eq!(reply.json()[0]["known"], true, "{}", reply.text());
    for webapp in [&first, &second] {
        let list = webapp.get("/").text();
        assert!(
            list.contains("first.png") && !list.contains("second.png"),
            "{list}"
        );
    }
}

#[test]
fn whoever_starts_next_finds_the_queue_and_every_edit_in_the_store() {
    let first = Webapp::start();
    let read = first.read("food", GRANOLA);
    let version = crate::common::version(&first.get(&read).text());
    let form = [
        ("version", version.as_str()),
        ("who", "Ada"),
        ("name", "Granola"),
    ];
    assert_eq!(first.post(&read, &form).status, 303);
    first.reader.hold(true);
    let waiting = picture(7);
    let path = first.uploaded("beverage", "soda.png", &waiting);
    first.wait_for(&path, "reading");

    // The first one is gone in the middle of it.
    let reader = Arc::new(ToldReader::default());
    reader.tell(&waiting, "SODA\n12 FL OZ (355 mL)\n");
    let second = Webapp::start_on(Arc::clone(&first.store), reader);
    second.wait_until_open();
    second.wait_for(&path, "to-review");
    let page = second.get(&read).text();
    assert!(page.contains("<h1>Granola</h1>"), "{page}");
    assert!(
        page.contains("<del>OAT &amp; HONEY GRANOLA</del>"),
        "{page}"
    );
    first.reader.hold(false);
}

#[test]
fn until_the_store_answers_the_application_says_so_and_then_opens_by_itself() {
    let first = Webapp::start();
    first.read("food", GRANOLA);
    first.store.set_down(true);
    let second = Webapp::start_on(Arc::clone(&first.store), Arc::default());
    wait(|| {
        let reply = second.get("/healthz");
        let said = reply.text();
        if reply.status == 503 && said.contains("did not answer") {
            Ok(())
        } else {
            Err(said)
        }
    });
    let page = second.get("/");
    assert_eq!((page.status, page.header("refresh")), (503, "2"));
    assert!(page.text().contains("looked up in the store"));
    first.store.set_down(false);
    second.wait_until_open();
    assert!(second.get("/").text().contains("OAT &amp; HONEY GRANOLA"));
}
