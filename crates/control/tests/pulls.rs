//! Images that a deploy brings from elsewhere, by their pull policy.

mod common;
#[path = "../../image/tests/image/peer.rs"]
#[allow(dead_code, reason = "the tests of image use the rest")]
mod peer;

use common::{Deployed, World, compose};
use layby_control::api::types::{Event, Outcome, Problem};
use peer::{Answer, Peer};

/// A world and a registry that has the image `fake/ok:1`, which the node itself does not have by that name.
async fn worlds() -> (World, Peer, String) {
    let (world, peer) = (World::new().await, Peer::start());
    let name = format!("{}/fake/ok:1", peer.addr);
    let path = format!("/v1/images/push?reference=fake/ok&to={name}");
    let (status, body) = world.ask("POST", &path, vec![]).await;
    let text = String::from_utf8_lossy(&body);
    assert!(status.is_success() && text.contains("\"done\""), "{text}");
    (world, peer, name)
}

fn warnings(up: &Deployed) -> Vec<&str> {
    let texts = up.events.iter().filter_map(|event| match event {
        Event::Warning { text } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

fn pulls(up: &Deployed) -> usize {
    let pulls = up.events.iter();
    pulls
        .filter(|event| matches!(event, Event::Pull { text, .. } if text == "pulled"))
        .count()
}

/// What went wrong, before or after the answer began.
fn problem(up: &Deployed) -> &Problem {
    let told = up.events.iter().find_map(|event| match event {
        Event::Error { problem } => Some(problem),
        _ => None,
    });
    told.unwrap_or_else(|| up.problem())
}

#[tokio::test]
async fn a_missing_image_is_pulled_once_and_an_always_is_asked_for_each_time() {
    let (world, peer, name) = worlds().await;
    let up = world.up(&compose(&name, "")).await;
    assert_eq!(
        (up.code(), up.outcomes()),
        (0, vec![("web".into(), Outcome::Live)])
    );
    assert_eq!(pulls(&up), 1);
    let up = world.up(&compose(&name, "")).await;
    assert_eq!(
        (pulls(&up), up.outcomes()),
        (0, vec![("web".into(), Outcome::Unchanged)])
    );

    let before = peer.count("GET", "/manifests/");
    let always = compose(&name, "pull_policy: always");
    let up = world.up(&always).await;
    assert_eq!((up.code(), pulls(&up)), (0, 1));
    assert_eq!(peer.count("GET", "/manifests/"), before + 1);

    // A deploy of the service alone heeds the policy too.
    let events = world
        .ask("POST", "/v1/services/shop/web/deploy", vec![])
        .await;
    assert_eq!(pulls(&Deployed::of(events.0, &events.1)), 1);
}

#[tokio::test]
async fn where_the_registry_is_away_what_is_held_goes_on_with_a_warning() {
    let (world, peer, name) = worlds().await;
    world.up(&compose(&name, "")).await;
    peer.spoil(|_, _| Answer::of(429).header("Retry-After", "3600"));
    let up = world.up(&compose(&name, "pull_policy: always")).await;
    assert_eq!(up.code(), 0);
    let warning = warnings(&up).join("\n");
    assert!(
        warning.contains("429") && warning.contains("of before is used"),
        "{warning}"
    );
    // What the registry does say counts.
    peer.spoil(|_, _| Answer::of(403));
    let up = world.up(&compose(&name, "pull_policy: always")).await;
    assert_eq!(
        (up.code(), problem(&up).code.as_str()),
        (1, "registry-denied")
    );
}

#[tokio::test]
async fn an_image_that_cannot_be_had_is_named_with_its_registry() {
    let (world, peer, name) = worlds().await;
    let never = world.up(&compose(&name, "pull_policy: never")).await;
    assert_eq!(problem(&never).code, "image-not-found");
    assert_eq!(peer.count("GET", "/manifests/"), 0);

    let other = format!("{}/fake/other:1", peer.addr);
    let up = world.up(&compose(&other, "")).await;
    assert_eq!(
        (up.code(), problem(&up).code.as_str()),
        (4, "image-not-found")
    );
    let detail = &problem(&up).detail;
    let registry = peer.addr.to_string();
    assert!(
        detail.contains("there is no image") && detail.contains(&registry),
        "{detail}"
    );

    peer.spoil(|_, _| Answer::of(401).header("WWW-Authenticate", "Basic realm=\"x\""));
    let up = world.up(&compose(&name, "")).await;
    let problem = problem(&up);
    assert_eq!(problem.code, "registry-denied", "{problem:?}");
    let hint = problem.hint.as_deref().unwrap_or_default();
    assert!(hint.contains(&format!("layby login {registry}")), "{hint}");
}

#[tokio::test]
async fn a_login_that_was_kept_is_used() {
    let (world, peer, name) = worlds().await;
    // "me:s3cret"
    peer.spoil(|asked, answer| match asked.headers.get("authorization") {
        Some(value) if value == "Basic bWU6czNjcmV0" => answer,
        _ => Answer::of(401).header("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let login = |password: &str| {
        let body = serde_json::json!({
            "registry": peer.addr.to_string(), "user": "me", "password": password,
        });
        body.to_string().into_bytes()
    };
    let (status, body) = world.ask("POST", "/v1/registries", login("wr0ng")).await;
    let text = String::from_utf8_lossy(&body);
    assert_eq!(status, 422, "{text}");
    assert!(!text.contains("wr0ng"), "{text}");
    let (status, body) = world.ask("POST", "/v1/registries", login("s3cret")).await;
    assert_eq!(status, 200);
    assert!(!String::from_utf8_lossy(&body).contains("s3cret"));
    let up = world.up(&compose(&name, "")).await;
    assert_eq!(up.code(), 0);
}
