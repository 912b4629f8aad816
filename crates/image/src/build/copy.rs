//! What COPY means: which files of the source go where in the image (docs.docker.com/reference/dockerfile, COPY).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FileType;

use super::archive;
use super::chmod::Chmod;
use super::content::{Content, Entry, Kind, hash_file};
use super::view::{Node, View, clean, joined};
use crate::dockerignore::Ignore;
use crate::glob::{self, Pattern};

/// Mode of directories that nothing else decides.
const DIRECTORY_MODE: u32 = 0o755;

/// Where files come from.
pub(crate) struct Source<'a> {
    pub(crate) view: &'a View,
    /// What is left out of it.
    pub(crate) ignore: Option<&'a Ignore>,
    /// Another image or an archive, whose owners count; the files of a context belong to root.
    pub(crate) keeps_owners: bool,
    /// `the build context /home/me/app`, `the stage build`, ... for errors.
    pub(crate) shown: String,
}

/// Files of one source.
pub(crate) struct Part<'a> {
    pub(crate) source: Source<'a>,
    /// Paths and patterns.
    pub(crate) words: Vec<String>,
    /// Whether archives among them are unpacked, as ADD does.
    pub(crate) unpacks: bool,
}

/// A COPY or ADD with all variables put in.
pub(crate) struct Request {
    /// Absolute, or relative to `working_dir`.
    pub(crate) destination: String,
    /// Absolute.
    pub(crate) working_dir: String,
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) mode: Option<Chmod>,
    /// Whether the folders that a source is in are made too.
    pub(crate) parents: bool,
    /// What is left out, relative to each source.
    pub(crate) excludes: Option<Ignore>,
    /// Where archives may be unpacked.
    pub(crate) temp_dir: PathBuf,
    /// Nobody wants the image any more.
    pub(crate) stop: Arc<AtomicBool>,
}

/// One part of a source's path.
enum Step {
    /// A name or a pattern.
    One(Pattern),
    /// `**`, with `--parents`: any folders, or none.
    Deep,
}

impl Step {
    fn parse(text: &str, knows_deep: bool) -> Option<Self> {
        match text {
            "**" if knows_deep => Some(Self::Deep),
            text => Pattern::parse(text).map(Self::One),
        }
    }
}

/// One thing that a source word named.
struct Match {
    /// The last part as it was written or found: what the copy is called in a directory.
    name: OsString,
    /// The path as it was written or found, from the pivot (`/./`) on.
    asked: Vec<OsString>,
    /// Before the pivot.
    before: Vec<OsString>,
    /// Where it really is in the source, all links followed.
    parts: Vec<OsString>,
    node: Node,
}

/// The entries that the COPY adds to an image that looks like `image`. The error is text for the user.
pub(crate) fn content(request: &Request, parts: &[Part], image: &View) -> Result<Content, String> {
    let mut content = Content::default();
    let mut matches = Vec::new();
    for part in parts {
        let copier = Copier::new(request, part, image, Content::default());
        for word in &part.words {
            matches.extend(copier.find(word)?.into_iter().map(|found| (part, found)));
        }
    }
    if matches.is_empty() {
        let words: Vec<&str> = parts
            .iter()
            .flat_map(|part| part.words.iter().map(String::as_str))
            .collect();
        let shown = parts.first().map_or("", |part| &part.source.shown);
        return Err(format!(
            "finds nothing that matches {:?} in {shown}",
            words.join(" ")
        ));
    }
    let destination = &request.destination;
    let wants_dir = request.parents
        || destination.ends_with('/')
        || matches!(destination.rsplit('/').next(), Some("." | ".."));
    if matches.len() > 1 && !wants_dir {
        return Err(format!(
            "copies several files, so the destination {destination:?} must be a directory and end with a /"
        ));
    }
    let absolute = if destination.starts_with('/') {
        destination.clone()
    } else {
        format!("{}/{destination}", request.working_dir)
    };
    let target = clean(&absolute)
        .ok_or_else(|| format!("has the destination {destination:?} outside of the image"))?;
    let base = image.resolve(&target).map_err(io_text("the destination"))?;
    let base_is_dir = base.node.as_ref().is_some_and(Node::is_dir);
    if base.node.is_some() && !base_is_dir && wants_dir {
        return Err(format!(
            "has the destination {destination:?}, which is no directory in the image"
        ));
    }
    for (part, found) in matches {
        let mut copier = Copier::new(request, part, image, content);
        let unpacks = part.unpacks
            && found.node.metadata.is_file()
            && archive::is_tar(found.node.path()).map_err(io_text(&joined(&found.parts)))?;
        if base.node.is_some() && !base_is_dir && (found.node.is_dir() || unpacks) {
            return Err(format!(
                "cannot copy a directory onto {destination:?}, which is a file in the image"
            ));
        }
        let mut target = base.parts.clone();
        if unpacks {
            copier.archive(&found, &target)?;
        } else if request.parents {
            copier.with_parents(&found, target)?;
        } else if found.node.is_dir() {
            copier.contents(&found, &target)?;
        } else if !copier.excluded(std::slice::from_ref(&found.name), false) {
            if wants_dir || base_is_dir {
                target.push(found.name.clone());
            }
            copier.file(&found, &target)?;
        }
        content = copier.content;
    }
    Ok(content)
}

/// A WORKDIR that is not there yet: its entries. Nothing where it is.
pub(crate) fn working_dir(
    path: &str,
    owner: Option<(u32, u32)>,
    image: &View,
) -> Result<Content, String> {
    let parts = clean(path).ok_or_else(|| format!("{path:?} is outside of the image"))?;
    let resolved = image.resolve(&parts).map_err(io_text(path))?;
    let mut content = Content::default();
    match resolved.node {
        Some(node) if node.is_dir() => {}
        Some(_) => return Err(format!("{path:?} is a file in the image")),
        None => {
            for depth in 1..=resolved.parts.len() {
                parent(&mut content, image, &resolved.parts[..depth], owner)?;
            }
        }
    }
    Ok(content)
}

struct Copier<'a> {
    request: &'a Request,
    source: &'a Source<'a>,
    image: &'a View,
    content: Content,
    /// Whether it is an archive's: owners and modes are its own, also those of directories that are there.
    is_archive: bool,
    /// The first path of each file that has several, by device and inode.
    links: BTreeMap<(u64, u64), PathBuf>,
}

impl<'a> Copier<'a> {
    fn new(request: &'a Request, part: &'a Part, image: &'a View, content: Content) -> Self {
        Self {
            request,
            source: &part.source,
            image,
            content,
            is_archive: false,
            links: BTreeMap::new(),
        }
    }

    /// What a source word names: one thing, or all that its pattern matches, in order.
    fn find(&self, word: &str) -> Result<Vec<Match>, String> {
        let shown = &self.source.shown;
        if word.contains("://") || word.starts_with("git@") {
            return Err(format!(
                "takes no remote file such as {word:?}; ADD fetches URLs"
            ));
        }
        let parts =
            clean(word).ok_or_else(|| format!("names {word:?}, which lies outside of {shown}"))?;
        let mut matches = Vec::new();
        let pivot = match word.split_once("/./") {
            Some((before, _)) if self.request.parents => {
                clean(before).map_or(0, |parts| parts.len())
            }
            _ => 0,
        };
        if glob::is_pattern(word) {
            let patterns: Option<Vec<Step>> = parts
                .iter()
                .map(|part| Step::parse(&part.to_string_lossy(), self.request.parents))
                .collect();
            let patterns = patterns.ok_or_else(|| format!("has the broken pattern {word:?}"))?;
            // One that matches nothing is no mistake as long as another word does (`COPY package.json yarn.lock* ./`).
            self.glob(&patterns, &[], &mut matches)
                .map_err(io_text(word))?;
        } else if let Some(found) = self.exact(&parts).map_err(io_text(word))? {
            matches.push(found);
        } else {
            let exists = self
                .source
                .view
                .lookup(&parts)
                .map_err(io_text(word))?
                .is_some();
            let hint = match (exists, self.source.ignore) {
                (true, Some(ignore)) if ignore.leaves_out(&joined(&parts)) => {
                    ": .dockerignore leaves it out"
                }
                (true, _) => ": it is a symbolic link that leads to nothing there",
                (false, _) => "",
            };
            return Err(format!("does not find {word:?} in {shown}{hint}"));
        }
        for found in &mut matches {
            let depth = pivot.min(found.asked.len());
            found.before = found.asked.drain(..depth).collect();
        }
        Ok(matches)
    }

    /// The thing at a path, if the rules of the context let it be seen.
    fn exact(&self, parts: &[OsString]) -> io::Result<Option<Match>> {
        let resolved = self.source.view.resolve(parts)?;
        let Some(node) = resolved.node else {
            return Ok(None);
        };
        let hidden = |parts: &[OsString]| {
            let ignore = self.source.ignore.filter(|_| !parts.is_empty());
            ignore.is_some_and(|ignore| ignore.excludes(&joined(parts), node.is_dir()))
        };
        // Neither what was named nor what it links to may be left out.
        if hidden(parts) || hidden(&resolved.parts) {
            return Ok(None);
        }
        Ok(Some(Match {
            name: parts.last().cloned().unwrap_or_default(),
            asked: parts.to_vec(),
            before: Vec::new(),
            parts: resolved.parts,
            node,
        }))
    }

    fn glob(
        &self,
        patterns: &[Step],
        done: &[OsString],
        matches: &mut Vec<Match>,
    ) -> io::Result<()> {
        let Some((first, rest)) = patterns.split_first() else {
            // `a/**` reaches what it is in, too.
            if !done.is_empty() {
                matches.extend(self.exact(done)?);
            }
            return Ok(());
        };
        let dir = self.source.view.resolve(done)?.node.filter(Node::is_dir);
        let Some(dir) = dir else {
            return Ok(());
        };
        if let Step::Deep = first
            && !rest.is_empty()
        {
            self.glob(rest, done, matches)?;
        }
        for (name, node) in self.source.view.list(&dir)? {
            let mut next = done.to_vec();
            next.push(name);
            match first {
                Step::Deep if node.is_dir() && !rest.is_empty() => {
                    self.glob(patterns, &next, matches)?;
                }
                Step::Deep if rest.is_empty() => self.glob(rest, &next, matches)?,
                Step::Deep => {}
                Step::One(pattern) => {
                    let name = next.last().map(|name| name.to_string_lossy());
                    if pattern.matches(&name.unwrap_or_default()) {
                        self.glob(rest, &next, matches)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether `--exclude` leaves out a path relative to its source.
    fn excluded(&self, path: &[OsString], is_dir: bool) -> bool {
        let excludes = self.request.excludes.as_ref();
        excludes.is_some_and(|excludes| excludes.excludes(&joined(path), is_dir))
    }

    /// Unpacks a tar into the directory at `target`.
    fn archive(&mut self, found: &Match, target: &[OsString]) -> Result<(), String> {
        let unpacked = archive::unpack(found.node.path(), &self.request.temp_dir)
            .map_err(|reason| format!("cannot unpack {:?}: {reason}", joined(&found.parts)))?;
        let view = View::of_context(unpacked.path());
        let source = Source {
            view: &view,
            ignore: None,
            keeps_owners: true,
            shown: format!("the archive {:?}", joined(&found.parts)),
        };
        let root = view.lookup(&[]).map_err(io_text("the archive"))?;
        let root = root.ok_or("cannot read the archive")?;
        let mut inner = Copier {
            request: self.request,
            source: &source,
            image: self.image,
            content: std::mem::take(&mut self.content),
            is_archive: true,
            links: BTreeMap::new(),
        };
        inner.parents(target)?;
        let copied = inner.children(&root, &[], target, &[]);
        self.content = inner.content;
        self.content.keep(unpacked);
        copied
    }

    /// Copies something with the folders that it is in.
    fn with_parents(&mut self, found: &Match, mut target: Vec<OsString>) -> Result<(), String> {
        let mut path = found.before.clone();
        let (name, dirs) = match found.asked.split_last() {
            Some((name, dirs)) => (Some(name), dirs),
            None => (None, &[][..]),
        };
        for part in dirs {
            path.push(part.clone());
            target.push(part.clone());
            let dir = self.source.view.resolve(&path);
            if let Some(node) = dir.map_err(io_text(&joined(&path)))?.node {
                self.enter(&target, &node, node.metadata.mode() & 0o7777)?;
            }
        }
        target.extend(name.cloned());
        if found.node.is_dir() {
            return self.directory(found, &target, &found.asked);
        }
        match self.excluded(&found.asked, false) {
            true => Ok(()),
            false => self.file(found, &target),
        }
    }

    /// Copies what is in a directory into the directory at `target`, which is made like any other folder on the way.
    fn contents(&mut self, found: &Match, target: &[OsString]) -> Result<(), String> {
        self.links.clear();
        self.parents(target)?;
        self.children(&found.node, &found.parts, target, &[])
    }

    /// Copies a directory itself. `within` is what `--exclude` sees of its path.
    fn directory(
        &mut self,
        found: &Match,
        target: &[OsString],
        within: &[OsString],
    ) -> Result<(), String> {
        self.links.clear();
        self.enter(target, &found.node, found.node.metadata.mode() & 0o7777)?;
        self.children(&found.node, &found.parts, target, within)
    }

    fn children(
        &mut self,
        dir: &Node,
        from: &[OsString],
        target: &[OsString],
        within: &[OsString],
    ) -> Result<(), String> {
        let children = self.source.view.list(dir).map_err(io_text(&joined(from)))?;
        for (name, node) in children {
            let below = |path: &[OsString]| [path, std::slice::from_ref(&name)].concat();
            let (from, target, within) = (below(from), below(target), below(within));
            let path = joined(&from);
            let ignored = |ignore: &Ignore, path: &str| {
                // Left out itself, but something below may be kept: it comes when that does.
                (
                    ignore.excludes(path, node.is_dir()),
                    node.is_dir() && ignore.leaves_out(path),
                )
            };
            let by_context = self.source.ignore.map(|ignore| ignored(ignore, &path));
            let excludes = self.request.excludes.as_ref();
            let by_flag = excludes.map(|excludes| ignored(excludes, &joined(&within)));
            let verdicts = [by_context, by_flag].into_iter().flatten();
            let (is_out, is_only_a_way) =
                verdicts.fold((false, false), |all, one| (all.0 || one.0, all.1 || one.1));
            if is_out {
                continue;
            }
            if is_only_a_way {
                self.children(&node, &from, &target, &within)?;
            } else if node.is_dir() {
                self.enter(&target, &node, node.metadata.mode() & 0o7777)?;
                self.children(&node, &from, &target, &within)?;
            } else {
                let found = Match {
                    name,
                    asked: Vec::new(),
                    before: Vec::new(),
                    parts: from,
                    node,
                };
                self.file(&found, &target)?;
            }
        }
        Ok(())
    }

    /// Adds a directory: as the image has it, or as the source has it.
    fn enter(&mut self, target: &[OsString], source: &Node, mode: u32) -> Result<(), String> {
        let Some((_, parents)) = target.split_last() else {
            return Ok(());
        };
        self.parents(parents)?;
        if self.content.contains(target) && !self.is_archive {
            return Ok(());
        }
        let (uid, gid) = self.owner(source);
        let mode = match &self.request.mode {
            Some(change) if !self.is_archive => change.applied(mode, true),
            Some(_) | None => mode,
        };
        let entry = Entry {
            kind: Kind::Directory,
            mode,
            uid,
            gid,
            mtime: mtime(source),
        };
        if self.is_archive {
            self.content.insert(target, entry.clone())?;
            self.content.replace_directory(target, &entry);
            return Ok(());
        }
        let there = self.image.lookup(target).map_err(io_text("the image"))?;
        if there.is_some() {
            return parent(&mut self.content, self.image, target, None);
        }
        self.content.insert(target, entry)
    }

    fn file(&mut self, found: &Match, target: &[OsString]) -> Result<(), String> {
        let shown = joined(&found.parts);
        let Some((_, parents)) = target.split_last() else {
            return Err(format!("cannot put the file {shown:?} in the place of /"));
        };
        self.parents(parents)?;
        let there = self.image.lookup(target).map_err(io_text("the image"))?;
        if there.is_some_and(|there| there.is_dir()) {
            return Err(format!(
                "cannot put the file {shown:?} in the place of the directory /{}",
                joined(target)
            ));
        }
        let path = found.node.path();
        let metadata = &found.node.metadata;
        let kind = metadata.file_type();
        let inode = (metadata.dev(), metadata.ino());
        let shares = self.source.keeps_owners && metadata.nlink() > 1 && !kind.is_symlink();
        let special = |kind| Kind::Special {
            kind,
            device: (
                rustix::fs::major(metadata.rdev()),
                rustix::fs::minor(metadata.rdev()),
            ),
        };
        let kind = if let (true, Some(first)) = (shares, self.links.get(&inode)) {
            Kind::Link(first.clone())
        } else if kind.is_file() {
            let most_bytes = metadata.len();
            self.content.measure(most_bytes)?;
            let (size_bytes, digest) = match self.source.view.digest_of(&found.parts) {
                Some(digest) => (most_bytes, digest.to_owned()),
                None => hash_file(path, most_bytes, &self.request.stop).map_err(io_text(&shown))?,
            };
            Kind::File {
                source: path.to_owned(),
                size_bytes,
                digest,
                // From another image; what the build machine's files can do is nobody's business.
                capability: self.source.keeps_owners.then(|| capability(path)).flatten(),
            }
        } else if kind.is_symlink() {
            Kind::Symlink(fs::read_link(path).map_err(io_text(&shown))?)
        } else if self.source.keeps_owners && kind.is_fifo() {
            Kind::Special {
                kind: FileType::Fifo,
                device: (0, 0),
            }
        } else if self.source.keeps_owners && kind.is_char_device() {
            special(FileType::CharacterDevice)
        } else if self.source.keeps_owners && kind.is_block_device() {
            special(FileType::BlockDevice)
        } else {
            return Err(format!(
                "cannot copy {shown:?}, which is a socket, pipe or device"
            ));
        };
        let mode = metadata.mode() & 0o7777;
        let mode = match (&kind, &self.request.mode) {
            (Kind::Symlink(_), _) => 0o777,
            (_, Some(change)) if !self.is_archive => change.applied(mode, false),
            (_, _) => mode,
        };
        let (uid, gid) = self.owner(&found.node);
        if shares && !matches!(kind, Kind::Link(_)) {
            self.links.insert(inode, target.iter().collect());
        }
        self.content.insert(
            target,
            Entry {
                kind,
                mode,
                uid,
                gid,
                mtime: mtime(&found.node),
            },
        )
    }

    fn parents(&mut self, parts: &[OsString]) -> Result<(), String> {
        for depth in 1..=parts.len() {
            parent(
                &mut self.content,
                self.image,
                &parts[..depth],
                self.request.owner,
            )?;
        }
        Ok(())
    }

    /// --chown, or what the other image says; files of the context belong to root.
    fn owner(&self, node: &Node) -> (u32, u32) {
        match (self.request.owner, self.source.keeps_owners) {
            (Some(owner), _) if !self.is_archive => owner,
            (Some(_), _) => (node.metadata.uid(), node.metadata.gid()),
            (None, false) => (0, 0),
            (None, true) => (node.metadata.uid(), node.metadata.gid()),
        }
    }
}

/// Adds a directory on the way to something: as the image has it (a layer's entry replaces its mode and owner),
/// or anew.
fn parent(
    content: &mut Content,
    image: &View,
    parts: &[OsString],
    owner: Option<(u32, u32)>,
) -> Result<(), String> {
    if content.contains(parts) {
        return Ok(());
    }
    let there = image.lookup(parts).map_err(io_text("the image"))?;
    let (mode, (uid, gid), mtime) = match there {
        Some(node) if node.is_dir() => {
            let metadata = &node.metadata;
            let owner = (metadata.uid(), metadata.gid());
            (metadata.mode() & 0o7777, owner, mtime(&node))
        }
        Some(_) => {
            return Err(format!(
                "needs the directory /{}, which is a file or a link in the image",
                joined(parts)
            ));
        }
        None => (DIRECTORY_MODE, owner.unwrap_or((0, 0)), now()),
    };
    content.insert(
        parts,
        Entry {
            kind: Kind::Directory,
            mode,
            uid,
            gid,
            mtime,
        },
    )
}

fn mtime(node: &Node) -> (i64, u32) {
    let ns = u32::try_from(node.metadata.mtime_nsec()).unwrap_or(0);
    (node.metadata.mtime(), ns)
}

fn now() -> (i64, u32) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    (
        i64::try_from(now.as_secs()).unwrap_or(0),
        now.subsec_nanos(),
    )
}

fn capability(path: &Path) -> Option<Vec<u8>> {
    // Version 3 of the kernel's structure has 24 bytes.
    let mut value = [0; 64];
    let length = rustix::fs::lgetxattr(path, "security.capability", &mut value).ok()?;
    Some(value[..length].to_vec())
}

fn io_text(what: &str) -> impl Fn(io::Error) -> String {
    let what = what.to_owned();
    move |error| format!("cannot read {what:?}: {error}")
}
