//! `layby port-forward`.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use layby_control::api::types::ServiceDetail;
use layby_model::state::Showing;
use tokio::net::{TcpListener, TcpStream};

use crate::cli::PortForward;
use crate::client::Client;
use crate::commands::services;
use crate::exit::{Code, Exit};
use crate::out::{say, tell};

/// Listens on ports of this machine and carries each connection to a port of a replica, until it is ended.
///
/// # Errors
/// No node answers, the name fits none or what has ended, it has no such replica, or a port is taken.
pub(crate) async fn port_forward(client: &Client, options: &PortForward) -> Result<()> {
    let path = services::find(client, &options.name).await?;
    let detail: ServiceDetail = client.get(&path, &[]).await?;
    if detail.view.wakefulness == Some(Showing::Ended) {
        let name = &options.name;
        let text = format!(
            "{name} has ended, and its restart policy leaves it so: `layby wake {name}` runs it again"
        );
        return Err(Exit::new(Code::Failed, text).into());
    }
    if let Some(replica) = &options.replica
        && !detail.replicas.iter().any(|known| known.id == *replica)
    {
        let known: Vec<&str> = detail.replicas.iter().map(|one| &*one.id).collect();
        let there = match known.is_empty() {
            true => "it has none now".to_owned(),
            false => format!("there are {}", known.join(", ")),
        };
        let text = format!("{} has no replica {replica}: {there}", options.name);
        return Err(Exit::new(Code::NotFound, text).into());
    }
    let path = format!("{path}/forward");
    let mut listeners = Vec::new();
    for (local, remote) in &options.ports {
        let addr = SocketAddr::new(options.address, *local);
        let listener = TcpListener::bind(addr).await;
        let listener = listener.with_context(|| format!("cannot listen on {addr}"))?;
        say!("Forwarding {} -> {remote}", listener.local_addr()?);
        listeners.push((listener, *remote));
    }
    std::io::stdout().flush()?;
    let replica = options.replica.clone();
    let carried = listeners.into_iter().map(|(listener, remote)| {
        let (client, path) = (client.clone(), path.clone());
        let mut query = vec![("port", remote.to_string())];
        query.extend(replica.clone().map(|replica| ("replica", replica)));
        tokio::spawn(async move {
            loop {
                // A connection that broke before it was taken is the only thing that can go wrong.
                if let Ok((stream, _)) = listener.accept().await {
                    let (client, path, query) = (client.clone(), path.clone(), query.clone());
                    tokio::spawn(async move {
                        if let Err(error) = carry(&client, &path, &query, stream).await {
                            tell!("layby: {error:#}");
                        }
                    });
                }
            }
        })
    });
    // None of them ends by itself.
    futures_util::future::join_all(carried).await;
    Ok(())
}

async fn carry(
    client: &Client,
    path: &str,
    query: &[(&str, String)],
    mut outside: TcpStream,
) -> Result<()> {
    let mut inside = client.upgrade(path, query, "tcp").await?;
    // Small pieces are not to wait for company.
    let _ = outside.set_nodelay(true);
    // Whoever breaks off: the other side sees it.
    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
    Ok(())
}
