//! The command line: one binary, as the web application and as the OCR API.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use labels::library::Library;
use labels::mapi::cache::Cache;
use labels::mapi::tesseract::Tesseract;
use labels::queue::Queue;
use labels::reader::Mapi;
use labels::serve::serve;
use labels::store::s3::{S3Settings, S3Store};
use labels::{dataset, health, mapi, samples, web};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Product labels: read by a machine, corrected by people, checked by rules.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the web application.
    Webapp {
        #[command(flatten)]
        listen: Listen,
        #[command(flatten)]
        store: S3Settings,
        /// Where mapi is.
        #[arg(long, env = "LABELS_MAPI_URL", default_value = "http://mapi:8000")]
        mapi_url: String,
        /// How many pictures mapi is asked for at once.
        #[arg(long, env = "LABELS_AT_ONCE", default_value_t = 8)]
        at_once: usize,
    },
    /// Serve the OCR API; needs tesseract.
    Mapi {
        #[command(flatten)]
        listen: Listen,
        /// Where the cache is, `host:port`; without one, nothing is cached.
        #[arg(long, env = "MAPI_CACHE")]
        cache: Option<String>,
    },
    /// Ask the service in this container whether it is well; the exit code tells.
    Healthcheck {
        /// Its port.
        #[arg(long, default_value_t = 8000)]
        port: u16,
    },
    /// Write all pictures that were read, with what was recognised and corrected, as files to train with.
    ExportDataset {
        #[command(flatten)]
        store: S3Settings,
        /// Only those that an analyst has reviewed.
        #[arg(long)]
        reviewed: bool,
        /// The folder to write to; `-` is a tar on standard output.
        to: PathBuf,
    },
    /// Draw labels to try the stack with, each with its text beside it; or tell how well they were read.
    Samples {
        /// How many.
        #[arg(long, default_value_t = 40)]
        count: u32,
        /// Where DejaVuSans.ttf and DejaVuSans-Bold.ttf are.
        #[arg(long, default_value = "/usr/share/fonts/truetype/dejavu")]
        fonts: PathBuf,
        /// Draw nothing: compare the texts in the folder with this export of the web application, `/export.json`.
        #[arg(long, value_name = "EXPORT")]
        compare: Option<PathBuf>,
        /// The folder to write to, or to compare with.
        folder: PathBuf,
    },
}

#[derive(Args)]
struct Listen {
    /// The address to serve on.
    #[arg(long, env = "LABELS_LISTEN", default_value = "0.0.0.0:8000")]
    listen: SocketAddr,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Webapp {
            listen,
            store,
            mapi_url,
            at_once,
        } => block_on(serve_webapp(listen.listen, store, mapi_url, at_once)),
        Command::Mapi { listen, cache } => block_on(serve_mapi(listen.listen, cache)),
        Command::Healthcheck { port } => health::check(port),
        Command::ExportDataset {
            store,
            reviewed,
            to,
        } => export_dataset(&store, reviewed, &to),
        Command::Samples {
            compare: Some(export),
            folder,
            ..
        } => samples::accuracy::compare(&folder, &export),
        Command::Samples {
            count,
            fonts,
            compare: None,
            folder,
        } => samples::write(&fonts, &folder, count),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What still waits for the store or mapi when the service ends is done again by the next: it is not waited for.
fn block_on(serve: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve);
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

async fn serve_webapp(
    listen: SocketAddr,
    settings: S3Settings,
    mapi_url: String,
    at_once: usize,
) -> anyhow::Result<()> {
    let stop = stop()?;
    let store = Arc::new(S3Store::new(&settings)?);
    let library = Arc::new(Library::new(
        Arc::clone(&store) as Arc<dyn labels::store::ObjectStore>
    ));
    let queue = Arc::new(Queue::new(
        Arc::clone(&library),
        Arc::new(Mapi::new(&mapi_url)),
        at_once,
    ));
    let app = web::App::new(Arc::clone(&library), Arc::clone(&queue));
    let listener = bind(listen).await?;
    let router = web::router(app.clone());
    let work = async {
        web::open(&app, move || store.make_bucket()).await;
        queue.run().await;
    };
    tokio::select! {
        result = serve(listener, router, stop, web::DRAIN_MAX) => Ok(result?),
        () = work => Ok(()),
    }
}

async fn serve_mapi(listen: SocketAddr, cache: Option<String>) -> anyhow::Result<()> {
    let stop = stop()?;
    let tesseract = Tesseract::find().await?;
    println!("reads with {}", tesseract.version);
    let listener = bind(listen).await?;
    let router = mapi::server::router(tesseract, Cache::new(cache));
    Ok(serve(listener, router, stop, mapi::server::DRAIN_MAX).await?)
}

fn export_dataset(
    settings: &S3Settings,
    reviewed: bool,
    to: &std::path::Path,
) -> anyhow::Result<()> {
    let library = Library::new(Arc::new(S3Store::new(settings)?));
    library.load()?;
    let exported = match to.to_str() {
        Some("-") => dataset::export_tar(&library, &mut std::io::stdout().lock(), reviewed)?,
        _ => dataset::export(&library, to, reviewed)?,
    };
    eprintln!(
        "{} pictures, {} of them reviewed",
        exported.pictures, exported.reviewed
    );
    Ok(())
}

async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    println!("listening on {}", listener.local_addr()?);
    Ok(listener)
}

/// Ends with the signal to end. Asked for before the port is open: as the first process of its container it would miss it.
fn stop() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
