//! Where other programs understand a file of the corpus otherwise, and why.

/// One difference, or several of a kind.
#[derive(Debug)]
pub(crate) struct Difference {
    /// Whose; `*` stands for anything, here and below.
    pub(crate) program: &'static str,
    /// In which file.
    pub(crate) case: &'static str,
    /// At which value of the normal form.
    pub(crate) path: &'static str,
    pub(crate) reason: &'static str,
}

#[rustfmt::skip]
pub(crate) const DIFFERENCES: &[Difference] = &[
    of("docker-compose", "*", "x-*", "it leaves extensions out"),
    of("docker-compose", "cpu-*", "services.web.cpu_*", "it writes microseconds without their unit"),
    of("docker-compose", "env-file*", "services.web.environment.C", "it fills no variables into env files; the specification does"),
    of("docker-compose", "example-labels", "services.mapi.deploy.resources.limits.cpus", "it writes 1 as 1.0"),
    of("docker-compose", "healthcheck-off", "services.web.healthcheck*", "it writes what is switched off as a test"),
    of("docker-compose", "profiles*", "services.*", "it shows services that no profile switches on, too"),
    of("docker-compose", "variables-nested", "services.web.image", "it knows no defaults in defaults; the specification does"),
    of("docker-compose", "volumes-from-another", "services.web.volumes_from*", "it says that a service is one"),
    of("podman-compose", "*", "services.*.mode", "it takes modes for numbers of YAML 1.1, and writes them in decimal"),
    of("podman-compose", "env-files-of-the-caller", "services.web.image", "it reads the last of several env files only"),
    of("podman-compose", "include-*", "*", "it takes paths of included files from the folder of the one that includes them; the specification, from their own"),
    of("podman-compose", "merge-of-log-drivers", "services.web.logging.*", "it gives one driver the options of another; the specification does not"),
    of("podman-compose", "dollars-that-are-none", "*", "it writes a $ as it is, which is not read as one again"),
];

const fn of(
    program: &'static str,
    case: &'static str,
    path: &'static str,
    reason: &'static str,
) -> Difference {
    Difference {
        program,
        case,
        path,
        reason,
    }
}

/// What is said against a file or its normal form; `path` is what is said.
#[rustfmt::skip]
pub(crate) const REMARKS: &[Difference] = &[
    of("compose-lens", "anchors-in-an-environment", "as written: compose.model.expected-scalar:*", "it does not fill in anchors before it looks"),
    of("compose-lens", "external-by-the-older-form", "as written: compose.resource.external-name-mapping-deprecated:*", "it is the older form"),
    of("compose-lens", "version-and-name", "as written: compose.version.obsolete:*", "it is"),
    of("compose-lens", "extra-hosts-as-a-map", "as written: compose.model.expected-scalar:*", "the schema takes a list of addresses"),
    of("compose-lens", "variables-as-numbers", "as written: compose.model.expected-field-form:*", "it does not fill in variables before it looks"),
    of("compose-lens", "gpus-*", "*: compose.gpus.missing-capabilities:*", "the schema does not ask for capabilities, and what a device can do its CDI file says"),
    of("compose-lens", "security-options", "*: compose.security-opt.*", "Docker takes label=disable, too"),
    of("compose-lens", "tmpfs-several", "*: compose.tmpfs.*", "its own caution: Docker takes these options"),
    of("compose-lens", "*", "normal: compose.*.provider-dependent-string:*", "sizes in bytes are written as Docker's Compose writes them"),
    of("compose-lens", "deploy-*-job", "*: compose.deploy.mode.portability:*", "they are Swarm's, and jobs here"),
    of("compose-lens", "ulimits", "as written: compose.ulimits.missing-range-member:*", "it loses the last key of a map in braces"),
    of("compose-lens", "extends-of-a-folder", "as written: compose.extends.missing-service:*", "it loses the last key of a map in braces"),
];

/// Keys of the schema that no normal form has, each with the reason.
pub(crate) const UNKNOWN_KEYS: &[(&str, &str)] = &[
    ("include*", "what is included is put in"),
    ("services.*.env_file*", "what the files say is put in"),
    ("services.*.extends*", "what is extended is put in"),
    (
        "*.external.name",
        "the newer form is `external: true` and the name beside it",
    ),
    ("version", "it says nothing"),
];
