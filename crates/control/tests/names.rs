//! Names and virtual addresses: each service has one of its own, for as long as it is deployed.

mod common;

use std::net::Ipv4Addr;
use std::sync::Arc;

use common::{FIREWALLED, PATIENCE, World};
use layby_model::AppName;
use layby_model::route::{NameTable, Protocol, Traffic};

const TWO: &str = "\
services:
  web:
    image: fake/ok
    x-layby: {port: 8000}
    healthcheck: {test: [CMD, true]}
  db:
    image: fake/ok
    networks: {default: {aliases: [store]}}
";

/// The address behind a name of an app.
fn address(world: &World, app: &str, name: &str) -> Option<Ipv4Addr> {
    let app = AppName::new(app).expect("a label");
    let names = world.gateway.names.borrow();
    names.apps.get(app.as_str())?.get(name)?.first().copied()
}

/// Waits until those of the app `shop` with this key find just these names.
async fn until_found(world: &World, key: &str, expected: &[&str]) {
    let mut seen = world.gateway.names.subscribe();
    let right = |table: &Arc<NameTable>| {
        let names = table.apps.get(key).into_iter().flatten();
        let names = names.map(|(name, _)| name.as_str());
        names
            .filter(|name| !name.contains('.'))
            .eq(expected.iter().copied())
    };
    let waited = tokio::time::timeout(PATIENCE, seen.wait_for(right));
    let found = waited.await.is_ok();
    let now = world.gateway.names.borrow();
    assert!(found, "{key} never found just {expected:?}; now {now:#?}");
}

#[tokio::test]
async fn a_rollout_that_changes_networks_takes_no_name_from_what_is_live_starts_or_drains() {
    let yaml = |image: &str, web: &str, db: &str| {
        format!(
            "\
services:
  web:
    image: {image}
    x-layby: {{retries: 0}}
    {web}
  db:
    image: fake/ok
    {db}
networks: {{front: {{}}, back: {{}}}}
"
        )
    };
    let world = World::new().await;
    world.up(&yaml("fake/ok", "", "")).await;
    until_found(&world, "shop", &["db", "web"]).await;
    let old = world.replicas().await.into_iter();
    let old = old.filter(|r| r.service.service.as_str() == "web");
    let old = old.map(|r| r.id).next().expect("a replica");

    // The database goes live in its new network, the web does not get ready.
    let (web, db) = ("networks: [front, back]", "networks: [back]");
    let tried = yaml("fake/hangs", web, db);
    world.up_as("shop", &tried, "&detach=true").await;
    let replicas = world.until_replicas(|all| {
        all.len() == 3 && all.iter().filter(|r| r.revision.0 == 2).count() == 2
    });
    let replicas = replicas.await;
    assert!(replicas.iter().any(|r| r.id == old));
    for key in ["shop", "shop/back", "shop/back+front"] {
        until_found(&world, key, &["db", "web"]).await;
    }

    // It does, and what was live is still in use.
    let traffic = Traffic {
        uses: 1,
        idle_ms: Some(0),
        in_flight: [(old, 1)].into(),
        ..Traffic::default()
    };
    world.gateway.set_traffic("shop/web", traffic.clone());
    let up = world.up(&yaml("fake/ok:2", web, db)).await;
    assert_eq!(up.code(), 0);
    let replicas = world.replicas().await;
    assert!(replicas.iter().any(|r| r.id == old), "it drains");
    until_found(&world, "shop", &["db", "web"]).await;
    let calm = Traffic {
        in_flight: Default::default(),
        ..traffic
    };
    world.gateway.set_traffic("shop/web", calm);
    until_found(&world, "shop", &[]).await;
    until_found(&world, "shop/back+front", &["db", "web"]).await;
}

#[tokio::test]
async fn a_job_finds_the_services_of_its_networks_also_after_a_restart() {
    let mut world = World::new().await;
    let yaml = "\
services:
  db: {image: fake/ok, networks: [back, admin]}
  migrate:
    image: fake/ok
    networks: [back]
    x-layby: {schedule: '0 0 1 1 *'}
networks: {back: {}, admin: {}}
";
    assert_eq!(world.up(yaml).await.code(), 0);
    until_found(&world, "shop/back", &["db"]).await;
    world.gateway.names.send_replace(Arc::default());
    world.restart().await;
    until_found(&world, "shop/back", &["db"]).await;
    let (status, _) = world.ask("DELETE", "/v1/apps/shop", Vec::new()).await;
    assert_eq!(status, 200);
    until_found(&world, "shop/back", &[]).await;
}

#[tokio::test]
async fn every_service_has_an_address_behind_its_names_and_the_table_says_whose_it_is() {
    let world = World::new().await;
    world.up(TWO).await;
    world.up_as("blog", TWO, "").await;
    let web = address(&world, "shop", "web").expect("a name");
    assert_eq!(address(&world, "shop", "web.shop"), Some(web));
    let store = address(&world, "shop", "store").expect("an alias");
    assert_eq!(address(&world, "shop", "db"), Some(store));
    let all = [web, store, address(&world, "blog", "web").expect("a name")];
    assert!(
        all.iter().all(|address| address.octets()[2] >= 240),
        "{all:?}"
    );
    assert!(web != store && web != all[2] && store != all[2]);
    assert_eq!(address(&world, "blog", "web.shop"), None);
    let table = world.until_table(|table| table.virtuals.len() == 4).await;
    assert_eq!(table.virtuals[&web].service.to_string(), "shop/web");
    let shown = world.detail("shop/web").await.view.virtual_address;
    assert_eq!(shown, Some(web.to_string()));
}

#[tokio::test]
async fn an_address_stays_over_deploys_and_restarts_and_is_not_given_again_at_once() {
    let mut world = World::new().await;
    world.up(TWO).await;
    let web = address(&world, "shop", "web").expect("a name");
    world.up(&TWO.replacen("fake/ok", "fake/ok:2", 1)).await;
    assert_eq!(address(&world, "shop", "web"), Some(web));
    world.gateway.names.send_replace(std::sync::Arc::default());
    world.restart().await;
    assert_eq!(address(&world, "shop", "web"), Some(web), "at once");
    let (status, _) = world.ask("DELETE", "/v1/apps/shop", Vec::new()).await;
    assert_eq!(status, 200);
    assert_eq!(address(&world, "shop", "web"), None);
    world.until_table(|table| table.virtuals.is_empty()).await;
    world.up(TWO).await;
    assert_ne!(address(&world, "shop", "web"), Some(web));
}

#[tokio::test]
async fn a_port_that_is_probed_with_http_is_balanced_as_http() {
    let world = World::new().await;
    let yaml = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: fake/ok
        ports: [{containerPort: 8000}, {containerPort: 9000}]
        readinessProbe: {httpGet: {path: /, port: 8000}}
";
    let tar = common::tar(&[("manifest/web.yaml", yaml.as_bytes())]);
    let path = "/v1/apps?app=shop&folder=folder&file=web.yaml&detach=true";
    let (status, body) = world.ask("POST", path, tar).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let table = world.until_table(|table| !table.virtuals.is_empty()).await;
    let route = table.virtuals.values().next().expect("one");
    assert_eq!(route.ports[&8000].protocol, Protocol::Http);
    assert!(!route.ports.contains_key(&9000));
}

#[tokio::test]
async fn status_says_what_a_firewall_drops_of_what_is_published() {
    let world = World::new().await;
    let yaml = |host: &str| {
        format!(
            "services:\n  web:\n    image: fake/ok\n    x-layby: {{port: 8000}}\n    ports: [\"{host}:{FIREWALLED}:8000\"]\n"
        )
    };
    world.up(&yaml("0.0.0.0")).await;
    let conditions = world.detail("shop/web").await.conditions;
    let said = conditions
        .iter()
        .filter(|text| text.contains("a firewall drops"));
    assert_eq!(said.count(), 1, "{conditions:?}");
    world.up(&yaml("127.0.0.1")).await;
    let conditions = world.detail("shop/web").await.conditions;
    assert_eq!(
        conditions,
        [] as [String; 0],
        "it is for this machine alone"
    );
}
