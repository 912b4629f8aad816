//! Services without a network: whatever they say, nothing leads to their replicas, whose address is the machine's loopback
//! for whoever is not in them.

use layby_model::ServiceId;
use layby_model::route::{Mode, RouteTable};

use super::ID;
use super::common::{World, compose};

const NONE: &str = "network_mode: none";

/// Whether requests are sent to any replica of the service.
fn leads(table: &RouteTable) -> bool {
    let id: ServiceId = ID.parse().expect("an id");
    table.services[&id].mode.upstreams().next().is_some()
}

#[tokio::test]
async fn the_ports_of_a_container_that_joins_a_service_without_a_network_lead_nowhere() {
    let world = World::new().await;
    let yaml = "\
services:
  web: {image: fake/ok, network_mode: none}
  guest:
    image: fake/ok
    network_mode: service:web
    ports: ['19471:5432', '19471:5432/udp']
    x-layby: {port: 5432}
";
    let up = world.up(yaml).await;
    assert_eq!(up.code(), 0, "{up:#?}");
    let table = world.tables.borrow().clone();
    assert_eq!((&table.listeners[..], leads(&table)), (&[][..], false));
    let id: ServiceId = ID.parse().expect("an id");
    assert_eq!(table.services[&id].port, None);
    assert!(table.virtuals.is_empty(), "{table:#?}");
    assert_eq!(world.detail(ID).await.view.urls, Vec::<String>::new());
}

#[tokio::test]
async fn the_ports_of_a_target_do_not_lead_to_a_live_one_without_a_network() {
    let world = World::new().await;
    assert_eq!(world.up(&compose("fake/ok", NONE)).await.code(), 0);
    let next = compose("fake/hangs", "ports: ['19472:5432']");
    world.up_as("shop", &next, "&detach=1").await;
    world.until(ID, |d| d.replicas.len() == 2).await;
    let listens = |table: &RouteTable| table.listeners.iter().any(|l| l.addr.port() == 19472);
    let table = world.until_table(listens).await;
    let id: ServiceId = ID.parse().expect("an id");
    let mode = &table.services[&id].mode;
    assert!(matches!(mode, Mode::Hold), "{mode:?}");
    // Nor the other way: what is to be without one takes no port.
    assert_eq!(world.up(&compose("fake/ok:2", "")).await.code(), 0);
    assert!(leads(&world.tables.borrow()));
    assert_eq!(world.up(&compose("fake/ok", NONE)).await.code(), 0);
    let alone = |table: &RouteTable| table.listeners.is_empty() && !leads(table);
    world.until_table(alone).await;
}

#[tokio::test]
async fn a_canary_is_in_the_same_kind_of_network_as_what_is_live() {
    let world = World::new().await;
    // An image that names no port, so that both are routed to none.
    assert_eq!(world.up(&compose("checked", "")).await.code(), 0);
    let canary = compose("checked", NONE);
    let up = world.up_as("shop", &canary, "&canary=99%25").await;
    let detail = &up.problem().detail;
    assert!(detail.contains("another kind of network"), "{detail}");
    assert!(leads(&world.tables.borrow()));
}
