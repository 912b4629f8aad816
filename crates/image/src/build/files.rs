//! The instructions that bring files: COPY, ADD, WORKDIR.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::cache::{self, Key};
use super::chmod::Chmod;
use super::content::{Content, Layer};
use super::copy::{self, Part, Request, Source};
use super::draft::Draft;
use super::fetch;
use super::ignore_of;
use super::plan::{From, source_of};
use super::stage::{Made, StageBuilder};
use super::view::{View, clean, joined};
use crate::Error;
use crate::dockerfile::Copy;
use crate::dockerignore::Ignore;
use crate::error::storing;
use crate::fence::Fence;

/// Files that an instruction takes from elsewhere than the build context.
pub(super) enum Elsewhere {
    /// A stage or an image.
    Layers(Box<Draft>),
    /// A folder that the build was given beside its context.
    Folder(View, Ignore),
}

/// A COPY or ADD with all variables put in.
struct Words<'a> {
    copy: &'a Copy,
    keyword: &'static str,
    sources: Vec<String>,
    destination: String,
    excludes: Vec<String>,
    chown: Option<String>,
    chmod: Option<String>,
    checksum: Option<String>,
}

impl Words<'_> {
    /// Whether a source is fetched.
    fn is_url(&self, source: &str) -> bool {
        self.copy.is_add && fetch::is_url(source)
    }
}

impl StageBuilder<'_> {
    /// COPY and ADD.
    pub(super) fn copy(&self, line: u32, copy: &Copy) -> Result<Made, Error> {
        let words = self.words(line, copy)?;
        let other = match &copy.from {
            None => None,
            Some(from) => {
                let keyword = format!("{} --from", words.keyword);
                Some(self.elsewhere(line, &keyword, from)?)
            }
        };
        let key = self.origin(&words, other.as_ref());
        let key = key.map(|origin| self.copy_key(&words, &origin));
        let store = self.build.store;
        if let Some(key) = &key
            && !self.build.options.no_cache
            && let Some(layer) = cache::read(store, key)
        {
            return Ok(Made::Layer(layer, true));
        }
        let content = self.copied(line, words, other.as_ref())?;
        let Some(key) = key else {
            return Ok(Made::Content(content));
        };
        let (layer, cached) = self.stored(line, &content)?;
        cache::write(store, &key, layer.as_ref())?;
        Ok(Made::Layer(layer, cached))
    }

    fn words<'a>(&self, line: u32, copy: &'a Copy) -> Result<Words<'a>, Error> {
        let keyword = if copy.is_add { "ADD" } else { "COPY" };
        let expand = |word: &String| self.expand_filled(line, keyword, word);
        let all = |words: &[String]| words.iter().map(expand).collect::<Result<Vec<_>, _>>();
        let flag = |text: &Option<String>| text.as_ref().map(expand).transpose();
        Ok(Words {
            copy,
            keyword,
            sources: all(&copy.sources)?,
            destination: expand(&copy.destination)?,
            excludes: all(&copy.excludes)?,
            chown: flag(&copy.chown)?,
            chmod: flag(&copy.chmod)?,
            checksum: flag(&copy.checksum)?,
        })
    }

    /// What the files are, where that is known without looking at them: those of a stage, an image, a kept context, or a
    /// URL with a checksum.
    fn origin(&self, words: &Words, other: Option<&Elsewhere>) -> Option<String> {
        if !words.copy.heredocs.is_empty() {
            return None;
        }
        let is_fetched = words.sources.iter().any(|source| words.is_url(source));
        match (other, is_fetched) {
            (Some(Elsewhere::Layers(draft)), _) => Some(draft.chain()),
            (Some(Elsewhere::Folder(view, ignore)), _) => kept(view, ignore),
            (None, false) => kept(self.build.context, self.build.ignore),
            (None, true) if words.sources.len() == 1 => words.checksum.clone(),
            (None, true) => None,
        }
    }

    /// The key of what is copied from an origin.
    fn copy_key(&self, words: &Words, origin: &str) -> String {
        let copy = words.copy;
        let mut key = Key::new("layby copy 2");
        key.field(origin);
        key.field(self.draft.chain());
        key.field(self.build.epoch_s.unwrap_or(0).to_le_bytes());
        key.list(&words.sources);
        key.field(&words.destination);
        key.field(self.draft.working_dir());
        key.list(&words.excludes);
        for text in [&words.chown, &words.chmod] {
            key.list(text);
        }
        let switches = [
            copy.is_add,
            copy.parents,
            copy.unpack == Some(true),
            copy.unpack.is_some(),
        ];
        key.field(switches.map(u8::from));
        key.finish()
    }

    /// The files, looked at, fetched and unpacked.
    fn copied(
        &self,
        line: u32,
        mut words: Words,
        other: Option<&Elsewhere>,
    ) -> Result<Content, Error> {
        let (copy, keyword) = (words.copy, words.keyword);
        let image = self.draft.view(self.build.store)?;
        let request = self.request(line, &words, &image)?;
        let inline = self.inline_files(line, keyword, copy)?;
        let sources = std::mem::take(&mut words.sources);
        let (urls, paths): (Vec<String>, Vec<String>) =
            sources.into_iter().partition(|word| words.is_url(word));
        let fetched = self.fetched(line, &urls, words.checksum.as_deref())?;
        if words.checksum.is_some() && urls.len() != 1 {
            let text = "ADD --checksum goes with one URL".to_owned();
            return Err(self.build.error(line, text));
        }
        let views =
            [&inline, &fetched].map(|files| files.as_ref().map(|f| View::of_context(f.0.path())));
        let other_view = match other {
            Some(Elsewhere::Layers(draft)) => Some(draft.view(self.build.store)?),
            Some(Elsewhere::Folder(..)) | None => None,
        };
        let mut parts = Vec::new();
        if !paths.is_empty() {
            parts.push(Part {
                source: self.source(copy, other, other_view.as_ref()),
                words: paths,
                unpacks: copy.is_add && copy.unpack.unwrap_or(true),
            });
        }
        for ((files, view), unpacks) in [(&fetched, &views[1]), (&inline, &views[0])]
            .into_iter()
            .zip([copy.unpack == Some(true), false])
        {
            if let (Some((_, names)), Some(view)) = (files, view) {
                parts.push(Part {
                    source: Source {
                        view,
                        ignore: None,
                        keeps_owners: false,
                        shown: format!("what {keyword} names"),
                    },
                    words: names.clone(),
                    unpacks,
                });
            }
        }
        let mut content = copy::content(&request, &parts, &image)
            .map_err(|reason| self.build.error(line, format!("{keyword} {reason}")))?;
        for (folder, _) in [inline, fetched].into_iter().flatten() {
            content.keep(folder);
        }
        Ok(content)
    }

    fn request(&self, line: u32, words: &Words, image: &View) -> Result<Request, Error> {
        let keyword = words.keyword;
        let owner = match &words.chown {
            Some(owner) => Some(self.owner(line, owner, image)?),
            None => None,
        };
        let mode = words.chmod.as_ref().map(|mode| {
            Chmod::parse(mode).ok_or_else(|| {
                let text =
                    format!("{keyword} --chmod={mode} is no mode such as 755 or u=rwX,go=rX");
                self.build.error(line, text)
            })
        });
        let excludes = &words.excludes;
        Ok(Request {
            destination: words.destination.clone(),
            working_dir: self.draft.working_dir().to_owned(),
            owner,
            mode: mode.transpose()?,
            parents: words.copy.parents,
            excludes: (!excludes.is_empty()).then(|| Ignore::of_patterns(excludes)),
            temp_dir: self.build.store.temp_dir(),
            stop: Arc::clone(&self.build.stop),
        })
    }

    /// Where the paths of a COPY are looked for; `layers` is what `other` looks like, where that is a stage or an image.
    fn source<'v>(
        &'v self,
        copy: &Copy,
        other: Option<&'v Elsewhere>,
        layers: Option<&'v View>,
    ) -> Source<'v> {
        let shown = copy.from.as_ref().map(|from| format!("{from:?}"));
        let shown = shown.unwrap_or_default();
        match (other, layers) {
            (_, Some(view)) => Source {
                view,
                ignore: None,
                keeps_owners: true,
                shown,
            },
            (Some(Elsewhere::Folder(view, ignore)), _) => Source {
                view,
                ignore: Some(ignore),
                keeps_owners: false,
                shown,
            },
            (Some(Elsewhere::Layers(_)) | None, None) => Source {
                view: self.build.context,
                ignore: Some(self.build.ignore),
                keeps_owners: false,
                shown: self.build.context_shown.clone(),
            },
        }
    }

    /// The layer of some content, if there is any, and whether it was in the cache.
    pub(super) fn stored(
        &self,
        line: u32,
        content: &Content,
    ) -> Result<(Option<Layer>, bool), Error> {
        if let Some(path) = content.mistakable() {
            let text = format!(
                "the file /{} cannot be in a layer: names with .wh. at the beginning mean deleted files there",
                path.display()
            );
            return Err(self.build.error(line, text));
        }
        if content.is_empty() {
            return Ok((None, true));
        }
        let reads_cache = !self.build.options.no_cache;
        let build = self.build;
        let stored = content.store(build.store, build.epoch_s, reads_cache, &build.stop);
        let (layer, cached) = stored?;
        Ok((Some(layer), cached))
    }

    /// What `--from` means.
    pub(super) fn elsewhere(
        &self,
        line: u32,
        keyword: &str,
        from: &str,
    ) -> Result<Elsewhere, Error> {
        let image = |name: &str| {
            let image = self
                .build
                .image(line, keyword, name, &mut |note| self.note(note))?;
            let draft = Draft::of_image(self.build.store, &image.digest)?;
            Ok(Elsewhere::Layers(Box::new(draft)))
        };
        match source_of(self.build, from, self.planned.index) {
            From::Stage(index) => Ok(Elsewhere::Layers(Box::new((self.earlier)(index)?))),
            From::Folder(folder) => {
                let view = View::of_kept(folder, self.build.options.known.get(folder));
                let ignore = ignore_of(&view, None)?;
                Ok(Elsewhere::Folder(view, ignore))
            }
            From::Image(name) => image(name),
        }
    }

    /// The heredocs of a COPY as files, and their names.
    fn inline_files(
        &self,
        line: u32,
        keyword: &str,
        copy: &Copy,
    ) -> Result<Option<(TempDir, Vec<String>)>, Error> {
        if copy.heredocs.is_empty() {
            return Ok(None);
        }
        let dir = self.temp_dir("heredoc-")?;
        let mut names = Vec::new();
        for heredoc in &copy.heredocs {
            if heredoc.name.contains('/') {
                let text = format!(
                    "{keyword} cannot make a file of the heredoc <<{}",
                    heredoc.name
                );
                return Err(self.build.error(line, text));
            }
            let text = match heredoc.expands {
                true => self.expand_text(line, keyword, &heredoc.text)?,
                false => heredoc.text.clone(),
            };
            write_file(&dir.path().join(&heredoc.name), text.as_bytes(), 0o644)?;
            names.push(literal(&heredoc.name));
        }
        Ok(Some((dir, names)))
    }

    /// What an ADD's URLs hold as files, and their names.
    fn fetched(
        &self,
        line: u32,
        urls: &[String],
        checksum: Option<&str>,
    ) -> Result<Option<(TempDir, Vec<String>)>, Error> {
        if urls.is_empty() {
            return Ok(None);
        }
        let dir = self.temp_dir("fetched-")?;
        let mut names = Vec::new();
        for url in urls {
            let failed = |reason: String| self.build.error(line, format!("ADD {reason}"));
            let name = fetch::name_of(url).map_err(failed)?;
            let path = dir.path().join(&name);
            write_file(&path, b"", 0o600)?;
            let fence = Fence {
                reach: self.build.options.reach.clone(),
                home: None,
            };
            fetch::fetch(url, &path, checksum, fence, &self.build.stop).map_err(failed)?;
            names.push(literal(&name));
        }
        Ok(Some((dir, names)))
    }

    pub(super) fn temp_dir(&self, prefix: &str) -> Result<TempDir, Error> {
        let parent = self.build.store.temp_dir();
        let made = tempfile::Builder::new().prefix(prefix).tempdir_in(&parent);
        made.map_err(storing("files of the build", &parent.join(prefix)))
    }

    pub(super) fn workdir(&mut self, line: u32, path: &str) -> Result<Content, Error> {
        let path = self.expand_filled(line, "WORKDIR", path)?;
        let absolute = if path.starts_with('/') {
            path
        } else {
            format!("{}/{path}", self.draft.working_dir())
        };
        let bad = |reason: String| self.build.error(line, format!("WORKDIR {reason}"));
        let parts =
            clean(&absolute).ok_or_else(|| bad(format!("{absolute:?} is outside of the image")))?;
        let path = format!("/{}", joined(&parts));
        let image = self.draft.view(self.build.store)?;
        // As for BuildKit: it belongs to the USER, who is to work in it.
        let owner = match self.draft.text("User") {
            "" => None,
            user => self.owner(line, user, &image).ok(),
        };
        let content = copy::working_dir(&path, owner, &image).map_err(bad)?;
        self.draft.set("WorkingDir", path.into());
        Ok(content)
    }
}

/// What a kept context is to a build that leaves out what `ignore` says.
fn kept(view: &View, ignore: &Ignore) -> Option<String> {
    let mut key = Key::new("layby kept context 1");
    key.field(view.tree()?);
    key.field(ignore.text());
    Some(key.finish())
}

fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    let written = fs::write(path, bytes).and_then(|()| fs::set_permissions(path, mode));
    written.map_err(storing("files of the build", path))
}

/// A name as a word that no pattern is seen in.
fn literal(name: &str) -> String {
    let mut word = String::new();
    for c in name.chars() {
        if "*?[\\".contains(c) {
            word.push('\\');
        }
        word.push(c);
    }
    word
}
