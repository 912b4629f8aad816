//! Manifests that people wrote, as they are; the example; the image's own health check.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::apps::App;
use crate::node::{Node, is_root};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Gives the node the web program as `image`, listening on `port`.
fn provide(node: &Node, image: &str, port: u16) {
    let app = App::compose(&format!(
        "name: seed\nservices:\n  seed:\n    build: .\n    image: {image}\n"
    ));
    app.write(
        "Dockerfile",
        &format!(
            "FROM scratch\nCOPY web /web\nSTOPSIGNAL SIGKILL\nENV PORT={port}\nENTRYPOINT [\"/web\"]\nEXPOSE {port}\n"
        ),
    );
    node.run_in(app.path(), &["up"]).ok();
    node.run(&["down", "seed"]).ok();
}

#[test]
fn a_minikube_manifest_with_a_service_of_another_name_runs_as_it_is() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    provide(&node, "instill/mnist:1.1.0", 8051);
    let folder = repository().join("crates/manifest/tests/cases/kubernetes-real-mnist-minikube");
    let file = folder.join("mnist-minikube.yaml");
    node.run(&["up", "--app", "digits", "-f", file.to_str().expect("UTF-8")])
        .ok()
        .says("live");
    assert_eq!(
        node.get("entrypoint.digits.localhost", "/").body,
        "hello world"
    );
    let published = (node.publish_on, 30001).into();
    assert_eq!(
        crate::node::get(published, "any", "/")
            .expect("an answer")
            .body,
        "hello world"
    );
}

#[test]
fn a_manifest_without_probes_or_limits_and_with_a_misplaced_namespace_runs_as_it_is() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    provide(&node, "blairdrummond/www-personal-page", 80);
    let folder = repository().join("crates/manifest/tests/cases/kubernetes-real-personal-page");
    let file = folder.join("personal-page.yaml");
    node.run(&["up", "--app", "page", "-f", file.to_str().expect("UTF-8")])
        .ok()
        .says("namespace")
        .says("live");
    assert_eq!(
        node.get("bdrummond.page.localhost", "/").body,
        "hello world"
    );
}

#[test]
fn the_example_recognises_a_digit_awake_and_after_a_sleep() {
    if !is_root() {
        return;
    }
    let example = repository().join("examples/mnist");
    if !example.join("dist/mnist").exists() {
        println!("SKIPPED: examples/mnist/dist is not built: cargo xtask example mnist");
        return;
    }
    let node = Node::start();
    node.run_in(&example, &["up"])
        .ok()
        .says("mnist/mnist  live");
    let picture = example.join("digits/7-1.png");
    let ask = || {
        let encoded = Command::new("base64")
            .args(["-w0"])
            .arg(&picture)
            .stdin(Stdio::null())
            .output()
            .expect("base64 runs");
        let body = format!(
            "{{\"base64\": \"{}\"}}",
            String::from_utf8_lossy(&encoded.stdout)
        );
        crate::node::post(node.gateway(), "mnist.mnist.localhost", "/mnist/", &body)
            .expect("an answer")
    };
    for depth in ["wake", "doze", "sleep"] {
        node.run(&[depth, "mnist"]).ok();
        let reply = ask();
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.body.contains("\"digit\":7"), "{reply:?}");
    }
}

#[test]
fn the_images_health_check_decides_where_the_manifest_has_no_probe() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let manifest = "name: check\nservices:\n  web:\n    build: .\n    image: check:1\n";
    let app = App::compose(manifest);
    let dockerfile = |command: &str| {
        format!(
            "FROM scratch\nCOPY web /web\nSTOPSIGNAL SIGKILL\nEXPOSE 8000\nHEALTHCHECK CMD [{command}]\nENTRYPOINT [\"/web\"]\n"
        )
    };
    app.write("Dockerfile", &dockerfile("\"/web\", \"health\""));
    node.run_in(app.path(), &["up"]).ok().says("live");

    // One that fails keeps the next revision from going live, although its port answers.
    app.write("Dockerfile", &dockerfile("\"/web\", \"exit\", \"1\""));
    node.run_in(app.path(), &["up", "--detach"]).ok();
    node.wait_for("the failing check to show", |node| {
        let status = node.status("web");
        status["state"] == "UPDATING" && status["replicas"].as_array().map(Vec::len) == Some(2)
    });
    assert_eq!(node.status("web")["revision"], 1);
    assert_eq!(node.get("web.check.localhost", "/").body, "hello world");
}

#[test]
fn what_lies_beside_the_manifest_is_sent_along_and_mounted() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(
        "name: beside\nservices:\n  web:\n    build: .\n    image: beside:1\n    env_file: web.env\n    volumes: [\"./data:/data:ro\"]\n    hostname: beside.example.org\n    secrets: [token]\nsecrets: {token: {file: ./token.txt}}\n",
    );
    app.write("token.txt", "s3cret");
    app.write("web.env", "# who is greeted\nGREETING=${PLANET:-moon}\n");
    std::fs::create_dir(app.path().join("data")).expect("a folder");
    app.write("data/file", "beside");
    node.run_in(app.path(), &["up"]).ok().says("live");
    let ask = |path: &str| node.get("web.beside.localhost", path).body;
    assert_eq!(ask("/"), "hello moon");
    assert_eq!(ask("/read?/data/file"), "beside");
    assert_eq!(ask("/read?/run/secrets/token"), "s3cret");
    assert_eq!(
        ask("/read?/proc/sys/kernel/hostname").trim(),
        "beside.example.org"
    );

    // The file is part of what is deployed.
    app.write("web.env", "GREETING=sun\n");
    node.run_in(app.path(), &["up"]).ok().says("revision 2");
    assert_eq!(ask("/"), "hello sun");
    std::fs::remove_file(app.path().join("web.env")).expect("to remove it");
    node.run_in(app.path(), &["up"])
        .exits(1)
        .says("compose.yaml:6")
        .says("web.env");
}

#[test]
fn a_deployment_gets_its_claims_its_user_and_its_fences() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    provide(&node, "fenced:1", 8000);
    let app = App::empty();
    app.write(
        "deploy.yaml",
        "\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: fenced}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: fenced}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      hostname: web-0
      hostAliases: [{ip: 192.0.2.7, hostnames: [seven.example.org]}]
      securityContext:
        runAsUser: 1000
        runAsGroup: 3000
        supplementalGroups: [4000]
        sysctls: [{name: net.core.somaxconn, value: \"77\"}]
      volumes:
        - {name: data, persistentVolumeClaim: {claimName: data}}
        - {name: scratch, emptyDir: {}}
        - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
      containers:
        - name: web
          image: fenced:1
          ports: [{containerPort: 8000}]
          securityContext:
            readOnlyRootFilesystem: true
            allowPrivilegeEscalation: false
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: data, mountPath: /data, readOnly: true}
            - {name: scratch, mountPath: /scratch}
            - {name: memory, mountPath: /memory}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: fenced}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8000}]}
",
    );
    node.run_in(app.path(), &["up", "-f", "deploy.yaml"])
        .ok()
        .says("live");
    let ask = |path: &str| node.get("front.fenced.localhost", path).body;
    let write = |path: &str, text: &str| {
        let path = format!("/write?{path}");
        crate::node::post(node.gateway(), "web.fenced.localhost", &path, text).expect("an answer")
    };
    let status = ask("/whoami");
    for line in [
        "Uid:\t1000\t1000\t1000\t1000",
        "Gid:\t3000\t3000\t3000\t3000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let groups = status.lines().find(|line| line.starts_with("Groups:"));
    assert!(
        groups.is_some_and(|line| line.contains("4000")),
        "{groups:?}"
    );
    assert_eq!(ask("/read?/proc/sys/kernel/hostname").trim(), "web-0");
    assert_eq!(ask("/read?/proc/sys/net/core/somaxconn").trim(), "77");
    assert!(ask("/read?/etc/hosts").contains("192.0.2.7"));
    assert_eq!(write("/scratch/x", "kept").body, "written");
    assert_eq!(write("/memory/x", "kept").body, "written");
    assert_eq!(write("/memory/y", &"x".repeat(2 << 20)).status, 409);
    assert_eq!(write("/data/x", "no").status, 409);
    assert_eq!(write("/x", "no").status, 409);
    node.run(&["volume", "ls"]).ok().says("fenced_data");
}
