//! Panics that end the process.
//!
//! A node whose table no longer changes, or that no longer accepts, looks alive and is of no use. Containers
//! outlive the node, and whatever started it starts it again: ending is the recovery. A panic while one
//! connection is served ends that connection alone.

/// Held by what the gateway cannot do without: a panic that drops it aborts the process. Names what panics.
#[derive(Debug)]
pub(crate) struct FatalPanic(pub(crate) &'static str);

impl Drop for FatalPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                "{} panicked; the node aborts, containers go on: start it again and report this",
                self.0
            );
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::signal::Signal;

    use super::FatalPanic;

    /// Set in the process that is to abort.
    const PANIC: &str = "LAYBY_TEST_PANIC";

    #[test]
    fn a_panic_in_a_gateway_task_aborts_the_process() {
        if std::env::var_os(PANIC).is_some() {
            setrlimit(Resource::RLIMIT_CORE, 0, 0).expect("no core dump");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build_local(Default::default())
                .expect("a runtime");
            // tokio would keep the panic to the task.
            let _ = runtime.block_on(runtime.spawn_local(async {
                let _fatal = FatalPanic("a test");
                panic!("as asked for");
            }));
            return; // with success, which the parent does not expect
        }
        let status = Command::new(std::env::current_exe().expect("this test"))
            .args([
                "--exact",
                "fatal::tests::a_panic_in_a_gateway_task_aborts_the_process",
            ])
            .env(PANIC, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("it runs");
        assert_eq!(status.signal(), Some(Signal::SIGABRT as i32), "{status}");
    }
}
