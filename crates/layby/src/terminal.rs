//! The terminal that this program runs in: its keys as they are pressed, its size, its screen. However it ends, the
//! terminal is as before.

use std::io::{IsTerminal, Read, Write};

use anyhow::{Context, Result};
use layby_runtime::tty;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// How much of the input is read at once.
const PIECE_BYTES: usize = 32 * 1024;
/// So many pieces may wait.
const PIECES: usize = 4;

/// Keys come as they are pressed, none of them means anything to the terminal, until this is dropped.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// Switches the terminal of the standard input over.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn enter() -> Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).context("the standard input is no terminal")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSADRAIN, &raw).context("the terminal cannot be set up")?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &self.before);
    }
}

/// A screen of its own, without a cursor, until this is dropped.
pub(crate) struct Screen;

impl Screen {
    /// Opens it on the standard output.
    pub(crate) fn open() -> Self {
        write_all("\x1b[?1049h\x1b[?25l\x1b[2J");
        Self
    }

    /// Shows these lines, cut to fit.
    pub(crate) fn show(&self, lines: &[String]) {
        let (columns, rows) = size().unwrap_or((80, 24));
        let mut text = String::from("\x1b[H");
        for (number, line) in lines.iter().take(rows.into()).enumerate() {
            if number > 0 {
                text.push_str("\r\n");
            }
            text.extend(line.chars().take(columns.into()));
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        write_all(&text);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        write_all("\x1b[?25h\x1b[?1049l");
    }
}

fn write_all(text: &str) {
    let mut out = std::io::stdout().lock();
    // A terminal that is gone shows nothing.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Columns and rows of the terminal, if there is one.
pub(crate) fn size() -> Option<(u16, u16)> {
    let of = |size: std::io::Result<(u16, u16)>| size.ok().filter(|(columns, _)| *columns > 0);
    of(tty::size(std::io::stdout())).or_else(|| of(tty::size(std::io::stdin())))
}

/// Whether somebody sits at both sides.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// The standard input as it comes; the channel closes at its end. Read by a thread that nobody waits for: a read of a
/// terminal cannot be given up.
pub(crate) fn input() -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel(PIECES);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(length @ 1..) = stdin.read(&mut buffer) {
            if send.blocking_send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    receive
}
