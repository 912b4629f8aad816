//! One connection that carries many: those of a build's steps, to the agents of whoever asked for it. Both ends are here.
//!
//! ```text
//! frame: kind (1 byte), channel (4 bytes), length (2 bytes, big endian as all), then so many bytes
//! node to client:  key (what a build names this connection by), open (2 bytes: which agent), data, close
//! client to node:  data, close
//! ```

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// What the connection is upgraded to (`Upgrade: layby-agents`).
pub const PROTOCOL: &str = "layby-agents";

/// The most bytes of a piece of data.
const PIECE_BYTES: usize = 16 * 1024;
/// So many channels may be open.
const MAX_CHANNELS: usize = 32;
/// So many tasks may carry channels, or wait to say that one has ended; who opens more reads nothing.
const MAX_TASKS: usize = 4 * MAX_CHANNELS;
/// So many pieces may wait for one end of a channel.
const WAITING: usize = 4;
/// So many frames may wait for the connection.
const OUTGOING: usize = 8;

/// A step's connection to an agent.
pub struct Call {
    /// Which one, of those lent.
    pub place: u16,
    /// The connection.
    pub stream: StdStream,
    /// Ends when the step is over.
    pub over: oneshot::Receiver<()>,
}

/// What goes over the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// What a build names this connection by. The first one.
    Key(String),
    /// A step connects to the agent at this place.
    Open {
        /// The new channel.
        channel: u32,
        /// The agent's place.
        place: u16,
    },
    /// Bytes of a channel.
    Data {
        /// The channel.
        channel: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A channel is at its end.
    Close {
        /// The channel.
        channel: u32,
    },
}

impl Frame {
    fn encode(&self) -> Vec<u8> {
        let place;
        let (kind, channel, body): (u8, u32, &[u8]) = match self {
            Self::Key(key) => (0, 0, key.as_bytes()),
            Self::Open { channel, place: at } => {
                place = at.to_be_bytes();
                (1, *channel, &place)
            }
            Self::Data { channel, bytes } => (2, *channel, bytes),
            Self::Close { channel } => (3, *channel, &[]),
        };
        // No piece is longer than it may be.
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
        let mut frame = vec![kind];
        frame.extend(channel.to_be_bytes());
        frame.extend(length.to_be_bytes());
        frame.extend(body.iter().take(length.into()));
        frame
    }

    fn decode(kind: u8, channel: u32, body: Vec<u8>) -> Option<Self> {
        match (kind, &body[..]) {
            (0, _) => Some(Self::Key(String::from_utf8(body).ok()?)),
            (1, [high, low]) => {
                let place = u16::from_be_bytes([*high, *low]);
                Some(Self::Open { channel, place })
            }
            (2, bytes) if bytes.len() <= PIECE_BYTES => Some(Self::Data {
                channel,
                bytes: body,
            }),
            (3, []) => Some(Self::Close { channel }),
            _ => None,
        }
    }

    /// Reads the next one.
    ///
    /// # Errors
    /// The connection ended, or what came is none.
    pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let kind = from.read_u8().await?;
        let channel = from.read_u32().await?;
        let mut body = vec![0; from.read_u16().await?.into()];
        from.read_exact(&mut body).await?;
        let unknown = || io::Error::new(io::ErrorKind::InvalidData, "no frame of an agent");
        Self::decode(kind, channel, body).ok_or_else(unknown)
    }

    /// Writes it.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        to.write_all(&self.encode()).await?;
        to.flush().await
    }
}

/// Carries channels until the connection ends. `calls` are those that begin here; `dial` connects those that begin at the
/// other end to what stands at a place, if anything does. `beat` is sent that often: an end that is gone without a word would
/// never be found out otherwise.
pub async fn run<D>(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    mut calls: mpsc::Receiver<Call>,
    dial: impl Fn(u16) -> D,
    beat: Option<(Frame, Duration)>,
) where
    D: Future<Output = Option<UnixStream>> + Send + 'static,
{
    let (outgoing, waiting) = mpsc::channel::<Frame>(OUTGOING);
    // Dropped at the end, and all that it carries with it.
    let mut tasks = JoinSet::new();
    let mut incoming = both_ways(stream, waiting, &mut tasks);
    let mut channels = BTreeMap::<u32, mpsc::Sender<Vec<u8>>>::new();
    let mut last = 0;
    let (beat, every) = match beat {
        Some((frame, every)) => (Some(frame), every),
        None => (None, Duration::MAX),
    };
    let mut next = pin!(tokio::time::sleep(every));
    loop {
        tokio::select! {
            () = next.as_mut(), if beat.is_some() => {
                // Where much waits already, that will show it.
                let _ = beat.clone().map(|beat| outgoing.try_send(beat));
                next.set(tokio::time::sleep(every));
            }
            frame = incoming.recv() => match frame {
                None => return,
                Some(Frame::Open { channel, place }) => match enter(&mut channels, channel) {
                    Entered::Room(input) if tasks.len() < MAX_TASKS => {
                        tasks.spawn(answer(channel, dial(place), input, outgoing.clone()));
                    }
                    // Whoever opens more than it reads the answers of waits.
                    Entered::Full => {
                        if outgoing.send(Frame::Close { channel }).await.is_err() {
                            return;
                        }
                    }
                    Entered::Room(_) | Entered::Taken => return,
                },
                Some(Frame::Data { channel, bytes }) => {
                    // A channel whose end does not read holds up the others: they are of the same build, and it ends with
                    // its step.
                    if let Some(input) = channels.get(&channel)
                        && input.send(bytes).await.is_err()
                    {
                        channels.remove(&channel);
                    }
                }
                Some(Frame::Close { channel }) => drop(channels.remove(&channel)),
                Some(Frame::Key(_)) => {}
            },
            Some(call) = calls.recv() => {
                last += 1;
                // One too many is closed at once.
                if let Entered::Room(input) = enter(&mut channels, last) {
                    tasks.spawn(begin(last, call, input, outgoing.clone()));
                }
            }
        }
        // What has ended is not to be kept until the connection ends.
        while tasks.try_join_next().is_some() {}
    }
}

/// Writes what waits and reads what comes, apart, so that neither side waits for the other to read before it reads itself.
fn both_ways(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    mut waiting: mpsc::Receiver<Frame>,
    tasks: &mut JoinSet<()>,
) -> mpsc::Receiver<Frame> {
    let (mut from, mut to) = tokio::io::split(stream);
    let (arrived, incoming) = mpsc::channel(1);
    tasks.spawn(async move {
        while let Some(frame) = waiting.recv().await {
            if frame.write(&mut to).await.is_err() {
                return;
            }
        }
    });
    tasks.spawn(async move {
        while let Ok(frame) = Frame::read(&mut from).await {
            if arrived.send(frame).await.is_err() {
                return;
            }
        }
    });
    incoming
}

/// A channel that the other end has opened.
async fn answer(
    channel: u32,
    dialled: impl Future<Output = Option<UnixStream>>,
    input: mpsc::Receiver<Vec<u8>>,
    outgoing: mpsc::Sender<Frame>,
) {
    match dialled.await {
        Some(stream) => carry(channel, stream, input, &outgoing).await,
        None => drop(input),
    }
    // The connection may have ended.
    let _ = outgoing.send(Frame::Close { channel }).await;
}

/// A channel that begins here.
async fn begin(
    channel: u32,
    call: Call,
    input: mpsc::Receiver<Vec<u8>>,
    outgoing: mpsc::Sender<Frame>,
) {
    let usable = call.stream.set_nonblocking(true);
    let Ok(stream) = usable.and_then(|()| UnixStream::from_std(call.stream)) else {
        return;
    };
    let place = call.place;
    if outgoing.send(Frame::Open { channel, place }).await.is_err() {
        return;
    }
    tokio::select! {
        () = carry(channel, stream, input, &outgoing) => {}
        _ = call.over => {}
    }
    // The connection may have ended.
    let _ = outgoing.send(Frame::Close { channel }).await;
}

/// Whether there is room for a channel.
enum Entered {
    /// What comes for it.
    Room(mpsc::Receiver<Vec<u8>>),
    /// There are too many.
    Full,
    /// It is open already.
    Taken,
}

/// Makes room for a channel.
fn enter(channels: &mut BTreeMap<u32, mpsc::Sender<Vec<u8>>>, channel: u32) -> Entered {
    channels.retain(|_, input| !input.is_closed());
    if channels.contains_key(&channel) {
        return Entered::Taken;
    }
    if channels.len() >= MAX_CHANNELS {
        return Entered::Full;
    }
    let (tell, told) = mpsc::channel(WAITING);
    channels.insert(channel, tell);
    Entered::Room(told)
}

/// Carries one channel's bytes both ways until either side has ended, be it in one direction: who asks an agent waits for
/// its answer.
async fn carry(
    channel: u32,
    stream: UnixStream,
    mut input: mpsc::Receiver<Vec<u8>>,
    outgoing: &mpsc::Sender<Frame>,
) {
    let (mut from, mut to) = stream.into_split();
    let out = async {
        loop {
            let mut bytes = Vec::with_capacity(PIECE_BYTES);
            match (&mut from)
                .take(PIECE_BYTES as u64)
                .read_buf(&mut bytes)
                .await
            {
                Ok(length) if length > 0 => {}
                _ => return,
            }
            if outgoing.send(Frame::Data { channel, bytes }).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        while let Some(bytes) = input.recv().await {
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = out => {}
        () = back => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ends of a connection, with agents 0 and 1 that answer what they are asked with their number before it.
    fn link() -> mpsc::Sender<Call> {
        let (near, far) = tokio::io::duplex(100);
        let (calls, called) = mpsc::channel(8);
        tokio::spawn(run(near, called, |_| async { None }, None));
        let (_none, nothing) = mpsc::channel(1);
        tokio::spawn(async move {
            let dial = |place: u16| async move {
                let (mut agent, end) = UnixStream::pair().ok()?;
                tokio::spawn(async move {
                    let mut buffer = [0; 1000];
                    while let Ok(length @ 1..) = agent.read(&mut buffer).await {
                        let said = [&[b'0' + place as u8], &buffer[..length]].concat();
                        if agent.write_all(&said).await.is_err() {
                            return;
                        }
                    }
                });
                (place < 2).then_some(end)
            };
            run(far, nothing, dial, None).await;
        });
        calls
    }

    async fn call(calls: &mpsc::Sender<Call>, place: u16) -> (UnixStream, oneshot::Sender<()>) {
        let (near, far) = StdStream::pair().expect("a pair");
        let (step, over) = oneshot::channel();
        let stream = far;
        let sent = calls.send(Call {
            place,
            stream,
            over,
        });
        sent.await.expect("it runs");
        near.set_nonblocking(true).expect("usable");
        (UnixStream::from_std(near).expect("usable"), step)
    }

    #[tokio::test]
    async fn steps_reach_the_agent_that_they_ask_for_side_by_side() {
        let calls = link();
        let (mut one, _one) = call(&calls, 1).await;
        let (mut two, _two) = call(&calls, 0).await;
        for _ in 0..3 {
            for (stream, said) in [(&mut one, b"1ask"), (&mut two, b"0ask")] {
                stream.write_all(b"ask").await.expect("written");
                let mut answer = [0; 4];
                stream.read_exact(&mut answer).await.expect("answered");
                assert_eq!(&answer, said);
            }
        }
        let long = vec![b'x'; 500_000];
        let (mut from, mut to) = one.into_split();
        let writes = tokio::spawn(async move { to.write_all(&long).await.map(|()| to) });
        let mut got = 0;
        while got < 500_000 {
            let mut buffer = [0; 5000];
            let length = from.read(&mut buffer).await.expect("read");
            assert!(length > 0, "after {got}");
            got += buffer[..length]
                .iter()
                .filter(|byte| **byte == b'x')
                .count();
        }
        writes.await.expect("it ends").expect("written");
    }

    #[tokio::test]
    async fn a_connection_ends_with_its_step_and_one_that_leads_nowhere_at_once() {
        let calls = link();
        let (mut one, step) = call(&calls, 1).await;
        one.write_all(b"ask").await.expect("written");
        one.read_exact(&mut [0; 4]).await.expect("answered");
        drop(step);
        assert_eq!(one.read(&mut [0]).await.expect("closed"), 0);
        let (mut nowhere, _step) = call(&calls, 7).await;
        assert_eq!(nowhere.read(&mut [0]).await.expect("closed"), 0);
        // As many as may be, and one more.
        let mut all = Vec::new();
        for _ in 0..MAX_CHANNELS {
            let (mut stream, step) = call(&calls, 0).await;
            stream.write_all(b"a").await.expect("written");
            stream.read_exact(&mut [0; 2]).await.expect("answered");
            all.push((stream, step));
        }
        let (mut over, _step) = call(&calls, 0).await;
        assert_eq!(over.read(&mut [0]).await.expect("closed"), 0);
        all.pop();
        loop {
            let (mut stream, _step) = call(&calls, 0).await;
            let asked = stream.write_all(b"a").await;
            if asked.is_ok()
                && stream
                    .read(&mut [0; 2])
                    .await
                    .is_ok_and(|length| length > 0)
            {
                break;
            }
        }
    }

    #[tokio::test]
    async fn who_opens_channels_without_end_and_reads_nothing_holds_nothing_of_the_node() {
        let (near, far) = tokio::io::duplex(100);
        let (_none, nothing) = mpsc::channel(1);
        let node = tokio::spawn(run(near, nothing, |_| async { None }, None));
        let (_unread, mut to) = tokio::io::split(far);
        for channel in 1.. {
            let open = Frame::Open { channel, place: 0 };
            if open.write(&mut to).await.is_err() {
                break;
            }
            assert!(channel < 100_000, "it goes on and on");
        }
        node.await.expect("it has ended");
    }

    #[tokio::test]
    async fn an_end_that_says_nothing_hears_from_the_other() {
        let (near, mut far) = tokio::io::duplex(100);
        let (_none, nothing) = mpsc::channel(1);
        let key = Frame::Key("k".to_owned());
        let beat = Some((key.clone(), Duration::from_millis(1)));
        tokio::spawn(run(near, nothing, |_| async { None }, beat));
        for _ in 0..3 {
            assert_eq!(Frame::read(&mut far).await.ok(), Some(key.clone()));
        }
    }

    #[tokio::test]
    async fn a_channel_that_is_opened_twice_ends_the_connection() {
        let (near, mut far) = tokio::io::duplex(100);
        let (_none, nothing) = mpsc::channel(1);
        let dial = |_| std::future::pending::<Option<UnixStream>>();
        let node = tokio::spawn(run(near, nothing, dial, None));
        for _ in 0..2 {
            let open = Frame::Open {
                channel: 1,
                place: 0,
            };
            open.write(&mut far).await.expect("written");
        }
        node.await.expect("it has ended");
    }

    #[tokio::test]
    async fn what_is_no_frame_ends_the_connection() {
        for bytes in [
            &b"\x09\0\0\0\0\0\0"[..],
            b"\x01\0\0\0\x01\0\x01x",
            b"\x02\0",
        ] {
            let mut bytes = bytes;
            assert!(Frame::read(&mut bytes).await.is_err());
        }
        for frame in [
            Frame::Key("k".to_owned()),
            Frame::Open {
                channel: 7,
                place: 300,
            },
            Frame::Data {
                channel: u32::MAX,
                bytes: vec![1; PIECE_BYTES],
            },
            Frame::Close { channel: 1 },
        ] {
            assert_eq!(
                Frame::read(&mut &frame.encode()[..]).await.ok(),
                Some(frame)
            );
        }
    }
}
