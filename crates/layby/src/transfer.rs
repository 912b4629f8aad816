//! A pull or push as it goes on: a bar for each layer on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use layby_control::api::types::TransferEvent;

use crate::cli::Transfer;
use crate::client::{Client, Query};
use crate::commands::images::size;
use crate::exit::{Code, Exit};
use crate::out::{say, tell};

/// Asks for the transfer and shows it until it is done.
///
/// # Errors
/// What the node or the registry said.
pub(crate) async fn follow(
    client: &Client,
    path: &str,
    mut query: Vec<Query<'_>>,
    options: Transfer,
) -> Result<()> {
    if options.insecure {
        query.push(("insecure", true.to_string()));
    }
    let mut lines = client.post_lines(path, &query).await?;
    let mut screen = Screen::new(options.quiet);
    while let Some(event) = lines.next::<TransferEvent>().await? {
        match event {
            TransferEvent::Part {
                digest,
                step,
                done_bytes,
                of_bytes,
                reason,
            } => screen.part(&digest, &step, done_bytes, of_bytes, reason.as_deref()),
            TransferEvent::Done {
                reference, digest, ..
            } => {
                screen.clear();
                match options.quiet {
                    true => say!("{digest}"),
                    false => say!("{reference}  {digest}"),
                }
                return Ok(());
            }
            TransferEvent::Error { problem } => {
                screen.clear();
                let code = match problem.status {
                    404 => Code::NotFound,
                    _ => Code::Failed,
                };
                let message = match problem.hint {
                    Some(hint) => format!("{}\n  {hint}", problem.detail),
                    None => problem.detail,
                };
                return Err(Exit::new(code, message).into());
            }
        }
    }
    screen.clear();
    anyhow::bail!("the node ended in the middle of it: run it again, what was whole is kept")
}

/// One bar for each part that is under way; on no terminal, a line when a part is done.
struct Screen {
    quiet: bool,
    live: Option<MultiProgress>,
    bars: BTreeMap<String, ProgressBar>,
    sizes: BTreeMap<String, u64>,
}

impl Screen {
    fn new(quiet: bool) -> Self {
        Self {
            quiet,
            live: (!quiet && std::io::stderr().is_terminal()).then(MultiProgress::new),
            bars: BTreeMap::new(),
            sizes: BTreeMap::new(),
        }
    }

    fn part(&mut self, digest: &str, step: &str, done: u64, of: u64, reason: Option<&str>) {
        if of > 0 {
            self.sizes.insert(digest.to_owned(), of);
        }
        let name = digest.trim_start_matches("sha256:");
        let name = name.get(..12).unwrap_or(name).to_owned();
        let said = match step {
            "held" => Some("is there already".to_owned()),
            "done" => Some("is there".to_owned()),
            "unpacked" => Some("is unpacked".to_owned()),
            "mounted" => Some("was there in another repository".to_owned()),
            "again" => Some(format!(
                "is tried again: it {}",
                reason.unwrap_or("broke off")
            )),
            _ => None,
        };
        let Some(live) = &self.live else {
            if let Some(said) = said.filter(|_| !self.quiet) {
                let size = self
                    .sizes
                    .get(digest)
                    .map(|bytes| format!(" ({})", size(*bytes)));
                tell!("{name}  {said}{}", size.unwrap_or_default());
            }
            return;
        };
        let bar = self.bars.entry(digest.to_owned()).or_insert_with(|| {
            let template = "{prefix}  {bar:30} {bytes:>10} of {total_bytes:>10}  {wide_msg}";
            let style = ProgressStyle::with_template(template);
            let bar = live.add(ProgressBar::new(of.max(1)));
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.with_prefix(name)
        });
        if of > 0 {
            bar.set_length(of);
        }
        match (step, said) {
            ("bytes" | "waiting", _) => {
                bar.set_position(done);
                bar.set_message("");
            }
            ("held" | "done" | "mounted", Some(said)) => {
                bar.set_position(bar.length().unwrap_or(1));
                bar.set_message(said);
            }
            (_, Some(said)) => bar.set_message(said),
            (_, None) => {}
        }
    }

    fn clear(&mut self) {
        if let Some(live) = &self.live {
            let _ = live.clear(); // nothing is lost where a terminal has gone
        }
        self.bars.clear();
    }
}
