//! Reads a request's body within what the container's memory allows: one body may not be larger than
//! [`BODY_MAX_BYTES`], and all that are held at once not than [`HELD_MAX_KIB`].

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::refusal::Refusal;

/// The largest body that is read: a photograph of a telephone, in base64.
pub const BODY_MAX_BYTES: usize = 8 << 20;

/// All bodies held at once, in KiB (a semaphore counts no further than `u32`).
const HELD_MAX_KIB: usize = 16 << 10;

/// How long a request waits for room, and how long a client may take to send its body.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How long the rest of a refused body is read and thrown away. Closing at once would reset the
/// connection, and a client that is still sending would never see why.
const DISCARD_MAX: Duration = Duration::from_secs(2);

/// The memory that bodies and decoding share.
#[derive(Debug, Clone)]
pub struct Room {
    bodies: Arc<Semaphore>,
    decoding: Arc<Semaphore>,
}

/// A body, and the room it takes until it is dropped.
#[derive(Debug)]
pub struct HeldBody {
    /// What was sent.
    pub bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl Room {
    /// Room for [`HELD_MAX_KIB`] of bodies, and for one picture being decoded.
    #[expect(
        clippy::new_without_default,
        reason = "the sizes are no defaults of a type"
    )]
    pub fn new() -> Room {
        Room {
            bodies: Arc::new(Semaphore::new(HELD_MAX_KIB)),
            decoding: Arc::new(Semaphore::new(1)),
        }
    }

    /// Waits for the one place where a picture may be decoded.
    ///
    /// # Errors
    /// [`Refusal::Busy`] after half a minute.
    pub async fn to_decode(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        wait_for(&self.decoding, 1).await
    }

    /// Reads a whole body. One that announces too many bytes is refused before any is read, one
    /// without a length as soon as the limit is passed.
    ///
    /// # Errors
    /// [`Refusal::BodyTooLarge`], [`Refusal::BodySlow`], [`Refusal::BodyBroken`], [`Refusal::Busy`].
    pub async fn read(&self, mut body: Body) -> Result<HeldBody, Refusal> {
        let announced = body.size_hint().exact();
        if announced.is_some_and(|length| length > BODY_MAX_BYTES as u64) {
            discard(body);
            return Err(Refusal::BodyTooLarge);
        }
        let length = announced.map_or(BODY_MAX_BYTES, |length| length as usize);
        let room = wait_for(&self.bodies, length.div_ceil(1024).max(1)).await?;
        let mut bytes = Vec::with_capacity(announced.map_or(0, |_| length));
        match timeout(WAIT_MAX, read_into(&mut bytes, &mut body)).await {
            Ok(Ok(())) => Ok(HeldBody { bytes, _room: room }),
            Ok(Err(refusal)) => {
                discard(body);
                Err(refusal)
            }
            Err(_) => Err(Refusal::BodySlow),
        }
    }
}

async fn wait_for(room: &Arc<Semaphore>, permits: usize) -> Result<OwnedSemaphorePermit, Refusal> {
    let permits = u32::try_from(permits).map_err(|_| Refusal::BodyTooLarge)?;
    match timeout(WAIT_MAX, Arc::clone(room).acquire_many_owned(permits)).await {
        Ok(Ok(permit)) => Ok(permit),
        // Elapsed; or closed, which nothing does.
        Ok(Err(_)) | Err(_) => Err(Refusal::Busy),
    }
}

async fn read_into(bytes: &mut Vec<u8>, body: &mut Body) -> Result<(), Refusal> {
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Refusal::BodyBroken)?.into_data() else {
            continue; // trailers
        };
        if bytes.len() + data.len() > BODY_MAX_BYTES {
            return Err(Refusal::BodyTooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(())
}

fn discard(mut body: Body) {
    tokio::spawn(timeout(DISCARD_MAX, async move {
        while let Some(Ok(_)) = body.frame().await {}
    }));
}
