//! What can go wrong when the control plane starts.

use crate::registry::DeskError;
use crate::secrets::KeyError;
use crate::store::StoreError;
use layby_model::engine::EngineError;

/// Why the control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store could not be opened.
    #[error("the node's store could not be opened")]
    Store(#[from] StoreError),
    /// The secrets cannot be opened.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The registry could not be opened.
    #[error("the embedded registry could not be opened")]
    Registry(#[from] DeskError),
    /// The engine could not say what runs.
    #[error("the engine could not say what runs")]
    Engine(#[from] EngineError),
}
