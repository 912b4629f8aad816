//! Whole-binary tests: the real `layby` with real containers, as a user would use it. They need root.

mod access;
mod agents;
mod apps;
mod bad_input;
mod builds;
mod chaos;
mod corpus;
mod jobs;
mod kept;
mod kubernetes;
mod life;
mod manifests;
mod names;
mod networks;
mod node;
mod registry;
mod remote;
mod restart;
mod restarts;
mod rollout;
mod secrets;
mod sleep;
mod state;
mod tcp;
mod volumes;
mod watch;
