//! The HTTP API: its words, its routes, and the one place where an error becomes an answer.

pub mod types;
