//! Pages: a story's files and commands, read from Markdown and written back with what was printed.

use std::fs;
use std::path::{Path, PathBuf};

/// A part of a page, in its order.
#[derive(Debug, PartialEq)]
pub(crate) enum Part {
    /// Prose, and whatever else is told and not done; with its line ends.
    Prose(String),
    /// A file to write.
    File { name: String, content: String },
    /// Commands, each with what it is to print.
    Console(Vec<Line>),
}

/// A command and what it prints, whole lines.
#[derive(Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) command: String,
    pub(crate) output: String,
}

/// The folder of the pages.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios")
}

/// The names of all pages.
pub(crate) fn all() -> Vec<String> {
    let entries = fs::read_dir(folder()).expect("the folder of the pages");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.filter_map(|name| name.into_string().ok());
    names.filter(|name| name.ends_with(".md")).collect()
}

/// Reads a page.
pub(crate) fn parse(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut prose = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(word) = line.strip_prefix("```").filter(|word| !word.is_empty()) else {
            prose.push_str(line);
            prose.push('\n');
            continue;
        };
        parts.push(Part::Prose(std::mem::take(&mut prose)));
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        parts.push(match word {
            "console" => Part::Console(commands(&block)),
            name => Part::File {
                name: name.to_owned(),
                content: block.iter().map(|line| format!("{line}\n")).collect(),
            },
        });
    }
    parts.push(Part::Prose(prose));
    parts
}

fn commands(block: &[&str]) -> Vec<Line> {
    let mut commands: Vec<Line> = Vec::new();
    for line in block {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push(Line {
                command: command.to_owned(),
                output: String::new(),
            }),
            (None, Some(last)) => last.output.push_str(&format!("{line}\n")),
            (None, None) => panic!("a console block begins with a command, not with {line:?}"),
        }
    }
    commands
}

/// Writes a page as it is read.
pub(crate) fn render(parts: &[Part]) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Prose(prose) => text.push_str(prose),
            Part::File { name, content } => text.push_str(&format!("```{name}\n{content}```\n")),
            Part::Console(lines) => {
                text.push_str("```console\n");
                for line in lines {
                    text.push_str(&format!("$ {}\n{}", line.command, line.output));
                }
                text.push_str("```\n");
            }
        }
    }
    text
}

#[test]
fn a_page_is_written_as_it_is_read() {
    let page = "# A\n\n```compose.yaml\nname: a\n```\n\nNow:\n\n```console\n$ layby up\nlive\n$ layby ls\n```\n";
    assert_eq!(render(&parse(page)), page);
}
