//! Arguments of the commands that try a revision out on a part of the requests, and end that.

use clap::Args;
use layby_model::route::Share;

use super::Name;

/// Which part of the requests a new revision is tried out on.
#[derive(Debug, Clone, Default, Args)]
#[group(multiple = false)]
pub(crate) struct Canary {
    /// Try it out beside what is live on so many of the requests (1% to 99%), until `layby promote` or `layby abort`.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    canary: Option<String>,
    /// The same on requests with this header.
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = header)]
    canary_header: Option<String>,
    /// The same on requests with this cookie.
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = cookie)]
    canary_cookie: Option<String>,
}

impl Canary {
    /// As the API takes it.
    pub(crate) fn query(&self) -> impl Iterator<Item = (&'static str, String)> {
        let all = [
            ("canary", &self.canary),
            ("canary_header", &self.canary_header),
            ("canary_cookie", &self.canary_cookie),
        ];
        let given = all.map(|(name, value)| Some((name, value.clone()?)));
        given.into_iter().flatten()
    }
}

/// `layby promote`.
#[derive(Debug, Args)]
pub(crate) struct Promote {
    #[command(flatten)]
    pub(crate) name: Name,
    /// Do not wait until it is live.
    #[arg(long, short)]
    pub(crate) detach: bool,
}

fn percent(text: &str) -> Result<String, String> {
    checked(text, Share::percent)
}

fn header(text: &str) -> Result<String, String> {
    checked(text, Share::header)
}

fn cookie(text: &str) -> Result<String, String> {
    checked(text, Share::cookie)
}

/// The node reads it again; what is wrong is said before anything is built.
fn checked(
    text: &str,
    read: fn(&str) -> Result<Share, layby_model::route::ShareError>,
) -> Result<String, String> {
    let read = read(text).map_err(|error| error.to_string());
    read.map(|_| text.to_owned())
}
