//! Devices of a service: `devices`, `gpus`, and `deploy.resources.reservations.devices`.

use layby_model::options::Device;

use crate::device::{MAX_COUNT, cdi, first, kind_of_driver, of_kind};
use crate::fields::{Expected, Fields, parsed};
use crate::report::Report;
use crate::tree::{Node, Value};

/// The most devices of a service.
const MAX_DEVICES: usize = 200;

/// The devices of a service.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    pub(crate) devices: Vec<Device>,
    pub(crate) cdi: Vec<String>,
}

/// Takes `devices` and `gpus` off a service.
pub(crate) fn read(service: &mut Fields, report: &mut Report) -> Devices {
    let mut read = Devices::default();
    let name = service.name("devices");
    let item_name = format!("an item of {name}");
    let items = service.list("devices", report).unwrap_or_default();
    if let Some(item) = items.get(MAX_DEVICES) {
        report.error(
            &item.place,
            format!("{name} has more than {MAX_DEVICES} items"),
        );
    }
    for item in items.into_iter().take(MAX_DEVICES) {
        if matches!(item.value, Value::Map(_)) {
            read.devices.extend(long(item, &item_name, report));
            continue;
        }
        match parsed(&item, &item_name, report, short) {
            Some(Short::Path(device)) => read.devices.push(device),
            Some(Short::Cdi(name)) => read.cdi.push(name),
            None => {}
        }
    }
    if let Some(node) = service.take("gpus") {
        let name = service.name("gpus");
        match &node.value {
            Value::Scalar { .. } => {
                let all = parsed(&node, &name, report, |text| match text {
                    "all" => kind_of_driver("").map(|kind| first(&kind, None)),
                    _ => Err("all, or a list of devices".to_owned()),
                });
                read.cdi.extend(all.unwrap_or_default());
            }
            _ => read.cdi.extend(requests(node, &name, report)),
        }
    }
    read
}

enum Short {
    Path(Device),
    Cdi(String),
}

/// `SOURCE[:TARGET[:PERMISSIONS]]`, or a CDI device.
fn short(text: &str) -> Result<Short, Expected> {
    if !text.starts_with('/') {
        return cdi(text)
            .map(Short::Cdi)
            .map_err(|expected| format!("/dev/...[:TARGET[:rwm]], or {expected}"));
    }
    let parts: Vec<&str> = text.split(':').collect();
    let device = match parts[..] {
        [source] => device(source, source, "rwm"),
        // As Docker has it, the second part may be the permissions alone.
        [source, rights] if !rights.starts_with('/') => device(source, source, rights),
        [source, target] => device(source, target, "rwm"),
        [source, target, rights] => device(source, target, rights),
        _ => Err("/dev/...[:TARGET[:rwm]]".to_owned()),
    };
    device.map(Short::Path)
}

fn long(item: Node, name: &str, report: &mut Report) -> Option<Device> {
    let mut fields = Fields::open(item, name, report)?;
    let place = fields.place.clone();
    let source = fields.text("source", report);
    let target = fields.text("target", report);
    let rights = fields.text("permissions", report);
    fields.accept_extensions();
    fields.finish(report);
    let Some(source) = source else {
        report.error(&place, format!("{name} has no \"source\""));
        return None;
    };
    let target = target.as_deref().unwrap_or(&source);
    match device(&source, target, rights.as_deref().unwrap_or("rwm")) {
        Ok(device) => Some(device),
        Err(expected) => {
            report.error(&place, format!("{name} must be {expected}"));
            None
        }
    }
}

fn device(source: &str, target: &str, rights: &str) -> Result<Device, Expected> {
    let is_path = |path: &str| path.starts_with('/') && !path.split('/').any(|part| part == "..");
    if !is_path(source) || !is_path(target) {
        return Err("a device by absolute paths, such as /dev/ttyUSB0:/dev/ttyUSB0".to_owned());
    }
    let known = |c: char| "rwm".contains(c);
    if rights.is_empty() || rights.len() > 3 || !rights.chars().all(known) {
        return Err("a device with permissions of r, w and m".to_owned());
    }
    Ok(Device {
        source: source.to_owned(),
        target: target.to_owned(),
        permissions: rights.to_owned(),
    })
}

/// Reads requests for devices by their kind, as `gpus` and `reservations.devices` have them.
pub(crate) fn requests(node: Node, name: &str, report: &mut Report) -> Vec<String> {
    let mut all = Vec::new();
    for item in crate::fields::list(node, name, report).unwrap_or_default() {
        if all.len() >= MAX_DEVICES {
            report.error(
                &item.place,
                format!("{name} asks for more than {MAX_DEVICES} devices"),
            );
            break;
        }
        let Some(mut fields) = Fields::open(item, format!("an item of {name}"), report) else {
            continue;
        };
        let driver_at = fields.place_of("driver");
        let driver = fields.text("driver", report).unwrap_or_default();
        let kind = match driver.as_str() {
            // The ids are whole names then.
            "cdi" => None,
            driver => match kind_of_driver(driver) {
                Ok(kind) => Some(kind),
                Err(expected) => {
                    let message = format!("{} must be {expected}", fields.name("driver"));
                    report.error(driver_at.as_ref().unwrap_or(&fields.place), message);
                    continue;
                }
            },
        };
        let count_given = fields.has("count");
        let count = fields.parsed("count", report, |text| match text {
            "all" | "-1" => Ok(None),
            text => match text.parse() {
                Ok(count) if (1..=MAX_COUNT).contains(&count) => Ok(Some(count)),
                _ => Err(format!("all, or a number from 1 to {MAX_COUNT}")),
            },
        });
        let ids_given = fields.has("device_ids");
        let ids = fields.parsed_list("device_ids", report, |id| match &kind {
            Some(kind) if !id.contains('=') => of_kind(kind, id),
            _ => cdi(id),
        });
        // What a device can do its CDI file says.
        fields.accept(&["capabilities"]);
        fields.unsupported(&["options"], report);
        fields.accept_extensions();
        let (place, what) = (fields.place.clone(), fields.what.clone());
        fields.finish(report);
        match kind {
            _ if count_given && ids_given => report.error(
                &place,
                format!("{what} has both \"count\" and \"device_ids\": one is enough"),
            ),
            _ if ids_given => all.extend(ids),
            Some(kind) => all.extend(first(&kind, count.flatten())),
            None => report.error(
                &place,
                format!("{what} has the driver cdi, and so needs \"device_ids\" such as vendor.com/class=name"),
            ),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Option<(String, String, String)> {
        match short(text) {
            Ok(Short::Path(device)) => Some((device.source, device.target, device.permissions)),
            Ok(Short::Cdi(_)) | Err(_) => None,
        }
    }

    #[test]
    fn a_device_is_read_as_docker_writes_it() {
        let cases = [
            ("/dev/a", ("/dev/a", "/dev/a", "rwm")),
            ("/dev/a:/dev/b", ("/dev/a", "/dev/b", "rwm")),
            ("/dev/a:r", ("/dev/a", "/dev/a", "r")),
            ("/dev/a:/dev/b:rw", ("/dev/a", "/dev/b", "rw")),
        ];
        for (text, (source, target, rights)) in cases {
            let expected = (source.to_owned(), target.to_owned(), rights.to_owned());
            assert_eq!(path(text), Some(expected), "{text}");
        }
        for bad in ["/dev/a:x", "/dev/../a", "/dev/a:/b:r:w", "/dev/a:"] {
            assert_eq!(path(bad), None, "{bad}");
        }
        assert!(matches!(short("v.com/c=0"), Ok(Short::Cdi(_))));
        assert!(short("dev/a").is_err());
    }
}
