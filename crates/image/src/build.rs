//! Building an image from a Dockerfile and a context directory.

use std::collections::BTreeMap;
use std::path::Path;

use crate::{Error, Image, Store};

/// What to build.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// The Dockerfile, relative to the context; `None`: `Dockerfile`.
    pub dockerfile: Option<String>,
    /// Build arguments. `SOURCE_DATE_EPOCH` sets the time stamps in the image (default 0).
    pub args: BTreeMap<String, String>,
    /// The stage to build; `None`: the last.
    pub target: Option<String>,
    /// The name to give to the image.
    pub tag: Option<String>,
    /// How errors name the Dockerfile, such as `examples/mnist/Dockerfile`; empty: as `dockerfile`.
    pub file_name_shown: String,
}

/// What happens during a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildEvent {
    /// An instruction was carried out.
    Step {
        /// Its place, from 1.
        number: u32,
        /// How many there are.
        of: u32,
        /// The instruction as written, in one line.
        text: String,
        /// Whether its layer was taken from the cache (also for steps that make no layer).
        cached: bool,
    },
    /// A note for the user.
    Output(String),
}

/// Builds the image and stores it.
pub fn build(
    store: &Store,
    context: &Path,
    options: &BuildOptions,
    progress: &mut dyn FnMut(BuildEvent),
) -> Result<Image, Error> {
    let _ = (store, context, options, progress);
    todo!()
}
