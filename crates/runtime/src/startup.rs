//! Asking a container whether it has started, until it says so: for those that are not to be started before that.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde::{Deserialize, Serialize};

use crate::attach::Place;
use crate::exec;
use crate::hook;

/// From the first request to the next.
const PAUSE: Duration = Duration::from_millis(10);
/// From the first command to the next: a process costs more than a packet.
const PAUSE_EXEC: Duration = Duration::from_millis(100);
/// The longest pause: who takes long to start is asked less often.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// How often it is looked whether a command has ended.
const LOOK: Duration = Duration::from_millis(2);
/// A year: the longest time that is waited, so that adding it to now cannot fail.
const LONGEST_MS: u64 = 365 * 24 * 3_600 * 1_000;

/// What is asked, and how long (Kubernetes `startupProbe`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartupConfig {
    /// What is asked.
    pub question: Question,
    /// How long one answer may take, in milliseconds.
    pub timeout_ms: u64,
    /// For how long it may be answered badly, in milliseconds.
    pub most_ms: u64,
}

/// What a container is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// A command in it that ends with exit code 0.
    Exec {
        /// The program and its arguments.
        argv: Vec<String>,
    },
    /// A GET; 200 to 399 is a good answer.
    Http {
        /// The port.
        port: u16,
        /// The path.
        path: String,
        /// Headers.
        #[serde(default)]
        headers: Vec<(String, String)>,
    },
    /// A TCP connection that is accepted.
    Tcp {
        /// The port.
        port: u16,
    },
}

/// Asks the container at `place`, in a sandbox of this address, until it answers well. `Err`: what it said last.
pub(crate) fn wait(
    config: &StartupConfig,
    place: &Place<'_>,
    address: IpAddr,
) -> Result<(), String> {
    let most_ms = config.most_ms.min(LONGEST_MS);
    let begun = Instant::now();
    let end = begun + Duration::from_millis(most_ms);
    let shortest = match config.question {
        Question::Exec { .. } => PAUSE_EXEC,
        Question::Http { .. } | Question::Tcp { .. } => PAUSE,
    };
    loop {
        let Err(said) = once(config, place, address) else {
            return Ok(());
        };
        if Instant::now() >= end {
            return Err(format!("{said}, for {} s", most_ms.div_ceil(1_000)));
        }
        std::thread::sleep(pause(shortest, begun.elapsed()));
    }
}

/// The pause after so long without a good answer: an eighth of that, so that none comes later by more than that.
fn pause(shortest: Duration, waited: Duration) -> Duration {
    (waited / 8).clamp(shortest, LONGEST_PAUSE)
}

fn once(config: &StartupConfig, place: &Place<'_>, address: IpAddr) -> Result<(), String> {
    let timeout = Duration::from_millis(config.timeout_ms.clamp(1, LONGEST_MS));
    match &config.question {
        Question::Exec { argv } => run(argv, place, timeout),
        Question::Http {
            port,
            path,
            headers,
        } => hook::ask(
            SocketAddr::new(address, *port),
            path,
            headers,
            Some(timeout),
        ),
        Question::Tcp { port } => {
            let address = SocketAddr::new(address, *port);
            let connected = TcpStream::connect_timeout(&address, timeout);
            connected
                .map(drop)
                .map_err(|error| format!("cannot connect to {address}: {error}"))
        }
    }
}

/// Runs a command in the container to its end.
fn run(argv: &[String], place: &Place<'_>, timeout: Duration) -> Result<(), String> {
    let begun = exec::start(place.init, place.bundle, place.name, argv);
    let mut exec = begun.map_err(|error| error.sentence())?;
    let until = Instant::now() + timeout;
    let program = argv.first().map_or("", String::as_str).to_owned();
    loop {
        exec.turn();
        match waitpid(exec.helper(), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(WaitStatus::Exited(_, code)) => {
                return match (exec.finish(), code) {
                    (Err(error), _) => Err(error.sentence()),
                    (Ok(_), 0) => Ok(()),
                    (Ok(_), code) => Err(format!("{program} ended with exit code {code}")),
                };
            }
            Ok(_) | Err(_) => return Err(format!("{program} was killed")),
        }
        if Instant::now() >= until {
            // What it runs dies with it.
            let _ = kill(exec.helper(), Signal::SIGKILL);
            let _ = waitpid(exec.helper(), None);
            let ms = timeout.as_millis();
            return Err(format!("{program} did not end within {ms} ms"));
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_long_to_start_is_asked_less_often() {
        let ms = Duration::from_millis;
        for (shortest, waited, pauses) in [
            (PAUSE, 0, 10),
            (PAUSE, 80, 10),
            (PAUSE, 800, 100),
            (PAUSE_EXEC, 400, 100),
            (PAUSE_EXEC, 300_000, 250),
        ] {
            assert_eq!(pause(shortest, ms(waited)), ms(pauses), "{waited}");
        }
    }
}
