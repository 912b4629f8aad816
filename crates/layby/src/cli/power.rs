//! `layby scale` and `layby power`: how large a service is.

use clap::{Args, Subcommand};
use layby_model::spec::REPLICAS_MAX;

use super::{Json, Name, not_empty};

/// `layby scale`.
#[derive(Debug, Args)]
#[command(
    after_help = "It stays through deploys and rollbacks, and through `layby up` as long as the manifest's \
    number of replicas stays the same; another number there wins. 0 disables the service. Without a number it shows \
    how many there are and why: by which policy, and what that has seen.\n\n\
    Examples:\n  layby scale web\n  layby scale web 3\n  layby scale web --auto\n  layby scale shop/web --reset"
)]
pub(crate) struct Scale {
    #[command(flatten)]
    pub(crate) name: Name,
    /// How many replicas it is to have, up to 1000; 0 disables it.
    #[arg(value_parser = clap::value_parser!(u32).range(..=i64::from(REPLICAS_MAX)))]
    pub(crate) replicas: Option<u32>,
    /// Give it as many as its manifest says.
    #[arg(long, conflicts_with_all = ["replicas", "auto"])]
    pub(crate) reset: bool,
    /// Let what it has to do scale it again, as its manifest says.
    #[arg(long, conflicts_with = "replicas")]
    pub(crate) auto: bool,
    /// Do not wait until it has them.
    #[arg(long, short)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// `layby power`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "A change of power is a revision: it is rolled out, and can be rolled back. It stays until the \
    manifest says other limits than now. Without a power it shows the one that the service has.\n\n\
    Examples:\n  layby power ls\n  layby power web\n  layby power web small\n  layby power web --advise --apply\n  \
    layby power set batch --cpu 1.5 --memory 3G"
)]
pub(crate) struct Power {
    #[command(subcommand)]
    pub(crate) command: Option<Powers>,
    /// The service: its name where that is unique, else `app/service`.
    #[arg(required = true, value_parser = not_empty)]
    pub(crate) name: Option<String>,
    /// The power to give it: `layby power ls` shows which there are. Left out: its own is shown.
    #[arg(value_parser = not_empty)]
    pub(crate) power: Option<String>,
    /// Let what its manifest says hold again.
    #[arg(long, conflicts_with_all = ["power", "advise"])]
    pub(crate) reset: bool,
    /// Propose a power by what it has used.
    #[arg(long, conflicts_with = "power")]
    pub(crate) advise: bool,
    /// Give it the power that is proposed.
    #[arg(long, requires = "advise")]
    pub(crate) apply: bool,
    /// Do not wait until live or failed.
    #[arg(long, short)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// `layby power ls|set|rm`.
#[derive(Debug, Subcommand)]
pub(crate) enum Powers {
    /// List the powers of the node, from the least to the most.
    Ls(Json),
    /// Make a power of the node's own, or give it other figures.
    Set {
        /// What it is to be called: small letters, digits and hyphens.
        #[arg(value_parser = not_empty)]
        power: String,
        /// Most CPU, in cores, such as 1.5.
        #[arg(long, value_name = "CORES", value_parser = cores)]
        cpu: u64,
        /// Most memory, such as 512M or 3G (powers of 1024).
        #[arg(long, value_name = "SIZE", value_parser = memory)]
        memory: u64,
    },
    /// Remove a power of the node's own that no service has.
    Rm {
        /// What it is called.
        #[arg(value_parser = not_empty)]
        power: String,
    },
}

/// `1.5` in thousandths.
fn cores(text: &str) -> Result<u64, String> {
    let wrong = || "write it as a number of cores, such as 1.5".to_owned();
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() || part.len() > 3 || !digits(whole) || !digits(part) {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let part: u64 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    let milli = whole.checked_mul(1000).and_then(|n| n.checked_add(part));
    milli.ok_or_else(wrong)
}

/// `512M` or `3G` in bytes.
fn memory(text: &str) -> Result<u64, String> {
    let wrong = || "write it as a number with M or G, such as 512M or 1.5G".to_owned();
    let lower = text.to_ascii_lowercase();
    let bare = lower.trim_end_matches('b').trim_end_matches('i');
    let (number, shift) = match bare.char_indices().last() {
        Some((at, 'k')) => (&bare[..at], 10),
        Some((at, 'm')) => (&bare[..at], 20),
        Some((at, 'g')) => (&bare[..at], 30),
        Some((at, 't')) => (&bare[..at], 40),
        _ => (bare, 0),
    };
    let milli = cores(number).map_err(|_| wrong())?;
    let bytes = milli.checked_mul(1 << shift).ok_or_else(wrong)?;
    Ok(bytes / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_have_up_to_three_decimals() {
        assert_eq!(cores("1.5"), Ok(1_500));
        assert_eq!(cores("4"), Ok(4_000));
        assert_eq!(cores("0.25"), Ok(250));
        for bad in ["", ".5", "1.2345", "-1", "1e3", "x", "99999999999999999999"] {
            assert!(cores(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_is_in_powers_of_1024() {
        assert_eq!(memory("512M"), Ok(512 << 20));
        assert_eq!(memory("1.5G"), Ok(3 << 29));
        assert_eq!(memory("2GiB"), Ok(2 << 30));
        assert_eq!(memory("1gb"), Ok(1 << 30));
        assert_eq!(memory("7"), Ok(7));
        for bad in ["", "M", "1X", "-1G", "99999999999999T"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }
}
