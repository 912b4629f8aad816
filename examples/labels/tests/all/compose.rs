//! The compose.yaml, as docker-compose reads it.

use std::process::Command;

#[test]
#[ignore = "needs docker-compose, in LABELS_DOCKER_COMPOSE: cargo xtask test --examples"]
fn docker_compose_takes_the_file_as_it_is() {
    let program = std::env::var_os("LABELS_DOCKER_COMPOSE").expect("LABELS_DOCKER_COMPOSE");
    let output = Command::new(program)
        .args(["config", "--services"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("docker-compose");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let services = String::from_utf8_lossy(&output.stdout);
    let mut services: Vec<&str> = services.lines().collect();
    services.sort_unstable();
    assert_eq!(services, ["cache", "mapi", "store", "webapp"], "{said}");
}
