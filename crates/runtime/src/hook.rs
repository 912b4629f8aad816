//! Hooks: what is done in or for a container after its start and before its stop.
//!
//! None of them holds the shim up: a command and a request are helpers that it forks and waits for, a pause is a moment to
//! wait for. What a command writes goes to its container's log.

use std::convert::Infallible;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, Uid, fchown, pipe2};
use serde::{Deserialize, Serialize};

use crate::attach::Place;
use crate::entry::{Entry, Said, say};
use crate::error::{Error, Result, Trying};
use crate::exec::{self, Wanted};
use crate::executor::{self, Refusal};
use crate::pump::Pump;
use crate::startup::{self, Question, StartupConfig};
use crate::sys;
use crate::user::Root;

/// How long a connection of a request may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may be waited for after a start, connecting included. Before a stop the container's time to stop ends it.
pub(crate) const ANSWER: Duration = Duration::from_secs(60);
/// The most of an answer that is looked at for its first line, in bytes.
const HEAD_BYTES: usize = 1024;

/// A hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookConfig {
    /// A command in the container.
    Exec {
        /// The program and its arguments.
        argv: Vec<String>,
        /// Added to the container's environment.
        #[serde(default)]
        env: Vec<(String, String)>,
        /// Where it starts; `None`: where the container did.
        #[serde(default)]
        cwd: Option<String>,
        /// Whom it runs as; `None`: as the container.
        #[serde(default)]
        user: Option<String>,
        /// With all capabilities, and no filter of system calls.
        #[serde(default)]
        privileged: bool,
    },
    /// A GET in the sandbox's network; 200 to 399 is a success.
    Http {
        /// Whom to ask; `None`: the sandbox's own address.
        #[serde(default)]
        host: Option<IpAddr>,
        /// The port.
        port: u16,
        /// The path.
        path: String,
        /// Headers.
        #[serde(default)]
        headers: Vec<(String, String)>,
    },
    /// A pause.
    Sleep {
        /// In milliseconds.
        ms: u64,
    },
    /// The container is asked until it says that it has started.
    Until(StartupConfig),
}

impl HookConfig {
    /// What it is called in messages, before the name of its container, where it follows a start.
    pub(crate) fn after_start(&self) -> &'static str {
        match self {
            Self::Exec { .. } | Self::Http { .. } | Self::Sleep { .. } => {
                "the hook after the start of container"
            }
            Self::Until(_) => "the startup probe of container",
        }
    }
}

/// Refuses what no later step could make sense of.
pub(crate) fn check(container: &str, hooks: &[HookConfig]) -> Result<()> {
    let wrong = hooks.iter().find_map(|hook| match hook {
        HookConfig::Exec { argv, env, .. } => wrong_command(argv, env),
        HookConfig::Http { path, headers, .. } => wrong_request(path, headers),
        HookConfig::Sleep { .. } => None,
        HookConfig::Until(startup) => match &startup.question {
            Question::Exec { argv } => wrong_command(argv, &[]),
            Question::Http { path, headers, .. } => wrong_request(path, headers),
            Question::Tcp { .. } => None,
        },
    });
    match wrong {
        Some(wrong) => Err(Error::Fatal(format!(
            "a hook of container {container} {wrong}"
        ))),
        None => Ok(()),
    }
}

fn wrong_command(argv: &[String], env: &[(String, String)]) -> Option<&'static str> {
    let mut words = argv.iter().chain(env.iter().flat_map(|(n, v)| [n, v]));
    match argv {
        [] => Some("has no command"),
        _ if words.any(|word| word.contains('\0')) => Some("has a zero byte in it"),
        _ => None,
    }
}

fn wrong_request(path: &String, headers: &[(String, String)]) -> Option<&'static str> {
    let mut words = headers.iter().flat_map(|(n, v)| [n, v]).chain([path]);
    let ends = words.any(|word| word.contains(['\r', '\n', '\0']));
    ends.then_some("has more than a line in its path or headers")
}

/// A hook on its way.
pub(crate) enum Hook {
    /// A helper to wait for.
    Helper {
        pid: Pid,
        output: Option<Pump>,
        report: File,
    },
    /// Over at this moment.
    Pause(Instant),
}

impl Hook {
    /// Begins a hook of the container at `place`; `address` is the sandbox's own. `patience`: how long a request may take.
    pub(crate) fn begin(
        config: &HookConfig,
        place: &Place<'_>,
        address: IpAddr,
        patience: Option<Duration>,
    ) -> Result<Self> {
        match config {
            HookConfig::Exec {
                argv,
                env,
                cwd,
                user,
                privileged,
            } => {
                let wanted = Wanted {
                    argv: argv.clone(),
                    env: env.clone(),
                    cwd: cwd.clone(),
                    user: None,
                    terminal: false,
                    privileged: *privileged,
                    attended: false,
                };
                command(place, wanted, user.as_deref())
            }
            HookConfig::Http {
                host,
                port,
                path,
                headers,
            } => {
                let address = SocketAddr::new(host.unwrap_or(address), *port);
                helper(|| ask(address, path, headers, patience))
            }
            HookConfig::Until(startup) => helper(|| startup::wait(startup, place, address)),
            HookConfig::Sleep { ms } => {
                // A year, so that adding it to now cannot fail.
                let pause = Duration::from_millis((*ms).min(365 * 24 * 3_600 * 1_000));
                Ok(Self::Pause(Instant::now() + pause))
            }
        }
    }

    /// The process to wait for, if it is one.
    pub(crate) fn helper(&self) -> Option<Pid> {
        match self {
            Self::Helper { pid, .. } => Some(*pid),
            Self::Pause(_) => None,
        }
    }

    /// When it is over, if that is known.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self {
            Self::Helper { .. } => None,
            Self::Pause(at) => Some(*at),
        }
    }

    /// What it writes, until that is at its end.
    pub(crate) fn output(&mut self) -> Option<&mut Option<Pump>> {
        match self {
            Self::Helper { output, .. } => Some(output),
            Self::Pause(_) => None,
        }
    }

    /// The same, to poll.
    pub(crate) fn pump(&self) -> Option<&Pump> {
        match self {
            Self::Helper { output, .. } => output.as_ref(),
            Self::Pause(_) => None,
        }
    }

    /// Why it failed, in words that follow its name, after its helper has ended with `code`; `None`: it did not.
    pub(crate) fn failure(self, code: i32) -> Option<String> {
        let Self::Helper { mut report, .. } = self else {
            return None;
        };
        let mut sentence = String::new();
        // Nothing more comes: the end is there, or reading would block.
        let _ = (&mut report).take(4096).read_to_string(&mut sentence);
        match (sentence.is_empty(), code) {
            (false, _) => Some(format!("failed: {sentence}")),
            (true, 0) => None,
            (true, code) => Some(format!("ended with exit code {code}")),
        }
    }

    /// Ends it. Its helper is still to be waited for.
    pub(crate) fn end(self) {
        if let Self::Helper { pid, .. } = self {
            // What it runs dies with it.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// Forks a helper that enters the container and runs a command there.
fn command(place: &Place<'_>, wanted: Wanted, user: Option<&str>) -> Result<Hook> {
    let what = || "start a hook in the container".to_owned();
    let (output, output_end) = pipe2(OFlag::O_CLOEXEC).trying(what)?;
    let (report, report_end) = pipe2(OFlag::O_CLOEXEC).trying(what)?;
    for fd in [&output, &report] {
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).trying(what)?;
    }
    match sys::fork().trying(what)? {
        ForkResult::Parent { child } => Ok(Hook::Helper {
            pid: child,
            output: Some(Pump::new(output, "stdout")),
            report: report.into(),
        }),
        ForkResult::Child => {
            let fd = report_end.as_raw_fd();
            match help(place, wanted, user, output_end, &report_end) {
                Err(sentence) => executor::fail(fd, &Refusal::unusable(sentence)),
            }
        }
    }
}

/// The helper: joins, forks the command, waits for it, ends with its exit code.
fn help(
    place: &Place<'_>,
    mut wanted: Wanted,
    user: Option<&str>,
    output: OwnedFd,
    report: &OwnedFd,
) -> Said<Infallible> {
    let entry = Entry::find(place.init, place.bundle, place.name)?;
    if let Some(text) = user {
        let root = Root::open(place.rootfs).map_err(|e| e.sentence())?;
        let user = root.user(text).map_err(|e| e.sentence())?;
        if !place.home_is_set {
            wanted.env.insert(0, ("HOME".to_owned(), user.home.clone()));
        }
        wanted.user = Some(user);
    }
    let owner = match (&wanted.user, entry.spec.process()) {
        (Some(user), _) => user.uid,
        (None, Some(process)) => process.user().uid(),
        (None, None) => 0,
    };
    // It may be opened again, through /dev/stdout.
    fchown(&output, Some(Uid::from_raw(entry.first_id() + owner)), None)
        .map_err(|e| say("give a pipe to its user")(&e))?;
    let stdin = File::open("/dev/null").map_err(|e| say("open /dev/null")(&e))?;
    entry.join(exec::namespaces())?;
    let errors = output
        .try_clone()
        .map_err(|e| say("copy a descriptor")(&e))?;
    exec::run(&entry, &wanted, [stdin.into(), output, errors], report)
}

/// Forks a helper that does `work` in the sandbox's network, and writes nothing.
fn helper(work: impl FnOnce() -> std::result::Result<(), String>) -> Result<Hook> {
    let what = || "start a helper for a hook".to_owned();
    let (report, report_end) = pipe2(OFlag::O_CLOEXEC).trying(what)?;
    fcntl(&report, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).trying(what)?;
    match sys::fork().trying(what)? {
        ForkResult::Parent { child } => Ok(Hook::Helper {
            pid: child,
            output: None,
            report: report.into(),
        }),
        ForkResult::Child => {
            sys::reset_signals();
            sys::close_all_but(&[report_end.as_raw_fd()]);
            // It ends with the shim.
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            match work() {
                Ok(()) => sys::exit_now(0),
                Err(sentence) => {
                    executor::fail(report_end.as_raw_fd(), &Refusal::unusable(sentence));
                }
            }
        }
    }
}

/// Asks, and waits for the answer.
pub(crate) fn ask(
    address: SocketAddr,
    path: &str,
    headers: &[(String, String)],
    patience: Option<Duration>,
) -> std::result::Result<(), String> {
    let url = format!("http://{address}{path}");
    let failed = |error: std::io::Error| format!("cannot ask {url}: {error}");
    let until = patience.map(|patience| Instant::now() + patience);
    let connect = patience.map_or(CONNECT, |patience| patience.min(CONNECT));
    let mut stream = TcpStream::connect_timeout(&address, connect).map_err(failed)?;
    stream
        .write_all(head(address, path, headers).as_bytes())
        .map_err(failed)?;
    let line = first_line(&mut stream, until).map_err(failed)?;
    match status(&line) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(format!("{url} answered {status}")),
        None => Err(format!("{url} answered what is no HTTP")),
    }
}

fn head(address: SocketAddr, path: &str, headers: &[(String, String)]) -> String {
    let has_host = headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"));
    let mut head = format!("GET {path} HTTP/1.1\r\n");
    if !has_host {
        head += &format!("Host: {address}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head + "Connection: close\r\n\r\n"
}

/// The first line of an answer, however it comes in pieces, as far as it came `until` then.
fn first_line(stream: &mut TcpStream, until: Option<Instant>) -> std::io::Result<String> {
    let late = || std::io::Error::new(ErrorKind::TimedOut, "it did not answer in time");
    let mut head = [0; HEAD_BYTES];
    let mut len = 0;
    while len < HEAD_BYTES && !head[..len].contains(&b'\n') {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(late());
        }
        stream.set_read_timeout(left)?;
        match stream.read(&mut head[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(late()),
            Err(error) => return Err(error),
        }
    }
    let line = head[..len].split(|byte| *byte == b'\n').next();
    Ok(String::from_utf8_lossy(line.unwrap_or_default()).into_owned())
}

/// The status in the first line of an answer (RFC 9112, section 4).
fn status(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.")?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_request_names_its_host_once_and_closes() {
        let address: SocketAddr = "10.0.0.5:80".parse().expect("an address");
        let plain = head(address, "/up", &[]);
        assert_eq!(
            plain,
            "GET /up HTTP/1.1\r\nHost: 10.0.0.5:80\r\nConnection: close\r\n\r\n"
        );
        let named = head(address, "/", &[("host".to_owned(), "x".to_owned())]);
        assert!(!named.contains("10.0.0.5"), "{named}");
    }

    #[test]
    fn an_answer_comes_in_pieces_and_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let mut stream = TcpStream::connect(address).expect("it listens");
        let (mut peer, _) = listener.accept().expect("it was connected to");
        let until = |ms| Some(Instant::now() + Duration::from_millis(ms));
        peer.write_all(b"HTTP/1.1 2").expect("written");
        let error = first_line(&mut stream, until(50)).expect_err("it is cut");
        assert_eq!(error.to_string(), "it did not answer in time");
        let writer = std::thread::spawn(move || {
            for piece in ["HTTP/1.1 ", "204 No Con", "tent\r\nServer: x"] {
                peer.write_all(piece.as_bytes()).expect("written");
                std::thread::sleep(Duration::from_millis(5));
            }
            peer
        });
        let line = first_line(&mut stream, until(60_000)).expect("an answer");
        assert_eq!(status(&line), Some(204), "{line}");
        drop(writer.join().expect("no panic"));
        // What ends without a line is what came.
        let line = first_line(&mut stream, None).expect("an end");
        assert_eq!(status(&line), None, "{line}");
    }

    #[test]
    fn a_status_is_read_from_the_first_line() {
        assert_eq!(status("HTTP/1.1 204 No Content\r"), Some(204));
        assert_eq!(status("HTTP/1.0 500\r"), Some(500));
        assert_eq!(status("SSH-2.0-x"), None);
        assert_eq!(status(""), None);
    }

    #[test]
    fn a_hook_without_a_command_is_refused() {
        let exec = |argv: &[&str]| HookConfig::Exec {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: Vec::new(),
            cwd: None,
            user: None,
            privileged: false,
        };
        assert!(check("web", &[exec(&["true"])]).is_ok());
        assert!(check("web", &[exec(&[])]).is_err());
        assert!(check("web", &[exec(&["a\0b"])]).is_err());
    }
}
