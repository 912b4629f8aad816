//! The commands: a file for each, or for a few of a kind.

pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod build;
pub(crate) mod canary;
pub(crate) mod config;
pub(crate) mod cp;
pub(crate) mod enrol;
pub(crate) mod exec;
pub(crate) mod forward;
pub(crate) mod history;
pub(crate) mod images;
pub(crate) mod jobs;
pub(crate) mod journal;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod manual;
pub(crate) mod node;
pub(crate) mod power;
pub(crate) mod secrets;
pub(crate) mod services;
pub(crate) mod state;
pub(crate) mod switch;
pub(crate) mod tokens;
pub(crate) mod top;
pub(crate) mod up;
pub(crate) mod volumes;
