//! What COPY means: which files of the source go where in the image (docs.docker.com/reference/dockerfile, COPY).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use super::content::{Content, Entry, Kind, hash_file};
use super::view::{Node, View, clean, joined};
use crate::dockerignore::Ignore;
use crate::glob::{self, Pattern};

/// Mode of directories that nothing else decides.
const DIRECTORY_MODE: u32 = 0o755;

/// Where files come from.
pub(crate) struct Source<'a> {
    pub(crate) view: &'a View,
    /// For the build context: what is left out of it.
    pub(crate) ignore: Option<&'a Ignore>,
    /// `the build context /home/me/app`, `the stage build`, ... for errors.
    pub(crate) shown: String,
}

/// A COPY with all variables put in.
pub(crate) struct Request {
    pub(crate) keyword: &'static str,
    pub(crate) sources: Vec<String>,
    /// Absolute, or relative to `working_dir`.
    pub(crate) destination: String,
    /// Absolute.
    pub(crate) working_dir: String,
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) mode: Option<u32>,
    /// Whether archives are refused, since ADD would unpack them.
    pub(crate) refuses_archives: bool,
}

/// One thing that a source word named.
struct Match {
    /// The last part as it was written or found: what the copy is called in a directory.
    name: OsString,
    /// Where it really is in the source, all links followed.
    parts: Vec<OsString>,
    node: Node,
}

/// The entries that the COPY adds to an image that looks like `image`. The error is text for the user.
pub(crate) fn content(request: &Request, source: &Source, image: &View) -> Result<Content, String> {
    let mut copier = Copier {
        request,
        source,
        image,
        content: Content::default(),
    };
    let mut matches = Vec::new();
    for word in &request.sources {
        matches.extend(copier.find(word)?);
    }
    let destination = &request.destination;
    let wants_dir =
        destination.ends_with('/') || matches!(destination.rsplit('/').next(), Some("." | ".."));
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
    let parts = clean(&absolute)
        .ok_or_else(|| format!("has the destination {destination:?} outside of the image"))?;
    let base = image.resolve(&parts).map_err(io_text("the destination"))?;
    let base_is_dir = base.node.as_ref().is_some_and(Node::is_dir);
    if base.node.is_some() && !base_is_dir && wants_dir {
        return Err(format!(
            "has the destination {destination:?}, which is no directory in the image"
        ));
    }
    for found in matches {
        if found.node.is_dir() {
            if base.node.is_some() && !base_is_dir {
                return Err(format!(
                    "cannot copy a directory onto {destination:?}, which is a file in the image"
                ));
            }
            copier.directory(&found, &base.parts)?;
        } else {
            let mut target = base.parts.clone();
            if wants_dir || base_is_dir {
                target.push(found.name.clone());
            }
            copier.file(&found, &target)?;
        }
    }
    Ok(copier.content)
}

/// A WORKDIR that is not there yet: its entries. Nothing where it is.
pub(crate) fn working_dir(path: &str, image: &View) -> Result<Content, String> {
    let parts = clean(path).ok_or_else(|| format!("{path:?} is outside of the image"))?;
    let resolved = image.resolve(&parts).map_err(io_text(path))?;
    let mut content = Content::default();
    match resolved.node {
        Some(node) if node.is_dir() => {}
        Some(_) => return Err(format!("{path:?} is a file in the image")),
        None => {
            for depth in 1..=resolved.parts.len() {
                parent(&mut content, image, &resolved.parts[..depth], None)?;
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
}

impl Copier<'_> {
    /// What a source word names: one thing, or all that its pattern matches, in order.
    fn find(&self, word: &str) -> Result<Vec<Match>, String> {
        let shown = &self.source.shown;
        if word.contains("://") || word.starts_with("git@") {
            return Err(format!(
                "of the remote file {word:?} is not supported; fetch it beforehand"
            ));
        }
        let parts =
            clean(word).ok_or_else(|| format!("names {word:?}, which lies outside of {shown}"))?;
        let mut matches = Vec::new();
        if glob::is_pattern(word) {
            let patterns: Option<Vec<Pattern>> = parts
                .iter()
                .map(|part| Pattern::parse(&part.to_string_lossy()))
                .collect();
            let patterns = patterns.ok_or_else(|| format!("has the broken pattern {word:?}"))?;
            self.glob(&patterns, &[], &mut matches)
                .map_err(io_text(word))?;
            if matches.is_empty() {
                return Err(format!("finds nothing that matches {word:?} in {shown}"));
            }
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
            parts: resolved.parts,
            node,
        }))
    }

    fn glob(
        &self,
        patterns: &[Pattern],
        done: &[OsString],
        matches: &mut Vec<Match>,
    ) -> io::Result<()> {
        let Some((first, rest)) = patterns.split_first() else {
            matches.extend(self.exact(done)?);
            return Ok(());
        };
        let dir = self.source.view.resolve(done)?.node.filter(Node::is_dir);
        let Some(dir) = dir else {
            return Ok(());
        };
        for name in self.source.view.list(&dir)?.into_keys() {
            if first.matches(&name.to_string_lossy()) {
                let mut next = done.to_vec();
                next.push(name);
                self.glob(rest, &next, matches)?;
            }
        }
        Ok(())
    }

    /// Copies what is in a directory into the directory at `target`.
    fn directory(&mut self, found: &Match, target: &[OsString]) -> Result<(), String> {
        // The context's own root has whatever mode the directory happens to have where the build runs.
        let mode = if found.parts.is_empty() {
            DIRECTORY_MODE
        } else {
            found.node.metadata.mode() & 0o7777
        };
        self.enter(target, &found.node, mode)?;
        self.children(&found.node, &found.parts, target)
    }

    fn children(
        &mut self,
        dir: &Node,
        from: &[OsString],
        target: &[OsString],
    ) -> Result<(), String> {
        let children = self.source.view.list(dir).map_err(io_text(&joined(from)))?;
        for (name, node) in children {
            let (mut from, mut target) = (from.to_vec(), target.to_vec());
            from.push(name.clone());
            target.push(name);
            if let Some(ignore) = self.source.ignore {
                let path = joined(&from);
                if ignore.excludes(&path, node.is_dir()) {
                    continue;
                }
                // Left out itself, but something below may be kept: it comes when that does.
                if node.is_dir() && ignore.leaves_out(&path) {
                    self.children(&node, &from, &target)?;
                    continue;
                }
            }
            if node.is_dir() {
                self.enter(&target, &node, node.metadata.mode() & 0o7777)?;
                self.children(&node, &from, &target)?;
            } else {
                let found = Match {
                    name: OsString::new(),
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
        if self.content.contains(target) {
            return Ok(());
        }
        let there = self.image.lookup(target).map_err(io_text("the image"))?;
        if there.is_some() {
            return parent(&mut self.content, self.image, target, None);
        }
        let (uid, gid) = self.owner(source);
        self.content.insert(
            target,
            Entry {
                kind: Kind::Directory,
                mode: self.request.mode.unwrap_or(mode),
                uid,
                gid,
            },
        )
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
        let kind = found.node.metadata.file_type();
        let kind = if kind.is_file() {
            if self.request.refuses_archives && is_archive(path).map_err(io_text(&shown))? {
                return Err(format!(
                    "of the archive {shown:?} is not supported yet by this builder; unpack it beforehand, or COPY it as it is"
                ));
            }
            let (size_bytes, digest) = hash_file(path).map_err(io_text(&shown))?;
            Kind::File {
                source: path.to_owned(),
                size_bytes,
                digest,
                // From another image; what the build machine's files can do is nobody's business.
                capability: self
                    .source
                    .ignore
                    .is_none()
                    .then(|| capability(path))
                    .flatten(),
            }
        } else if kind.is_symlink() {
            Kind::Symlink(fs::read_link(path).map_err(io_text(&shown))?)
        } else {
            return Err(format!(
                "cannot copy {shown:?}, which is a socket, pipe or device"
            ));
        };
        let mode = match (&kind, self.request.mode) {
            (Kind::Symlink(_), _) => 0o777,
            (_, Some(mode)) => mode,
            (_, None) => found.node.metadata.mode() & 0o7777,
        };
        let (uid, gid) = self.owner(&found.node);
        self.content.insert(
            target,
            Entry {
                kind,
                mode,
                uid,
                gid,
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
        match (self.request.owner, self.source.ignore) {
            (Some(owner), _) => owner,
            (None, Some(_)) => (0, 0),
            (None, None) => (node.metadata.uid(), node.metadata.gid()),
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
    let (mode, (uid, gid)) = match there {
        Some(node) if node.is_dir() => {
            let metadata = &node.metadata;
            (metadata.mode() & 0o7777, (metadata.uid(), metadata.gid()))
        }
        Some(_) => {
            return Err(format!(
                "needs the directory /{}, which is a file or a link in the image",
                joined(parts)
            ));
        }
        None => (DIRECTORY_MODE, owner.unwrap_or((0, 0))),
    };
    content.insert(
        parts,
        Entry {
            kind: Kind::Directory,
            mode,
            uid,
            gid,
        },
    )
}

/// Whether ADD would unpack it: a compressed file or a tar, by its first bytes.
fn is_archive(path: &std::path::Path) -> io::Result<bool> {
    use std::io::Read;
    let mut first = Vec::new();
    fs::File::open(path)?.take(512).read_to_end(&mut first)?;
    let compressed = crate::layer::Compression::of(&first) != crate::layer::Compression::None;
    Ok(compressed || first.get(257..262) == Some(b"ustar"))
}

fn capability(path: &std::path::Path) -> Option<Vec<u8>> {
    // Version 3 of the kernel's structure has 24 bytes.
    let mut value = [0; 64];
    let length = rustix::fs::lgetxattr(path, "security.capability", &mut value).ok()?;
    Some(value[..length].to_vec())
}

fn io_text(what: &str) -> impl Fn(io::Error) -> String {
    let what = what.to_owned();
    move |error| format!("cannot read {what:?}: {error}")
}
