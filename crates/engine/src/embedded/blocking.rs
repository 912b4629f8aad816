//! Calls that block, off the async threads.

/// Runs `call` where it may block. A panic in it goes on in the caller.
pub(super) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels; nobody waits for the answer then.
            Err(_) => std::future::pending().await,
        },
    }
}
