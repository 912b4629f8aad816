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
    of("docker-compose", "healthcheck-off", "services.web.healthcheck*", "it writes what is switched off as a test"),
    of("docker-compose", "profiles*", "services.*", "it shows services that no profile switches on, too"),
    of("docker-compose", "variables-nested", "services.web.image", "it knows no defaults in defaults; the specification does"),
    of("docker-compose", "volumes-from-another", "services.web.volumes_from*", "it says that a service is one"),
    of("podman-compose", "*", "services.*.mode", "it takes modes for numbers of YAML 1.1, and writes them in decimal"),
    of("podman-compose", "env-files-of-the-caller", "services.web.image", "it reads the last of several env files only"),
    of("podman-compose", "include-*", "*", "it takes paths of included files from the folder of the one that includes them; the specification, from their own"),
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

/// What the schema does not take: the file, and what its words have in them.
pub(crate) const DIFFERENCES_OF_SCHEMA: &[(&str, &str)] = &[];

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
