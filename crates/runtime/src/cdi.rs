//! Devices by the Container Device Interface.

use crate::error::{Error, Result};
use crate::spec::ContainerConfig;

/// Puts what a container's CDI devices ask for into its config.
pub(crate) fn apply(config: &mut ContainerConfig) -> Result<()> {
    match config.options.cdi_devices.first() {
        None => Ok(()),
        Some(name) => Err(Error::Fatal(format!(
            "the device {name} cannot be given yet"
        ))),
    }
}
