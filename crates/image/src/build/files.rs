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

impl StageBuilder<'_> {
    /// COPY and ADD.
    pub(super) fn copy(&self, line: u32, copy: &Copy) -> Result<Made, Error> {
        let keyword = if copy.is_add { "ADD" } else { "COPY" };
        let store = self.build.store;
        let expand = |word: &String| self.expand_filled(line, keyword, word);
        let sources: Result<Vec<String>, Error> = copy.sources.iter().map(expand).collect();
        let sources = sources?;
        let destination = expand(&copy.destination)?;
        let excludes: Result<Vec<String>, Error> = copy.excludes.iter().map(expand).collect();
        let excludes = excludes?;
        let flag = |text: &Option<String>| text.as_ref().map(expand).transpose();
        let (chown, chmod) = (flag(&copy.chown)?, flag(&copy.chmod)?);
        let checksum = flag(&copy.checksum)?;
        let other = match &copy.from {
            None => None,
            Some(from) => Some(self.elsewhere(line, &format!("{keyword} --from"), from)?),
        };
        // What comes from a stage, an image or a URL with a checksum need not be looked at to know what it is.
        let origin = match (&other, sources.as_slice(), &checksum) {
            (Some(Elsewhere::Layers(draft)), ..) => Some(draft.chain()),
            (None, [url], Some(checksum)) if copy.heredocs.is_empty() && fetch::is_url(url) => {
                Some(checksum.clone())
            }
            _ => None,
        };
        let key = origin.map(|origin| {
            let mut key = Key::new("layby copy 1");
            key.field(origin);
            key.field(self.draft.chain());
            key.field(self.build.epoch_s.unwrap_or(0).to_le_bytes());
            key.list(&sources);
            key.field(&destination);
            key.field(self.draft.working_dir());
            key.list(&excludes);
            for text in [&chown, &chmod] {
                key.list(text);
            }
            let switches = [
                copy.parents,
                copy.unpack == Some(true),
                copy.unpack.is_some(),
            ];
            key.field(switches.map(u8::from));
            key.finish()
        });
        if let Some(key) = &key
            && !self.build.options.no_cache
            && let Some(layer) = cache::read(store, key)
        {
            return Ok(Made::Layer(layer, true));
        }

        let image = self.draft.view(store)?;
        let owner = match &chown {
            Some(owner) => Some(self.owner(line, owner, &image)?),
            None => None,
        };
        let parsed = chmod.as_ref().map(|mode| {
            Chmod::parse(mode).ok_or_else(|| {
                let text =
                    format!("{keyword} --chmod={mode} is no mode such as 755 or u=rwX,go=rX");
                self.build.error(line, text)
            })
        });
        let request = Request {
            destination,
            working_dir: self.draft.working_dir().to_owned(),
            owner,
            mode: parsed.transpose()?,
            parents: copy.parents,
            excludes: (!excludes.is_empty()).then(|| Ignore::of_patterns(&excludes)),
            temp_dir: store.temp_dir(),
            stop: Arc::clone(&self.build.stop),
        };
        let inline = self.inline_files(line, keyword, copy)?;
        let (urls, words): (Vec<String>, Vec<String>) = sources
            .into_iter()
            .partition(|word| copy.is_add && fetch::is_url(word));
        let fetched = self.fetched(line, &urls, checksum.as_deref())?;
        if checksum.is_some() && urls.len() != 1 {
            let text = "ADD --checksum goes with one URL".to_owned();
            return Err(self.build.error(line, text));
        }
        let unpacks = copy.is_add && copy.unpack.unwrap_or(true);
        let views =
            [&inline, &fetched].map(|files| files.as_ref().map(|f| View::of_context(f.0.path())));
        let other_view = match &other {
            Some(Elsewhere::Layers(draft)) => Some(draft.view(store)?),
            Some(Elsewhere::Folder(..)) | None => None,
        };
        let mut parts = Vec::new();
        if !words.is_empty() {
            let shown = copy.from.as_ref().map(|from| format!("{from:?}"));
            let source = match (&other, &other_view) {
                (_, Some(view)) => Source {
                    view,
                    ignore: None,
                    keeps_owners: true,
                    shown: shown.unwrap_or_default(),
                },
                (Some(Elsewhere::Folder(view, ignore)), _) => Source {
                    view,
                    ignore: Some(ignore),
                    keeps_owners: false,
                    shown: shown.unwrap_or_default(),
                },
                _ => Source {
                    view: self.build.context,
                    ignore: Some(self.build.ignore),
                    keeps_owners: false,
                    shown: self.build.context_shown.clone(),
                },
            };
            parts.push(Part {
                source,
                words,
                unpacks,
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
        let Some(key) = key else {
            return Ok(Made::Content(content));
        };
        let (layer, _) = self.stored(line, &content)?;
        cache::write(store, &key, layer.as_ref())?;
        Ok(Made::Layer(layer, false))
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
                let view = View::of_context(folder);
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
