//! Contexts of which the node keeps what it was sent: only what it lacks is sent.
//!
//! What the node has of a file is good as long as inode, length, mode and both times of the file are as they were before
//! it was read for it. So it has to be certain that whoever writes to the file after that gives it another time: a file that
//! was changed just before it was read, or while it was, is sent and *doubted*, which has it sent again with the next
//! build. Clocks that are set back do no harm, since times are only compared for being equal, and none that lies in
//! the future is believed.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use layby_control::api::types::{
    ContextEntry, ContextList, ContextOffer, ContextsBody, ContextsView, KeptContext, Problem,
};
use nix::libc::O_NOFOLLOW;
use sha2::{Digest, Sha256};

use super::append_bytes;
use super::context::{ContextFolder, Found, Walked, below};
use crate::client::Client;
use crate::exit::Exit;

/// Linux gives times by the tick, which is 10 ms at most.
const TICK: Duration = Duration::from_millis(50);
/// Some file systems keep whole seconds, FAT every other one.
const COARSE_TICK: Duration = Duration::from_secs(2);
/// Names the machine (machine-id(5)).
const MACHINE_ID: &str = "/etc/machine-id";

/// What is sent of a context.
pub(super) struct Part {
    name: KeptContext,
    /// The files, with their places in the list.
    lacks: Vec<(u32, Found)>,
}

/// Leaves the lists of contexts with the node. Gives what is to be sent of each; `None`: all.
///
/// # Errors
/// What cannot be read here.
pub(super) async fn offer(
    client: &Client,
    contexts: &[ContextFolder],
) -> Result<Vec<Option<Part>>> {
    let whole = || Ok(contexts.iter().map(|_| None).collect());
    let walked: Result<Vec<Walked>> = contexts.iter().map(ContextFolder::walk).collect();
    let walked = walked?;
    walked.iter().for_each(Walked::tell);
    let mut walks = Vec::new();
    let mut body = ContextsBody::default();
    for (context, Walked { found, .. }) in contexts.iter().zip(walked) {
        let entries: Option<Vec<ContextEntry>> =
            found.iter().map(|found| entry(context, found)).collect();
        // A list has text only.
        let Some(entries) = entries else {
            return whole();
        };
        let key = key(context)?;
        body.contexts.push(ContextList { key, entries });
        walks.push(found);
    }
    if contexts.is_empty() {
        return whole();
    }
    // An older node keeps nothing, and for any other reason, too, all can be sent: the node will say what is wrong then.
    let Ok(view) = client
        .post_json::<ContextsView>("/v1/contexts", &body)
        .await
    else {
        return whole();
    };
    let lists = body.contexts.into_iter().zip(walks);
    let parts = lists.zip(view.contexts.into_iter().chain(std::iter::repeat(None)));
    Ok(parts
        .map(|((list, found), offer)| part(list.key, found, offer?))
        .collect())
}

/// Whether the node has let go of what it kept, so that all is to be sent.
pub(super) fn is_gone(error: &anyhow::Error) -> bool {
    let exit = error.downcast_ref::<Exit>();
    exit.is_some_and(|exit| exit.problem == Problem::CONTEXT_GONE)
}

fn part(key: String, found: Vec<Found>, offer: ContextOffer) -> Option<Part> {
    let mut lacks = offer.lacks;
    lacks.sort_unstable();
    lacks.dedup();
    let mut found: Vec<Option<Found>> = found.into_iter().map(Some).collect();
    let take = |place: u32| {
        let found = found.get_mut(usize::try_from(place).ok()?)?.take()?;
        found.metadata.is_file().then_some((place, found))
    };
    // What is no file of the list cannot be lacking.
    let lacks: Option<Vec<_>> = lacks.into_iter().map(take).collect();
    Some(Part {
        name: KeptContext { key, id: offer.id },
        lacks: lacks?,
    })
}

/// The same for the same folder and Dockerfile of this machine; it says neither to anybody.
fn key(context: &ContextFolder) -> Result<String> {
    let folder = &context.folder;
    let real = folder
        .canonicalize()
        .with_context(|| format!("cannot read the build context {}", folder.display()))?;
    let mut hash = Sha256::new();
    let machine = std::fs::read(MACHINE_ID).unwrap_or_default();
    let path = real.as_os_str().as_encoded_bytes();
    for part in [&*machine, path, context.dockerfile.as_bytes()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What the list says; `None`: it is not text.
fn entry(context: &ContextFolder, found: &Found) -> Option<ContextEntry> {
    let metadata = &found.metadata;
    let mut entry = ContextEntry {
        path: found.path.to_str()?.to_owned(),
        mode: metadata.mode() & 0o7777,
        mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
        ..ContextEntry::default()
    };
    if metadata.is_symlink() {
        let target = std::fs::read_link(context.folder.join(&found.path)).ok()?;
        entry.target = Some(target.into_os_string().into_string().ok()?);
    } else if metadata.is_file() {
        entry.size_bytes = Some(metadata.len());
        entry.stamp = Some(stamp(metadata));
    }
    Some(entry)
}

/// What cannot be set by those who write to a file: which one it is, and when it was changed in any way.
fn stamp(metadata: &Metadata) -> String {
    let changed_ns = ns(metadata.ctime(), metadata.ctime_nsec());
    format!("{:x}.{changed_ns:x}", metadata.ino())
}

fn ns(s: i64, ns: i64) -> i64 {
    s.saturating_mul(1_000_000_000).saturating_add(ns)
}

/// Appends what the node lacks of a context.
pub(super) fn append(
    tar: &mut tar::Builder<impl Write>,
    number: usize,
    context: &ContextFolder,
    part: &Part,
) -> Result<()> {
    let name = serde_json::to_vec(&part.name)?;
    append_bytes(tar, &format!("kept/{number}"), &name)?;
    let mut doubted = Vec::new();
    for (place, found) in &part.lacks {
        let path = below(&format!("context/{number}"), &found.path);
        let is_sure = append_file(tar, &path, context, found).with_context(|| {
            format!("cannot send {}", context.folder.join(&found.path).display())
        })?;
        if !is_sure {
            doubted.push(*place);
        }
    }
    if !doubted.is_empty() {
        let doubted = serde_json::to_vec(&doubted)?;
        append_bytes(tar, &format!("doubted/{number}"), &doubted)?;
    }
    Ok(())
}

/// Appends a file. Says whether what was read is certainly what the list says of it.
fn append_file(
    tar: &mut tar::Builder<impl Write>,
    path: &Path,
    context: &ContextFolder,
    found: &Found,
) -> Result<bool> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NOFOLLOW)
        .open(context.folder.join(&found.path))?;
    let begun = SystemTime::now();
    let before = file.metadata()?;
    if !before.is_file() {
        bail!("it is no file any more: build again");
    }
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&before);
    header.set_size(before.len());
    let whole = Whole {
        file: &file,
        left: before.len(),
    };
    tar.append_data(&mut header, path, whole)?;
    let after = file.metadata()?;
    let is_same = [&before, &after].map(|now| is_same(&found.metadata, now));
    Ok(is_same == [true, true] && is_settled(&before, begun))
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    let facts = |file: &Metadata| {
        (
            stamp(file),
            file.len(),
            file.mode(),
            file.mtime(),
            file.mtime_nsec(),
        )
    };
    facts(one) == facts(other)
}

/// Whether a change from `now` on would give the file another time than it has.
fn is_settled(metadata: &Metadata, now: SystemTime) -> bool {
    let tick = match metadata.ctime_nsec() {
        0 => COARSE_TICK,
        _ => TICK,
    };
    let (Ok(s), Ok(ns)) = (
        u64::try_from(metadata.ctime()),
        u32::try_from(metadata.ctime_nsec()),
    ) else {
        return false;
    };
    let settled = UNIX_EPOCH.checked_add(Duration::new(s, ns) + tick);
    settled.is_some_and(|settled| settled <= now)
}

/// So many bytes of a file, which may become longer meanwhile, but not shorter.
struct Whole<'a> {
    file: &'a File,
    left: u64,
}

impl Read for Whole<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.file.take(self.left).read(into)?;
        if n == 0 && self.left > 0 && !into.is_empty() {
            let text = "it became shorter while it was read: build again";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn context(dir: &Path) -> ContextFolder {
        ContextFolder {
            folder: dir.to_owned(),
            dockerfile: "Dockerfile".to_owned(),
        }
    }

    /// The last of what is sent.
    fn found(context: &ContextFolder) -> Found {
        let mut found = context.walk().expect("a context").found;
        found.pop().expect("a file")
    }

    /// The time at which the file was changed last.
    fn changed_at(found: &Found) -> SystemTime {
        let ns = ns(found.metadata.ctime(), found.metadata.ctime_nsec());
        UNIX_EPOCH + Duration::from_nanos(u64::try_from(ns).expect("after 1970"))
    }

    fn is_sure(context: &ContextFolder, found: &Found) -> Result<bool> {
        let mut tar = tar::Builder::new(io::sink());
        append_file(&mut tar, Path::new("context/0/a"), context, found)
    }

    /// Waits until the clock is so far beyond a time.
    fn wait_beyond(time: SystemTime, tick: Duration) {
        while SystemTime::now() <= time + tick {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_file_that_was_just_changed_is_doubted_and_an_older_one_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let context = context(dir.path());
        fs::write(dir.path().join("a"), "1").expect("a file");
        let file = found(&context);
        let changed_at = changed_at(&file);
        // Whoever writes in the same tick would leave the same times.
        assert!(!is_settled(&file.metadata, changed_at));
        // A clock that was set back since then says nothing of what comes.
        let hour = Duration::from_secs(3600);
        assert!(!is_settled(&file.metadata, changed_at - hour));
        assert!(is_settled(&file.metadata, changed_at + hour));
        wait_beyond(changed_at, TICK);
        if file.metadata.ctime_nsec() != 0 {
            assert!(is_sure(&context, &file).expect("sent"));
        }
    }

    #[test]
    fn a_change_shows_though_length_and_time_are_set_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, context) = (dir.path().join("a"), context(dir.path()));
        fs::write(&path, "1").expect("a file");
        let before = found(&context);
        wait_beyond(changed_at(&before), TICK);
        fs::write(&path, "2").expect("a file");
        let file = File::options().write(true).open(&path).expect("the file");
        let mtime = before.metadata.modified().expect("a time");
        file.set_modified(mtime).expect("its time");
        let after = found(&context);
        let list = |found| entry(&context, found).expect("text");
        let (one, other) = (list(&before), list(&after));
        assert_eq!(
            (one.size_bytes, one.mtime_ns),
            (other.size_bytes, other.mtime_ns)
        );
        assert_ne!(one.stamp, other.stamp);
        // What is read now is not what the first list says.
        assert!(!is_sure(&context, &before).expect("sent"));
        // Another file in its place, though it has all that can be set.
        fs::write(dir.path().join("b"), "2").expect("a file");
        fs::rename(dir.path().join("b"), &path).expect("in its place");
        assert_ne!(list(&found(&context)).stamp, other.stamp);
    }

    #[test]
    fn a_file_that_grows_is_sent_as_long_as_it_was_and_one_that_shrinks_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a");
        fs::write(&path, "12345").expect("a file");
        let file = File::open(&path).expect("the file");
        let read = |left| {
            let mut text = String::new();
            let mut whole = Whole { file: &file, left };
            whole.read_to_string(&mut text).map(|_| text)
        };
        assert_eq!(read(3).expect("read"), "123");
        let error = read(3).expect_err("only two are left");
        assert!(error.to_string().contains("became shorter"), "{error}");
        fs::remove_file(&path).expect("gone");
        std::os::unix::fs::symlink("/etc/passwd", &path).expect("a link");
        let context = context(dir.path());
        let link = found(&context);
        assert!(is_sure(&context, &link).is_err(), "no link is followed");
    }

    #[test]
    fn only_files_of_the_list_are_sent_whatever_the_node_asks_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let context = context(dir.path());
        fs::create_dir(dir.path().join("d")).expect("a folder");
        fs::write(dir.path().join("d/a"), "1").expect("a file");
        let asked = |lacks: &[u32]| {
            let offer = ContextOffer {
                id: String::new(),
                lacks: lacks.to_vec(),
            };
            let found = context.walk().expect("a context").found;
            let part = part(String::new(), found, offer)?;
            Some(
                part.lacks
                    .into_iter()
                    .map(|(_, found)| found.path.into_string().expect("text"))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(asked(&[1, 1]), Some(vec!["d/a".to_owned()]));
        assert_eq!(asked(&[0]), None, "a folder");
        assert_eq!(asked(&[2]), None, "nothing");
    }

    #[test]
    fn a_context_is_known_by_its_folder_and_its_dockerfile() {
        let (one, two) = (tempfile::tempdir(), tempfile::tempdir());
        let (one, two) = (one.expect("a folder"), two.expect("a folder"));
        let key = |dir: &Path, dockerfile: &str| {
            let mut context = context(dir);
            context.dockerfile = dockerfile.to_owned();
            key(&context).expect("a key")
        };
        let first = key(one.path(), "Dockerfile");
        assert_eq!(first, key(&one.path().join("."), "Dockerfile"));
        assert_ne!(first, key(two.path(), "Dockerfile"));
        assert_ne!(first, key(one.path(), "ci/Dockerfile"));
        assert!(!first.contains('/') && first.len() <= 200);
    }
}
