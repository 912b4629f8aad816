//! Layby's gateway alone, with a table that never changes: to be measured beside other proxies.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use layby_gateway::{Gateway, GatewayConfig, Wires};
use layby_model::route::{
    Confirmed, Demand, Limits, Mode, RouteTable, ServiceRoute, Upstream, Version,
};
use layby_model::{AppName, ReplicaId, ServiceId, ServiceName};
use tokio::sync::watch;

use crate::args::Args;

/// `layby-bench gateway`: hosts `host-0.localhost`, `host-1.localhost`, ... of one service each, all of
/// which lead to the same upstream.
pub(crate) fn run(args: &mut Args) -> anyhow::Result<()> {
    let listen: SocketAddr = args.need("listen")?;
    let upstream: SocketAddr = args.need("upstream")?;
    let hosts: u32 = args.get("hosts")?.unwrap_or(100);
    let workers = args.get("workers")?.unwrap_or(1);
    args.finish()?;
    let dir = tempfile::tempdir().context("cannot make a directory for the table")?;
    // The senders and receivers of the wires live as long as the gateway.
    let (_tables, tables) = watch::channel(Arc::new(table(upstream, hosts)?));
    let (confirmed, _confirmed) = watch::channel(Confirmed::default());
    let (demand, _demand) = watch::channel(Demand::default());
    let config = GatewayConfig {
        http: listen,
        workers,
        table_file: dir.path().join("routes.json"),
        handed: layby_gateway::Handed::default(),
    };
    let wires = Wires {
        tables,
        confirmed,
        demand,
    };
    let gateway = Gateway::start(config, wires)?;
    println!("listening on {}", gateway.http_addr());
    loop {
        std::thread::park(); // until it is killed
    }
}

fn table(upstream: SocketAddr, hosts: u32) -> anyhow::Result<RouteTable> {
    let mut table = RouteTable {
        version: Version {
            life: 1,
            counter: 1,
        },
        ..RouteTable::default()
    };
    for at in 0..hosts {
        let service = ServiceName::new(&format!("host-{at}"))?;
        let id = ServiceId::new(AppName::new("bench")?, service);
        let route = ServiceRoute {
            mode: Mode::Serve {
                upstreams: vec![Upstream {
                    replica: ReplicaId::new(1, at),
                    ip: upstream.ip(),
                    concurrency: None,
                }],
                canary: None,
            },
            port: Some(upstream.port()),
            limits: Limits::default(),
            is_scaled: false,
        };
        table
            .hosts
            .insert(format!("host-{at}.localhost"), id.clone());
        table.services.insert(id, route);
    }
    Ok(table)
}
