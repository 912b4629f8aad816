//! The control plane as one thing: start it, mount its API, wait for its end.

use std::sync::Arc;

use layby_model::engine::Engine;

use crate::config::{ControlConfig, StopRequest, Wires};
use crate::error::Error;

/// The control plane of a node.
pub struct Control {}

impl Control {
    /// Opens the store, looks at what runs, and starts one driver per service.
    ///
    /// # Errors
    /// When the store cannot be opened (also: it is a newer Layby's) or the engine does not answer.
    pub async fn start(
        _config: ControlConfig,
        _engine: Arc<dyn Engine>,
        _images: Arc<layby_image::Store>,
        _wires: Wires,
    ) -> Result<Control, Error> {
        unimplemented!()
    }

    /// The HTTP API; serve it on the node's socket.
    pub fn router(&self) -> axum::Router {
        unimplemented!()
    }

    /// Waits until somebody asks over the API that the node ends.
    pub async fn stop_requested(&self) -> StopRequest {
        unimplemented!()
    }

    /// Ends the drivers and closes the store. With `all`, every replica is stopped and removed first
    /// (what is deployed stays deployed: the next start makes them anew); without, they go on running.
    pub async fn shutdown(self, _all: bool) {
        unimplemented!()
    }
}
