//! `develop`: what is done when files of the developer change. It is read, so that a mistake in it shows; nothing watches yet.

use crate::compose::command;
use crate::fields::Fields;
use crate::report::Report;

/// What may be done.
const ACTIONS: [&str; 5] = ["rebuild", "restart", "sync", "sync+exec", "sync+restart"];

/// Takes `develop` off a service.
pub(crate) fn read(service: &mut Fields, report: &mut Report) {
    let Some(place) = service.place_of("develop") else {
        return;
    };
    let Some(mut develop) = service.map("develop", report) else {
        return;
    };
    for item in develop.list("watch", report).unwrap_or_default() {
        let what = format!("an item of {}", develop.name("watch"));
        if let Some(fields) = Fields::open(item, what, report) {
            rule(fields, report);
        }
    }
    develop.accept_extensions();
    develop.finish(report);
    let message = format!(
        "{} is ignored: nothing is watched; `layby up` builds and deploys what has changed",
        service.name("develop")
    );
    report.warn(&place, message);
}

fn rule(mut rule: Fields, report: &mut Report) {
    let action = rule.parsed("action", report, |text| match ACTIONS.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(ACTIONS.join(", ")),
    });
    let mut missing = Vec::new();
    missing.extend((!rule.has("path")).then_some("path"));
    rule.text("path", report);
    let is_synced = action
        .as_ref()
        .is_some_and(|action| action.starts_with("sync"));
    missing.extend((is_synced && !rule.has("target")).then_some("target"));
    rule.text("target", report);
    missing.extend(action.is_none().then_some("action"));
    for key in ["ignore", "include"] {
        rule.text_or_texts(key, report);
    }
    rule.flag("initial_sync", report);
    if let Some(mut exec) = rule.map("exec", report) {
        command::read(&mut exec, "command", report);
        for key in ["user", "working_dir"] {
            exec.text(key, report);
        }
        exec.flag("privileged", report);
        exec.accept(&["environment"]);
        exec.accept_extensions();
        exec.finish(report);
    }
    rule.accept_extensions();
    let (place, what) = (rule.place.clone(), rule.what.clone());
    rule.finish(report);
    if let Some(key) = missing.first() {
        report.error(&place, format!("{what} has no {key:?}"));
    }
}
