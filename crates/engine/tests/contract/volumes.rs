//! What engines promise of named volumes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use layby_model::engine::EngineError;
use layby_model::mounts::VolumeReport;
use layby_model::{ReplicaId, Wakefulness};

use crate::Promise;
use crate::kit::{Kind, Kit, Order, runs, service, stopped};

const ONE: ReplicaId = ReplicaId(0x1_000001);

/// What every engine promises.
pub(crate) const EVERY_ENGINE: &[Promise] = &[
    (
        "a_volume_is_made_on_first_use_and_outlives_its_replica",
        a_volume_is_made_on_first_use_and_outlives_its_replica,
    ),
    (
        "an_external_volume_that_is_not_there_is_fatal",
        an_external_volume_that_is_not_there_is_fatal,
    ),
    (
        "making_a_volume_may_be_repeated",
        making_a_volume_may_be_repeated,
    ),
];

/// What engines promise whose replicas outlive the node.
pub(crate) const LASTING: &[Promise] = &[(
    "a_volume_is_in_use_after_a_restart_too",
    a_volume_is_in_use_after_a_restart_too,
)];

fn volumes(kit: &Kit) -> Vec<VolumeReport> {
    kit.runtime.block_on(kit.access.volumes()).expect("listed")
}

fn remove(kit: &Kit) -> Result<(), EngineError> {
    kit.runtime.block_on(kit.access.remove_volume("data"))
}

fn make(kit: &Kit) -> VolumeReport {
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let made = kit
        .runtime
        .block_on(kit.access.make_volume("data", &labels));
    made.expect("made")
}

fn a_volume_is_made_on_first_use_and_outlives_its_replica(kit: Kit) {
    assert_eq!(volumes(&kit), []);
    kit.order(&Order::one(ONE, Wakefulness::Asleep).kind(Kind::WithVolume));
    kit.until(ONE, "prepared", stopped);
    let all = volumes(&kit);
    assert_eq!((all.len(), &*all[0].name), (1, "data"));
    assert_eq!(all[0].app.as_ref(), Some(&service().app));
    assert_eq!(all[0].used_by, [service()]);
    assert!(matches!(remove(&kit), Err(EngineError::Conflict(_))));
    kit.order(&Order::retire(&[ONE]));
    kit.until_gone(ONE);
    assert_eq!(volumes(&kit)[0].used_by, []);
    remove(&kit).expect("removed");
    assert!(matches!(remove(&kit), Err(EngineError::NotFound(_))));
    assert_eq!(volumes(&kit), []);
    kit.close();
}

fn an_external_volume_that_is_not_there_is_fatal(kit: Kit) {
    let awake = || Order::one(ONE, Wakefulness::Awake).kind(Kind::WithExternalVolume);
    kit.order(&awake());
    let report = kit.until(ONE, "in trouble", |report| report.trouble.is_some());
    let trouble = report.trouble.expect("trouble");
    assert!(
        trouble.fatal && trouble.message.contains("data"),
        "{trouble:?}"
    );
    assert_eq!(volumes(&kit), []);
    make(&kit);
    kit.order(&awake());
    kit.until(ONE, "running", runs);
    kit.close();
}

fn making_a_volume_may_be_repeated(kit: Kit) {
    let made = make(&kit);
    assert_eq!((made.app.as_ref(), made.labels.len()), (None, 1));
    assert_eq!(make(&kit), made);
    assert_eq!(volumes(&kit), [made]);
    kit.close();
}

fn a_volume_is_in_use_after_a_restart_too(kit: Kit) {
    kit.order(&Order::one(ONE, Wakefulness::Awake).kind(Kind::WithVolume));
    kit.until(ONE, "running", runs);
    let file = Path::new(&volumes(&kit)[0].path).join("file");
    fs::write(&file, "kept").expect("written");
    let kit = kit.reopen(|_| {});
    assert_eq!(volumes(&kit)[0].used_by, [service()]);
    assert!(matches!(remove(&kit), Err(EngineError::Conflict(_))));
    kit.order(&Order::retire(&[ONE]));
    kit.until_gone(ONE);
    assert_eq!(fs::read(&file).expect("kept"), b"kept");
    remove(&kit).expect("removed");
    assert!(!file.exists());
    kit.close();
}
