//! A registry whose certificate an authority of its own has signed, as many a company has one. It is in a network namespace:
//! to what is on the machine itself HTTP is spoken.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use layby_image::Reference;
use layby_image::client::{Options, check_login, pull, push};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::peers::Registry;
use crate::pulls::{layer, options};
use crate::support::{World, gzip, is_root, oci_archive, sha256};

/// A network namespace that the machine reaches.
struct Network {
    name: String,
    address: Ipv4Addr,
}

impl Network {
    fn new() -> Self {
        // Of the range for measurements (RFC 2544), four addresses for each process.
        let pid = std::process::id().to_be_bytes();
        let first = pid[3] & 0x3f;
        let base = [198, 18, pid[2].rotate_left(2) ^ (pid[3] >> 6), first * 4];
        let host = |n| Ipv4Addr::new(base[0], base[1], base[2], base[3] + n);
        let name = format!("lybca{}", std::process::id());
        let network = Self {
            name: name.clone(),
            address: host(2),
        };
        let (here, there) = (format!("{}/30", host(1)), format!("{}/30", host(2)));
        for words in [
            &["netns", "add", &name][..],
            &[
                "link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &name,
            ],
            &["addr", "add", &here, "dev", &name],
            &["link", "set", &name, "up"],
            &["-n", &name, "addr", "add", &there, "dev", "eth0"],
            &["-n", &name, "link", "set", "eth0", "up"],
        ] {
            let done = Command::new("ip").args(words).status().unwrap();
            assert!(done.success(), "ip {words:?}");
        }
        network
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The pair of devices goes with it.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// What an authority signs: its own certificate, the server's, and that one's key, in PEM.
fn certificates(address: Ipv4Addr) -> [String; 3] {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![address.to_string()]).unwrap();
    let server = server.signed_by(&key, &issuer).unwrap();
    [ca_pem, server.pem(), key.serialize_pem()]
}

/// A file where Docker looks for the authority of one registry; removed with this.
struct CertsD(PathBuf);

impl CertsD {
    fn of(registry: &str, pem: &str) -> Self {
        let dir = PathBuf::from("/etc/docker/certs.d").join(registry);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("ca.crt"), pem).unwrap();
        Self(dir)
    }
}

impl Drop for CertsD {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0.join("ca.crt"));
        // Those above only where nothing else is in them.
        for dir in self.0.ancestors().take(3) {
            let _ = fs::remove_dir(dir);
        }
    }
}

#[test]
fn a_registry_of_an_own_authority_is_trusted_by_its_file_or_by_dockers_rule_and_not_otherwise() {
    if !is_root() {
        return;
    }
    let network = Network::new();
    let addr = SocketAddr::new(network.address.into(), 5000);
    let dir = TempDir::new().unwrap();
    let [ca, server, key] = certificates(network.address);
    let place = |name: &str| dir.path().join(name);
    for (name, text) in [
        ("ca.crt", &ca),
        ("server.crt", &server),
        ("server.key", &key),
    ] {
        fs::write(place(name), text).unwrap();
    }
    let tls = format!(
        ", tls: {{certificate: {}, key: {}}}",
        place("server.crt").display(),
        place("server.key").display()
    );
    let (ca_file, inside) = (place("ca.crt"), ["ip", "netns", "exec", &network.name]);
    let command = [&inside[..], &["docker-registry"]].concat();
    let Some(registry) = Registry::serve(dir, addr, &command, &tls) else {
        return;
    };

    let (world, elsewhere) = (World::new(), World::new());
    let name = registry.name("team/app:1");
    let one = layer("a", 30_000);
    let archive = oci_archive(&name, &[(gzip(&one), sha256(&one))]);
    let loaded = world.store.load(archive.as_slice()).unwrap().remove(0);
    let reference: Reference = name.parse().unwrap();
    let refused = |options: &Options| {
        let push = push(&world.store, &name, &reference, options, &|_| {}).unwrap_err();
        let login = check_login(&addr.to_string(), options).unwrap_err();
        for error in [push, login] {
            let text = error.to_string();
            let hint = "put its authority into /etc/docker/certs.d/HOST/ca.crt";
            assert!(text.contains(hint), "{text}");
        }
    };
    refused(&options());
    let named = Options {
        ca_files: vec![ca_file],
        ..options()
    };
    check_login(&addr.to_string(), &named).unwrap();
    push(&world.store, &name, &reference, &named, &|_| {}).unwrap();
    let certs_d = CertsD::of(&addr.to_string(), &ca);
    let image = pull(&elsewhere.store, &reference, &options(), &|_| {}).unwrap();
    assert_eq!(image.digest, loaded.digest);
    drop(certs_d);
    refused(&options());
}
