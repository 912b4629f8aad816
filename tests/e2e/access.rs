//! What people do with a running service: commands, copies, logs, figures, forwarded ports.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

use crate::apps::{App, WEB};
use crate::node::{Answer, Node, PATIENCE, get, is_root};

fn up(text: &str) -> (Node, App) {
    let node = Node::start();
    let app = App::compose(text);
    node.run_in(app.path(), &["up"]).ok();
    (node, app)
}

#[test]
fn a_command_passes_its_exit_code_and_its_streams_on() {
    if !is_root() {
        return;
    }
    let (node, _app) = up(WEB);
    node.run(&["sleep", "web"]).ok();
    let said = node
        .run(&["exec", "web", "--", "/web", "say", "hello", "there"])
        .ok();
    assert_eq!((&*said.out, &*said.err), ("hello there\n", ""));
    node.run(&["exec", "web", "/web", "exit", "7"]).exits(7);
    node.run(&["exec", "web", "/nope"]).exits(127).says("/nope");
    node.run(&["exec", "web", "/"]).exits(126).says("directory");
    node.run(&["exec", "none", "/web"]).exits(4).says("none");
    node.run(&["exec", "--container", "other", "web", "/web"])
        .exits(4);
    let env = node.run(&[
        "exec",
        "-e",
        "COLOUR=red",
        "-u",
        "77:78",
        "web",
        "/web",
        "env",
    ]);
    env.ok().says("COLOUR=red\n");
    node.run(&["exec", "-t", "-i", "web", "/web", "tty"])
        .exits(1)
        .says("-t");
    node.run(&["exec", "-i", "web", "/web", "tty"])
        .ok()
        .says("no terminal");

    let sent = "0123456789abcdef".repeat(1 << 16);
    let mut command = node.command(Path::new("/"), &["exec", "-i", "web", "/web", "pass"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("layby runs");
    let mut stdin = child.stdin.take().expect("piped");
    let writing = {
        let sent = sent.clone();
        std::thread::spawn(move || stdin.write_all(sent.as_bytes()))
    };
    let mut came = String::new();
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_to_string(&mut came).expect("read");
    writing.join().expect("no panic").expect("written");
    assert!(came == sent, "{} of {} bytes", came.len(), sent.len());
    assert!(child.wait().expect("ended").success());
}

/// A program on a terminal of the test's.
struct Sitting {
    child: Child,
    holder: File,
    runner: OwnedFd,
    said: String,
}

impl Sitting {
    fn new(node: &Node, args: &[&str], columns: u16, rows: u16) -> Self {
        let size = winsize(columns, rows);
        let pty = openpty(&size, None).expect("a terminal");
        let side = || Stdio::from(pty.slave.try_clone().expect("a copy"));
        let mut command = node.command(Path::new("/"), args);
        command.stdin(side()).stdout(side()).stderr(side());
        let child = command.process_group(0).spawn().expect("layby runs");
        Self {
            child,
            holder: pty.master.into(),
            runner: pty.slave,
            said: String::new(),
        }
    }

    /// Reads until it has said `text`.
    fn until(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        while !self.said.contains(text) {
            let length = self.holder.read(&mut buffer).expect("it says more");
            self.said
                .push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }

    fn resize(&self, columns: u16, rows: u16) {
        layby_runtime::tty::set_size(&self.holder, columns, rows).expect("resized");
        // The terminal is not that of the program's session: it is told by hand.
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGWINCH).expect("told");
    }

    /// Whether the terminal shows what is typed, as when nothing was changed.
    fn echoes(&self) -> bool {
        let modes = tcgetattr(&self.runner).expect("a terminal");
        modes
            .local_flags
            .contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG)
    }
}

fn winsize(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

#[test]
fn a_command_has_this_terminal_and_leaves_it_as_it_was() {
    if !is_root() {
        return;
    }
    let (node, _app) = up(WEB);
    let args = ["exec", "-it", "web", "/web", "tty"];
    let mut sitting = Sitting::new(&node, &args, 91, 17);
    sitting.until("terminal of 91x17");
    assert!(!sitting.echoes(), "keys go through");
    sitting.resize(120, 50);
    sitting.until("terminal of 120x50");
    // Ctrl-C is for the program in the container, whose terminal ends it.
    sitting.holder.write_all(&[3]).expect("typed");
    let status = sitting.child.wait().expect("ended");
    assert_eq!(status.code(), Some(130));
    assert!(sitting.echoes(), "as before");

    // One that is ended itself leaves it as it was too, and nothing runs on in the container.
    let pids = || node.run(&["top", "--once", "--json"]).ok().json()[0]["pids"].clone();
    let before = pids();
    let mut sitting = Sitting::new(&node, &args, 80, 24);
    sitting.until("terminal of 80x24");
    kill(Pid::from_raw(sitting.child.id() as i32), Signal::SIGTERM).expect("ended");
    assert_eq!(sitting.child.wait().expect("ended").code(), Some(128 + 15));
    assert!(sitting.echoes());
    node.wait_for("the command to be gone", |_| pids() == before);
}

#[test]
fn files_are_copied_as_docker_does() {
    if !is_root() {
        return;
    }
    let (node, app) = up(WEB);
    let tree = app.path().join("tree");
    fs::create_dir_all(tree.join("deep")).expect("folders");
    fs::write(tree.join("deep/file"), "text").expect("a file");
    fs::set_permissions(tree.join("deep/file"), fs::Permissions::from_mode(0o640)).expect("a mode");
    symlink("deep/file", tree.join("link")).expect("a link");
    let run = |args: &[&str]| node.run_in(app.path(), args);
    node.run(&["sleep", "web"]).ok();
    // A folder that is not there becomes the copy; one that is there gets it.
    run(&["cp", "tree", "web:/copy"]).ok();
    run(&["cp", "tree", "web:/copy"]).ok();
    run(&["cp", "tree/.", "web:/copy/more/"]).ok();
    run(&["cp", "web:/copy", "back"]).ok();
    for below in ["", "tree", "more"] {
        let root = app.path().join("back").join(below);
        assert_eq!(
            fs::read(root.join("deep/file")).expect("read"),
            b"text",
            "{below}"
        );
        let file = fs::metadata(root.join("deep/file")).expect("there");
        assert_eq!((file.mode() & 0o7777, file.uid()), (0o640, 0));
        assert_eq!(
            fs::read_link(root.join("link")).expect("a link"),
            Path::new("deep/file")
        );
    }
    run(&["cp", "tree/deep/file", "web:/copy/other"]).ok();
    run(&["cp", "web:/copy/other", "."]).ok();
    assert_eq!(fs::read(app.path().join("other")).expect("read"), b"text");
    run(&["cp", "-L", "web:/copy/link", "followed"]).ok();
    assert_eq!(
        fs::read(app.path().join("followed")).expect("read"),
        b"text"
    );
    fs::create_dir(app.path().join("content")).expect("a folder");
    run(&["cp", "web:/copy/deep/.", "content"]).ok();
    assert!(app.path().join("content/file").is_file());
    let tar = run(&["cp", "web:/copy/deep", "-"]).ok().out;
    assert!(tar.contains("deep/file") && tar.contains("text"));
    // What cannot be is said.
    run(&["cp", "web:/nowhere", "x"]).exits(4).says("/nowhere");
    run(&["cp", "tree", "web:/copy/other"])
        .exits(1)
        .says("folder");
    run(&["cp", "tree/deep/file", "web:/nowhere/"])
        .exits(1)
        .says("/nowhere");
    run(&["cp", "tree", "back"]).exits(1).says("NAME:PATH");
    run(&["cp", "web:/copy", "web:/x"])
        .exits(1)
        .says("this machine");
}

#[test]
fn a_copy_never_leaves_the_container_nor_the_folder() {
    if !is_root() {
        return;
    }
    let (node, app) = up(WEB);
    let outside = app.path().join("outside");
    fs::create_dir(&outside).expect("a folder");
    symlink(&outside, app.path().join("way")).expect("a link");
    app.write("planted", "by the copy");
    let run = |args: &[&str]| node.run_in(app.path(), args);
    // The link itself goes in, and in there it leads nowhere.
    run(&["cp", "way", "web:/way"]).ok();
    let refused = run(&["cp", "planted", "web:/way/planted"]);
    assert_ne!(refused.code, 0, "it leads nowhere in there");
    assert_ne!(run(&["cp", "web:/way/.", "stolen"]).code, 0);
    // A link that came out of the container leads out of the folder for nobody.
    run(&["cp", "web:/way", "came"]).ok();
    assert_eq!(
        fs::read_link(app.path().join("came")).expect("a link"),
        outside
    );
    fs::remove_file(app.path().join("planted")).expect("removed");
    fs::create_dir_all(app.path().join("planted/came")).expect("folders");
    app.write("planted/came/file", "by the copy");
    run(&["cp", "planted/.", "web:/tree"]).ok();
    assert_eq!(
        run(&["cp", "web:/tree/.", "."]).code,
        1,
        "a link is in the way"
    );
    assert_eq!(fs::read_dir(&outside).expect("read").count(), 0);
}

#[test]
fn logs_are_filtered_and_named() {
    if !is_root() {
        return;
    }
    let two = format!(
        "{WEB}  other:\n    image: shop-web:1\n    environment: {{PORT: \"8001\"}}\n    x-layby: {{port: 8001}}\n"
    );
    let (node, _app) = up(&two);
    let both = node.run(&["logs", "shop"]).ok();
    assert!(
        both.out.contains("web   | listening on 8000"),
        "{}",
        both.out
    );
    assert!(
        both.out.contains("other | listening on 8001"),
        "{}",
        both.out
    );
    assert!(!both.out.contains('\x1b'), "no colours in a pipe");
    let one = node.run(&["logs", "web", "--timestamps"]).ok();
    let (at, text) = one.out.trim().split_once(' ').expect("a time");
    assert_eq!(text, "listening on 8000");
    assert!(at.starts_with("20") && at.ends_with('Z'), "{at}");
    assert_eq!(node.run(&["logs", "web", "--until", at]).ok().out, "");
    assert_eq!(node.run(&["logs", "web", "--since", "0s"]).ok().out, "");
    node.run(&["logs", "web", "--since", "1h", "--tail", "1"])
        .ok()
        .says("listening");
    node.run(&["logs", "web", "--since", "soon"])
        .exits(1)
        .says("no moment");
    node.run(&["logs", "none"]).exits(4);
}

#[test]
fn figures_are_shown_once_in_a_pipe_and_live_on_a_terminal() {
    if !is_root() {
        return;
    }
    let (node, _app) = up(WEB);
    let lines = node.run(&["top", "--once", "--json"]).ok().json();
    let line = &lines[0];
    assert_eq!(
        (&line["app"], &line["service"]),
        (&"shop".into(), &"web".into())
    );
    assert!(
        line["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0),
        "{line}"
    );
    assert!(
        line["cpu_percent"].is_number() && line["pids"].as_u64() >= Some(1),
        "{line}"
    );
    node.run(&["top", "web"])
        .ok()
        .says("shop/web")
        .says("CPU %");
    node.run(&["top", "none"]).exits(4);

    let mut sitting = Sitting::new(&node, &["top", "--interval", "0.1"], 120, 30);
    sitting.until("shop/web");
    assert!(!sitting.echoes());
    sitting.holder.write_all(b"q").expect("typed");
    sitting.until("\x1b[?1049l");
    assert!(sitting.child.wait().expect("ended").success());
    assert!(sitting.echoes());
}

#[test]
fn a_forwarded_port_moves_bytes_and_wakes() {
    if !is_root() {
        return;
    }
    let (node, _app) = up(WEB);
    node.run(&["sleep", "web"]).ok();
    let args = ["port-forward", "web", ":8000", "0:7000"];
    let mut command = node.command(Path::new("/"), &args);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("layby runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut port = || -> std::net::SocketAddr {
        let line = lines.next().expect("a line").expect("read");
        let addr = line.split(' ').nth(1).expect("an address");
        addr.parse().expect("an address")
    };
    let (http, echo) = (port(), port());
    assert_eq!(
        get(http, "any", "/").expect("an answer").body,
        "hello world"
    );
    node.wait_until("web", "awake");
    let mut stream = TcpStream::connect(echo).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(b"ping").expect("written");
    let mut came = [0; 4];
    stream.read_exact(&mut came).expect("read");
    assert_eq!(&came, b"ping");
    // While it is open the service is in use.
    node.run(&["sleep", "web"]).exits(1).says("in use");
    drop(stream);
    node.wait_for("it to be free", |node| {
        node.run(&["sleep", "web"]).code == 0
    });
    child.kill().expect("ended");
    child.wait().expect("ended");
    let taken: Answer = node.run(&["port-forward", "web", "nonsense"]);
    taken.exits(2);
}
