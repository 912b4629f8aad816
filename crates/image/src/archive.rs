//! Loading and saving images as one tar: OCI archives and docker archives.

mod load;
mod save;

pub(crate) use load::{Limits, load};
pub(crate) use save::save;
