//! Whole-crate tests, by what they look at.

mod archives;
mod builds;
mod copies;
mod layers;
mod stores;
mod support;
