//! Whole-crate tests, by what they look at.

mod adds;
mod agents;
mod archives;
mod builds;
mod copies;
mod layers;
mod own_ca;
mod peer;
mod peers;
mod pulls;
mod pushes;
mod runs;
mod sparse;
mod stores;
mod support;
