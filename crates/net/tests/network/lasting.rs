//! What lasts over a restart of the node, and what is cleared away.

use std::fs;
use std::path::{Path, PathBuf};

use layby_net::{AppNames, Network};

use crate::kit::*;

pub(crate) fn attaching_again_gives_the_same_also_after_a_restart(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "ee1")).await.expect("opened");
        let first = network.attach("x", SHOP).await.expect("attached");
        assert_eq!(network.attach("x", SHOP).await.expect("attached"), first);
        drop(network);
        let network = Network::open(config(dir, "ee1")).await.expect("opened");
        assert_eq!(network.attach("x", SHOP).await.expect("attached"), first);
        let attached = network.attached();
        assert_eq!(attached, vec![("x".to_owned(), first.address)]);
        serve(&first.netns);
        ask(first.address, DEADLINE).expect("it is still plugged in");
        let with_ipv6 = fs::read_to_string("/proc/thread-self/net/if_inet6");
        let with_ipv6 = with_ipv6.unwrap_or_default(); // a kernel without it
        assert!(!with_ipv6.contains("lyv"), "{with_ipv6}");
        network.close().await.expect("closed");
    });
}

pub(crate) fn a_freed_address_is_not_given_out_at_once(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "ff1")).await.expect("opened");
        let first = network.attach("x", SHOP).await.expect("attached");
        network.detach("x").await.expect("detached");
        network.detach("x").await.expect("detached twice");
        assert!(!first.netns.exists());
        let second = network.attach("x", SHOP).await.expect("attached");
        assert_ne!(first.address, second.address);
        network.close().await.expect("closed");
    });
}

pub(crate) fn what_is_half_made_is_removed_at_the_next_start(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "gg1")).await.expect("opened");
        let kept = network.attach("kept", SHOP).await.expect("attached");
        let half = network.attach("half", SHOP).await.expect("attached");
        let before = devices();
        drop(network);
        // Its namespace is gone, as after a kill between the steps of a detach.
        nix::mount::umount2(&half.netns, nix::mount::MntFlags::MNT_DETACH).expect("unmounted");
        let network = Network::open(config(dir, "gg1")).await.expect("opened");
        let attached = network.attached();
        assert_eq!(attached, vec![("kept".to_owned(), kept.address)]);
        assert!(!half.netns.exists());
        assert_eq!(devices().len(), before.len() - 1);
        network.close().await.expect("closed");
    });
}

pub(crate) fn closing_leaves_nothing(dir: &Path) {
    block_on(async {
        let before = devices();
        let config = config(dir, "hh1");
        let network = Network::open(config.clone()).await.expect("opened");
        let netns: Vec<PathBuf> =
            futures_util::future::join_all(["a", "b", "c", "d"].map(|id| network.attach(id, SHOP)))
                .await
                .into_iter()
                .map(|attachment| attachment.expect("attached").netns)
                .collect();
        assert!(tables().contains("layby_hh1"));
        network.close().await.expect("closed");
        network.close().await.expect("closed twice");
        assert_eq!(devices(), before);
        assert!(!tables().contains("layby_hh1"));
        assert!(netns.iter().all(|path| !path.exists()));
        assert!(!dir.join("run/subnets/hh1").exists());
        assert!(!config.data_dir.join("network.json").exists());
    });
}

pub(crate) fn a_start_that_comes_to_nothing_claims_nothing(dir: &Path) {
    block_on(async {
        let config = config(dir, "oo2");
        fs::remove_dir_all(&config.data_dir).expect("removed");
        let opened = Network::open(config.clone()).await;
        let error = opened.expect_err("it cannot remember its range");
        assert!(error.to_string().contains("network.json"), "{error}");
        assert!(!dir.join("run/subnets/oo2").exists());
        assert!(!tables().contains("layby_oo2"));
    });
}

pub(crate) fn bridges_names_and_doors_outlive_a_restart(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "mm1")).await.expect("opened");
        network.set_names(names(&network)).await.expect("named");
        let shop = network.attach("a", SHOP).await.expect("attached");
        let blog = network.attach("b", BLOG).await.expect("attached");
        let range = network.virtual_range();
        let listed = || {
            let output = std::process::Command::new("nft")
                .args(["list", "table", "ip", "layby_mm1"])
                .output()
                .expect("nft runs");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let before = listed();
        drop(network);
        let network = Network::open(config(dir, "mm1")).await.expect("opened");
        assert_eq!(listed(), before, "the doors and all else are as they were");
        assert_eq!(network.virtual_range(), range);
        assert_eq!(network.attach("a", SHOP).await.expect("attached"), shop);
        let again = network.attach("c", BLOG).await.expect("attached");
        assert_eq!(
            again.gateway, blog.gateway,
            "the bridge is known by its app"
        );
        assert_eq!(
            listed(),
            before,
            "who comes before the names closes no door"
        );
        network.close().await.expect("closed");
    });
}

pub(crate) fn doors_open_and_close_in_a_fence_that_stands(dir: &Path) {
    let nft = |words: &[&str]| {
        let output = std::process::Command::new("nft").args(words).output();
        String::from_utf8_lossy(&output.expect("nft runs").stdout).into_owned()
    };
    // A table that is put up anew has another handle.
    let fence = || {
        let listed = nft(&["-a", "list", "table", "ip", "layby_mn1"]);
        listed.lines().next().map(str::to_owned)
    };
    let doors = || {
        let listed = nft(&["list", "set", "ip", "layby_mn1", "doors"]);
        listed.matches("lybmn1-").count()
    };
    block_on(async {
        let network = Network::open(config(dir, "mn1")).await.expect("opened");
        let before = fence();
        network.set_names(names(&network)).await.expect("named");
        assert_eq!(doors(), 0, "no bridge, no door");
        network.attach("a", SHOP).await.expect("attached");
        assert_eq!(doors(), 1);
        network.attach("b", BLOG).await.expect("attached");
        assert_eq!(doors(), 2);
        network.set_names(AppNames::new()).await.expect("named");
        assert_eq!(doors(), 0);
        // More than fit into one message.
        let many = (1..2000).map(|n| (format!("s{n}"), vec![virtual_address(&network, n)]));
        let many = AppNames::from([("shop".to_owned(), many.collect())]);
        network.set_names(many).await.expect("named");
        assert_eq!(doors(), 1999);
        network.set_names(AppNames::new()).await.expect("named");
        assert_eq!(doors(), 0);
        assert_eq!(fence(), before);
        network.close().await.expect("closed");
    });
}

pub(crate) fn a_bridge_goes_with_the_last_replica_and_the_last_name(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "nn1")).await.expect("opened");
        let bridges = || {
            devices()
                .iter()
                .filter(|d| d.starts_with("lybnn1-"))
                .count()
        };
        network.set_names(names(&network)).await.expect("named");
        assert_eq!(bridges(), 0, "a name needs none");
        network.attach("a", SHOP).await.expect("attached");
        network.attach("b", None).await.expect("attached");
        assert_eq!(bridges(), 2);
        network.detach("a").await.expect("detached");
        network.detach("b").await.expect("detached");
        assert_eq!(bridges(), 1, "the app has names");
        network.set_names(AppNames::new()).await.expect("named");
        network.remove_unused().await.expect("removed");
        assert_eq!(bridges(), 0);
        network.close().await.expect("closed");
    });
}

pub(crate) fn a_bridge_whose_number_says_otherwise_than_its_networks_is_made_anew(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "ov1")).await.expect("opened");
        let inside = network.attach("a", Some("shop/!back")).await;
        let inside = inside.expect("attached");
        network.attach("b", BLOG).await.expect("attached");
        drop(network);
        // As an older node had it, for which all numbers were alike.
        let bridge = |number: u8| format!("lybov1-{number:02x}");
        let older = bridge(inside.gateway.octets()[2]);
        let words = ["link", "set", "dev", &older, "alias", "layby app shop"];
        let status = std::process::Command::new("ip").args(words).status();
        assert!(status.expect("ip runs").success());
        let network = Network::open(config(dir, "ov1")).await.expect("opened");
        let left: Vec<String> = network.attached().into_iter().map(|(id, _)| id).collect();
        assert_eq!(left, ["b"]);
        assert!(!devices().contains(&older) && !inside.netns.exists());
        let again = network.attach("a", SHOP).await.expect("attached");
        assert_ne!(again.gateway, inside.gateway);
        network.close().await.expect("closed");
    });
}

pub(crate) fn the_bridge_of_an_older_layout_is_cleared_away(dir: &Path) {
    for words in [
        "link add lyb-oo1 type bridge",
        "link add lyvold type veth peer name old",
        "link set lyvold master lyb-oo1",
        "address add 10.7.0.1/20 dev lyb-oo1",
    ] {
        let status = std::process::Command::new("ip")
            .args(words.split(' '))
            .status();
        assert!(status.expect("ip runs").success(), "ip {words}");
    }
    block_on(async {
        let config = config(dir, "oo1");
        let memory = config.data_dir.join("network.json");
        fs::write(memory, r#"{"subnet": "10.7.0.0/20"}"#).expect("written");
        let network = Network::open(config).await.expect("opened");
        let left = devices();
        assert!(
            !left.contains("lyb-oo1") && !left.contains("lyvold"),
            "{left:?}"
        );
        network.close().await.expect("closed");
    });
}
