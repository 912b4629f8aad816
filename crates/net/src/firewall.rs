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

/// Puts the fence up, in place of one that stands there. Whether another program's chain had to be opened for it.
pub(crate) async fn raise(names: &Names, subnet: Subnet) -> Result<bool, Error> {
    nft("add the node's table", &["-f", "-"], &table(names, subnet)).await?;
    if !forward_chain().await.contains("policy drop") {
        return Ok(false);
    }
    close_foreign_chain(names).await?;
    open_foreign_chain(names).await?;
    Ok(true)
}

/// Takes the fence down; one that is missing is fine.
pub(crate) async fn lower(names: &Names) -> Result<(), Error> {
    let table = &names.table;
    let script = format!("add table ip {table}\ndelete table ip {table}\n");
    nft("remove the node's table", &["-f", "-"], &script).await?;
    close_foreign_chain(names).await
}

/// Docker (and many a hand-made firewall) drops what is forwarded unless its own table allows it, and an accept in
/// this node's table cannot overrule a drop in another's: so two rules are put at the top of that chain.
async fn open_foreign_chain(names: &Names) -> Result<(), Error> {
    let Names { bridge, table, .. } = names;
    let script = format!(
        "insert rule ip filter FORWARD iifname \"{bridge}\" accept comment \"{table}\"
insert rule ip filter FORWARD oifname \"{bridge}\" ct state established,related accept comment \"{table}\"
"
    );
    nft("open the chain FORWARD", &["-f", "-"], &script).await?;
    Ok(())
}

/// Takes those rules out again, where there are any.
async fn close_foreign_chain(names: &Names) -> Result<(), Error> {
    let listed = forward_chain().await;
    let handles = own_handles(&listed, &names.table);
    if handles.is_empty() {
        return Ok(());
    }
    let deletions = handles
        .iter()
        .map(|handle| format!("delete rule ip filter FORWARD handle {handle}\n"));
    let script: String = deletions.collect();
    nft("take rules out of the chain FORWARD", &["-f", "-"], &script).await?;
    Ok(())
}

/// The chain that iptables calls FORWARD, with its handles; empty if there is none.
async fn forward_chain() -> String {
    let args = ["-a", "list", "chain", "ip", "filter", "FORWARD"];
    let listed = nft("list the chain FORWARD", &args, "").await;
    listed.unwrap_or_default()
}

/// The handles of the rules in a listing that bear `comment`.
fn own_handles(listed: &str, comment: &str) -> Vec<u64> {
    let mark = format!("comment \"{comment}\"");
    let own = listed.lines().filter(|line| line.contains(&mark));
    own.filter_map(|line| line.rsplit_once("# handle ")?.1.trim().parse().ok())
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_rules_with_the_nodes_own_comment_are_its_own() {
        let listed = "table ip filter { # handle 1
    chain FORWARD { # handle 2
        type filter hook forward priority filter; policy drop;
        iifname \"lyb-a\" accept comment \"layby_a\" # handle 9
        iifname \"lyb-ab\" accept comment \"layby_ab\" # handle 8
        counter accept # handle 7
    }
}";
        assert_eq!(own_handles(listed, "layby_a"), [9]);
        assert_eq!(own_handles("", "layby_a"), [] as [u64; 0]);
    }
}
