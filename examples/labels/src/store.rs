//! Where everything is kept: an S3 bucket, or memory for tests. Calls block; whoever is in a hurry makes them elsewhere.

pub mod keys;
pub mod memory;
pub mod s3;

/// Objects by their keys.
pub trait ObjectStore: Send + Sync {
    /// Writes an object whole, over one that is there.
    ///
    /// # Errors
    /// When it may not have been written.
    fn put(&self, key: &str, bytes: &[u8], media_type: &str) -> Result<(), StoreError>;

    /// Reads an object whole; `None` where there is none.
    ///
    /// # Errors
    /// When the store did not answer, or with an error.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// The keys that begin with a prefix, sorted.
    ///
    /// # Errors
    /// As [`ObjectStore::get`].
    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError>;
}

/// The store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer, or one that is cut short.
    #[error("the store at {endpoint} did not answer")]
    NoAnswer {
        /// Where it was asked.
        endpoint: String,
        /// What happened.
        #[source]
        cause: Box<ureq::Error>,
    },
    /// It answered with an error.
    #[error("the store refused {what} with {status}: {answer}")]
    Refused {
        /// What was asked.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of its answer.
        answer: String,
    },
    /// It answered with what cannot be read.
    #[error("the store's answer to {what} cannot be read: {problem}")]
    Unreadable {
        /// What was asked.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The settings are no place to ask.
    #[error("the settings of the store are wrong: {0}")]
    Settings(String),
}
