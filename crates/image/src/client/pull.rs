//! Pulling: the manifest, then all layers side by side, each verified and unpacked while it comes.
//!
//! Nothing gets its name in the store before all of it is verified and on disk: one syncfs(2) for the whole image,
//! then the names, the index last.

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::Options;
use super::download;
use super::error::{Failure, Fault};
use super::http::Session;
use super::manifest::{self, Found};
use super::platform::Platform;
use super::progress::{Meter, Progress, Step, Tell};
use crate::blob::{BlobWriter, Spooled};
use crate::config::Parsed;
use crate::layer::{self, Unpacked};
use crate::layout::{Descriptor, MAX_DOCUMENT_BYTES};
use crate::pieces;
use crate::{Error, Image, Reference, Store, digest, origin};

/// How often content that arrives with a wrong digest is asked for: a proxy on the way may have a bad moment.
const TRIES: u32 = 2;

/// Pulls an image for a platform, unpacks it, and gives it the reference as its name (but see [`Options::spares_names`]).
///
/// # Errors
/// [`Error::Registry`] says which registry said what. What was verified until then is kept, for the next attempt.
pub fn pull(
    store: &Store,
    reference: &Reference,
    options: &Options,
    tell: Tell<'_>,
) -> Result<Image, Error> {
    run(store, reference, options, tell)
        .map_err(|failure| failure.into_error("pull", reference.short(), &reference.registry))
}

fn run(
    store: &Store,
    reference: &Reference,
    options: &Options,
    tell: Tell<'_>,
) -> Result<Image, Failure> {
    let session = Session::new(&reference.registry, options)?;
    let scope = format!("repository:{}:pull", reference.repository);
    let wanted = options.platform.clone().unwrap_or_else(Platform::machine);
    let found = manifest::find(&session, reference, &scope, &wanted)?;
    let _adding = store.adding()?;
    let puller = Puller {
        store,
        session: &session,
        repository: &reference.repository,
        scope: &scope,
        tell,
        stop: AtomicBool::new(false),
    };
    let config = puller.config(&found)?;
    check_platform(&config, &found, &wanted, options)?;
    let layers = layers_of(&found, &config)?;
    let mut arrived = Vec::new();
    let fetched = puller.layers(layers, &mut arrived);
    if fetched.is_ok() {
        arrived.push(puller.document(&found.manifest.config, &config.bytes)?);
        arrived.push(puller.document(&found.descriptor, &found.bytes)?);
    }
    // Also where a layer failed: the others need not be fetched again.
    keep(store, arrived)?;
    fetched?;
    store.name_pulled(&found.descriptor, reference, options.spares_names)?;
    origin::note(store, &found.descriptor.digest, reference)?;
    Ok(store.get(&found.descriptor.digest)?)
}

/// An image config and the bytes that it came in.
struct Config {
    parsed: Parsed,
    bytes: Vec<u8>,
}

/// One layer to fetch.
struct Job<'a> {
    layer: &'a Descriptor,
    diff_id: &'a str,
}

/// A part that is verified, and not in its place yet.
#[derive(Default)]
struct Arrived {
    blob: Option<Spooled>,
    unpacked: Option<Unpacked>,
}

/// What the threads of a pull share.
struct Puller<'a> {
    store: &'a Store,
    session: &'a Session<'a>,
    repository: &'a str,
    scope: &'a str,
    tell: Tell<'a>,
    /// One thread failed: the others need not go on.
    stop: AtomicBool,
}

/// The layers to fetch, each content once, and that the config knows them.
fn layers_of<'a>(found: &'a Found, config: &'a Config) -> Result<Vec<Job<'a>>, Failure> {
    let (layers, diff_ids) = (&found.manifest.layers, &config.parsed.diff_ids);
    if layers.len() != diff_ids.len() {
        let reason = format!(
            "sent an image with {} layers in its manifest and {} in its config",
            layers.len(),
            diff_ids.len()
        );
        return Err(Failure::final_(Fault::Broken, reason));
    }
    let mut seen = BTreeSet::new();
    let jobs = layers.iter().zip(diff_ids);
    let jobs = jobs.filter(|(layer, _)| seen.insert(layer.digest.as_str()));
    Ok(jobs
        .map(|(layer, diff_id)| Job { layer, diff_id })
        .collect())
}

/// An image that no index led to says itself what it is for.
fn check_platform(
    config: &Config,
    found: &Found,
    wanted: &Platform,
    options: &Options,
) -> Result<(), Failure> {
    let platform = match &config.parsed.platform {
        Some(platform) if !found.chosen => Platform::from(platform),
        _ => return Ok(()),
    };
    if wanted.takes(&platform) {
        return Ok(());
    }
    let ours = match options.platform {
        Some(_) => "what was asked for",
        None => "this machine",
    };
    let reason = format!(
        "has it only for {platform}, and {ours} is {wanted}; --platform {platform} takes it all the same"
    );
    Err(Failure::final_(Fault::Platform, reason))
}

/// Brings all to the disk, then gives it its names.
fn keep(store: &Store, arrived: Vec<Arrived>) -> Result<(), Error> {
    let is_new = |part: &Arrived| part.blob.is_some() || part.unpacked.is_some();
    if !arrived.iter().any(is_new) {
        return Ok(());
    }
    store.sync()?;
    for part in arrived {
        if let Some(blob) = part.blob {
            store.place(blob)?;
        }
        if let Some(unpacked) = part.unpacked {
            unpacked.place()?;
        }
    }
    store.sync_names()
}

impl Puller<'_> {
    fn config(&self, found: &Found) -> Result<Config, Failure> {
        let part = &found.manifest.config;
        if part.size > MAX_DOCUMENT_BYTES {
            let reason = format!("sent an image config of {} bytes", part.size);
            return Err(Failure::final_(Fault::Broken, reason));
        }
        let held = self.store.read_blob(&part.digest);
        let bytes = match held {
            Some(bytes) => bytes,
            None => {
                let mut bytes = Vec::new();
                let mut meter = Meter::new(self.tell, &part.digest, part.size);
                let mut take = |piece: Vec<u8>| {
                    bytes.extend(piece);
                    Ok(())
                };
                download::fetch(
                    self.session,
                    self.repository,
                    self.scope,
                    part,
                    &mut meter,
                    &mut take,
                )?;
                bytes
            }
        };
        let found = digest::of(&bytes);
        if found != part.digest {
            return Err(wrong_digest(&part.digest, &found));
        }
        let parsed = Parsed::from_json(&bytes, &format!("the image config {found}"))?;
        Ok(Config { parsed, bytes })
    }

    /// A small part that is in memory, written unless the store has it.
    fn document(&self, part: &Descriptor, bytes: &[u8]) -> Result<Arrived, Failure> {
        if self.store.read_blob(&part.digest).is_some() {
            return Ok(Arrived::default());
        }
        let mut writer =
            BlobWriter::new(&self.store.temp_dir(), &format!("the blob {}", part.digest))?;
        writer.put(bytes)?;
        let blob = Some(writer.finish_unsynced()?);
        Ok(Arrived {
            blob,
            unpacked: None,
        })
    }

    /// Fetches the layers, several at once, into `arrived`. Of several failures the first counts.
    fn layers(&self, jobs: Vec<Job<'_>>, arrived: &mut Vec<Arrived>) -> Result<(), Failure> {
        for job in &jobs {
            (self.tell)(Progress {
                digest: job.layer.digest.clone(),
                step: Step::Waiting { of: job.layer.size },
            });
        }
        let threads = self.session.options.parallel.clamp(1, jobs.len().max(1));
        let open = Mutex::new(VecDeque::from(jobs));
        let done = Mutex::new((Vec::new(), None));
        let next = || {
            open.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front()
        };
        let work = || {
            while let Some(job) = next() {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                let result = self.layer(&job);
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                match result {
                    Ok(part) => done.0.push(part),
                    Err(failure) => {
                        self.stop.store(true, Ordering::Relaxed);
                        done.1.get_or_insert(failure);
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        let (parts, failure) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        arrived.extend(parts);
        failure.map_or(Ok(()), Err)
    }

    fn layer(&self, job: &Job<'_>) -> Result<Arrived, Failure> {
        let (layer, store) = (job.layer, self.store);
        let mut meter = Meter::new(self.tell, &layer.digest, layer.size);
        let there = layer::place_of(store, job.diff_id)?.exists();
        if store.has_blob(&layer.digest, layer.size) {
            meter.step(Step::Held);
            if there {
                return Ok(Arrived::default());
            }
            // Reads the blob anew, and so verifies it.
            layer::unpacked_one(store, &layer.digest, job.diff_id)?;
            meter.step(Step::Unpacked);
            return Ok(Arrived::default());
        }
        let mut tried = 0;
        loop {
            tried += 1;
            let failure = match self.fetch(job, &mut meter, !there) {
                Ok(arrived) => {
                    meter.step(Step::Unpacked);
                    return Ok(arrived);
                }
                Err(failure) => failure,
            };
            match failure {
                Failure::Local(Error::Corrupt { found, .. }) if tried < TRIES => {
                    let reason = format!("sent content with the digest {found}");
                    meter.step(Step::Again { reason });
                }
                Failure::Local(Error::Corrupt {
                    expected, found, ..
                }) => {
                    return Err(wrong_digest(&expected, &found));
                }
                other => return Err(other),
            }
        }
    }

    /// Fetches one layer; what has come goes to the blob and, at the same time, to the unpacker.
    fn fetch(
        &self,
        job: &Job<'_>,
        meter: &mut Meter<'_>,
        unpack: bool,
    ) -> Result<Arrived, Failure> {
        let layer = job.layer;
        let store = self.store;
        let mut writer =
            BlobWriter::new(&store.temp_dir(), &format!("the layer {}", layer.digest))?;
        let mut root = match unpack {
            true => Some(layer::Root::new(store, job.diff_id, &layer.digest)?),
            false => None,
        };
        let (unpacked, fetched) = thread::scope(|scope| {
            let (mut pipe, reader) = pieces::pipe();
            let unpacking = root
                .as_ref()
                .map(|root| scope.spawn(move || root.fill(reader)));
            let mut take = |piece: Vec<u8>| {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Failure::cancelled());
                }
                writer.put(&piece)?;
                // An unpacker that has given up is heard when the digest is known: the blob may be at fault.
                pipe.send(piece);
                Ok(())
            };
            let fetched = download::fetch(
                self.session,
                self.repository,
                self.scope,
                layer,
                meter,
                &mut take,
            );
            match fetched {
                Ok(()) => pipe.end(),
                Err(_) => drop(pipe),
            }
            let unpacked = unpacking.map(|thread| thread.join());
            (unpacked, fetched)
        });
        fetched?;
        let blob = writer.finish_unsynced()?;
        if blob.digest != layer.digest {
            return Err(Failure::Local(Error::Corrupt {
                what: format!("the layer {}", layer.digest),
                expected: layer.digest.clone(),
                found: blob.digest,
            }));
        }
        meter.step(Step::Done);
        let unpacked = match (unpacked, root.take()) {
            (Some(Ok(result)), Some(root)) => Some(root.check(result)?),
            (Some(Err(_)), _) => {
                let broke = io::Error::other("unpacking broke off; please report this");
                let path = store.temp_dir();
                return Err(Failure::Local(crate::error::io_error(
                    "unpack below",
                    &path,
                )(broke)));
            }
            _ => None,
        };
        Ok(Arrived {
            blob: Some(blob),
            unpacked,
        })
    }
}

fn wrong_digest(expected: &str, found: &str) -> Failure {
    let reason = format!("sent content with the digest {found} instead of {expected}");
    Failure::final_(Fault::Broken, reason)
}
