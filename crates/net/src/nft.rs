//! Running nft(8).

use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::Error;

/// Carries out `script` as one transaction: all of it or nothing.
pub(crate) async fn run(what: &'static str, script: &str) -> Result<(), Error> {
    call(what, &["-f", "-"], script).await.map(drop)
}

/// What `nft -j list ...` says: objects of the kinds `chain`, `rule`, `set`, ... (libnftables-json(5)). Empty where
/// there is no such thing.
pub(crate) async fn list(what: &[&str]) -> Vec<Value> {
    let args: Vec<&str> = ["-j", "list"].iter().chain(what).copied().collect();
    let listed = call("list its rules", &args, "").await.unwrap_or_default();
    objects(&listed)
}

/// The objects in a listing.
pub(crate) fn objects(listed: &str) -> Vec<Value> {
    let mut whole: Value = serde_json::from_str(listed).unwrap_or_default();
    match whole["nftables"].take() {
        Value::Array(objects) => objects,
        _ => Vec::new(),
    }
}

/// Runs nft with `input` and returns what it printed.
async fn call(what: &'static str, args: &[&str], input: &str) -> Result<String, Error> {
    let failed = |output: String| Error::Nft { what, output };
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("it cannot be run: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading says why on its standard error.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child
        .wait_with_output()
        .await
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or("it said nothing");
        Err(failed(first.to_owned()))
    }
}
