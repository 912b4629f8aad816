//! What a stage's instructions see: variables, and the accounts of its image.

use super::stage::StageBuilder;
use super::view::{View, clean};
use crate::Error;
use crate::dockerfile::words;

/// The longest account file that is searched for a name of --chown.
const MAX_ACCOUNTS_BYTES: u64 = 1 << 20;

impl StageBuilder<'_> {
    /// `user[:group]` as numbers; names are looked up in the image. A user's number alone is the group's too.
    pub(super) fn owner(&self, line: u32, text: &str, image: &View) -> Result<(u32, u32), Error> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let unknown = |what: &str, name: &str, file: &str| {
            let text = format!("--chown={text}: there is no {what} {name:?} in the image's {file}");
            self.build.error(line, text)
        };
        let (uid, primary) = match user.parse() {
            Ok(uid) => (uid, uid),
            Err(_) => {
                let ids = account(image, "etc/passwd", user);
                ids.ok_or_else(|| unknown("user", user, "/etc/passwd"))?
            }
        };
        let gid = match group {
            None => primary,
            Some(group) => match group.parse() {
                Ok(gid) => gid,
                Err(_) => {
                    let ids = account(image, "etc/group", group);
                    ids.ok_or_else(|| unknown("group", group, "/etc/group"))?.0
                }
            },
        };
        Ok((uid, gid))
    }

    pub(super) fn expand_pairs(
        &self,
        line: u32,
        keyword: &str,
        pairs: &[(String, String)],
    ) -> Result<Vec<(String, String)>, Error> {
        let expanded = pairs.iter().map(|(name, value)| {
            Ok((
                self.expand_filled(line, keyword, name)?,
                self.expand(line, keyword, value)?,
            ))
        });
        expanded.collect()
    }

    pub(super) fn expand(&self, line: u32, keyword: &str, word: &str) -> Result<String, Error> {
        words::expand(word, self.build.file.escape, &|name| self.value(name)).map_err(|reason| {
            self.build
                .error(line, format!("{keyword} {word}: {reason}"))
        })
    }

    /// The text of a heredoc with variables put in.
    pub(super) fn expand_text(
        &self,
        line: u32,
        keyword: &str,
        text: &str,
    ) -> Result<String, Error> {
        words::expand_text(text, self.build.file.escape, &|name| self.value(name))
            .map_err(|reason| self.build.error(line, format!("{keyword}: {reason}")))
    }

    /// The value of a variable: ENV's comes before ARG's.
    fn value(&self, name: &str) -> Option<String> {
        let env = self.draft.env(name);
        env.or_else(|| self.draft.args.get(name).cloned())
    }

    /// Expands what must not be empty.
    pub(super) fn expand_filled(
        &self,
        line: u32,
        keyword: &str,
        word: &str,
    ) -> Result<String, Error> {
        let text = self.expand(line, keyword, word)?;
        if text.is_empty() {
            let message =
                format!("{keyword} has {word:?}, which is empty once its variables are put in");
            return Err(self.build.error(line, message));
        }
        Ok(text)
    }
}

/// The third and fourth field of an account's line in /etc/passwd or /etc/group (the fourth is 0 where it is no number).
fn account(image: &View, file: &str, name: &str) -> Option<(u32, u32)> {
    use std::io::Read;
    let node = image.resolve(&clean(file)?).ok()?.node?;
    let mut text = String::new();
    let opened = std::fs::File::open(node.path()).ok()?;
    opened
        .take(MAX_ACCOUNTS_BYTES)
        .read_to_string(&mut text)
        .ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let id = fields.nth(1)?.parse().ok()?;
        Some((
            id,
            fields
                .next()
                .and_then(|field| field.parse().ok())
                .unwrap_or(0),
        ))
    })
}
