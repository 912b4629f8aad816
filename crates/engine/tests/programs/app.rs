//! The program in the test image: `serve` (answers `ok` on port 8000), `exit N`, `say WORDS`.

use std::io::Write;
use std::net::TcpListener;

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
