//! Which requests a canary gets: so many of a hundred, or those that bear a header or a cookie.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest name or value that is looked for in requests, in bytes.
const MAX_BYTES: usize = 256;

/// Which requests of a service go to its canary; the others go to live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Share {
    /// So many of each hundred requests, or connections where no HTTP is spoken: 1 to 99.
    Percent(u8),
    /// Requests with this header (RFC 9110, section 5).
    Header {
        /// Its name, in whatever case.
        name: String,
        /// The value that it must have; `None`: any.
        value: Option<String>,
    },
    /// Requests with this cookie (RFC 6265, section 5.4).
    Cookie {
        /// Its name.
        name: String,
        /// The value that it must have; `None`: any.
        value: Option<String>,
    },
}

/// Why something is no [`Share`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// No number of percent, or one that leaves nothing to choose.
    #[error("`{0}` is no share: write it as 1% to 99%")]
    Percent(String),
    /// Not the name of a header or cookie.
    #[error("`{0}` cannot be the name of a {1}: write it as NAME or NAME=VALUE")]
    Name(String, &'static str),
    /// Not what a header or cookie can hold.
    #[error("`{0}` cannot be the value of a {1}")]
    Value(String, &'static str),
}

impl Share {
    /// Reads `10%` (or `10`).
    ///
    /// # Errors
    /// It is no whole number from 1 to 99.
    pub fn percent(text: &str) -> Result<Self, ShareError> {
        let number = text.trim().strip_suffix('%').unwrap_or(text).trim_end();
        let percent = number.parse().ok().filter(|n| (1..=99).contains(n));
        let wrong = || ShareError::Percent(text.to_owned());
        percent.map(Self::Percent).ok_or_else(wrong)
    }

    /// Reads `NAME` or `NAME=VALUE` as a header.
    ///
    /// # Errors
    /// The name is no token, or the value holds what no header may.
    pub fn header(text: &str) -> Result<Self, ShareError> {
        let (name, value) = name_and_value(text);
        Self::Header { name, value }.checked()
    }

    /// Reads `NAME` or `NAME=VALUE` as a cookie.
    ///
    /// # Errors
    /// The name is no token, or the value holds what no cookie may.
    pub fn cookie(text: &str) -> Result<Self, ShareError> {
        let (name, value) = name_and_value(text);
        Self::Cookie { name, value }.checked()
    }

    /// The same, if requests can have it at all.
    ///
    /// # Errors
    /// What the readers above refuse.
    pub fn checked(self) -> Result<Self, ShareError> {
        let (name, value, what) = match &self {
            Self::Percent(percent) if (1..=99).contains(percent) => return Ok(self),
            Self::Percent(percent) => return Err(ShareError::Percent(percent.to_string())),
            Self::Header { name, value } => (name, value, "header"),
            Self::Cookie { name, value } => (name, value, "cookie"),
        };
        if name.is_empty() || name.len() > MAX_BYTES || !name.bytes().all(is_token) {
            return Err(ShareError::Name(name.clone(), what));
        }
        let fits = |b: u8| match &self {
            Self::Cookie { .. } => (b'!'..=b'~').contains(&b) && b != b';',
            Self::Percent(_) | Self::Header { .. } => (b' '..=b'~').contains(&b),
        };
        match value {
            Some(value)
                if value.len() > MAX_BYTES || value.trim() != value || !value.bytes().all(fits) =>
            {
                Err(ShareError::Value(value.clone(), what))
            }
            Some(_) | None => Ok(self),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, name, value) = match self {
            Self::Percent(percent) => return write!(f, "{percent} %"),
            Self::Header { name, value } => ("header", name, value),
            Self::Cookie { name, value } => ("cookie", name, value),
        };
        match value {
            Some(value) => write!(f, "{what} {name}={value}"),
            None => write!(f, "{what} {name}"),
        }
    }
}

/// Whether the `turn`-th request is the canary's: exactly `percent` of each hundred in a row.
///
/// Within a hundred they lie apart, and each hundred begins at another place: what clients ask for in a fixed order
/// (a page, then its pictures) is not always chosen alike.
pub fn falls(percent: u8, turn: u64) -> bool {
    /// Prime to a hundred, so that a hundred turns meet each place once; its inverse, 73, keeps those below
    /// `percent` far from each other.
    const STRIDE: u64 = 37;
    /// 2^64 by the golden ratio: spreads block numbers over all of a word.
    const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
    let (block, place) = (turn / 100, turn % 100);
    let start = ((block.wrapping_mul(MIX) >> 32) * 100) >> 32;
    (place * STRIDE + start) % 100 < u64::from(percent)
}

fn name_and_value(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_hundred_requests_exactly_the_share_falls_to_the_canary() {
        for percent in 1..=99 {
            for block in [0, 1, 2, 12_345, u64::MAX / 100 - 1] {
                let turns = block * 100..block * 100 + 100;
                let falling = turns.filter(|turn| falls(percent, *turn)).count();
                assert_eq!(falling, usize::from(percent), "{percent} %, block {block}");
            }
        }
    }

    #[test]
    fn whoever_asks_in_a_rhythm_gets_about_the_share_too() {
        for (percent, rhythm) in [(50, 2), (10, 10), (10, 20), (25, 4), (1, 100), (5, 50)] {
            let turns = (0..20_000).map(|n| n * rhythm);
            let falling = turns.filter(|turn| falls(percent, *turn)).count() as f64 / 200.0;
            let share = f64::from(percent);
            let about = share * 0.6..share * 1.4;
            assert!(
                about.contains(&falling),
                "{percent} %: {falling} % each {rhythm}"
            );
        }
    }

    #[test]
    fn shares_are_read_and_shown() {
        let shown = |share: Result<Share, ShareError>| match share {
            Ok(share) => share.to_string(),
            Err(error) => error.to_string(),
        };
        let wrong = |text: &str| format!("`{text}` is no share: write it as 1% to 99%");
        assert_eq!(shown(Share::percent("10%")), "10 %");
        assert_eq!(shown(Share::percent("99")), "99 %");
        for text in ["0%", "100%", "-1", "1.5%", "", "%", "ten"] {
            assert_eq!(shown(Share::percent(text)), wrong(text));
        }
        assert_eq!(shown(Share::header("X-Beta")), "header X-Beta");
        assert_eq!(shown(Share::header("X-Beta=a b")), "header X-Beta=a b");
        assert_eq!(shown(Share::cookie("beta=1=2")), "cookie beta=1=2");
        for text in ["", "=1", "a b", "ä", "x:y"] {
            assert!(Share::header(text).is_err(), "{text}");
            assert!(Share::cookie(text).is_err(), "{text}");
        }
        assert!(Share::header("x=a\r\nb").is_err());
        assert!(Share::cookie("x=a;b").is_err() && Share::cookie("x=a b").is_err());
    }
}
