//! Host names of an Ingress, ports and volumes: whose they are.

use layby_control::api::types::Problem;

use crate::common::{World, compose, tar};
use crate::network::{Client, at_socket, token};

/// What is sent to deploy an app of one service with an Ingress.
fn ingress(app: &str, host: &str, path: &str) -> (String, Vec<u8>) {
    let host = match host {
        "*" => String::new(),
        host => format!("host: \"{host}\", "),
    };
    let manifest = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  selector: {{matchLabels: {{a: b}}}}\n  template:\n    metadata: {{labels: {{a: b}}}}\n    spec: {{containers: [{{name: web, image: fake/ok, ports: [{{containerPort: 8080}}]}}]}}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{selector: {{a: b}}, ports: [{{port: 80, targetPort: 8080}}]}}\n\
         ---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: web}}\nspec:\n  rules:\n  - {{{host}http: {{paths: [{{path: {path}, pathType: Exact, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}\n"
    );
    let line = format!("POST /v1/apps?app={app}&folder=x");
    (line, tar(&[("manifest/app.yaml", manifest.as_bytes())]))
}

async fn up(client: &Client<'_>, app: &str, host: &str, path: &str) -> (u16, String) {
    let (line, files) = ingress(app, host, path);
    let reply = client.ask(&line, &[], &files).await;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    (reply.status.as_u16(), text)
}

#[tokio::test]
async fn a_token_of_an_app_gets_no_path_of_a_host_that_another_app_has() {
    let world = World::new().await;
    let root = at_socket(&world);
    let ci = root.with(&token(&world, r#"{"name":"ci","role":"deploy","apps":["blog"]}"#).await);
    for (app, host) in [
        ("shop", "shop.org"),
        ("pages", "*.pages.org"),
        ("wiki", "www.wiki.org"),
        ("blog", "blog.org"),
    ] {
        let (status, told) = up(&root, app, host, "/").await;
        assert!(status == 200 && told.contains(r#""code":0"#), "{told}");
    }
    for host in ["shop.org", "ann.pages.org", "*.pages.org", "*.wiki.org"] {
        let (status, told) = up(&ci, "blog", host, "/login").await;
        assert_eq!(status, 403, "{host}: {told}");
        let problem: Problem = serde_json::from_str(&told).expect("a problem");
        assert!(problem.detail.contains(host), "{told}");
        for other in ["shop/", "pages/", "wiki/"] {
            assert!(!told.contains(other), "it is told whose it is: {told}");
        }
    }
    for host in ["blog.org", "pages.org", "*.shop.org", "*"] {
        let (status, told) = up(&ci, "blog", host, "/login").await;
        assert!(status == 200 && told.contains(r#""code":0"#), "{told}");
    }
    // What an admin lets it have it keeps, and gets no more of it.
    assert_eq!(up(&root, "blog", "shop.org", "/blog").await.0, 200);
    assert_eq!(up(&ci, "blog", "shop.org", "/blog").await.0, 200);
    assert_eq!(up(&ci, "blog", "shop.org", "/login").await.0, 403);
    // Nor by an earlier revision, once another has it.
    assert_eq!(up(&ci, "blog", "blog.org", "/").await.0, 200);
    let back = "POST /v1/services/blog/web/rollback";
    assert_eq!(ci.status(back).await, 403);
    assert_eq!(root.status(back).await, 200);
}

#[tokio::test]
async fn a_token_of_an_app_is_not_told_which_other_app_has_a_port_nor_which_volumes_there_are() {
    let world = World::new().await;
    let root = at_socket(&world);
    let ci = root.with(&token(&world, r#"{"name":"ci","role":"deploy","apps":["blog"]}"#).await);
    let port = compose("fake/ok", "ports: ['31993:8080']");
    let up = world.up(&port).await;
    assert_eq!(up.code(), 0, "{up:#?}");
    let volume = br#"{"name":"shopvol","labels":{}}"#;
    assert_eq!(root.ask("POST /v1/volumes", &[], volume).await.status, 200);
    let up = async |client: &Client<'_>, manifest: &str| {
        let files = tar(&[("manifest/compose.yaml", manifest.as_bytes())]);
        let line = "POST /v1/apps?app=blog&folder=x";
        let reply = client.ask(line, &[], &files).await;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        (reply.status.as_u16(), text)
    };
    let (status, told) = up(&ci, &port).await;
    assert!(status == 409 && told.contains("another app has"), "{told}");
    assert!(!told.contains("shop"), "it is told whose it is: {told}");
    let (status, told) = up(&root, &port).await;
    assert!(status == 409 && told.contains("shop/web has"), "{told}");
    let mounts = |name: &str| {
        format!(
            "services:\n  web:\n    image: fake/ok\n    volumes: [\"d:/d\"]\nvolumes:\n  d: {{external: true, name: {name}}}\n"
        )
    };
    let (of_other, is_there) = up(&ci, &mounts("shopvol")).await;
    let (none, is_not) = up(&ci, &mounts("novol")).await;
    assert_eq!((of_other, none), (403, 403), "{is_there} {is_not}");
    assert_eq!(is_there.replace("shopvol", "novol"), is_not);
}
