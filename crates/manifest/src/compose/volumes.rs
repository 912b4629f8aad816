//! The top-level `volumes`: what the names that services mount stand for.

use std::collections::BTreeMap;

use layby_model::AppName;

use crate::compose::pairs;
use crate::compose::project::Project;
use crate::compose::tmpfs::Tmpfs;
use crate::fields::{Fields, parsed};
use crate::mount::{self, volume_name};
use crate::report::Report;
use crate::tree::{Entry, Node, Place, Value, cut};

/// What a name stands for.
#[derive(Debug, Clone)]
pub(crate) enum Volume {
    /// A volume of the node.
    Named {
        name: String,
        external: bool,
        labels: BTreeMap<String, String>,
    },
    /// A folder of the machine (`driver_opts: {type: none, o: bind, device: PATH}`).
    Bind {
        path: String,
        recursive: bool,
        read_only: bool,
    },
    /// Memory (`driver_opts: {type: tmpfs, device: tmpfs}`).
    Tmpfs(Tmpfs),
}

/// Takes `volumes` off the top of a Compose file, and puts them into the project.
pub(crate) fn read(top: &mut Fields, project: &mut Project<'_>, report: &mut Report) {
    let Some(mut map) = top.map("volumes", report) else {
        return;
    };
    map.accept_extensions();
    for entry in map.rest() {
        let key = entry.key.clone();
        let volume = volume(entry, project, report);
        project.volumes.insert(key, volume);
    }
}

fn volume(entry: Entry, project: &Project<'_>, report: &mut Report) -> Option<Volume> {
    let what = format!("the volume {:?}", cut(&entry.key));
    let mut fields = Fields::open(entry.value, what, report)?;
    let external = external(&mut fields, report);
    let given = fields.parsed("name", report, volume_name);
    fields.parsed("driver", report, |text| match text {
        "" | "local" | "default" => Ok(()),
        _ => Err("local (no other driver is supported)".to_owned()),
    });
    let labels_name = fields.name("labels");
    let labels = fields
        .take("labels")
        .map(|node| pairs::labels(node, &labels_name, report))
        .unwrap_or_default();
    let labels = mount::labels(labels, &fields.what, &entry.place, report);
    let options = fields.map("driver_opts", report);
    fields.accept_extensions();
    fields.finish(report);
    if let Some(options) = options {
        return driver_options(options, project, report);
    }
    let external_name = external.as_ref().and_then(|external| external.name.clone());
    let name = match given.or(external_name) {
        Some(name) => name,
        None if external.is_some() => checked(&entry.key, &entry.place, report)?,
        None => checked(
            &of_app(project.name.as_ref(), &entry.key),
            &entry.place,
            report,
        )?,
    };
    Some(Volume::Named {
        name,
        external: external.is_some(),
        labels,
    })
}

/// A volume's name on the node, where nothing else is said: Compose's `<project>_<key>`.
pub(crate) fn of_app(app: Option<&AppName>, key: &str) -> String {
    // Without a name of the app there is an error already.
    format!("{}_{key}", app.map_or("app", AppName::as_str))
}

fn checked(name: &str, place: &Place, report: &mut Report) -> Option<String> {
    match volume_name(name) {
        Ok(name) => Some(name),
        Err(expected) => {
            report.error(place, format!("{:?} must be {expected}", cut(name)));
            None
        }
    }
}

/// Something that is there already, and is not the manifest's.
pub(crate) struct External {
    /// Its name in the older form, `external: {name: ...}`.
    pub(crate) name: Option<String>,
}

/// Takes `external` off a volume, a network or the like; `None`: it is the manifest's own.
pub(crate) fn external(volume: &mut Fields, report: &mut Report) -> Option<External> {
    let place = volume.place_of("external")?;
    let node = volume.take("external")?;
    if let Value::Map(_) = node.value {
        let mut fields = Fields::open(node, volume.name("external"), report)?;
        let name = fields.parsed("name", report, volume_name);
        fields.finish(report);
        return Some(External { name });
    }
    let entry = Entry {
        key: "external".to_owned(),
        place,
        value: node,
    };
    volume.put_back(entry);
    volume
        .flag("external", report)?
        .then_some(External { name: None })
}

/// The options of the driver `local`, which are those of mount(8).
fn driver_options(
    mut options: Fields,
    project: &Project<'_>,
    report: &mut Report,
) -> Option<Volume> {
    let place = options.place.clone();
    let kind = options.text("type", report).unwrap_or_default();
    let device = options.take("device");
    let flags = options.take("o");
    let what = options.what.clone();
    options.finish(report);
    let words = flags.as_ref().and_then(Node::scalar).unwrap_or_default();
    let has = |word: &str| words.split(',').any(|one| one == word);
    match kind.as_str() {
        "none" | "bind" | "" if has("bind") || has("rbind") => {
            let Some(device) = device else {
                report.error(&place, format!("{what} has no \"device\": which folder?"));
                return None;
            };
            let name = format!("\"device\" in {what}");
            let path = parsed(&device, &name, report, |text| project.path(text))?;
            Some(Volume::Bind {
                path,
                recursive: has("rbind"),
                read_only: has("ro"),
            })
        }
        "tmpfs" => {
            let flags_place = flags.as_ref().map_or(&place, |node| &node.place);
            let mut tmpfs = match &flags {
                Some(node) => parsed(node, &format!("\"o\" in {what}"), report, Tmpfs::read)?,
                None => Tmpfs::default(),
            };
            tmpfs.warn(&what, flags_place, report);
            tmpfs.ignored.clear();
            Some(Volume::Tmpfs(tmpfs))
        }
        kind => {
            let message = format!(
                "{what} asks for the type {:?}: only folders (type: none, o: bind) and tmpfs are supported; mount anything else on the machine, and name the folder that it is in there",
                cut(kind)
            );
            report.error(&place, message);
            None
        }
    }
}
