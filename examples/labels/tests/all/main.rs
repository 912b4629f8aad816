//! The stack's tests in one binary: over HTTP with a store in memory and a reader that knows the answers. Those that need
//! tesseract or a browser are run by `cargo xtask test --examples`.

mod browser;
mod common;
mod compose;
mod http;
mod ocr;
mod queue;
mod s3;
