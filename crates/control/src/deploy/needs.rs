//! What services of one deploy have to do with each other, since one depends on another.

use layby_model::ServiceId;
use layby_model::spec::AppSpec;

use crate::api::types::Problem;
use crate::store::{NewRevision, Row};

/// Refuses a revision that would wait for ever: what it needs is not deployed, and does not come with it.
///
/// # Errors
/// 409, naming both services.
pub(super) fn check(rows: &[Row], revisions: &[NewRevision]) -> Result<(), Problem> {
    for new in revisions {
        let app = &new.service.app;
        for dependency in &new.spec.service.depends_on {
            let id = ServiceId::new(app.clone(), dependency.service.clone());
            let there = rows.iter().any(|row| row.service == id && !row.removing)
                || revisions.iter().any(|other| other.service == id);
            if dependency.required && !there {
                let text = format!("{} depends on {id}, which is not deployed", new.service);
                return Err(Problem::conflict(text)
                    .hint("deploy both with `layby up`, or take it out of depends_on"));
            }
        }
    }
    Ok(())
}

/// Takes out of an app what its services would wait for, and what is neither deployed nor comes with them, as `--no-deps`
/// has it. Says so.
pub(super) fn cut(rows: &[Row], app: &mut AppSpec) -> Vec<String> {
    let mut said = Vec::new();
    let comes: Vec<_> = app.services.iter().map(|one| one.name.clone()).collect();
    for service in &mut app.services {
        service.depends_on.retain(|dependency| {
            let id = ServiceId::new(app.name.clone(), dependency.service.clone());
            let is_there = rows.iter().any(|row| row.service == id && !row.removing);
            let stays = is_there || comes.contains(&dependency.service);
            if !stays {
                said.push(format!(
                    "{} goes without {id}, which is not deployed",
                    service.name
                ));
            }
            stays
        });
    }
    said
}

/// Moves those of the unchanged ones to the changed ones that are to be made anew whenever what they depend on is.
pub(super) fn follow(changed: &mut Vec<NewRevision>, same: &mut Vec<NewRevision>) {
    loop {
        let follows = same.iter().position(|new| {
            let mut restarts = new.spec.service.depends_on.iter().filter(|d| d.restart);
            restarts.any(|dependency| {
                let is_it = |other: &NewRevision| {
                    other.service.app == new.service.app
                        && other.service.service == dependency.service
                };
                changed.iter().any(is_it)
            })
        });
        let Some(at) = follows else {
            return;
        };
        changed.push(same.remove(at));
    }
}
