//! Taking a state out and putting it back where no node runs.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use layby_image::{Store as Images, client};
use layby_model::error_chain;
use layby_model::secret::SecretValue;

use super::file::{self, STORE};
use super::lock::Cost;
use super::{StateError, image_views, imported};
use crate::api::types::{ImportedView, StateView};
use crate::config::MasterKey;
use crate::registries::LOGINS;
use crate::secrets::key_for_all;
use crate::store::snapshot;

/// Where the images are, in a data directory.
const IMAGES: &str = "images";

/// Removes what a command that was killed left in a data directory; for the node that begins to run on it.
pub(crate) fn sweep(data_dir: &Path) {
    if let Err(error) = file::sweep(data_dir) {
        tracing::warn!(%error, "what was left of a state that was taken out or put in stays");
    }
}

/// What would be taken out.
///
/// # Errors
/// [`StateError`].
pub fn look(data_dir: &Path) -> Result<StateView, StateError> {
    let dir = file::aside(data_dir)?;
    let copy = dir.path().join(STORE);
    snapshot::take(&data_dir.join(STORE), &copy)?;
    snapshot::migrate(&copy)?;
    Ok(super::view(snapshot::content(&copy)?, &*images(data_dir)?))
}

/// Writes the state of the data in `data_dir` to `to`, with the content of the images it needs if that is said.
///
/// # Errors
/// [`StateError`]; what was written to `to` until then opens with no passphrase.
pub fn export(
    data_dir: &Path,
    key: &MasterKey,
    passphrase: &SecretValue,
    with_images: bool,
    to: impl Write,
) -> Result<(), StateError> {
    export_at(data_dir, key, passphrase, with_images, Cost::USUAL, to)
}

fn export_at(
    data_dir: &Path,
    key: &MasterKey,
    passphrase: &SecretValue,
    with_images: bool,
    cost: Cost,
    to: impl Write,
) -> Result<(), StateError> {
    file::check(passphrase)?;
    let taken = file::take(data_dir, key, file::aside(data_dir)?)?;
    let images = images(data_dir)?;
    file::write(&taken, (&images, with_images), passphrase, cost, to)
}

/// Whether a file is a state that this passphrase opens, as far as its beginning says: before all of it is sent anywhere.
///
/// # Errors
/// [`StateError::Wrong`]: it is none, or not by this passphrase.
pub fn check(passphrase: &SecretValue, from: impl Read) -> Result<(), StateError> {
    file::begins(passphrase, from)
}

/// Whether a data directory, which need not be there, may take a state: before anybody is asked for a passphrase.
///
/// # Errors
/// [`StateError::NotEmpty`]: it has services, jobs, secrets or tokens.
pub fn check_empty(data_dir: &Path) -> Result<(), StateError> {
    let store = data_dir.join(STORE);
    match snapshot::is_empty(&store)? {
        true => Ok(()),
        false => Err(StateError::NotEmpty { path: store }),
    }
}

/// Puts a state into an empty data directory on which no node runs: all of it at once, or nothing but its images.
///
/// # Errors
/// [`StateError`]; no service was changed then.
pub fn import(
    data_dir: &Path,
    key: &MasterKey,
    passphrase: &SecretValue,
    from: impl Read,
) -> Result<ImportedView, StateError> {
    check_empty(data_dir)?;
    let store = data_dir.join(STORE);
    let dir = file::aside(data_dir)?;
    let opened = file::open(dir, || images(data_dir), passphrase, from)?;
    let copy = opened.copy();
    snapshot::rekey(&copy, |_| {
        Ok::<_, StateError>((opened.key.clone(), key_for_all(key)?))
    })?;
    let mut warnings = Vec::new();
    if let Some(logins) = &opened.logins {
        let adopted = client::adopt(&data_dir.join(LOGINS), logins.bytes());
        warnings.extend(
            adopted
                .err()
                .map(|error| super::no_logins(&error_chain(&error))),
        );
    }
    snapshot::put(&copy, &store).map_err(|source| StateError::Io {
        what: format!("the state could not be put into {}", data_dir.display()),
        source,
    })?;
    let mut content = opened.content;
    let needs = std::mem::take(&mut content.images);
    let needs = match data_dir.join(IMAGES).exists() {
        true => image_views(needs, &*images(data_dir)?),
        false => super::unseen(needs),
    };
    let (loaded, kept_tokens) = (opened.loaded.len(), Vec::new());
    Ok(imported(content, loaded, needs, kept_tokens, warnings))
}

fn images(data_dir: &Path) -> Result<Arc<Images>, StateError> {
    Ok(Arc::new(Images::open(&data_dir.join(IMAGES))?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use layby_model::AppName;
    use layby_model::secret::{Scope, SecretRef, SecretSource, ValueKind};
    use tempfile::TempDir;

    use super::super::lock;
    use super::*;
    use crate::secrets::{NewValue, Vault};
    use crate::store::Store;

    fn passphrase(text: &str) -> SecretValue {
        SecretValue::new(text.as_bytes().to_vec())
    }

    fn place(dir: &TempDir) -> MasterKey {
        MasterKey::File(dir.path().join("master.key"))
    }

    async fn vault(dir: &TempDir) -> Vault {
        let store = Store::open(&dir.path().join(STORE)).expect("a store");
        Vault::open(store, place(dir), false)
            .await
            .expect("a vault")
    }

    #[tokio::test]
    async fn a_state_is_put_back_into_an_empty_node_alone_and_its_secrets_open_with_that_nodes_key()
    {
        let (lost, new) = (
            TempDir::new().expect("a folder"),
            TempDir::new().expect("a folder"),
        );
        let value = NewValue {
            app: None,
            kind: ValueKind::Secret,
            name: "db".to_owned(),
            value: passphrase("hunter2"),
            declared: false,
        };
        vault(&lost)
            .await
            .keep(vec![value], "root")
            .await
            .expect("kept");
        fs::write(lost.path().join(LOGINS), "{}").expect("written");
        let mut file = Vec::new();
        let (key, word) = (place(&lost), passphrase("correct horse"));
        export_at(lost.path(), &key, &word, false, lock::CHEAP, &mut file).expect("written");
        assert!(!file.windows(7).any(|part| part == b"hunter2"));

        let wrong = import(
            new.path(),
            &place(&new),
            &passphrase("wrong horse"),
            &file[..],
        );
        assert!(matches!(wrong, Err(StateError::Wrong(_))), "{wrong:?}");
        let cut = import(new.path(), &place(&new), &word, &file[..file.len() - 9]);
        assert!(matches!(cut, Err(StateError::Wrong(_))), "{cut:?}");
        assert!(!new.path().join(STORE).exists());

        import(new.path(), &place(&new), &word, &file[..]).expect("put back");
        assert!(new.path().join(LOGINS).exists());
        let old = fs::read(lost.path().join("master.key")).expect("a key");
        assert_ne!(fs::read(new.path().join("master.key")).expect("a key"), old);
        let secret = SecretRef {
            scope: Some(Scope::Node),
            version: Some(1),
            ..SecretRef::new("db")
        };
        let app = AppName::new("shop").expect("a label");
        let found = vault(&new)
            .await
            .reveal(&app, &secret)
            .await
            .expect("opened");
        assert_eq!(found.bytes(), b"hunter2");
        let again = import(new.path(), &place(&new), &word, &file[..]);
        assert!(
            matches!(again, Err(StateError::NotEmpty { .. })),
            "{again:?}"
        );
    }
}
