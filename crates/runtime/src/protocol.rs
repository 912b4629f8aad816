//! What node and shim say to each other: JSON, one object a line, over a stream socket.
//!
//! A client sends [`Request`]s and gets a [`Message::Ok`] or [`Message::Error`] with the same id for
//! each, in the order in which they are done, which need not be the order of asking. After
//! [`Do::Watch`] it also gets a [`Message::State`] at each change. A line is at most
//! [`MAX_REQUEST_BYTES`] (requests) or [`MAX_MESSAGE_BYTES`] long.
//!
//! Two requests hand descriptors over ([`Do::Attach`], [`Do::Copy`]): before their reply comes a
//! [`Message::Attached`] with the client's ends beside it (SCM_RIGHTS, unix(7)). Each needs a connection of its
//! own, and what it began ends with that connection.

use serde::{Deserialize, Serialize};

/// The version of this protocol. A shim lives as long as its containers: a newer node must still speak to it. So
/// versions only add requests; each request bears the version that it came with ([`Do::version`]), and a shim answers
/// those up to its own.
pub const VERSION: u32 = 3;

/// The longest request line that a shim reads; a client that sends more is cut off.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// The longest line that a shim writes: an exec's output, where JSON needs up to six bytes for one.
pub const MAX_MESSAGE_BYTES: usize = 512 * 1024;

/// How much of an exec's output is kept.
pub const MAX_EXEC_OUTPUT_BYTES: usize = 64 * 1024;

/// How many clients a shim serves at once; one more is closed at once.
pub const MAX_CLIENTS: usize = 16;

/// How many execs run in a sandbox at once; one more is refused.
pub const MAX_EXECS: usize = 8;

/// How many commands and copies with a client at their other end run in a sandbox at once; one more is refused.
pub const MAX_ATTACHED: usize = 8;

/// One line from a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`Do::version`] of the order.
    pub v: u32,
    /// Chosen by the client; the reply bears it.
    pub id: u64,
    /// What to do.
    #[serde(flatten)]
    pub order: Do,
}

/// What a shim can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Do {
    /// Creates and starts every container; replies when each init was executed, those that run before have ended well, and
    /// every hook that follows a start has ended well; where one did not whose container ends apart, that is started again
    /// alone, and is `down`. Already running: replies at once. A stop in between ends it, with an error.
    Start,
    /// Stops every container and keeps what they wrote; replies when no process is left. Not running: replies at once.
    Stop,
    /// Replies with the state.
    State,
    /// Runs a command in a running container, as its user, and replies when it has ended.
    Exec {
        /// The container's name; empty: the first.
        #[serde(default)]
        container: String,
        /// The program and its arguments.
        argv: Vec<String>,
        /// It is killed after this.
        timeout_ms: u64,
    },
    /// Runs a command in a running container with the client at its other end, who gets one descriptor (its
    /// terminal) or three (to its standard input, from its output, from its errors). Replies with its exit code when
    /// it has ended: 126 or 127 and the reason if it could not be executed or was not found.
    Attach(Attach),
    /// Reads or writes files of a running container. The client gets a pipe with the tar, or for it, but none for
    /// [`Copy::Stat`]; replies when all is read or written.
    Copy(CopyRequest),
    /// Replies with the state, and from then on sends it at each change.
    Watch,
    /// Ends a running container as if it had ended by itself: by its hooks before a stop and its signal, killed after its
    /// grace. What follows is what follows such an end ([`AgainConfig`](crate::AgainConfig)). Replies when that has begun.
    End {
        /// The container's name; empty: the first.
        #[serde(default)]
        container: String,
        /// How long it may take to end, in milliseconds; `None`: as long as ever.
        #[serde(default)]
        grace_ms: Option<u64>,
    },
    /// Stops, unmounts, removes the cgroup, replies, ends. The bundle's directory is left to the caller.
    Quit,
}

impl Do {
    /// The version of the protocol that this request came with.
    pub fn version(&self) -> u32 {
        match self {
            Self::Start
            | Self::Stop
            | Self::State
            | Self::Exec { .. }
            | Self::Watch
            | Self::Quit => 1,
            Self::Copy(CopyRequest {
                copy: Copy::In {
                    whiteouts: true, ..
                },
                ..
            }) => 3,
            Self::Attach(_) | Self::Copy(_) => 2,
            Self::End { .. } => 3,
        }
    }
}

/// A command with a client at its other end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The container's name; empty: the first.
    #[serde(default)]
    pub container: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Added to the container's environment.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Where it starts; `None`: where the container did.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Whom it runs as, in the words of the container's own user; `None`: as the container.
    #[serde(default)]
    pub user: Option<String>,
    /// A terminal of so many columns and rows; `None`: pipes.
    #[serde(default)]
    pub tty: Option<(u16, u16)>,
    /// It gets a standard input; else that is at its end. (A terminal has one in any case.)
    #[serde(default)]
    pub stdin: bool,
}

/// What to do with files of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRequest {
    /// The container's name; empty: the first.
    #[serde(default)]
    pub container: String,
    /// What to do.
    #[serde(flatten)]
    pub copy: Copy,
}

/// Reading or writing files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "copy", rename_all = "snake_case")]
pub enum Copy {
    /// A file or folder as a tar.
    Out {
        /// Which.
        path: String,
        /// If it is a link, what it leads to is meant.
        follow_link: bool,
    },
    /// A tar into a folder.
    In {
        /// The folder; it must be there.
        path: String,
        /// Owners are as the tar has them; else all belongs to the container's root.
        keep_owners: bool,
        /// An entry called `.wh.NAME` takes away what is called NAME there.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        whiteouts: bool,
    },
    /// What is at a path: replies with a [`Stat`] in JSON as the output.
    Stat {
        /// The path; links are followed.
        path: String,
    },
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Where it is: absolute, without links.
    pub path: String,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// One line from a shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Message {
    /// A request was done.
    Ok {
        /// The request's.
        id: u64,
        /// What came of it.
        ok: Answer,
    },
    /// A request failed.
    Error {
        /// The request's.
        id: u64,
        /// Why.
        error: Trouble,
    },
    /// The client's ends of what was begun come with this line; the reply is still to come.
    Attached {
        /// The request's id.
        attached: u64,
    },
    /// The state changed; sent to those who watch.
    State {
        /// The new state.
        state: SandboxState,
    },
}

/// What comes of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To all but exec: the state afterwards.
    State(SandboxState),
    /// To exec, attach and copy.
    Exec(ExecResult),
}

/// The state of a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxState {
    /// Its containers run (frozen or not), but for those that ended alone. False also while they start and stop.
    pub running: bool,
    /// Counts up with each start.
    pub run: u64,
    /// Its containers, in the order of the spec.
    pub containers: Vec<ContainerState>,
    /// Those that run before them.
    #[serde(default)]
    pub init: Vec<ContainerState>,
    /// Why the last start failed, or which container ended unasked; cleared by the next start.
    pub trouble: Option<Trouble>,
    /// Which container ended unasked since the last start, so that the sandbox is over; the others were stopped for it.
    #[serde(default)]
    pub ended: Option<Ended>,
    /// How many ends in a row were unasked and came within 10 s of their start, up to the last one.
    #[serde(default)]
    pub ended_in_a_row: u32,
    /// [`VERSION`] of the shim; 0: it is older than 3.
    #[serde(default)]
    pub version: u32,
}

/// The state of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Its name.
    pub name: String,
    /// Its init on the host, while it runs.
    pub pid: Option<i32>,
    /// How often it ended unasked, in the shim's life.
    pub ended: u32,
    /// How it ended last.
    pub last_exit: Option<Exit>,
    /// When that was, in milliseconds since 1970.
    #[serde(default)]
    pub last_exit_ms: Option<u64>,
    /// How often it was started, in the shim's life.
    #[serde(default)]
    pub starts: u32,
    /// It ended while the others go on, and is to be started again; or it was, and its hooks after that are not over yet.
    #[serde(default)]
    pub down: bool,
    /// How many ends in a row were unasked and came within 10 s of its start, up to the last one.
    #[serde(default)]
    pub ended_in_a_row: u32,
    /// Why it could not be started again alone, or its hook after that failed, in one sentence.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// A container that ended unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its name.
    pub container: String,
    /// How it ended.
    pub exit: Exit,
    /// It was a hook after its start that ended so, and the container was ended for it.
    #[serde(default)]
    pub hook: bool,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; 128 + n if signal n ended it.
    pub code: i32,
    /// The kernel killed one of its processes for want of memory within its limit.
    pub oom: bool,
}

/// Why something did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// No later try can succeed: the command or the user does not exist.
    pub fatal: bool,
    /// What happened, where, and what to do, in one sentence.
    pub message: String,
}

/// What a command in a container did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecResult {
    /// Its exit code; 128 + n if signal n ended it.
    pub code: i32,
    /// It was killed because its time was over.
    pub timed_out: bool,
    /// The first [`MAX_EXEC_OUTPUT_BYTES`] of what it wrote to both outputs; bytes that are no UTF-8 are replaced.
    pub output: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_the_protocol_writes_them() {
        let line =
            r#"{"v":1,"id":7,"do":"exec","container":"web","argv":["/bin/true"],"timeout_ms":5}"#;
        let request: Request = serde_json::from_str(line).expect("a request");
        assert_eq!(
            request.order,
            Do::Exec {
                container: "web".into(),
                argv: vec!["/bin/true".into()],
                timeout_ms: 5
            }
        );
        assert_eq!(serde_json::to_string(&request).expect("json"), line);
        let start: Request = serde_json::from_str(r#"{"v":1,"id":1,"do":"start"}"#).expect("start");
        assert_eq!(start.order, Do::Start);
    }

    #[test]
    fn messages_survive_the_wire() {
        let state = SandboxState {
            containers: vec![ContainerState::default()],
            ..SandboxState::default()
        };
        let exec = ExecResult {
            code: 3,
            timed_out: false,
            output: "a\nb".into(),
        };
        for message in [
            Message::Ok {
                id: 1,
                ok: Answer::State(state.clone()),
            },
            Message::Ok {
                id: 2,
                ok: Answer::Exec(exec),
            },
            Message::Error {
                id: 3,
                error: Trouble {
                    fatal: true,
                    message: "no".into(),
                },
            },
            Message::Attached { attached: 4 },
            Message::State { state },
        ] {
            let line = serde_json::to_string(&message).expect("json");
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(
                serde_json::from_str::<Message>(&line).expect("message"),
                message
            );
        }
    }
}
