//! Pods with names and volumes of their own, what runs before and around their containers, and paths that lead to them.

use crate::apps::App;
use crate::node::{Node, is_root};

const MANIFEST: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: set}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 8000}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: set, annotations: {layby.dev/build: .}}
spec:
  serviceName: web
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 20
      volumes: [{name: shared, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]
      initContainers:
        - name: prepare
          image: set-web:1
          args: [write, /shared/prepared, before]
          volumeMounts: [{name: shared, mountPath: /shared}]
      containers:
        - name: web
          image: set-web:1
          env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
          volumeMounts: [{name: data, mountPath: /data}, {name: shared, mountPath: /shared}]
          lifecycle:
            postStart: {exec: {command: [/web, write, /data/hello, after]}}
            preStop: {exec: {command: [/web, write, /data/bye, last]}}
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: set}
spec:
  rules:
    - host: set.example
      http: {paths: [{path: /read, pathType: Exact, backend: {service: {name: web, port: {number: 8000}}}}]}
";

#[test]
fn a_stateful_set_has_names_volumes_and_what_is_done_around_its_containers() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::empty();
    app.write("set.yaml", MANIFEST);
    node.run_in(app.path(), &["up"])
        .ok()
        .says("set/web-1  live");
    let ask = |pod: &str, path: &str| node.get(&format!("{pod}.set.localhost"), path);
    for pod in ["web-0", "web-1"] {
        assert_eq!(ask(pod, "/read?/shared/prepared").body, "before");
        assert_eq!(ask(pod, "/read?/data/hello").body, "after");
        assert_eq!(ask(pod, "/read?/proc/sys/kernel/hostname").body.trim(), pod);
        let whole = format!("\t{pod}.web.set.svc.cluster.local {pod}\n");
        assert!(ask(pod, "/read?/etc/hosts").body.contains(&whole));
        node.run(&["exec", pod, "--", "/web", "env"])
            .ok()
            .says(&format!("POD={pod}"));
    }
    node.run(&["volume", "ls"])
        .ok()
        .says("set_data-web-0")
        .says("set_data-web-1");
    let status = node.status("web-1");
    let address = status["virtual_address"].as_str().expect("an address");
    for name in ["web-1", "web-1.web", "web-1.web.set.svc.cluster.local"] {
        assert_eq!(
            ask("web-0", &format!("/resolve?{name}")).body,
            address,
            "{name}"
        );
    }

    // What is put to sleep says its last word, wakes by the name of the pod, and is not prepared anew.
    let written = crate::node::post(
        node.gateway(),
        "web-1.set.localhost",
        "/write?/shared/prepared",
        "once",
    );
    assert_eq!(written.expect("an answer").body, "written");
    node.run(&["sleep", "web-1"]).ok();
    let asked = ask("web-0", "/fetch?web-1.web:8000/read?/data/bye");
    assert_eq!(asked.body, "last");
    assert_eq!(ask("web-1", "/read?/shared/prepared").body, "once");

    // A path of a host leads to the first; all else of that host leads nowhere.
    assert_eq!(node.get("set.example", "/read?/data/hello").body, "after");
    assert_eq!(node.get("set.example", "/").status, 404);
}
