//! Runs tesseract on one picture, and reads its table of words.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::mapi::prepare::Prepared;
use crate::mapi::refusal::Refusal;
use crate::reading::Line;

/// How long one picture may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Words of which the engine is less sure than this are specks and frames.
const CONFIDENCE_MIN: f32 = 10.0;

/// A tesseract that is there.
#[derive(Debug, Clone)]
pub struct Tesseract {
    /// Its name and version.
    pub version: String,
}

impl Tesseract {
    /// Asks it for its version.
    ///
    /// # Errors
    /// When it is not installed.
    pub async fn find() -> std::io::Result<Tesseract> {
        let output = Command::new("tesseract")
            .arg("--version")
            .output()
            .await
            .map_err(|error| {
                std::io::Error::new(
                    error.kind(),
                    format!("tesseract cannot be run (Debian's tesseract-ocr): {error}"),
                )
            })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.lines().next().unwrap_or("tesseract").trim().to_owned();
        Ok(Tesseract { version })
    }

    /// Reads a picture. Dropped, it ends the process.
    ///
    /// # Errors
    /// When tesseract fails, or takes too long.
    pub async fn read(&self, picture: &Prepared) -> Result<Vec<Line>, Refusal> {
        let mut child = Command::new("tesseract")
            // One column of text in several sizes, so that a row of a table stays a line; words with their places.
            .args([
                "stdin",
                "stdout",
                "-l",
                "eng",
                "--psm",
                "4",
                "-c",
                "preserve_interword_spaces=0",
                "tsv",
            ])
            // One picture, one CPU.
            .env("OMP_THREAD_LIMIT", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        let mut stdin = child
            .stdin
            .take()
            .ok_or_else(|| failed(&"it has no input"))?;
        let talk = async {
            let (written, output) = tokio::join!(
                async {
                    let written = stdin.write_all(&picture.pgm).await;
                    drop(stdin);
                    written
                },
                child.wait_with_output()
            );
            // One that ends before it has read all says why itself.
            let output = output?;
            if output.status.success() {
                written.map(|()| output)
            } else {
                Ok(output)
            }
        };
        let output = timeout(PATIENCE, talk).await.map_err(|_| Refusal::Slow)?;
        let output = output.map_err(|error| failed(&error))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(&format!(
                "{}, and said {:?}",
                output.status,
                said.trim()
            )));
        }
        Ok(lines(
            &String::from_utf8_lossy(&output.stdout),
            picture.scale,
        ))
    }
}

fn failed(why: &dyn std::fmt::Display) -> Refusal {
    eprintln!("error: tesseract failed: {why}");
    Refusal::Failed
}

/// The lines of tesseract's table: words of one block, paragraph and line, with places divided by `scale`. An empty
/// line stands between paragraphs, without words and place.
pub fn lines(table: &str, scale: u32) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut last: Option<[&str; 3]> = None;
    let mut words = 0.0;
    for row in table.lines() {
        // level page_num block_num par_num line_num word_num left top width height conf text
        let columns: Vec<&str> = row.split('\t').collect();
        let [
            level,
            _,
            block,
            paragraph,
            line,
            _,
            left,
            top,
            width,
            height,
            confidence,
            word,
        ] = columns[..]
        else {
            continue;
        };
        let confidence: f32 = confidence.parse().unwrap_or(-1.0);
        let word = word.trim();
        if level != "5" || word.is_empty() || confidence < CONFIDENCE_MIN {
            continue;
        }
        let number = |text: &str| text.parse::<u32>().unwrap_or_default() / scale.max(1);
        let at = [number(left), number(top), number(width), number(height)];
        let here = [block, paragraph, line];
        if last == Some(here)
            && let Some(line) = lines.last_mut()
        {
            line.text.push(' ');
            line.text.push_str(word);
            line.confidence = (line.confidence * words + confidence) / (words + 1.0);
            line.at = around(line.at, at);
            words += 1.0;
        } else {
            if last.is_some_and(|last| last[..2] != here[..2]) {
                lines.push(Line {
                    text: String::new(),
                    confidence: 0.0,
                    at: [0; 4],
                });
            }
            lines.push(Line {
                text: word.to_owned(),
                confidence,
                at,
            });
            words = 1.0;
        }
        last = Some(here);
    }
    lines
}

/// The smallest rectangle around both.
fn around(one: [u32; 4], other: [u32; 4]) -> [u32; 4] {
    let left = one[0].min(other[0]);
    let top = one[1].min(other[1]);
    let right = (one[0] + one[2]).max(other[0] + other[2]);
    let bottom = (one[1] + one[3]).max(other[1] + other[3]);
    [left, top, right - left, bottom - top]
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn words_of_a_line_stand_together_and_paragraphs_apart() {
        let table = "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext
1\t1\t0\t0\t0\t0\t0\t0\t800\t600\t-1\t
5\t1\t1\t1\t1\t1\t20\t40\t60\t20\t96.5\tTotal
5\t1\t1\t1\t1\t2\t90\t38\t40\t22\t90.5\tFat
5\t1\t1\t1\t1\t3\t700\t38\t4\t200\t3.0\t|
5\t1\t1\t1\t2\t1\t20\t80\t60\t20\t95.0\tSodium
5\t1\t1\t2\t1\t1\t20\t120\t60\t20\t94.0\tSALT
";
        let found = lines(table, 2);
        let texts: Vec<&str> = found.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["Total Fat", "Sodium", "", "SALT"]);
        assert_eq!(found[0].at, [10, 19, 55, 11]);
        assert!((found[0].confidence - 93.5).abs() < 0.01);
        assert!(lines("", 1).is_empty());
    }
}
