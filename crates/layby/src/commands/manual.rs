//! `layby completions` and `layby man`: written from the command line's own definition.

use std::io::Write;

use anyhow::{Context, Result, anyhow};
use clap::CommandFactory;

use crate::cli::{Cli, Completions, Man};
use crate::nearest;

/// Prints what makes a shell complete the command line.
///
/// # Errors
/// It cannot be written.
pub(crate) fn completions(options: &Completions) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "layby", &mut script);
    print(&script)
}

/// Prints a page of the manual (roff), or writes all of them into a folder.
///
/// # Errors
/// There is no such command, or it cannot be written.
pub(crate) fn man(options: &Man) -> Result<()> {
    let mut command = Cli::command();
    // Gives commands below others their whole names: `layby image pull`.
    command.build();
    if let Some(dir) = &options.dir {
        std::fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(command, dir))
            .with_context(|| format!("cannot write the manual into {}", dir.display()))?;
        return Ok(());
    }
    let mut found = &command;
    for word in &options.command {
        let below: Vec<String> = found
            .get_subcommands()
            .map(|c| c.get_name().to_owned())
            .collect();
        found = found.find_subcommand(word).ok_or_else(|| {
            let whole = options.command.join(" ");
            anyhow!(
                "there is no command `{whole}`: {}",
                nearest::instead(word, &below)
            )
        })?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(found.clone()).render(&mut page)?;
    print(&page)
}

/// Whoever reads has seen enough where the pipe is broken.
fn print(text: &[u8]) -> Result<()> {
    match std::io::stdout().lock().write_all(text) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_command_has_a_page() {
        Cli::command().debug_assert();
        let dir = tempfile::tempdir().expect("a folder");
        let all = Man {
            command: Vec::new(),
            dir: Some(dir.path().to_owned()),
        };
        man(&all).expect("pages");
        for page in ["layby.1", "layby-up.1", "layby-image-pull.1"] {
            let page = std::fs::read_to_string(dir.path().join(page)).expect(page);
            assert!(page.contains(".SH SYNOPSIS"), "{page}");
        }
    }
}
