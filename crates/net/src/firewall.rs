//! The fence: one nft table for the node.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::Error;
use crate::names::Names;
use crate::subnet::Subnet;

/// The table: replicas reach out, masked as the machine; nobody but the machine itself reaches in, so that
/// all that comes from elsewhere, other nodes' replicas included, comes through the gateway.
fn table(names: &Names, subnet: Subnet) -> String {
    let Names { bridge, table, .. } = names;
    // Adding before deleting makes the deletion succeed also where there was no table; all is one transaction.
    format!(
        "add table ip {table}
delete table ip {table}
table ip {table} {{
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname \"{bridge}\" oifname \"{bridge}\" accept
        oifname \"{bridge}\" ct state established,related accept
        oifname \"{bridge}\" drop
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {subnet} oifname != \"{bridge}\" masquerade
    }}
}}
"
    )
}

/// Puts the fence up, in place of one that stands there.
pub(crate) async fn raise(names: &Names, subnet: Subnet) -> Result<(), Error> {
    nft("add the node's table", &["-f", "-"], &table(names, subnet)).await?;
    Ok(())
}

/// Takes the fence down; one that is missing is fine.
pub(crate) async fn lower(names: &Names) -> Result<(), Error> {
    let table = &names.table;
    let script = format!("add table ip {table}\ndelete table ip {table}\n");
    nft("remove the node's table", &["-f", "-"], &script).await?;
    Ok(())
}

/// Whether another program (Docker, most often) drops what is forwarded unless it allows it itself: an accept in
/// this node's table cannot overrule a drop in another's.
pub(crate) async fn forwarding_is_dropped() -> bool {
    let args = ["list", "chain", "ip", "filter", "FORWARD"];
    let listed = nft("list the chain FORWARD", &args, "").await;
    listed.is_ok_and(|text| text.contains("policy drop"))
}

/// Runs nft with `input` and returns what it printed.
async fn nft(what: &'static str, args: &[&str], input: &str) -> Result<String, Error> {
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
