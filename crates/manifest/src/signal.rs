//! Signals by their names (signal(7)).

use crate::fields::Expected;

/// A signal as Docker takes it: `SIGTERM`, `TERM` or 15.
pub(crate) fn signal(text: &str) -> Result<String, Expected> {
    const NAMES: [&str; 32] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "KILL", "PIPE",
        "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
    ];
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let real_time = name.strip_prefix("RTMIN").or(name.strip_prefix("RTMAX"));
    let is_real_time = real_time.is_some_and(|rest| rest.is_empty() || rest.parse::<i8>().is_ok());
    let is_number = text
        .parse()
        .is_ok_and(|number: u8| (1..=64).contains(&number));
    if NAMES.contains(&name) || is_real_time || is_number {
        Ok(text.to_owned())
    } else {
        Err("a signal such as SIGTERM or 15".to_owned())
    }
}
