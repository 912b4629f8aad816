//! What a rollout waits for: the other services that it depends on, as they are now.

use crate::plan::Ended;
use crate::spec::{Condition, Dependency};

/// What is known of a service that another one depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// It may have replicas.
    pub enabled: bool,
    /// A revision of it is on its way to be live.
    pub rolling: bool,
    /// A revision of it is live.
    pub live: bool,
    /// A process of the revision that it is to be at runs.
    pub started: bool,
    /// All of live's replicas have ended, and how.
    pub ended: Option<Ended>,
    /// Why its newest revision failed, if that counts: nothing else is live, or both were deployed together.
    pub failed: Option<String>,
}

/// Whether a rollout may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blockade {
    /// It may.
    Open,
    /// Not yet, for this reason.
    Waits(String),
    /// Not before somebody does something, for this reason.
    Stuck(String),
    /// Never, for this reason.
    Fails(String),
}

/// Whether a service that depends on others may roll; the first of them that is in the way says why. `known` of `None`: it is
/// not deployed.
pub fn blockade<'a>(
    depends_on: impl IntoIterator<Item = (&'a Dependency, Option<Known>)>,
) -> Blockade {
    let mut waits = None;
    for (dependency, known) in depends_on {
        match one(dependency, known.as_ref()) {
            Blockade::Open => {}
            still @ (Blockade::Waits(_) | Blockade::Stuck(_)) => {
                waits.get_or_insert(still);
            }
            fails @ Blockade::Fails(_) => return fails,
        }
    }
    waits.unwrap_or(Blockade::Open)
}

fn one(dependency: &Dependency, known: Option<&Known>) -> Blockade {
    let name = &dependency.service;
    let missed = |text: String| match dependency.required {
        true => Blockade::Stuck(text),
        false => Blockade::Open,
    };
    let lost = |text: String| match dependency.required {
        true => Blockade::Fails(text),
        false => Blockade::Open,
    };
    let Some(known) = known else {
        return missed(format!("{name} is not deployed"));
    };
    if let Some(reason) = &known.failed {
        return lost(format!("it needs {name}, which failed: {reason}"));
    }
    // Nothing but a user's word changes that: nobody is to wait for it for ever.
    if !known.enabled {
        return lost(format!(
            "it needs {name}, which is disabled (by `layby disable`, or by 0 replicas in its manifest)"
        ));
    }
    let settled = known.live && !known.rolling;
    let (met, yet) = match dependency.condition {
        Condition::Started => (settled || known.started, "started"),
        Condition::Healthy => (settled, "live"),
        Condition::Completed => match known.ended.filter(|_| settled) {
            Some(Ended::Well) => (true, "done"),
            Some(Ended::Badly) => {
                return lost(format!("it needs {name}, which did not end well"));
            }
            None => (false, "done"),
        },
    };
    match met {
        true => Blockade::Open,
        false => Blockade::Waits(format!("{name} is not {yet} yet")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ServiceName;

    fn on(condition: Condition, required: bool) -> Dependency {
        Dependency {
            service: ServiceName::new("db").expect("a label"),
            condition,
            required,
            restart: false,
        }
    }

    fn known(change: impl FnOnce(&mut Known)) -> Option<Known> {
        let mut known = Known {
            enabled: true,
            live: true,
            ..Known::default()
        };
        change(&mut known);
        Some(known)
    }

    #[test]
    fn a_dependency_is_waited_for_until_its_condition_is_met() {
        use Condition::{Completed, Healthy, Started};
        let rolls = |known: &mut Known| (known.live, known.rolling) = (false, true);
        let runs = |known: &mut Known| {
            rolls(known);
            known.started = true;
        };
        let updates = |known: &mut Known| known.rolling = true;
        let well = |known: &mut Known| known.ended = Some(Ended::Well);
        let table = [
            (Started, known(rolls), Some("db is not started yet")),
            (Started, known(runs), None),
            (Started, known(|_| {}), None),
            (Started, known(updates), Some("db is not started yet")),
            (Healthy, known(runs), Some("db is not live yet")),
            (Healthy, known(updates), Some("db is not live yet")),
            (Healthy, known(|_| {}), None),
            (Completed, known(|_| {}), Some("db is not done yet")),
            (Completed, known(well), None),
        ];
        for (row, (condition, known, waits)) in table.into_iter().enumerate() {
            let found = blockade([(&on(condition, true), known)]);
            let wanted = waits.map_or(Blockade::Open, |text| Blockade::Waits(text.into()));
            assert_eq!(found, wanted, "row {row}");
        }
        let found = blockade([(&on(Healthy, true), None)]);
        assert_eq!(found, Blockade::Stuck("db is not deployed".into()));
    }

    #[test]
    fn a_dependency_that_failed_fails_what_needs_it_and_no_other() {
        let failed = || known(|known| known.failed = Some("no".into()));
        let badly = || known(|known| known.ended = Some(Ended::Badly));
        let disabled = || known(|known| known.enabled = false);
        for (condition, known) in [
            (Condition::Healthy, failed()),
            (Condition::Started, disabled()),
            (Condition::Completed, badly()),
        ] {
            let found = blockade([(&on(condition, true), known.clone())]);
            assert!(matches!(found, Blockade::Fails(_)), "{found:?}");
            let found = blockade([(&on(condition, false), known)]);
            assert_eq!(found, Blockade::Open);
        }
        let waits = (&on(Condition::Healthy, true), None);
        let fails = (&on(Condition::Healthy, true), failed());
        let found = blockade([waits, fails]);
        assert_eq!(
            found,
            Blockade::Fails("it needs db, which failed: no".into()),
            "nobody waits for what comes to nothing"
        );
        assert_eq!(
            blockade([(&on(Condition::Started, false), None)]),
            Blockade::Open
        );
    }
}
