//! A control plane under random deploys, crashes, demand, stalls and kills: what is routed is never lowered,
//! and when it is left alone it settles.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{World, compose};
use layby_control::api::types::Outcome;
use layby_model::State;
use layby_model::engine::Engine;
use layby_model::replica::Phase;
use layby_model::state::Showing;

const ID: &str = "shop/web";
const LADDER: &str = "x-layby: {sleep: {doze_after: 150ms, sleep_after: 400ms}}";

/// xorshift64*: enough to be unforeseen, and the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len() as u64) as usize]
    }
}

/// Looks all the time; ends with what it saw wrong.
fn watch(world: &World) -> tokio::task::JoinHandle<String> {
    let (fake, applied) = (Arc::clone(&world.fake), Arc::clone(&world.gateway.applied));
    tokio::spawn(async move {
        loop {
            // One thread runs all of this, and neither look awaits: they are of the same moment.
            let table = Arc::clone(&applied.lock().expect("no poison"));
            let replicas = fake.observe(None).await.expect("the fake answers");
            for route in table.services.values() {
                for upstream in route.mode.upstreams() {
                    let replica = replicas.iter().find(|r| r.id == upstream.replica);
                    let lowered = replica.is_none_or(|r| {
                        matches!(
                            r.phase,
                            Phase::Freezing | Phase::Frozen | Phase::Stopping | Phase::Removing
                        )
                    });
                    if lowered {
                        return format!("{replica:#?} is routed by {table:#?}");
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

async fn stir(world: &mut World, dice: &mut Dice) -> String {
    match dice.roll(12) {
        0..=2 => {
            let image = dice.pick(&[
                "fake/ok",
                "fake/ok:2",
                "fake/slow:300ms",
                "fake/exits:3",
                "fake/hangs",
            ]);
            let order = dice.pick(&["start-first", "stop-first"]);
            let replicas = dice.roll(3) + 1;
            let deploy =
                format!("deploy: {{replicas: {replicas}, update_config: {{order: {order}}}}}");
            let up = world
                .up_as(
                    "shop",
                    &compose(image, &format!("{LADDER}\n{deploy}")),
                    "&detach=1",
                )
                .await;
            // Detached, but a failure that was there before the first look is told.
            assert!(matches!(up.code(), 0 | 1 | 3), "{up:#?}");
            format!("deploy {image} {replicas} {order}")
        }
        3 | 4 => {
            let what = dice.pick(&["doze", "sleep", "wake"]);
            let path = format!("/v1/services/{ID}/{what}");
            // Whether it gets there in such times is not the point.
            let ordered = world.ask("POST", &path, Vec::new());
            let _ = tokio::time::timeout(Duration::from_millis(20), ordered).await;
            format!("order {what}")
        }
        5 | 6 => {
            let waiting = dice.roll(2) as u32;
            world.gateway.ask(ID, waiting);
            format!("waiting {waiting}")
        }
        7 | 8 => {
            let replicas = world.replicas().await;
            if replicas.is_empty() {
                return "nothing to crash".into();
            }
            let replica = &replicas[dice.roll(replicas.len() as u64) as usize];
            if dice.roll(3) == 0 {
                world.fake.lose(replica.id);
            } else {
                world.fake.crash(replica.id, 9);
            }
            format!("crash {}", replica.id)
        }
        9 => {
            let on = dice.roll(2) == 0;
            world.gateway.confirms.send_replace(on);
            format!("confirms {on}")
        }
        10 => {
            let store = rusqlite::Connection::open(world.dir.path().join("layby.db"));
            let store = store.expect("the store");
            store
                .busy_timeout(Duration::from_secs(30))
                .expect("a timeout");
            store.execute_batch("BEGIN IMMEDIATE").expect("the lock");
            tokio::time::sleep(Duration::from_millis(dice.roll(80))).await;
            store.execute_batch("ROLLBACK").expect("to let go");
            "stall".into()
        }
        _ => {
            world.kill();
            tokio::time::sleep(Duration::from_millis(dice.roll(10))).await;
            world.start().await;
            "kill".into()
        }
    }
}

#[tokio::test]
async fn whatever_happens_nothing_routed_is_lowered_and_it_settles() {
    for seed in 1..=5_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut world = World::new().await;
        let wrong = watch(&world);
        world.up(&compose("fake/ok", LADDER)).await;
        let mut story = Vec::new();
        for _ in 0..40 {
            story.push(stir(&mut world, &mut dice).await);
            tokio::time::sleep(Duration::from_millis(dice.roll(60))).await;
            if wrong.is_finished() {
                panic!(
                    "seed {seed}: {}\n{story:#?}",
                    wrong.await.expect("a finding")
                );
            }
        }
        println!("seed {seed}: {story:?}");

        // Left alone, and with something good to run, it settles where it is wanted.
        world.gateway.confirms.send_replace(true);
        world.gateway.ask(ID, 0);
        let never =
            "x-layby: {sleep: {doze_after: never, sleep_after: never}}\ndeploy: {replicas: 2}";
        let up = world.up(&compose("fake/ok", never)).await;
        assert_eq!(
            up.outcomes(),
            [("web".into(), Outcome::Live)],
            "seed {seed}: {up:#?}"
        );
        let settled = |r: &layby_model::replica::ReplicaReport| r.phase == Phase::Ready;
        let all = world
            .until_replicas(|all| all.len() == 2 && all.iter().all(settled))
            .await;
        let detail = world.until(ID, |d| d.view.replicas_ready == 2).await;
        assert_eq!(detail.view.state, State::Running);
        assert_eq!(detail.view.wakefulness, Some(Showing::Awake));
        assert!(
            all.iter().all(|r| r.revision.0 == detail.view.revision),
            "seed {seed}: {all:#?}"
        );
        assert!(
            !wrong.is_finished(),
            "seed {seed}: {}",
            wrong.await.expect("a finding")
        );
        wrong.abort();
    }
}
