//! Secrets and configs: encrypted in the store, opened for whoever runs a revision that names them, and for nobody else.

mod key;
mod pin;
mod seal;
mod set;
mod vault;

pub use key::KeyError;
pub(crate) use key::{first as key_for_all, peek as key_of};
pub(crate) use pin::{check, pin};
pub(crate) use seal::{Key, Place, kind_text};
pub(crate) use set::{Setting, forget_declared, list, prune, remove, rotate_key, set};
pub(crate) use vault::{NewValue, Vault, source};
