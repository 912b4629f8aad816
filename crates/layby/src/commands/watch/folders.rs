//! What the kernel tells of folders (inotify(7)).

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{ffi::OsStr, io, thread};

use anyhow::{Context, Result, bail};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::sync::mpsc;

/// How much is read at once.
const BUFFER_BYTES: usize = 16 * 1024;
/// So many reads may wait to be taken up; then the kernel keeps what comes, and says when it had to drop some.
const READS: usize = 16;
/// Where the kernel says how many folders a user may watch.
const LIMIT: &str = "/proc/sys/fs/inotify/max_user_watches";

/// The folders that are watched, each by itself.
#[derive(Debug)]
pub(super) struct Folders {
    fd: Arc<OwnedFd>,
    events: mpsc::Receiver<Vec<Event>>,
    by_number: BTreeMap<i32, PathBuf>,
    by_path: BTreeMap<PathBuf, i32>,
}

/// What the kernel says: of which folder, what, and of which name in it.
type Event = (i32, ReadFlags, Vec<u8>);

/// Something that was heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Of this path; `true`: it is a folder that has come.
    Path(PathBuf, bool),
    /// There was more than the kernel keeps: it may have been anything.
    Lost,
}

impl Folders {
    pub(super) fn new() -> Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC).map_err(io::Error::from);
        let fd = fd.context(
            "files cannot be watched: this user watches in too many programs already (fs.inotify.max_user_instances)",
        )?;
        let fd = Arc::new(fd);
        let (send, events) = mpsc::channel(READS);
        let reader = Arc::clone(&fd);
        // It waits in the kernel, and ends with the program.
        thread::spawn(move || read(&reader, &send));
        Ok(Self {
            fd,
            events,
            by_number: BTreeMap::new(),
            by_path: BTreeMap::new(),
        })
    }

    /// Listens to a folder, not to those below it. One that is not there (any more) is left out.
    ///
    /// # Errors
    /// This user may watch no more.
    pub(super) fn watch(&mut self, folder: &Path) -> Result<()> {
        if self.by_path.contains_key(folder) {
            return Ok(());
        }
        let flags = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW
            | WatchFlags::EXCL_UNLINK;
        match inotify::add_watch(&*self.fd, folder, flags) {
            Ok(number) => {
                // The same folder by another way, such as one that was moved before that was heard.
                if let Some(before) = self.by_number.insert(number, folder.to_owned()) {
                    self.by_path.remove(&before);
                }
                self.by_path.insert(folder.to_owned(), number);
                Ok(())
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => Ok(()),
            Err(Errno::NOSPC) => {
                let most = std::fs::read_to_string(LIMIT).unwrap_or_default();
                bail!(
                    "{} cannot be watched: this user may watch {} folders in all (fs.inotify.max_user_watches); let rules \
                     `ignore` folders that need not be watched, or raise it: sysctl fs.inotify.max_user_watches=1000000",
                    folder.display(),
                    most.trim()
                )
            }
            Err(error) => Err(io::Error::from(error))
                .with_context(|| format!("{} cannot be watched", folder.display())),
        }
    }

    /// No longer listens to a folder and those below it: they are elsewhere now.
    fn forget(&mut self, folder: &Path) {
        let below = self.by_path.range(folder.to_owned()..);
        let below = below.take_while(|(path, _)| path.starts_with(folder));
        let gone: Vec<(PathBuf, i32)> = below
            .map(|(path, number)| (path.clone(), *number))
            .collect();
        for (path, number) in gone {
            self.by_path.remove(&path);
            self.by_number.remove(&number);
            // One that was removed is forgotten by the kernel, too.
            let _ = inotify::remove_watch(&*self.fd, number);
        }
    }

    /// Waits until something is heard. Nothing is lost where it is not waited for any longer.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(super) async fn hear(&mut self) -> Result<Vec<Heard>> {
        let events = self.events.recv().await;
        let events = events.context("the kernel no longer tells what changes")?;
        let mut heard = Vec::new();
        for (number, flags, name) in events {
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                heard.push(Heard::Lost);
                continue;
            }
            if flags.contains(ReadFlags::IGNORED) {
                if let Some(path) = self.by_number.remove(&number) {
                    self.by_path.remove(&path);
                }
                continue;
            }
            // What was moved away is not listened to any longer, and what has no name is the folder itself: that it is another
            // one is heard in the folder that it is in.
            let Some(folder) = self.by_number.get(&number).filter(|_| !name.is_empty()) else {
                continue;
            };
            let path = folder.join(OsStr::from_bytes(&name));
            let is_dir = flags.contains(ReadFlags::ISDIR);
            if is_dir && flags.contains(ReadFlags::MOVED_FROM) {
                self.forget(&path);
            }
            let comes = flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
            heard.push(Heard::Path(path, is_dir && comes));
        }
        Ok(heard)
    }
}

/// Reads what the kernel says for as long as somebody listens.
fn read(fd: &OwnedFd, send: &mpsc::Sender<Vec<Event>>) {
    let mut buffer = [MaybeUninit::<u8>::uninit(); BUFFER_BYTES];
    let mut reader = Reader::new(fd, &mut buffer);
    let mut events = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().map(|name| name.to_bytes().to_vec());
                events.push((event.wd(), event.events(), name.unwrap_or_default()));
            }
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        // The next call waits.
        if reader.is_buffer_empty() && send.blocking_send(std::mem::take(&mut events)).is_err() {
            return;
        }
    }
}
