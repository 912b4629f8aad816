//! Credentials as Docker's config.json keeps them: in the file, or behind a helper program. Podman's auth.json is
//! of the same form.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::host::{DOCKER, canonical};
use crate::Error;
use crate::error::io_error;

/// How Docker's registry is called in its config, for historical reasons.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";
/// The user under which helpers give identity tokens.
const TOKEN_USER: &str = "<token>";
/// The longest config that is read, in bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// The most that a helper may say, in bytes.
const MAX_HELPER_BYTES: u64 = 64 << 10;
/// How long a helper may take: some ask a keyring that asks a person.
const HELPER_TIME: Duration = Duration::from_secs(30);

/// Who asks. Never shown: Debug leaves the secrets out.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user and a password (or an access token in its place).
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// An OAuth2 refresh token, which the token service takes.
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user:?}, ...)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(...)"),
        }
    }
}

/// Where credentials are looked for: config files, the first that knows the registry counts.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    files: Vec<PathBuf>,
}

/// A config file, as far as credentials go.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

impl Keyring {
    /// Looks into these files, in order. Those that are not there say nothing.
    pub fn new(files: Vec<PathBuf>) -> Self {
        Self { files }
    }

    /// The files of whoever runs this: `$REGISTRY_AUTH_FILE`, Docker's and podman's.
    pub fn user_files() -> Vec<PathBuf> {
        let dir = |name: &str| {
            env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let home = dir("HOME");
        let docker =
            dir("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
        [
            dir("REGISTRY_AUTH_FILE"),
            docker.map(|dir| dir.join("config.json")),
            dir("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
            home.map(|home| home.join(".config/containers/auth.json")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The credentials for a repository of a registry; podman keeps some for a part of a registry only.
    ///
    /// # Errors
    /// A file that cannot be read or understood, or a helper that fails.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Option<Credentials>, Error> {
        let registry = canonical(registry);
        for file in &self.files {
            let Some(config) = read(file)? else { continue };
            let config: Config = parse(file, &config)?;
            let helper = config
                .cred_helpers
                .iter()
                .find(|(key, _)| canonical(key) == registry)
                .map(|(_, helper)| helper)
                .or(config
                    .creds_store
                    .as_ref()
                    .filter(|store| !store.is_empty()));
            if let Some(helper) = helper
                && let Some(found) = ask_helper(helper, &server_key(&registry))?
            {
                return Ok(Some(found));
            }
            if let Some(entry) = config.entry(&registry, repository)
                && let Some(found) = entry.credentials(file, &registry)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The registries that the files name, with the user where it can be told; sorted, each once.
    ///
    /// # Errors
    /// A file that cannot be read or understood.
    pub fn list(&self) -> Result<Vec<(String, Option<String>)>, Error> {
        let mut known: BTreeMap<String, Option<String>> = BTreeMap::new();
        for file in &self.files {
            let Some(config) = read(file)? else { continue };
            let config: Config = parse(file, &config)?;
            for (key, entry) in &config.auths {
                let registry = canonical(key);
                let user = match entry.credentials(file, &registry)? {
                    Some(Credentials::Password { user, .. }) => Some(user),
                    Some(Credentials::IdentityToken(_)) | None => None,
                };
                known.entry(registry).or_insert(user);
            }
        }
        Ok(known.into_iter().collect())
    }
}

impl Config {
    /// The most special entry for a repository: `registry/a/b`, `registry/a`, `registry`.
    fn entry(&self, registry: &str, repository: &str) -> Option<&Entry> {
        let mut path = format!("{registry}/{repository}");
        loop {
            if path == registry {
                let mut entries = self.auths.iter();
                let whole = |key: &str| {
                    let scheme = key.contains("://");
                    canonical(key) == registry
                        && (scheme || !key.trim_end_matches('/').contains('/'))
                };
                return entries.find(|(key, _)| whole(key)).map(|(_, entry)| entry);
            }
            if let Some(entry) = self.auths.get(&path) {
                return Some(entry);
            }
            path.truncate(path.rfind('/')?);
        }
    }
}

impl Entry {
    fn credentials(&self, file: &Path, registry: &str) -> Result<Option<Credentials>, Error> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credentials::IdentityToken(token)));
        }
        if let Some(auth) = given(&self.auth) {
            // Nothing of the text itself may get into the error.
            let malformed = || Error::Malformed {
                what: file.display().to_string(),
                reason: format!("its auth for {registry} is not base64 of user:password"),
            };
            let bytes = STANDARD.decode(auth.trim()).map_err(|_| malformed())?;
            let text = String::from_utf8(bytes).map_err(|_| malformed())?;
            let (user, password) = text.split_once(':').ok_or_else(malformed)?;
            return Ok(Some(Credentials::Password {
                user: user.to_owned(),
                password: password.trim_end_matches('\0').to_owned(),
            }));
        }
        Ok(given(&self.username).map(|user| Credentials::Password {
            user,
            password: self.password.clone().unwrap_or_default(),
        }))
    }
}

/// Keeps a user and a password for a registry in a config file (mode 0600), beside what stands there.
///
/// # Errors
/// The file cannot be understood or written.
pub fn log_in(file: &Path, registry: &str, user: &str, password: &str) -> Result<(), Error> {
    if user.is_empty() || user.contains(':') || user.contains(char::is_control) {
        return Err(Error::Malformed {
            what: format!("the user {user:?}"),
            reason: "a user's name is not empty and holds no colon".to_owned(),
        });
    }
    let registry = canonical(registry);
    let auth = STANDARD.encode(format!("{user}:{password}"));
    change(file, |auths| {
        auths.retain(|key, _| canonical(key) != registry);
        auths.insert(server_key(&registry), serde_json::json!({ "auth": auth }));
        true
    })
    .map(drop)
}

/// Forgets a registry's credentials; `false`: there were none.
///
/// # Errors
/// The file cannot be understood or written.
pub fn log_out(file: &Path, registry: &str) -> Result<bool, Error> {
    let registry = canonical(registry);
    change(file, |auths| {
        let before = auths.len();
        auths.retain(|key, _| canonical(key) != registry);
        auths.len() != before
    })
}

/// Adds to a file (mode 0600) what another one held that is not in it; where both have something, the file's own stays.
///
/// # Errors
/// One of both cannot be understood, or the file cannot be read or written. It is as it was then.
pub fn adopt(file: &Path, theirs: &[u8]) -> Result<(), Error> {
    let mut theirs: Map<String, Value> = parse(Path::new("what is to be added"), theirs)?;
    let more = match theirs.remove("auths") {
        Some(Value::Object(more)) => more,
        None => Map::new(),
        Some(_) => return Err(no_auths("what is to be added")),
    };
    change_document(file, |document| {
        for (key, value) in theirs {
            document.entry(key).or_insert(value);
        }
        let auths = auths_of(file, document)?;
        let known: BTreeSet<String> = auths.keys().map(|key| canonical(key)).collect();
        auths.extend(
            more.into_iter()
                .filter(|(key, _)| !known.contains(&canonical(key))),
        );
        Ok(true)
    })
    .map(drop)
}

/// Changes the `auths` of a file, and keeps all else in it as it is.
fn change(file: &Path, edit: impl FnOnce(&mut Map<String, Value>) -> bool) -> Result<bool, Error> {
    change_document(file, |document| Ok(edit(auths_of(file, document)?)))
}

fn auths_of<'d>(
    file: &Path,
    document: &'d mut Map<String, Value>,
) -> Result<&'d mut Map<String, Value>, Error> {
    let auths = document
        .entry("auths")
        .or_insert_with(|| Value::Object(Map::new()));
    auths
        .as_object_mut()
        .ok_or_else(|| no_auths(&file.display().to_string()))
}

fn no_auths(what: &str) -> Error {
    Error::Malformed {
        what: what.to_owned(),
        reason: "its auths are no object".to_owned(),
    }
}

/// Changes a file, if `edit` says that there is something to write.
fn change_document(
    file: &Path,
    edit: impl FnOnce(&mut Map<String, Value>) -> Result<bool, Error>,
) -> Result<bool, Error> {
    let mut document: Map<String, Value> = match read(file)? {
        Some(bytes) => parse(file, &bytes)?,
        None => Map::new(),
    };
    if !edit(&mut document)? {
        return Ok(false);
    }
    let mut bytes = serde_json::to_vec_pretty(&document).unwrap_or_default();
    bytes.push(b'\n');
    let aside = file.with_extension("new");
    let written = || {
        // Left by a crash, perhaps with another mode.
        let _ = fs::remove_file(&aside);
        let mut options = fs::OpenOptions::new();
        let mut new = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&aside)?;
        new.set_permissions(fs::Permissions::from_mode(0o600))?;
        new.write_all(&bytes)?;
        new.sync_all()?;
        fs::rename(&aside, file)?;
        match file.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            Some(dir) => fs::File::open(dir)?.sync_all(),
            None => fs::File::open(".")?.sync_all(),
        }
    };
    written().map_err(io_error("write", file))?;
    Ok(true)
}

fn read(file: &Path) -> Result<Option<Vec<u8>>, Error> {
    let opened = match fs::File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("open", file)(error)),
    };
    let mut bytes = Vec::new();
    let read = opened.take(MAX_CONFIG_BYTES).read_to_end(&mut bytes);
    read.map_err(io_error("read", file))?;
    Ok(Some(bytes))
}

fn parse<T: serde::de::DeserializeOwned>(file: &Path, bytes: &[u8]) -> Result<T, Error> {
    // serde's message could quote a secret: only where it stands is told.
    serde_json::from_slice(bytes).map_err(|error| Error::Malformed {
        what: file.display().to_string(),
        reason: format!(
            "it is not a Docker config (line {}, column {})",
            error.line(),
            error.column()
        ),
    })
}

/// How config files and helpers call a registry.
fn server_key(registry: &str) -> String {
    match registry {
        DOCKER => DOCKER_KEY.to_owned(),
        other => other.to_owned(),
    }
}

/// Runs `docker-credential-NAME get` (docker-credential-helpers). `None`: it has none for this registry.
fn ask_helper(name: &str, server: &str) -> Result<Option<Credentials>, Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let program = format!("docker-credential-{name}");
    let failed = |reason: String| Error::Malformed {
        what: format!("the answer of {program}"),
        reason,
    };
    if !name.bytes().all(plain) {
        return Err(failed(
            "its name is not of letters, digits, `.`, `_` and `-`".to_owned(),
        ));
    }
    run_helper(&program, server)
}

fn run_helper(program: &str, server: &str) -> Result<Option<Credentials>, Error> {
    let failed = |reason: String| Error::Malformed {
        what: format!("the answer of {program}"),
        reason,
    };
    let spawned = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = spawned.map_err(io_error("run", Path::new(program)))?;
    // What does not fit into the pipe would block, but a server's name does; the end of input comes with the drop.
    let asked = child
        .stdin
        .take()
        .map(|mut stdin| stdin.write_all(server.as_bytes()));
    let output = child.stdout.take();
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(output) = output {
            let _ = output.take(MAX_HELPER_BYTES).read_to_end(&mut text);
        }
        let _ = send.send(text);
    });
    let started = Instant::now();
    let answer = receive.recv_timeout(HELPER_TIME);
    let status = loop {
        match child
            .try_wait()
            .map_err(io_error("wait for", Path::new(program)))?
        {
            Some(status) => break status,
            None if started.elapsed() > HELPER_TIME || answer.is_err() => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(format!("none came in {} s", HELPER_TIME.as_secs())));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let answer = answer.unwrap_or_default();
    if !status.success() || !matches!(asked, Some(Ok(()))) {
        // The one text by which helpers say that there is nothing; others could hold anything, and are not shown.
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        return match text.contains("credentials not found") {
            true => Ok(None),
            false => Err(failed(format!(
                "it ended with {status}; run it by hand to see why"
            ))),
        };
    }
    let answer: HelperAnswer = serde_json::from_slice(&answer)
        .map_err(|_| failed("it is not JSON with Username and Secret".to_owned()))?;
    Ok(match (answer.username.as_str(), answer.secret.is_empty()) {
        ("", true) => None,
        (TOKEN_USER, _) => Some(Credentials::IdentityToken(answer.secret)),
        _ => Some(Credentials::Password {
            user: answer.username,
            password: answer.secret,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(text: &str) -> (tempfile::TempDir, Keyring, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        fs::write(&file, text).unwrap();
        (dir, Keyring::new(vec![file.clone()]), file)
    }

    fn user_of(keyring: &Keyring, registry: &str, repository: &str) -> Option<String> {
        match keyring.find(registry, repository).unwrap()? {
            Credentials::Password { user, password } => Some(format!("{user}/{password}")),
            Credentials::IdentityToken(token) => Some(token),
        }
    }

    #[test]
    fn dockers_and_podmans_forms_are_read() {
        let auth = |text: &str| STANDARD.encode(text);
        let (_dir, keyring, _) = keyring(&format!(
            r#"{{"auths": {{
                "https://index.docker.io/v1/": {{"auth": "{}"}},
                "ghcr.io": {{"auth": "{}", "email": "x"}},
                "quay.io/team": {{"auth": "{}"}},
                "https://old.example.com/v2/": {{"username": "u", "password": "p:q"}},
                "id.example.com": {{"identitytoken": "refresh", "auth": "{}"}},
                "empty.example.com": {{}}
            }}, "HttpHeaders": {{}}}}"#,
            auth("d:1"),
            auth("g:a:b"),
            auth("t:2"),
            auth("x:y"),
        ));
        for (registry, repository, user) in [
            ("docker.io", "library/a", Some("d/1")),
            ("ghcr.io", "a/b", Some("g/a:b")),
            ("quay.io", "team/app", Some("t/2")),
            ("quay.io", "other/app", None),
            ("quay.io", "teams/app", None),
            ("old.example.com", "a", Some("u/p:q")),
            ("id.example.com", "a", Some("refresh")),
            ("empty.example.com", "a", None),
            ("unknown.example.com", "a", None),
        ] {
            assert_eq!(
                user_of(&keyring, registry, repository).as_deref(),
                user,
                "{registry}/{repository}"
            );
        }
    }

    #[test]
    fn a_login_is_kept_for_root_alone_beside_what_was_there_and_forgotten() {
        let (_dir, keyring, file) =
            keyring(r#"{"credHelpers": {}, "auths": {"a.io": {"auth": "YTpi"}}}"#);
        log_in(&file, "docker.io", "me", "s3:cret").unwrap();
        log_in(&file, "docker.io", "me2", "s3:cret").unwrap();
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            user_of(&keyring, "index.docker.io", "x").as_deref(),
            Some("me2/s3:cret")
        );
        assert_eq!(user_of(&keyring, "a.io", "x").as_deref(), Some("a/b"));
        let known = keyring.list().unwrap();
        assert_eq!(
            known,
            [
                ("a.io".into(), Some("a".into())),
                ("docker.io".into(), Some("me2".into()))
            ]
        );
        assert!(fs::read_to_string(&file).unwrap().contains("credHelpers"));
        assert!(log_out(&file, "docker.io").unwrap());
        assert!(!log_out(&file, "docker.io").unwrap());
        assert_eq!(user_of(&keyring, "docker.io", "x"), None);
        assert!(log_in(&file, "a.io", "a:b", "x").is_err());
    }

    #[test]
    fn logins_of_a_file_stay_and_others_come_to_them() {
        let (_dir, keyring, file) = keyring(r#"{"auths": {"a.io": {"auth": "bWU6MQ=="}}}"#);
        let theirs = r#"{"auths": {"https://a.io": {"auth": "eA=="}, "b.io": {"auth": "dXM6Mg=="}}, "x": 1}"#;
        adopt(&file, theirs.as_bytes()).unwrap();
        assert_eq!(user_of(&keyring, "a.io", "x").as_deref(), Some("me/1"));
        assert_eq!(user_of(&keyring, "b.io", "x").as_deref(), Some("us/2"));
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for (own, theirs) in [("{", "{}"), ("{}", "["), ("{}", r#"{"auths": 1}"#)] {
            fs::write(&file, own).unwrap();
            assert!(adopt(&file, theirs.as_bytes()).is_err(), "{own} {theirs}");
            assert_eq!(fs::read_to_string(&file).unwrap(), own);
        }
        fs::remove_file(&file).unwrap();
        adopt(&file, theirs.as_bytes()).unwrap();
        assert!(fs::read_to_string(&file).unwrap().contains("\"x\": 1"));
    }

    #[test]
    fn secrets_are_in_no_error_and_no_debug_text() {
        let (_dir, keyring, file) =
            keyring(r#"{"auths": {"a.io": {"auth": "s3cret"}, "b.io": {"auth": 12345678}}}"#);
        let error = keyring.find("a.io", "x").unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
        assert!(!error.to_string().contains("12345678"), "{error}");
        fs::write(&file, r#"{"auths": {"a.io": {"auth": "c2VjcmV0"}}}"#).unwrap();
        let error = keyring.find("a.io", "x").unwrap_err();
        assert!(error.to_string().contains("auth for a.io"), "{error}");
        assert!(!error.to_string().contains("c2VjcmV0") && !error.to_string().contains("secret"));
        let shown = format!("{:?}", Credentials::IdentityToken("s3cret".into()));
        assert!(!shown.contains("s3cret"));
    }

    #[test]
    fn a_helper_is_asked_by_its_protocol_and_what_it_fails_with_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("docker-credential-test");
        let text = r#"#!/bin/sh
            read server
            case "$1 $server" in
            "get a.example") echo '{"ServerURL":"x","Username":"ann","Secret":"pass"}' ;;
            "get token.example") echo '{"Username":"<token>","Secret":"t0ken"}' ;;
            "get none.example") echo "credentials not found in native keychain"; exit 1 ;;
            "get bad.example") echo "my pass is pass"; exit 0 ;;
            *) echo "my pass is pass"; exit 2 ;;
            esac
        "#;
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let ask = |server: &str| run_helper(script.to_str().unwrap(), server);
        let password = Credentials::Password {
            user: "ann".to_owned(),
            password: "pass".to_owned(),
        };
        assert_eq!(ask("a.example").unwrap(), Some(password));
        let token = Credentials::IdentityToken("t0ken".to_owned());
        assert_eq!(ask("token.example").unwrap(), Some(token));
        assert_eq!(ask("none.example").unwrap(), None);
        for server in ["bad.example", "locked.example"] {
            let error = ask(server).unwrap_err().to_string();
            assert!(!error.contains("my pass"), "{error}");
        }
        assert!(run_helper("docker-credential-that-is-not-there", "a.example").is_err());
    }

    #[test]
    fn helpers_must_have_plain_names() {
        let (_dir, keyring, _) = keyring(r#"{"credsStore": "../evil"}"#);
        assert!(keyring.find("a.io", "x").is_err());
    }
}
