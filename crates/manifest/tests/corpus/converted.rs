//! Every file of the corpus as Kubernetes YAML: it is written down in `kubernetes.txt`, Layby reads it as the same app, and
//! kubernetes-validate has nothing to say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use layby_manifest::{Bound, ConvertOptions, Converted, Files, ReadOptions, convert, read};
use layby_model::spec::AppSpec;

use super::{Case, fits, flat, options, root, sections, sorted};

/// Where kubernetes-validate is.
const VALIDATE: &str = "LAYBY_KUBERNETES_VALIDATE";

/// What the machine of the corpus has at the paths that are mounted from there.
fn machine() -> BTreeMap<String, Bound> {
    let file = |text: &str| Bound::File(text.as_bytes().to_vec());
    let all = [
        ("/etc/localtime", Bound::Machine),
        ("/srv/demo/site.conf", file("listen 80;\n")),
        ("/srv/demo/logo.png", Bound::File(vec![0x89, 0x50])),
        ("/srv/demo/tls.key", Bound::Private),
        ("/srv/demo/mail.txt", file("a password that all may read")),
        ("/srv/demo/my token", file("a token that all may read")),
        ("/home/me/.netrc", Bound::Private),
    ];
    all.map(|(path, bound)| (path.to_owned(), bound)).into()
}

/// The corpus, and files that are only for this.
fn cases() -> Vec<Case> {
    let mut cases = super::cases();
    for file in sorted(&root().join("converted")) {
        let name = super::name(&file);
        let chosen = format!("{name}.yaml");
        let mut options = options();
        options.files.push(chosen.clone());
        options.named_files = Some([("./site.conf".to_owned(), b"listen 80;\n".to_vec())].into());
        options.secrets_apart = true;
        cases.push(Case {
            files: Files([(chosen, fs::read(&file).unwrap())].into()),
            name,
            options,
        });
    }
    cases
}

fn made(case: &Case) -> Result<Converted, BTreeSet<String>> {
    let how = ConvertOptions {
        bound: Some(machine()),
        ..ConvertOptions::default()
    };
    convert(&case.files, &case.options, &how).map_err(|faults| {
        faults
            .errors
            .into_iter()
            .map(|error| error.message)
            .collect()
    })
}

fn text(converted: &Converted) -> String {
    let texts: Vec<&str> = converted
        .objects
        .iter()
        .map(|one| one.text.as_str())
        .collect();
    texts.join("---\n")
}

fn again(case: &Case, converted: &Converted) -> AppSpec {
    let name = &case.name;
    let text = text(converted);
    let files = Files([("app.yaml".to_owned(), text.clone().into_bytes())].into());
    let options = ReadOptions {
        folder: "elsewhere".to_owned(),
        ..ReadOptions::default()
    };
    match read(&files, &options) {
        Ok(manifest) => manifest.app,
        Err(faults) => panic!("{name}: {faults}\n{text}"),
    }
}

#[test]
fn every_file_that_is_deployed_is_converted_as_is_written_down() {
    let mut all = String::new();
    for case in cases() {
        let name = &case.name;
        match (made(&case), read(&case.files, &case.options)) {
            (Ok(converted), Ok(manifest)) => {
                writeln!(all, "=== {name}").unwrap();
                // What is told of any manifest, other tests hold.
                let own = converted.warnings.iter();
                for warning in own.filter(|one| !manifest.warnings.contains(one)) {
                    writeln!(all, "# warning: {warning}").unwrap();
                }
                all += &text(&converted);
                again(&case, &converted);
            }
            (Err(_), Err(_)) => {}
            (one, other) => panic!("{name}: only one is taken: {one:?} {other:?}"),
        }
    }
    let file = root().join("kubernetes.txt");
    if env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&file, &all).unwrap();
    }
    let expected = sections("kubernetes.txt");
    for part in all.split("=== ").skip(1) {
        let (name, body) = part.split_once('\n').unwrap();
        let known = expected.get(name).map_or("", String::as_str);
        let differs = |(now, was): &(&str, &str)| now != was;
        let mut lines = body.lines().chain([""]).zip(known.lines().chain([""]));
        let first = lines.find(differs);
        assert!(body == known, "{name}: now and before: {first:?}");
    }
}

#[test]
fn kubernetes_validate_takes_every_object() {
    let Some(program) = env::var_os(VALIDATE) else {
        println!(
            "SKIPPED: {VALIDATE} names no kubernetes-validate (`cargo xtask test` installs it)"
        );
        return;
    };
    let texts = sections("kubernetes.txt");
    let all: Vec<&str> = texts.values().map(String::as_str).collect();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("converted.yaml");
    fs::write(&file, all.join("---\n")).unwrap();
    let mut command = Command::new(program);
    let output = command
        .args(["--strict", "--quiet"])
        .arg(&file)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn what_is_converted_is_read_as_the_same_app() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for case in cases() {
        let Ok(converted) = made(&case) else { continue };
        let app = read(&case.files, &case.options).unwrap().app;
        let (ours, theirs) = (values(&app), values(&again(&case, &converted)));
        let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let names = |app: &AppSpec| -> BTreeSet<String> {
            app.services
                .iter()
                .map(|one| one.name.to_string())
                .collect()
        };
        let theirs_called = again(&case, &converted);
        let both: BTreeSet<String> = &names(&app) & &names(&theirs_called);
        let renamed = converted
            .warnings
            .iter()
            .filter(|one| one.message.contains(" is called \""));
        assert!(
            names(&app).len() - both.len() <= renamed.count(),
            "{}",
            case.name
        );
        for path in paths {
            let service = path.split('.').next().unwrap_or_default();
            if !both.contains(service) {
                continue;
            }
            let (one, other) = (ours.get(path), theirs.get(path));
            if one == other {
                continue;
            }
            let shape = shape_of(path);
            let known = NATURE.iter().position(|(pattern, _)| fits(pattern, &shape));
            let is_told = || {
                let mut told = TOLD.iter().filter(|(pattern, _)| fits(pattern, &shape));
                told.any(|(_, words)| {
                    let mut warnings = converted.warnings.iter();
                    warnings.any(|warning| warning.message.contains(words))
                })
            };
            match known {
                Some(known) => drop(used.insert(known)),
                None if is_told() => {}
                None => wrong.push(format!("{}: {path}: {one:?}, again {other:?}", case.name)),
            }
        }
    }
    for (index, (pattern, _)) in NATURE.iter().enumerate() {
        if !used.contains(&index) {
            wrong.push(format!("no difference any more: {pattern}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What an app says, by its path; services go by their names.
fn values(app: &AppSpec) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for service in &app.services {
        let mut value = serde_json::to_value(service).unwrap();
        // A command without an entrypoint is the whole line, however that is said.
        for container in value["containers"].as_array_mut().unwrap() {
            let words = container["command"].as_array();
            if container["entrypoint"] == serde_json::json!([])
                && words.is_some_and(|words| !words.is_empty())
            {
                container["entrypoint"] = container["command"].take();
            }
        }
        // It is a volume in memory, or an option.
        for container in value["containers"].as_array_mut().unwrap() {
            let mounts = container["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["target"] != "/dev/shm");
        }
        flat(&value, service.name.as_str(), &mut all);
    }
    all
}

/// A path without the name of its service and the places in lists.
fn shape_of(path: &str) -> String {
    let below = path.split_once('.').map_or(path, |(_, below)| below);
    let mut shape = String::new();
    let mut is_inside = false;
    for c in below.chars() {
        match c {
            '[' => is_inside = true,
            ']' => is_inside = false,
            c if !is_inside => shape.push(c),
            _ => {}
        }
    }
    shape
}

/// Where the two differ by nature, and why.
const NATURE: [(&str, &str); 16] = [
    (
        "containers.stop_grace_ms",
        "where nothing is said, Compose gives 10 seconds, and Kubernetes 30",
    ),
    (
        "containers.build.always",
        "Kubernetes itself never builds: an annotation says where it could be",
    ),
    (
        "containers.mounts.source.files.content.secret.name",
        "a file is a key of a Secret or ConfigMap",
    ),
    (
        "containers.mounts.source.files.mode",
        "where nothing is said, Compose gives 0444, and Kubernetes 0644 for a file that cannot be written to either",
    ),
    (
        "containers.mounts.source.files.content.secret.scope",
        "a Secret that is made by hand may be anybody's",
    ),
    (
        "containers.mounts.source*",
        "what is in memory is an emptyDir, a volume has the labels of its claim, and nothing is copied into it",
    ),
    (
        "containers.liveness*",
        "a health check is when it is started again, too",
    ),
    (
        "containers.startup*",
        "while it starts, failures of neither count",
    ),
    (
        "containers.options.shm_size_bytes",
        "it is a volume in memory at /dev/shm",
    ),
    (
        "containers.platform",
        "it says on which machines of a cluster it can run",
    ),
    (
        "autoscale.min",
        "an autoscaler has one replica at least, which 0 means, too",
    ),
    ("containers.ports", "the port for requests is declared"),
    ("aliases", "a Service of its own leads to what is published"),
    (
        "published*",
        "the ports of a LoadBalancer are not those of this machine",
    ),
    ("ports*", "a port that is published is one of its Service"),
    ("containers.no_healthcheck", "a job is not asked how it is"),
];

/// What may differ where a warning with these words is given.
const TOLD: [(&str, &str); 41] = [
    ("containers.build*", "loses all but its folder"),
    ("containers.image", "is built and has no name"),
    ("containers.options.init", "\"init\" in service"),
    ("containers.options.cpu*", "\"cpu"),
    ("containers.options.cdi_devices", "a number of devices"),
    ("containers.options.devices*", "\"devices\" in service"),
    ("containers.options.ulimits*", "\"ulimits\" in service"),
    ("containers.options.oom_score_adj", "\"oom_score_adj\""),
    ("containers.resources.pids_limit", "is lost"),
    ("containers.options.group_add", "only numbers of groups"),
    ("containers.post_start*", "becomes one line of /bin/sh"),
    ("containers.pre_stop*", "becomes one line of /bin/sh"),
    ("containers.stop_signal", "\"stop_signal\""),
    ("containers.entrypoint", "cannot do without the ENTRYPOINT"),
    ("containers.env*", "no variable of a pod"),
    (
        "containers.options.no_new_privileges",
        "a privileged container cannot",
    ),
    ("containers.readiness.period_ms", "is rounded up"),
    ("containers.user", "only the number of a user"),
    ("strategy", "becomes a ConfigMap"),
    (
        "containers.resources.memory_request_bytes",
        "asks for more than the limit",
    ),
    ("containers.resources*", "\"x-layby.power\""),
    ("power", "\"x-layby.power\""),
    ("replicas", "Job"),
    ("replicas", "goes by requests"),
    ("replicas", "as many as its autoscaler says"),
    ("sandbox.dns_after_machines", "name servers give no answer"),
    ("sandbox.hostname", "\"hostname\" in service"),
    (
        "containers.options.group_add",
        "becomes the PersistentVolumeClaim",
    ),
    ("sandbox.fs_group", "becomes the PersistentVolumeClaim"),
    ("containers.command", "cannot do without the CMD"),
    ("containers.mounts*", "is left out"),
    ("depends_on*", "\"depends_on\" in service"),
    ("depends_on*", "\"links\" in service"),
    ("job*", "Job"),
    ("restart*", "are always started again"),
    ("restart*", "Job"),
    ("sandbox.extra_hosts*", "\"extra_hosts\" in service"),
    ("names", "is lost"),
    ("networks*", "of other apps: that is lost"),
    ("network_names*", "is lost: the name of a Service"),
    ("strategy", "\"network_mode\" in service"),
];
