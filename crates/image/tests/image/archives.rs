//! Loading and saving archives.

use std::fs;

use layby_image::{Error, Format, Image, Store};

use crate::support::{Tar, World, gzip, oci_archive, sha256};

fn save(store: &Store, references: &[&str], format: Format) -> Vec<u8> {
    let references: Vec<String> = references.iter().map(|text| (*text).to_owned()).collect();
    let mut archive = Vec::new();
    store.save(&references, format, &mut archive).unwrap();
    archive
}

fn built(world: &World) -> Image {
    world.write(&[("a", "text of a"), ("b", "text of b")]);
    let dockerfile =
        "FROM scratch\nCOPY a /\nCOPY b /\nHEALTHCHECK --interval=3s CMD [\"/a\"]\nCMD [\"/a\"]\n";
    world.build(dockerfile).unwrap()
}

#[test]
fn an_oci_archive_comes_back_with_the_same_digests() {
    let world = World::new();
    let image = built(&world);
    world.store.tag(&image.digest, "team/other:2").unwrap();
    let archive = save(&world.store, &["test", "team/other:2"], Format::Oci);
    let again = save(&world.store, &["test", "team/other:2"], Format::Oci);
    assert!(archive == again, "saving is reproducible");
    for archive in [
        archive.clone(),
        gzip(&archive),
        zstd::encode_all(archive.as_slice(), 1).unwrap(),
    ] {
        let other = World::new();
        let loaded = other.store.load(archive.as_slice()).unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].digest, image.digest);
        assert_eq!(
            loaded[0].references,
            ["docker.io/library/test:latest", "docker.io/team/other:2"]
        );
        assert_eq!(loaded[0].config, image.config);
        assert_eq!(
            loaded[0].config.healthcheck.as_ref().unwrap().interval_ms,
            Some(3000)
        );
        assert_eq!(other.files(&loaded[0]), world.files(&image));
        assert_eq!(other.store.list().unwrap(), loaded);
    }
}

#[test]
fn a_docker_archive_comes_back_with_the_same_config_and_layers() {
    let world = World::new();
    let image = built(&world);
    let archive = save(&world.store, &["test"], Format::Docker);
    let other = World::new();
    let loaded = other.store.load(archive.as_slice()).unwrap().remove(0);
    assert_eq!(loaded.references, image.references);
    assert_eq!(loaded.config, image.config);
    assert_eq!(other.files(&loaded), world.files(&image));
    let mut blobs: Vec<_> = fs::read_dir(other.store_dir().join("blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    blobs.retain(|hex| format!("sha256:{hex}") != loaded.digest);
    for hex in blobs {
        assert!(
            world.store_dir().join("blobs/sha256").join(hex).exists(),
            "the same blobs"
        );
    }
}

/// As `docker save` wrote it before version 25: the config by its hex, layers in directories, shared by links.
#[test]
fn an_old_docker_archive_is_loaded() {
    let layer = Tar::new().file("f", "text").finish();
    let diff_id = sha256(&layer);
    let config = serde_json::json!({
        "config": {"Cmd": ["/f"], "Healthcheck": {"Test": ["NONE"]}},
        "rootfs": {"type": "layers", "diff_ids": [diff_id, diff_id]},
    });
    let config = config.to_string();
    let config_path = format!("{}.json", &sha256(config.as_bytes())[7..]);
    let manifest = serde_json::json!([{
        "Config": config_path, "RepoTags": ["old:1", "old:2"], "Layers": ["aaa/layer.tar", "bbb/layer.tar"],
    }]);
    let archive = Tar::new()
        .dir("aaa/")
        .file("aaa/VERSION", "1.0")
        .entry(b'2', "bbb/layer.tar", "../aaa/layer.tar", b"")
        .entry(b'0', "aaa/layer.tar", "", &layer)
        .file(&config_path, &config)
        .file("manifest.json", &manifest.to_string())
        .file("repositories", "{}")
        .finish();
    let world = World::new();
    let images = world.store.load(archive.as_slice()).unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(
        images[0].references,
        ["docker.io/library/old:1", "docker.io/library/old:2"]
    );
    assert_eq!(
        images[0].config.healthcheck.as_ref().unwrap().test,
        ["NONE"]
    );
    assert!(world.files(&images[0]).contains_key("f"));
}

#[test]
fn of_an_image_for_several_machines_this_ones_is_taken() {
    let world = World::new();
    let layer = Tar::new().file("f", "ours").finish();
    let archive = oci_archive("x", &[(layer.clone(), sha256(&layer))]);
    let image = world.store.load(archive.as_slice()).unwrap().remove(0);
    let architecture = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    let blob =
        |digest: &str| fs::read(world.store_dir().join("blobs/sha256").join(&digest[7..])).unwrap();
    let manifest = blob(&image.digest);
    let parsed: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let config = blob(parsed["config"]["digest"].as_str().unwrap());
    let entry = |digest: &str, architecture: &str| {
        serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
            "size": manifest.len(), "platform": {"os": "linux", "architecture": architecture}})
    };
    // The attestations and the other machine's manifest are not even in the archive.
    let nested = serde_json::json!({"schemaVersion": 2, "manifests": [
        entry(&sha256(b"other"), "s390x"), entry(&sha256(b"attestation"), "unknown"), entry(&image.digest, architecture),
    ]});
    let nested = nested.to_string();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": sha256(nested.as_bytes()), "size": nested.len(),
        "annotations": {"io.containerd.image.name": "docker.io/library/multi:3", "org.opencontainers.image.ref.name": "3"},
    }]});
    let mut tar = Tar::new()
        .file("oci-layout", "{}")
        .file("index.json", &index.to_string());
    for blob in [nested.as_bytes(), &manifest, &config, &layer] {
        tar = tar.entry(
            b'0',
            &format!("blobs/sha256/{}", &sha256(blob)[7..]),
            "",
            blob,
        );
    }
    let other = World::new();
    let loaded = other.store.load(tar.finish().as_slice()).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].digest, image.digest);
    assert_eq!(loaded[0].references, ["docker.io/library/multi:3"]);
}

#[test]
fn an_archive_with_a_layer_that_leads_out_of_its_root_is_refused_before_it_has_a_name() {
    let world = World::new();
    for bad in [
        Tar::new().file("../x", "out").finish(),
        Tar::new()
            .entry(b'2', "a", "/etc", b"")
            .file("a/x", "out")
            .finish(),
        b"no tar at all".repeat(100),
    ] {
        let good = Tar::new().file("f", "text").finish();
        let layers = [(good.clone(), sha256(&good)), (bad.clone(), sha256(&bad))];
        let archive = oci_archive("x", &layers);
        let error = world.store.load(archive.as_slice()).unwrap_err();
        assert!(matches!(error, Error::Layer { .. }), "{error}");
        assert_eq!(world.store.list().unwrap(), []);
    }
}

#[test]
fn broken_archives_are_refused_whole() {
    let layer = Tar::new().file("f", "text").finish();
    let good = oci_archive("x", &[(layer.clone(), sha256(&layer))]);
    let text = String::from_utf8_lossy(&good).into_owned();
    assert!(text.contains("text"));
    let mut corrupt = good.clone();
    let at = corrupt
        .windows(4)
        .position(|window| window == b"text")
        .unwrap();
    corrupt[at] = b'T';
    let manifest = r#"[{"Config":"c.json","RepoTags":null,"Layers":["../l"]}]"#;
    let loop_manifest = r#"[{"Config":"a","RepoTags":null,"Layers":[]}]"#;
    for (name, archive, reason) in [
        ("nothing", Vec::new(), "holds no image"),
        ("no tar", b"hello".repeat(500), "checksum"),
        ("empty", Tar::new().finish(), "holds no image"),
        ("cut off", good[..good.len() / 2].to_vec(), "ends too early"),
        ("cut gzip", gzip(&good)[..100].to_vec(), "ends too early"),
        ("corrupt", corrupt, "corrupt"),
        ("outside", Tar::new().file("../x", "").finish(), "leads out"),
        (
            "missing config",
            Tar::new().file("manifest.json", manifest).finish(),
            "names \"c.json\"",
        ),
        (
            "links in a circle",
            Tar::new()
                .entry(b'2', "a", "b", b"")
                .entry(b'2', "b", "a", b"")
                .file("manifest.json", loop_manifest)
                .finish(),
            "names \"a\"",
        ),
        (
            "bad json",
            Tar::new().file("manifest.json", "{").finish(),
            "cannot be understood",
        ),
        ("bzip2", b"BZh91AY".to_vec(), "compressed with bzip2"),
    ] {
        let world = World::new();
        let error = world.store.load(archive.as_slice()).expect_err(name);
        assert!(error.to_string().contains(reason), "{name}: {error}");
        assert_eq!(world.store.list().unwrap(), [], "{name}");
        assert_eq!(
            fs::read_dir(world.store_dir().join("tmp")).unwrap().count(),
            0,
            "{name}"
        );
        assert_eq!(
            fs::read_dir(world.store_dir().join("blobs/sha256"))
                .unwrap()
                .count(),
            0,
            "{name}"
        );
    }
}

#[test]
fn saving_what_is_not_there_or_decayed_is_an_error() {
    let world = World::new();
    let image = built(&world);
    let mut out = Vec::new();
    let error = world
        .store
        .save(&["nope".to_owned()], Format::Oci, &mut out)
        .unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert!(world.store.save(&[], Format::Oci, &mut out).is_err());
    let blobs = world.store_dir().join("blobs/sha256");
    let mut paths = fs::read_dir(&blobs)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let layer = paths
        .find(|path| fs::read(path).unwrap().starts_with(b"\x1f\x8b"))
        .unwrap();
    let mut bytes = fs::read(&layer).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&layer, bytes).unwrap();
    let error = world
        .store
        .save(&[image.digest], Format::Oci, &mut out)
        .unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}
