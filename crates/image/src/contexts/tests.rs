//! What is kept of contexts: that it is right, whose it is, and how it goes.

use std::fs;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;
use crate::build::build;
use crate::{BuildEvent, BuildOptions, Image};

const ANN: Place<'static> = Place {
    owner: "user ann",
    key: "shop",
};

struct World {
    _dir: TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().expect("a folder");
        let store = Store::open(&dir.path().join("store")).expect("a store");
        Self { _dir: dir, store }
    }

    fn dir(&self, place: Place<'_>) -> std::path::PathBuf {
        self.store.contexts_dir().join(shelf::name(place))
    }

    /// Which files are lacking of a context of these files, each with its content, whose digest is its stamp.
    fn lacks(&self, place: Place<'_>, files: &[(&str, &str)]) -> Vec<String> {
        let list = list(files);
        let offer = self.store.offer_context(place, &list).expect("an offer");
        let offer = offer.expect("it is not in use");
        let lacks = offer.lacks.iter();
        let path = |place: &u32| list.entries()[*place as usize].path.clone();
        lacks.map(path).collect()
    }

    /// Begins to use it, sends what is lacking, and gives the update.
    fn update(&self, place: Place<'_>, files: &[(&str, &str)]) -> Update {
        let lacks = self.lacks(place, files);
        let opened = self.store.open_context(place, &list(files).id());
        let Some(Opened::Changed(mut update)) = opened.expect("opened") else {
            panic!("nothing is to be changed");
        };
        for path in lacks {
            let content = files.iter().find(|(name, _)| *name == path);
            let bytes = content.expect("it is in the list").1.as_bytes();
            let sent = update.put(&path, bytes.len() as u64, &mut &*bytes);
            sent.expect("taken");
        }
        *update
    }

    fn send(&self, place: Place<'_>, files: &[(&str, &str)]) -> Kept {
        self.update(place, files).finish().expect("all was sent")
    }

    fn unchanged(&self, place: Place<'_>, files: &[(&str, &str)]) -> Kept {
        assert_eq!(self.lacks(place, files), [""; 0]);
        match self.store.open_context(place, &list(files).id()) {
            Ok(Some(Opened::Unchanged(kept))) => kept,
            other => panic!("{other:?}"),
        }
    }

    fn build(&self, kept: &Kept) -> (Result<Image, Error>, bool) {
        let options = BuildOptions {
            known: [(kept.folder().to_owned(), kept.known().clone())].into(),
            ..BuildOptions::default()
        };
        let mut is_cached = true;
        let built = build(&self.store, kept.folder(), &options, &mut |event| {
            is_cached &= !matches!(event, BuildEvent::Step { cached: false, .. });
        });
        (built, is_cached)
    }
}

/// A path ending with `/` is a folder, one with `@` a link to its content.
fn list(files: &[(&str, &str)]) -> List {
    let entry = |(path, content): &(&str, &str)| {
        let (name, kind) = match (path.strip_suffix('/'), path.strip_suffix('@')) {
            (Some(name), _) => (name, Kind::Folder),
            (_, Some(name)) => {
                let target = (*content).to_owned();
                (name, Kind::Link { target })
            }
            (None, None) => {
                let size_bytes = content.len() as u64;
                let stamp = crate::digest::of(content.as_bytes());
                (*path, Kind::File { size_bytes, stamp })
            }
        };
        Entry {
            path: name.to_owned(),
            mode: 0o755,
            mtime_ns: 1_500_000_000_123_456_789,
            kind,
        }
    };
    List::new(files.iter().map(entry).collect()).expect("a list")
}

/// What is in a folder, as [`list`] takes it.
fn tree(dir: &Path, below: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder") {
        let entry = entry.expect("an entry");
        let (path, kind) = (entry.path(), entry.file_type().expect("a kind"));
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if kind.is_dir() {
            let folder = format!("{name}/");
            found.extend(tree(&path, &folder));
            found.push((folder, String::new()));
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).expect("a link");
            found.push((format!("{name}@"), target.to_string_lossy().into_owned()));
        } else {
            found.push((name, fs::read_to_string(&path).expect("text")));
        }
    }
    found.sort();
    found
}

fn assert_is(kept: &Kept, files: &[(&str, &str)]) {
    let files = files.iter();
    let mut files: Vec<_> = files
        .map(|(path, content)| ((*path).to_owned(), (*content).to_owned()))
        .collect();
    files.sort();
    assert_eq!(tree(kept.folder(), ""), files);
}

#[test]
fn only_what_changed_is_lacking_and_the_tree_becomes_what_the_list_says() {
    let world = World::new();
    let mut before: &[(&str, &str)] = &[];
    let states: &[&[(&str, &str)]] = &[
        &[
            ("a", "1"),
            ("d/", ""),
            ("d/b", "2"),
            ("d/c", "3"),
            ("l@", "/etc"),
        ],
        &[
            ("a", "1"),
            ("d/", ""),
            ("d/b", "two"),
            ("d/c", "3"),
            ("l@", "/etc"),
        ],
        // A folder becomes a link, a link a file, a file a folder.
        &[("a/", ""), ("a/x", "9"), ("d@", "/"), ("l", "file")],
        &[
            ("a@", "d"),
            ("d/", ""),
            ("d/e/", ""),
            ("d/e/f", "4"),
            ("l/", ""),
        ],
        &[],
        &[("a", "1")],
    ];
    for files in states {
        let lacks = world.lacks(ANN, files);
        let is_new = |one: &&(&str, &str)| !before.contains(one) && !one.0.ends_with(['/', '@']);
        let new: Vec<_> = files.iter().filter(is_new).map(|one| one.0).collect();
        assert_eq!(lacks, new);
        let kept = world.send(ANN, files);
        assert_is(&kept, files);
        for (path, content) in files.iter().filter(|one| !one.0.ends_with(['/', '@'])) {
            let digest = crate::digest::of(content.as_bytes());
            assert_eq!(kept.known().digest_of(path), Some(&*digest));
        }
        drop(kept);
        assert_is(&world.unchanged(ANN, files), files);
        before = files;
    }
}

#[test]
fn a_context_is_its_owners_alone() {
    let world = World::new();
    let files = [("a", "secret")];
    drop(world.send(ANN, &files));
    let id = list(&files).id();
    for other in [
        Place {
            owner: "user bob",
            ..ANN
        },
        Place {
            key: "other",
            ..ANN
        },
    ] {
        let opened = world.store.open_context(other, &id).expect("no error");
        assert!(opened.is_none(), "{other:?}");
        assert_eq!(world.lacks(other, &files), ["a"], "{other:?}");
    }
}

#[test]
fn what_a_build_uses_is_not_changed_under_it() {
    let world = World::new();
    let files = [("a", "1")];
    let sending = world.update(ANN, &files);
    let offered = |files| {
        let offer = world.store.offer_context(ANN, &list(files));
        offer.expect("no error").is_some()
    };
    assert!(!offered(&files), "it is being changed");
    drop(sending.finish().expect("all was sent"));
    let one = world.unchanged(ANN, &files);
    let two = world.unchanged(ANN, &files);
    assert!(!offered(&[("a", "2")]), "another list would change it");
    assert!(!forget(&world.store, &shelf::name(ANN)).expect("no error"));
    collect(&world.store).expect("collected");
    assert_is(&one, &files);
    drop((one, two));
    assert!(offered(&[("a", "2")]));
    // And what was left for one list is not there for another.
    assert!(matches!(
        world.store.open_context(ANN, &list(&[("a", "3")]).id()),
        Ok(None)
    ));
}

#[test]
fn a_cut_upload_goes_on_where_it_stood_and_a_killed_one_begins_anew() {
    let world = World::new();
    let files = [("a", "1"), ("b", "2"), ("c", "3")];
    let begin = || {
        world.lacks(ANN, &files);
        match world.store.open_context(ANN, &list(&files).id()) {
            Ok(Some(Opened::Changed(update))) => update,
            other => panic!("{other:?}"),
        }
    };
    let mut update = begin();
    update.put("a", 1, &mut &b"1"[..]).expect("taken");
    let error = update.put("b", 9, &mut &b"2"[..]).expect_err("it is cut");
    assert!(
        error.to_string().contains("cut in the midst of \"b\""),
        "{error}"
    );
    drop(update);
    assert_eq!(world.lacks(ANN, &files), ["b", "c"]);
    let mut update = begin();
    update.put("b", 1, &mut &b"2"[..]).expect("taken");
    for stray in ["a", "b", "d", "../x"] {
        let error = update
            .put(stray, 1, &mut &b"x"[..])
            .expect_err("not lacking");
        assert!(error.to_string().contains("not lacking"), "{error}");
    }
    let error = update.finish().expect_err("c was not sent");
    assert!(error.to_string().contains("\"c\" was not sent"), "{error}");
    assert_eq!(world.lacks(ANN, &files), ["c"]);
    // As by kill -9: nothing says how far it came.
    let mut update = begin();
    update.put("c", 1, &mut &b"3"[..]).expect("taken");
    update.kill();
    assert_eq!(world.lacks(ANN, &files), ["a", "b", "c"]);
    collect(&world.store).expect("collected");
    assert!(!world.dir(ANN).join(kept::TREE).exists());
    assert_is(&world.send(ANN, &files), &files);
}

#[test]
fn what_changed_while_it_was_sent_is_good_for_one_build() {
    let world = World::new();
    let files = [("a", "1"), ("b", "2"), ("c", "3")];
    world.lacks(ANN, &files);
    let Ok(Some(Opened::Changed(mut update))) = world.store.open_context(ANN, &list(&files).id())
    else {
        panic!("it is new");
    };
    update.put("a", 1, &mut &b"1"[..]).expect("taken");
    update.put("b", 1, &mut &b"?"[..]).expect("taken");
    // It has become longer since the list was made.
    update.put("c", 4, &mut &b"3333"[..]).expect("taken");
    update.doubt(&[1, 99]);
    let kept = update.finish().expect("all was sent");
    assert_is(&kept, &[("a", "1"), ("b", "?"), ("c", "3333")]);
    let digest = crate::digest::of(b"3333");
    assert_eq!(kept.known().digest_of("c"), Some(&*digest));
    drop(kept);
    assert_eq!(world.lacks(ANN, &files), ["b", "c"]);
    assert_is(&world.send(ANN, &files), &files);
}

#[test]
fn contexts_go_when_they_are_old_or_too_many() {
    let world = World::new();
    let age = |place, days: u64| {
        let old = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
        for file in ["record", "list"] {
            let file = fs::File::options()
                .write(true)
                .open(world.dir(place).join(file));
            file.expect("a file").set_modified(old).expect("its time");
        }
    };
    let bob = Place {
        owner: "user bob",
        ..ANN
    };
    drop(world.send(ANN, &[("a", "1")]));
    drop(world.send(bob, &[("a", "1")]));
    age(ANN, 8);
    age(bob, 6);
    collect(&world.store).expect("collected");
    assert!(!world.dir(ANN).exists() && world.dir(bob).exists());
    for n in 0..105 {
        let key = n.to_string();
        let place = Place { key: &key, ..ANN };
        world.lacks(place, &[]);
        assert!(all(&world.store).expect("all").len() <= 100);
    }
    assert!(!world.dir(bob).exists(), "the oldest goes first");
}

#[test]
fn of_an_unchanged_context_no_file_is_read_again() {
    let world = World::new();
    let dockerfile = "FROM scratch\nCOPY . /all/\nCOPY a /one/\n";
    let files = [
        ("Dockerfile", dockerfile),
        ("a", "1"),
        ("d/", ""),
        ("d/b", "2"),
    ];
    let kept = world.send(ANN, &files);
    let (first, _) = world.build(&kept);
    let first = first.expect("built");
    // Only a build that reads it would see this.
    fs::write(kept.folder().join("d/b"), "?").expect("written");
    drop(kept);
    let (again, is_cached) = world.build(&world.unchanged(ANN, &files));
    assert_eq!(
        (again.expect("built").digest, is_cached),
        (first.digest, true)
    );
    // And one that has to read it does not take it for what it was.
    let changed = [
        ("Dockerfile", dockerfile),
        ("a", "2"),
        ("d/", ""),
        ("d/b", "2"),
    ];
    let (refused, _) = world.build(&world.send(ANN, &changed));
    let error = refused.expect_err("it is not what it was").to_string();
    assert!(
        error.contains("changed while it was being copied"),
        "{error}"
    );
}

#[test]
fn what_a_build_leaves_out_and_unpacks_is_in_its_key() {
    let world = World::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    let appended = tar.append_data(&mut header, "b", &b"2"[..]);
    appended.expect("a tar");
    let tar = String::from_utf8(tar.into_inner().expect("a tar")).expect("it has no other bytes");
    let layer = |dockerfile: &str, ignore: &str| {
        let files = [
            (".dockerignore", ignore),
            ("Dockerfile", dockerfile),
            ("a", "1"),
            ("x.tar", &tar),
        ];
        let kept = world.send(ANN, &files);
        let image = world.build(&kept).0.expect("built");
        drop(kept);
        let again = world.build(&world.unchanged(ANN, &files));
        assert_eq!(
            (again.0.expect("built").digest, again.1),
            (image.digest.clone(), true)
        );
        world.store.layers(&image.digest).expect("layers")
    };
    let all = layer("FROM scratch\nCOPY . /\n", "Dockerfile\n.dockerignore");
    let fewer = layer("FROM scratch\nCOPY . /\n", "Dockerfile\n.dockerignore\na");
    assert_ne!(all, fewer);
    assert_eq!(all, layer("FROM scratch\nCOPY a x.tar /\n", ""));
    let unpacked = layer("FROM scratch\nADD . /\n", "Dockerfile\n.dockerignore");
    assert_eq!(all, unpacked, "a folder's archives stay what they are");
    let unpacked = layer("FROM scratch\nADD x.tar /\n", "");
    assert_ne!(unpacked, layer("FROM scratch\nCOPY x.tar /\n", ""));
    assert!(unpacked[0].join("b").exists());
}

#[test]
fn a_context_takes_what_was_sent_whatever_its_list_says() {
    let world = World::new();
    let files = [("a", "")];
    let more = vec![b'x'; 100_000];
    for is_cut in [true, false] {
        assert_eq!(world.lacks(ANN, &files), ["a"]);
        let opened = world.store.open_context(ANN, &list(&files).id());
        let Some(Opened::Changed(mut update)) = opened.expect("opened") else {
            panic!("nothing is to be changed");
        };
        let there = &more[usize::from(is_cut)..];
        let sent = update.put("a", more.len() as u64, &mut &*there);
        assert_eq!(sent.is_err(), is_cut);
        match is_cut {
            true => drop(update),
            false => drop(update.finish().expect("all was sent")),
        }
        let [found] = &all(&world.store).expect("a list")[..] else {
            panic!("there is one");
        };
        assert!(found.bytes >= more.len() as u64, "{found:?}");
    }
}
