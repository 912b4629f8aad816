//! Scenarios: pages that tell a story in commands and what they print, run with the real command line against a
//! node on the fake engine.
//!
//! A page is Markdown. A fenced block whose word is a file's name (` ```compose.yaml `) writes that file; one of `console`
//! holds commands (after `$ `) and what they print. `UPDATE=1 cargo test -p layby --test scenarios` writes down what is
//! printed now, to be read before it is committed. Beside what a shell knows, and `layby`, there are
//!
//! - `get HOST [PATH]`: a request through the gateway; a replica of the fake engine answers with its revision, when its
//!   service's port is 8080;
//! - `crowd COUNT HOST PATH`: so many at once, counted by their status; one for `/takes/300ms` takes as long;
//! - `until 'TEXT' COMMAND`: the command, again and again until it prints the text;
//! - `crash SERVICE CODE`: all running replicas of a service (`app/service`) end with this code;
//! - `restart`: the control plane ends as by a kill, and starts again.

mod node;
mod page;
mod script;
mod text;

/// A test for each page.
macro_rules! pages {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                script::play(concat!(stringify!($name), ".md"));
            }
        )*

        #[test]
        fn every_page_is_played() {
            let listed = [$(concat!(stringify!($name), ".md")),*];
            for page in page::all() {
                assert!(listed.contains(&page.as_str()), "{page} is not in main.rs");
            }
        }
    };
}

pages! {
    access,
    apps,
    canary,
    compose_files,
    convert,
    disabled,
    first_deploy,
    history,
    jobs,
    kubernetes,
    record,
    rollouts,
    scaling,
    secrets,
    sizes,
    some_services,
    state,
}
