//! Secrets and configs that a manifest brings with it.

use layby_model::secret::{SecretValue, ValueKind};

/// A secret or config that a manifest declares, with what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredValue {
    /// What it is.
    pub kind: ValueKind,
    /// Its name in the app.
    pub name: String,
    /// What is in it.
    pub value: SecretValue,
}
