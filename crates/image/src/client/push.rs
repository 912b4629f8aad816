//! Pushing: what the registry does not have, several blobs at once, the manifest last.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use http::{Method, header};

use super::Options;
use super::error::Failure;
use super::http::{Ask, Payload, Session, refusal};
use super::progress::{Meter, Tell};
use super::upload::Upload;
use crate::layout::Descriptor;
use crate::{Error, Reference, Store, origin};

/// Sends the image that `source` names (or its digest) to where `destination` says. Gives the manifest's digest.
///
/// # Errors
/// [`Error::NotFound`] for the source; [`Error::Registry`] says which registry said what.
pub fn push(
    store: &Store,
    source: &str,
    destination: &Reference,
    options: &Options,
    tell: Tell<'_>,
) -> Result<String, Error> {
    // What is being read is not to be collected.
    let _reading = store.adding()?;
    let image = store.resolve(source)?;
    let siblings = repositories_at(
        &destination.registry,
        &image.references,
        &destination.repository,
    );
    let digest =
        run(store, &image.digest, destination, &siblings, options, tell).map_err(|failure| {
            failure.into_error("push", destination.short(), &destination.registry)
        })?;
    origin::note(store, &digest, destination)?;
    Ok(digest)
}

/// Other repositories of that registry that the same image is a part of: blobs may be mounted from there.
fn repositories_at(registry: &str, names: &[String], except: &str) -> Vec<String> {
    let mut found = BTreeSet::new();
    for name in names {
        if let Ok(name) = name.parse::<Reference>()
            && name.registry == registry
            && name.repository != except
        {
            found.insert(name.repository);
        }
    }
    found.into_iter().collect()
}

fn run(
    store: &Store,
    digest: &str,
    destination: &Reference,
    siblings: &[String],
    options: &Options,
    tell: Tell<'_>,
) -> Result<String, Failure> {
    let session = Session::new(&destination.registry, options)?;
    let (manifest, descriptor) = store.read_manifest(digest)?;
    let mut scope = format!("repository:{}:pull,push", destination.repository);
    for sibling in siblings {
        scope.push_str(&format!(" repository:{sibling}:pull"));
    }
    let upload = Upload {
        store,
        session: &session,
        repository: &destination.repository,
        siblings,
        scope: &scope,
    };
    let mut seen = BTreeSet::new();
    let parts = manifest.layers.iter().chain([&manifest.config]);
    let parts: Vec<&Descriptor> = parts.filter(|part| seen.insert(&part.digest)).collect();
    send_all(&upload, parts, options, tell)?;
    put_manifest(&upload, destination, &descriptor, options)?;
    Ok(digest.to_owned())
}

fn send_all(
    upload: &Upload<'_>,
    parts: Vec<&Descriptor>,
    options: &Options,
    tell: Tell<'_>,
) -> Result<(), Failure> {
    let threads = options.parallel.clamp(1, parts.len().max(1));
    let open = Mutex::new(VecDeque::from(parts));
    let failed: Mutex<Option<Failure>> = Mutex::default();
    let stop = AtomicBool::new(false);
    let work = || {
        let next = || {
            open.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front()
        };
        while let Some(part) = next() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            if let Err(failure) = upload.send(part, &mut Meter::new(tell, &part.digest, part.size))
            {
                stop.store(true, Ordering::Relaxed);
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert(failure);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), Err)
}

fn put_manifest(
    upload: &Upload<'_>,
    destination: &Reference,
    descriptor: &Descriptor,
    options: &Options,
) -> Result<(), Failure> {
    let path = upload.store.blob_path(&descriptor.digest)?;
    let what = format!("the manifest {}", descriptor.digest);
    let bytes = crate::blob::read_document(&path, &descriptor.digest, &what)?;
    let name = match (&destination.tag, &destination.digest) {
        (Some(tag), _) => tag,
        (None, Some(digest)) => digest,
        (None, None) => &descriptor.digest,
    };
    let ask = Ask {
        method: Method::PUT,
        url: upload
            .session
            .url(&format!("{}/manifests/{name}", destination.repository)),
        headers: vec![(header::CONTENT_TYPE, descriptor.media_type.clone())],
        body: Payload::Bytes(&bytes),
        scope: upload.scope,
    };
    options.retry.run(&options.cancel, || {
        let response = upload.session.send(&ask)?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(refusal(response, "does not take the manifest: it")),
        }
    })
}
