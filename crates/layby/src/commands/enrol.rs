//! `layby login https://HOST`: a node elsewhere becomes a context of this user.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use layby_control::api::types::VersionView;

use crate::cli::Login;
use crate::client::Client;
use crate::commands::login::{ask, password_from_stdin};
use crate::contexts::{Context, Contexts, LOCAL, Trust};
use crate::out::{say, tell};
use crate::tls::parse_fingerprint;
use crate::transport::{Address, Remote, Transport};

/// Checks the node's certificate and the token, and keeps both.
///
/// # Errors
/// Nobody answers there, its certificate is not taken, or the token is not good there.
pub(crate) async fn enrol(options: &Login) -> Result<()> {
    if options.user.is_some() || options.password_stdin {
        bail!("a node takes a token and no user: give it with --token-stdin");
    }
    let address = Address::of(&options.registry)?;
    let mut all = Contexts::read()?;
    let name = match &options.name {
        Some(name) => name.clone(),
        None => known(&all, &address).unwrap_or_else(|| address.host.clone()),
    };
    if name == LOCAL {
        bail!("{LOCAL} is the node on this machine: give this one another name with --name");
    }
    let before = all.contexts.get(&name);
    let trust = trust(options, &address, before.map(|context| &context.trust)).await?;
    let token = match options.token_stdin {
        true => password_from_stdin()?,
        false => ask("Token: ", true).context("give the token with --token-stdin")?,
    };
    if token.is_empty() {
        bail!("the token is empty: nothing was sent");
    }
    let context = Context {
        url: address.url(),
        token,
        trust,
    };
    let client = Client::by(Transport::Https(Remote::new(&name, &context)?.into()));
    let version: VersionView = client.get("/v1/version", &[]).await?;
    all.contexts.insert(name.clone(), context);
    all.current = Some(name.clone());
    all.write()?;
    say!(
        "{name}  logged in to {} (Layby {}); `layby context use {LOCAL}` asks this machine again",
        address.url(),
        version.version
    );
    Ok(())
}

/// The name of the context that is for this node already.
fn known(all: &Contexts, address: &Address) -> Option<String> {
    let url = address.url();
    let mut contexts = all.contexts.iter();
    let found = contexts.find(|(_, context)| context.url == url);
    found.map(|(name, _)| name.clone())
}

/// Whose certificate is to be taken from now on: what is said, what was taken before, what the system vouches for, or
/// what the user says to.
async fn trust(options: &Login, address: &Address, before: Option<&Trust>) -> Result<Trust> {
    if let Some(file) = &options.ca {
        return Ok(Trust::Authority(pem(file)?));
    }
    if let Some(fingerprint) = &options.fingerprint {
        return Ok(Trust::Fingerprint(fingerprint.clone()));
    }
    let seen = address.look().await?;
    let url = address.url();
    if let Some(Trust::Fingerprint(before)) = before {
        if *before == seen.fingerprint {
            return Ok(Trust::Fingerprint(seen.fingerprint));
        }
        bail!(
            "{url} shows another certificate than before: nothing was sent\n  now:    {}\n  before: {before}\n  \
             if whoever runs it says that it is the new one, say --fingerprint {}",
            seen.fingerprint,
            seen.fingerprint
        );
    }
    if seen.vouched {
        return Ok(Trust::System);
    }
    tell!("No authority that this system trusts vouches for {url}. Its certificate's SHA-256 is");
    tell!("  {}", seen.fingerprint);
    tell!("`layby version` on that machine shows what it has to be.");
    let answer = ask("Take it from now on, and no other? [y/N] ", false).with_context(|| {
        format!(
            "say which certificate to take with --fingerprint SHA256 or --ca FILE ({url} shows {})",
            seen.fingerprint
        )
    })?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(Trust::Fingerprint(seen.fingerprint)),
        // Pasted from elsewhere, it is compared by the machine.
        other if parse_fingerprint(other).is_ok_and(|said| said == seen.fingerprint) => {
            Ok(Trust::Fingerprint(seen.fingerprint))
        }
        _ => bail!("not taken: nothing was sent"),
    }
}

fn pem(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file);
    text.with_context(|| format!("cannot read {}", file.display()))
}

/// Whether what `layby login` is given names a node and no registry.
pub(crate) fn is_node(text: &str) -> bool {
    text.to_ascii_lowercase().starts_with("https://")
}

/// `layby logout https://HOST`: forgets the contexts of a node.
///
/// # Errors
/// There are none.
pub(crate) fn leave(url: &str) -> Result<()> {
    let address = Address::of(url)?;
    let mut all = Contexts::read()?;
    let mut forgotten = Vec::new();
    while let Some(name) = known(&all, &address) {
        all.contexts.remove(&name);
        all.current = all.current.filter(|current| *current != name);
        forgotten.push(name);
    }
    if forgotten.is_empty() {
        bail!(
            "no context is for {}: `layby context ls` shows what there is",
            address.url()
        );
    }
    all.write()?;
    for name in forgotten {
        say!("{name}  forgotten; its token is good until an admin takes it away");
    }
    Ok(())
}
