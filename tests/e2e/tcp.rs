//! Published ports as plain TCP: held, woken, and alive over a doze.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::apps::App;
use crate::node::{Node, PATIENCE, is_root};

const ECHO: &str = "\
name: echo
services:
  echo:
    build: .
    ports: [\"7100:7000\"]
    x-layby: {port: 8000, sleep: {doze_after: never, sleep_after: never}}
";

fn say(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).expect("written");
    let mut buffer = vec![0; text.len()];
    stream.read_exact(&mut buffer).expect("echoed");
    String::from_utf8(buffer).expect("UTF-8")
}

#[test]
fn a_connection_survives_a_doze_and_its_bytes_wake() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(ECHO);
    node.run_in(app.path(), &["up"]).ok();
    let mut stream = TcpStream::connect((node.publish_on, 7100)).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert_eq!(say(&mut stream, "one"), "one");
    node.run(&["doze", "echo"]).ok().says("dozing");
    assert_eq!(say(&mut stream, "two"), "two");
    node.wait_until("echo", "awake");

    // Sleep ends the connection; a new one wakes.
    node.run(&["sleep", "echo"]).ok().says("asleep");
    assert_eq!(stream.read(&mut [0; 1]).ok().unwrap_or(0), 0);
    let mut stream = TcpStream::connect((node.publish_on, 7100)).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert_eq!(say(&mut stream, "three"), "three");
}
