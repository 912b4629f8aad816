//! How well texts were recognised.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;

/// No label may be read with more wrong characters, of a hundred.
const ERRORS_MAX_PERCENT: f64 = 3.0;

/// Compares the texts beside a folder's pictures (`*.png`, `*.txt`) with those of an export in JSON, by the files' names, and
/// prints how many characters are wrong.
///
/// # Errors
/// When a file cannot be read, a picture is not in the export, or one was read too badly.
pub fn compare(folder: &Path, export: &Path) -> anyhow::Result<()> {
    let cannot_read = |path: &Path| format!("cannot read {}", path.display());
    let export = fs::read(export).with_context(|| cannot_read(export))?;
    let export: Vec<Value> = serde_json::from_slice(&export).context("the export is no list")?;
    let entries = fs::read_dir(folder).with_context(|| cannot_read(folder))?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    let mut pictures: Vec<PathBuf> = paths.collect::<std::io::Result<_>>()?;
    pictures.retain(|path| path.extension().is_some_and(|extension| extension == "png"));
    ensure!(!pictures.is_empty(), "{} has no pictures", folder.display());
    let mut rates = Vec::new();
    for path in &pictures {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let found = export.iter().find(|one| one["file_name"] == *name);
        let text = found.and_then(|one| one["text"].as_str());
        let text = text.with_context(|| format!("{name} is not in the export"))?;
        let truth = path.with_extension("txt");
        let truth = fs::read_to_string(&truth).with_context(|| cannot_read(&truth))?;
        rates.push(character_error_rate(&truth, text) * 100.0);
    }
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    let worst = rates.iter().copied().fold(0.0, f64::max);
    println!(
        "{} labels, character error rate {mean:.2} % in the mean, {worst:.2} % at worst",
        rates.len()
    );
    ensure!(
        worst <= ERRORS_MAX_PERCENT,
        "at most {ERRORS_MAX_PERCENT} % were expected"
    );
    Ok(())
}

/// Character error rate: how many characters are to be inserted, deleted or replaced to make the truth of what was
/// recognised, for each character of the truth. Runs of white space count as one space, lines as no more.
pub fn character_error_rate(truth: &str, recognised: &str) -> f64 {
    let truth = flat(truth);
    let errors = strsim::levenshtein(&truth, &flat(recognised));
    errors as f64 / (truth.chars().count().max(1)) as f64
}

fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{character_error_rate, compare};

    #[test]
    fn an_export_is_compared_with_what_was_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let export = folder.path().join("export.json");
        let told = |text: &str| {
            let line = serde_json::json!([{"file_name": "one.png", "text": text}]);
            std::fs::write(&export, line.to_string()).unwrap();
            compare(folder.path(), &export).map_err(|error| error.to_string())
        };
        assert!(told("Total Fat 8g").unwrap_err().contains("no pictures"));
        std::fs::write(folder.path().join("one.png"), "").unwrap();
        std::fs::write(folder.path().join("one.txt"), "Total Fat\n8g").unwrap();
        assert_eq!(told("Total Fat 8g"), Ok(()));
        assert!(told("Total Fat Bg").unwrap_err().contains("at most 3 %"));
        std::fs::write(folder.path().join("two.png"), "").unwrap();
        let lost = told("Total Fat 8g").unwrap_err();
        assert!(lost.contains("two.png is not in the export"), "{lost}");
    }

    #[test]
    fn errors_are_counted_for_each_character_of_the_truth() {
        assert_eq!(character_error_rate("Total Fat 8g", "Total  Fat\n8g"), 0.0);
        assert_eq!(character_error_rate("abcd", "abxd"), 0.25);
        assert_eq!(character_error_rate("abcd", ""), 1.0);
        assert_eq!(character_error_rate("", ""), 0.0);
    }
}
