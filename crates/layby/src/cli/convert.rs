//! `layby convert`.

use std::path::PathBuf;

use clap::Args;

use super::{Manifest, Place, not_empty};

/// `layby convert`.
#[derive(Debug, Args)]
#[command(
    after_help = "What is lost, or becomes something else, is told on standard error, each with its line. Values of secrets are \
        not written: it says how to make them in the cluster; those that variables and env files have here are, and it says which. It needs no node, and `layby up` takes what it writes.\n\n\
    Examples:\n  layby convert > app.yaml\n  layby convert -f compose.yaml -f compose.prod.yaml -o k8s/\n  \
      layby convert --namespace shop-prod --domain example.org | kubectl apply -f -"
)]
pub(crate) struct Convert {
    #[command(flatten)]
    pub(crate) manifest: Manifest,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Write to this file (`.yaml`, `.yml`) or, one file for each object, to this folder, instead of standard output.
    #[arg(long, short, value_name = "FILE|FOLDER")]
    pub(crate) output: Option<PathBuf>,
    /// Replace files that are there.
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
    /// The namespace; otherwise it is called as the app.
    #[arg(long, value_name = "NAME", value_parser = label)]
    pub(crate) namespace: Option<String>,
    /// Write an Ingress, too: SERVICE.APP.NAME leads to each service that is published, or of which is said that it speaks HTTP.
    #[arg(long, value_name = "NAME", value_parser = domain)]
    pub(crate) domain: Option<String>,
}

fn label(text: &str) -> Result<String, String> {
    match layby_model::names::is_dns_label(text) {
        true => Ok(text.to_owned()),
        false => {
            Err("it is a DNS label: 1 to 63 of a-z, 0-9 and '-', not at the ends '-'".to_owned())
        }
    }
}

fn domain(text: &str) -> Result<String, String> {
    let text = not_empty(text)?;
    match text.split('.').all(layby_model::names::is_dns_label) {
        true => Ok(text),
        false => Err("it is a host name in lower case, such as example.org".to_owned()),
    }
}
