//! The few commands that a fake container knows.

use layby_model::engine::ExecOutput;

use super::body::Body;
use super::script::parse_length;

/// Runs one; its table stands in the parent module.
pub(super) async fn exec(body: &Body, argv: &[String]) -> ExecOutput {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let (code, output) = match words.as_slice() {
        ["true"] => (0, String::new()),
        ["false"] => (1, String::new()),
        ["exit", code] => (code.parse().unwrap_or(2), String::new()),
        ["echo", words @ ..] => (0, format!("{}\n", words.join(" "))),
        ["printenv", name] => match body.variable(name) {
            Some(value) => (0, format!("{value}\n")),
            None => (1, String::new()),
        },
        ["sleep", length] => {
            tokio::time::sleep(parse_length(length).unwrap_or_default()).await;
            (0, String::new())
        }
        _ => (127, format!("not found: {argv:?}\n")),
    };
    ExecOutput {
        code,
        output: output.into_bytes(),
    }
}
