//! ADD of archives and of what a server has.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use layby_image::BuildOptions;

use crate::support::{Tar, World, gzip, sha256};

/// A server that answers every request with the same bytes, and counts them. It ends with the test's process.
fn server(body: &'static [u8]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                line.clear();
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), body].concat());
        }
    });
    (format!("http://{address}"), asked)
}

#[test]
fn a_url_is_fetched_and_with_its_checksum_only_once() {
    let world = World::new();
    let (url, asked) = server(b"from afar");
    let checksum = sha256(b"from afar");
    let dockerfile = format!(
        "FROM scratch\nADD {url}/dir/file.txt?x=1 /d/\nADD --chmod=755 --checksum={checksum} {url}/y /z\n"
    );
    let files = world.files(&world.build(&dockerfile).unwrap());
    assert!(files["d/file.txt"].starts_with("600 ") && files["d/file.txt"].ends_with(" from afar"));
    assert!(files["z"].starts_with("755 ") && files["z"].ends_with(" from afar"));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    world.build(&dockerfile).unwrap();
    assert_eq!(
        asked.load(Ordering::SeqCst),
        3,
        "only the one without a checksum"
    );
    let wrong = sha256(b"else");
    for (add, error) in [
        (
            format!("--checksum={wrong} {url}/y /z"),
            "has the digest sha256:",
        ),
        (format!("--checksum=md5:1 {url}/y /z"), "is not sha256:"),
        (
            format!("--checksum={checksum} local /z"),
            "goes with one URL",
        ),
        (format!("{url}/ /z"), "cannot tell a file's name"),
        (
            "http://127.0.0.1:1/x /z".to_owned(),
            "cannot fetch http://127.0.0.1:1/x",
        ),
        ("git@example.org:a/b.git /z".to_owned(), "git repository"),
    ] {
        let found = world
            .build(&format!("FROM scratch\nADD {add}\n"))
            .unwrap_err()
            .to_string();
        assert!(
            found.starts_with("Dockerfile:2: ADD") && found.contains(error),
            "{found}"
        );
    }
}

#[test]
fn nothing_is_fetched_from_the_machine_itself_unless_that_is_allowed() {
    let world = World::new();
    let (url, asked) = server(b"from here");
    let port = url.rsplit(':').next().unwrap();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let text = format!("FROM scratch\nADD http://{host}:{port}/f /f\n");
        world.write(&[("Dockerfile", text.as_str())]);
        let (image, _) = world.build_with(&BuildOptions::default());
        let error = image.unwrap_err().to_string();
        assert!(
            error.contains("is an address of the node itself"),
            "{error}"
        );
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn archives_are_unpacked_as_they_are_and_never_out_of_their_place() {
    let world = World::new();
    let tar = Tar::new()
        .mode_entry(b'5', "t/", 0o750)
        .file("t/f", "F")
        .finish();
    let zstd = zstd_of(&tar);
    let hostile = Tar::new().file("../../escaped", "x").finish();
    for (name, bytes) in [
        ("a.tar", tar.clone()),
        ("b.tgz", gzip(&tar)),
        ("c.tar.zst", zstd),
        ("plain.gz", gzip(b"no tar")),
        ("hostile.tar", hostile),
    ] {
        std::fs::write(world.context().join(name), bytes).unwrap();
    }
    let image = world
        .build("FROM scratch\nADD a.tar /a\nADD b.tgz c.tar.zst /b/\nADD plain.gz /p\nADD --unpack=false a.tar /kept\nCOPY a.tar /copied\n")
        .unwrap();
    let files = world.files(&image);
    for path in ["a/t/f", "b/t/f"] {
        assert!(files[path].ends_with(" F"), "{files:?}");
    }
    assert!(files["a/t/"].starts_with("750 "));
    for path in ["p", "kept", "copied"] {
        assert!(files.contains_key(path), "{path}: {files:?}");
    }
    let error = world
        .build("FROM scratch\nADD hostile.tar /\n")
        .unwrap_err()
        .to_string();
    assert!(error.contains("leads out of the archive"), "{error}");
}

#[test]
fn archives_of_xz_and_bzip2_are_unpacked_where_the_tools_make_some() {
    let world = World::new();
    let tar = Tar::new().file("t/f", "F").finish();
    for (tool, name) in [("xz", "a.tar.xz"), ("bzip2", "a.tar.bz2")] {
        let path = world.context().join("a.tar");
        std::fs::write(&path, &tar).unwrap();
        let made = std::process::Command::new(tool)
            .arg("-k")
            .arg(&path)
            .status();
        if made.is_err() && std::env::var_os("CI").is_none() {
            println!("SKIPPED: there is no {tool}");
            continue;
        }
        assert!(made.unwrap().success());
        let image = world
            .build(&format!("FROM scratch\nADD {name} /a\n"))
            .unwrap();
        let files = world.files(&image);
        assert!(files["a/t/f"].ends_with(" F"), "{name}: {files:?}");
    }
}

fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}
