//! Standard output, for people and for pipes.

use std::fmt;
use std::io::{ErrorKind, Write};

/// Writes a line. A reader that has seen enough (`layby ls | head -1`) ends the program, as other tools do.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    if let Err(error) = writeln!(std::io::stdout().lock(), "{text}") {
        std::process::exit(i32::from(error.kind() != ErrorKind::BrokenPipe));
    }
}

/// Like `println!`, by way of [`line`].
macro_rules! say {
    ($($text:tt)*) => { $crate::out::line(format_args!($($text)*)) };
}
pub(crate) use say;
