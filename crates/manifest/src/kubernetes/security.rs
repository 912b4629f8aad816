//! `securityContext`, of a pod (`v1.PodSecurityContext`) and of a container (`v1.SecurityContext`).

use std::collections::BTreeMap;

use layby_model::options::ContainerOptions;

use crate::capability::{Added, capability};
use crate::fields::Fields;
use crate::report::Report;
use crate::sysctl::sysctl;
use crate::tree::{Place, cut};

/// The greatest user or group id; the one after it means "none" to Linux.
const MAX_ID: u32 = u32::MAX - 1;

/// `runAsUser` and `runAsGroup`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RunAs {
    user: Option<u32>,
    group: Option<u32>,
}

impl RunAs {
    fn read(context: &mut Fields, report: &mut Report) -> Self {
        Self {
            user: context.count("runAsUser", 0..=MAX_ID, report),
            group: context.count("runAsGroup", 0..=MAX_ID, report),
        }
    }

    /// What is not said here is as `outer` says.
    fn or(self, outer: Self) -> Self {
        Self {
            user: self.user.or(outer.user),
            group: self.group.or(outer.group),
        }
    }

    /// As a container's `user`.
    pub(crate) fn user(self) -> Option<String> {
        match (self.user, self.group) {
            (Some(user), Some(group)) => Some(format!("{user}:{group}")),
            (Some(user), None) => Some(user.to_string()),
            // Without a user it is the image's, which is root more often than not.
            (None, Some(group)) => Some(format!("0:{group}")),
            (None, None) => None,
        }
    }
}

/// The filter of system calls that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seccomp {
    Default,
    Unconfined,
}

/// What a pod's context says for all of its containers.
#[derive(Debug, Default)]
pub(crate) struct PodSecurity {
    run_as: RunAs,
    groups: Vec<String>,
    seccomp: Option<Seccomp>,
    pub(crate) sysctls: BTreeMap<String, String>,
    /// The group of the volumes that are made for it.
    pub(crate) fs_group: Option<u32>,
}

/// Takes the context off a pod.
pub(crate) fn pod(pod: &mut Fields, report: &mut Report) -> PodSecurity {
    let Some(mut context) = pod.map("securityContext", report) else {
        return PodSecurity::default();
    };
    let mut security = PodSecurity {
        run_as: RunAs::read(&mut context, report),
        groups: context.parsed_list("supplementalGroups", report, group),
        seccomp: seccomp(&mut context, report),
        sysctls: sysctls(&mut context, report),
        fs_group: context.count("fsGroup", 0..=MAX_ID, report),
    };
    if let Some(group) = security.fs_group {
        security.groups.push(group.to_string());
    }
    not_root(&mut context, security.run_as, report);
    // Files that are there already keep their owners.
    context.accept(&["fsGroupChangePolicy"]);
    context.unsupported(
        &[
            "appArmorProfile",
            "seLinuxChangePolicy",
            "seLinuxOptions",
            "supplementalGroupsPolicy",
            "windowsOptions",
        ],
        report,
    );
    context.finish(report);
    security
}

/// Takes the context off a container; what it says goes over what the pod's says.
pub(crate) fn container(
    container: &mut Fields,
    pod: &PodSecurity,
    report: &mut Report,
) -> (RunAs, ContainerOptions, Option<Added>) {
    let mut options = ContainerOptions {
        group_add: pod.groups.clone(),
        ..ContainerOptions::default()
    };
    let mut filter = pod.seccomp;
    let mut run_as = pod.run_as;
    let mut added = None;
    if let Some(mut context) = container.map("securityContext", report) {
        run_as = RunAs::read(&mut context, report).or(pod.run_as);
        filter = seccomp(&mut context, report).or(filter);
        options.privileged = context.flag("privileged", report).unwrap_or(false);
        options.read_only = context
            .flag("readOnlyRootFilesystem", report)
            .unwrap_or(false);
        options.no_new_privileges = context
            .flag("allowPrivilegeEscalation", report)
            .map(|allowed| !allowed);
        if let Some(mut capabilities) = context.map("capabilities", report) {
            added = capabilities.place_of("add").map(|place| Added {
                place,
                name: capabilities.name("add"),
                way_out: "hostUsers: true",
            });
            options.cap_add = capabilities.parsed_list("add", report, capability);
            options.cap_drop = capabilities.parsed_list("drop", report, capability);
            capabilities.finish(report);
        }
        not_root(&mut context, run_as, report);
        if let Some(entry) = context.entry("procMount")
            && entry.value.scalar() != Some("Default")
        {
            context.put_back(entry);
        }
        context.unsupported(
            &[
                "appArmorProfile",
                "procMount",
                "seLinuxOptions",
                "windowsOptions",
            ],
            report,
        );
        context.finish(report);
    }
    options.seccomp = match filter {
        Some(Seccomp::Unconfined) => Some("unconfined".to_owned()),
        Some(Seccomp::Default) | None => None,
    };
    (run_as, options, added)
}

fn group(text: &str) -> Result<String, String> {
    match text.parse::<u32>() {
        Ok(id) if id <= MAX_ID => Ok(id.to_string()),
        _ => Err(format!("the number of a group, from 0 to {MAX_ID}")),
    }
}

/// `runAsNonRoot`: kept where the manifest itself names a user; an image's user is not looked at.
fn not_root(context: &mut Fields, run_as: RunAs, report: &mut Report) {
    let Some(place) = context.place_of("runAsNonRoot") else {
        return;
    };
    let wanted = context.flag("runAsNonRoot", report).unwrap_or(false);
    let name = context.name("runAsNonRoot");
    match run_as.user {
        _ if !wanted => {}
        Some(0) => report.error(
            &place,
            format!("{name} contradicts \"runAsUser\", which is 0"),
        ),
        Some(_) => {}
        None => report.warn(
            &place,
            format!("{name} is not checked: say which user it is with \"runAsUser\""),
        ),
    }
}

fn seccomp(context: &mut Fields, report: &mut Report) -> Option<Seccomp> {
    let mut profile = context.map("seccompProfile", report)?;
    let seccomp = profile.parsed("type", report, |text| match text {
        "RuntimeDefault" => Ok(Seccomp::Default),
        "Unconfined" => Ok(Seccomp::Unconfined),
        "Localhost" => {
            Err("RuntimeDefault or Unconfined (no other filter is supported yet)".to_owned())
        }
        _ => Err("RuntimeDefault or Unconfined".to_owned()),
    });
    // Goes with the type that is refused above.
    profile.accept(&["localhostProfile"]);
    profile.finish(report);
    seccomp
}

fn sysctls(context: &mut Fields, report: &mut Report) -> BTreeMap<String, String> {
    let what = format!("an item of {}", context.name("sysctls"));
    let mut settings = BTreeMap::new();
    for node in context.list("sysctls", report).unwrap_or_default() {
        let Some(mut fields) = Fields::open(node, what.as_str(), report) else {
            continue;
        };
        let place: Place = fields.place.clone();
        let name = fields.parsed("name", report, sysctl);
        let value = fields.text("value", report);
        fields.finish(report);
        match (name, value) {
            (Some(name), Some(value)) => {
                settings.insert(name, value);
            }
            (Some(name), None) => {
                report.error(
                    &place,
                    format!("{what}, {:?}, has no \"value\"", cut(&name)),
                );
            }
            (None, _) => {}
        }
    }
    settings
}
