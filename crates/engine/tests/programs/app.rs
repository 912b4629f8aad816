//! The program in the test image: `serve` (answers `ok` on port 8000), `exit N`, `say WORDS`, `cat` (says what it is told),
//! `write PATH TEXT`, `size` (says the size of its terminal at first and whenever that changes, until its input is at its end).

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

#[path = "../../../runtime/tests/programs/winsize.rs"]
mod winsize;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve"] => serve(),
        ["exit", code] => {
            eprintln!("about to exit with {code}");
            std::process::exit(code.parse().expect("a number"));
        }
        ["say", words @ ..] => println!("{}", words.join(" ")),
        ["cat"] => {
            let (mut from, mut to) = (std::io::stdin().lock(), std::io::stdout().lock());
            std::io::copy(&mut from, &mut to).expect("copied");
        }
        ["size"] => size(),
        ["write", path, text] => std::fs::write(path, text).expect("written"),
        other => panic!("unknown words: {other:?}"),
    }
}

fn serve() {
    let listener = TcpListener::bind("0.0.0.0:8000").expect("bound");
    println!("started");
    for connection in listener.incoming().flatten() {
        let mut connection = connection;
        // Who has gone need not be told.
        let _ = connection.write_all(b"ok");
    }
}

fn size() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0)
    });
    let mut before = (0, 0);
    loop {
        let now = winsize::winsize().expect("a terminal");
        if now != before {
            println!("{}x{}", now.0, now.1);
            before = now;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
