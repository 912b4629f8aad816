//! Standard output and error, for people and for pipes.

use std::fmt;
use std::io::{ErrorKind, Write};

/// As if SIGPIPE had ended the program, which is what ends other tools.
pub(crate) const BROKEN_PIPE: u8 = 141;

/// Writes a line. A reader that has seen enough (`layby ls | head -1`) ends the program, as it does other tools: what
/// was not done by then is not to look as if it were.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    if let Err(error) = writeln!(std::io::stdout().lock(), "{text}") {
        end_if_broken(&error);
        std::process::exit(1);
    }
}

/// The same on standard error, but that it may be closed or full: nobody wants to know.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    if let Err(error) = writeln!(std::io::stderr().lock(), "{text}") {
        end_if_broken(&error);
    }
}

fn end_if_broken(error: &std::io::Error) {
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(i32::from(BROKEN_PIPE));
    }
}

/// Like `println!`, by way of [`line`].
macro_rules! say {
    ($($text:tt)*) => { $crate::out::line(format_args!($($text)*)) };
}
/// Like `eprintln!`, by way of [`note`].
macro_rules! tell {
    ($($text:tt)*) => { $crate::out::note(format_args!($($text)*)) };
}
pub(crate) use {say, tell};
