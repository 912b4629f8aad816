//! What runs before, after and around the containers of a fake replica.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use layby_model::ReplicaId;
use layby_model::hook::Hook;
use layby_model::replica::{End, Exit, Trouble};
use layby_model::spec::ContainerSpec;

use super::Shared;
use super::body::{Body, STEP};
use super::exec;
use super::script::{Fate, Script};
use crate::lifecycle::Actual;

/// Runs what runs before the others. `None`: all has ended well, and the replica starts; else what is to be told of the start.
pub(super) async fn before(
    shared: &Shared,
    id: ReplicaId,
    body: &Body,
) -> Option<Result<Actual, Trouble>> {
    let entry = shared.roster.get(id)?;
    let spec = entry.spec.clone()?;
    for (n, container) in spec.service.init.iter().enumerate() {
        if n < body.done.load(SeqCst) {
            continue;
        }
        let called_off = async {
            let wakes = entry.wakes();
            while !shared
                .roster
                .get(id)
                .is_none_or(|entry| entry.is_called_off())
            {
                wakes.notified().await;
            }
        };
        let exit = tokio::select! {
            biased;
            () = called_off => return Some(Ok(Actual::Stopped)),
            exit = run(container) => exit,
        };
        let text = format!("{} ended with code {}", container.name, exit.code);
        body.log.write("stdout", &text);
        shared.roster.change(id, |entry| {
            if let Some(known) = entry.init.get_mut(n) {
                known.last_exit = Some(exit);
                known.ended += u32::from(exit.code != 0);
            }
        });
        if exit.code != 0 {
            let message = format!(
                "container {}, which has to end well before the others start, ended by itself with exit code {}",
                container.name, exit.code
            );
            let end = End {
                container: container.name.clone(),
                exit,
                hook: false,
            };
            return Some(Err(fail(shared, id, end, message)));
        }
        body.done.store(n + 1, SeqCst);
    }
    None
}

/// A container that runs to its end.
async fn run(container: &ContainerSpec) -> Exit {
    let script = Script::of(container);
    match (script.fate, script.answers_after) {
        (Some((after, Fate::Ends(exit))), _) => {
            tokio::time::sleep(after).await;
            exit
        }
        (_, Some(after)) => {
            tokio::time::sleep(after).await;
            Exit {
                code: 0,
                oom: false,
            }
        }
        (_, None) => std::future::pending().await,
    }
}

/// Carries out the hooks that follow the start.
pub(super) async fn after(shared: &Shared, id: ReplicaId, body: &Body) -> Result<(), Trouble> {
    let spec = shared.roster.get(id).and_then(|entry| entry.spec);
    for container in spec.iter().flat_map(|spec| &spec.service.containers) {
        for hook in &container.post_start {
            let code = carry_out(hook, body).await;
            if code != 0 {
                let message = format!(
                    "the hook after the start of container {} ended with exit code {code}",
                    container.name
                );
                let end = End {
                    container: container.name.clone(),
                    exit: Exit { code, oom: false },
                    hook: true,
                };
                return Err(fail(shared, id, end, message));
            }
        }
    }
    Ok(())
}

/// Carries out the hooks that precede the stop, while there is time.
pub(super) async fn before_stop(shared: &Shared, id: ReplicaId, body: &Body) {
    let entry = shared.roster.get(id);
    let runs = |actual| matches!(actual, Actual::Running | Actual::Ready | Actual::Frozen);
    let spec = entry
        .filter(|entry| runs(entry.actual))
        .and_then(|entry| entry.spec);
    for container in spec.iter().flat_map(|spec| &spec.service.containers) {
        let all = async {
            for hook in &container.pre_stop {
                carry_out(hook, body).await;
            }
        };
        let grace = Duration::from_millis(container.stop_grace_ms);
        // What takes too long is cut off, and how it ended changes nothing.
        let _ = tokio::time::timeout(grace, all).await;
    }
}

/// Carries a hook out, and says how it ended.
async fn carry_out(hook: &Hook, body: &Body) -> i32 {
    match hook {
        Hook::Exec { command, .. } => exec::exec(body, command).await.code,
        Hook::Http { .. } => {
            tokio::time::sleep(STEP).await;
            0
        }
        Hook::Sleep { ms } => {
            tokio::time::sleep(Duration::from_millis(*ms)).await;
            0
        }
    }
}

/// Writes down that a replica ended unasked while it was started.
fn fail(shared: &Shared, id: ReplicaId, end: End, message: String) -> Trouble {
    shared.roster.change(id, |entry| {
        entry.actual = Actual::Stopped;
        entry
            .containers
            .iter_mut()
            .for_each(|container| container.pid = None);
        entry.ended_in_a_row += 1;
        entry.ended = Some(end);
    });
    Trouble {
        fatal: false,
        message,
    }
}
