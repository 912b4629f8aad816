//! Build contexts that the node keeps, so that of an unchanged one nothing is sent, written or hashed again.
//!
//! A client first leaves the list of a context, each entry with what its own file system says of it, and hears which
//! files are lacking ([`Store::offer_context`]). It sends those, and what is kept becomes what the list says
//! ([`Store::open_context`]).
//!
//! ```text
//! contexts/<hex of owner and place>/lock     held alone by whoever changes the rest, shared by builds
//!                                   list     what was left last
//!                                   record   what the tree holds: the list's id, and the digest of each file
//!                                   tree/    the context itself
//! ```
//! A tree is believed by its record alone, and a record only in the boot of the machine that wrote it: what it says was
//! written is then on the disk or in the kernel's memory, so that nothing need be brought to the disk. Whoever changes a
//! tree takes its record away first: kill -9 at any point leaves a tree that nobody believes, and all is sent again.

mod kept;
mod list;
mod record;
mod shelf;
#[cfg(test)]
mod tests;
mod update;

use std::path::Path;

pub use kept::{Kept, Known};
pub use list::{Entry, Kind, List, MAX_BYTES, MAX_ENTRIES};
pub(crate) use shelf::{all, collect, forget};
pub use update::Update;

use crate::error::storing;
use crate::{Error, Store};

/// Which context: nobody but its owner ever gets it.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Whose it is: a user, or a token.
    pub owner: &'a str,
    /// Which one of the owner's, as the owner calls it.
    pub key: &'a str,
}

/// What a client hears of a list that it left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The list's own.
    pub id: String,
    /// The places in it, from 0, of the files that have to be sent.
    pub lacks: Vec<u32>,
}

/// A context that a build is about to use.
#[derive(Debug)]
pub enum Opened {
    /// It is as the list says.
    Unchanged(Kept),
    /// Files are lacking, or others were there.
    Changed(Box<Update>),
}

impl Store {
    /// Takes the list of a context, and says what is lacking. `None`: it cannot be kept now, since another build uses it.
    ///
    /// # Errors
    /// The disk.
    pub fn offer_context(&self, place: Place<'_>, list: &List) -> Result<Option<Offer>, Error> {
        let name = shelf::name(place);
        let dir = self.contexts_dir().join(&name);
        let id = list.id();
        if !dir.exists() {
            shelf::make_room(self, Some((&name, 0)))?;
        }
        let Some(shared) = shelf::lock_shared(self, &name)? else {
            return Ok(None);
        };
        if is_unchanged(&dir, &id) {
            record::touch(&dir);
            let lacks = Vec::new();
            return Ok(Some(Offer { id, lacks }));
        }
        drop(shared);
        let Some(_alone) = shelf::lock_alone(self, &name)? else {
            return Ok(None);
        };
        let record = record::read(&dir);
        let known = record.as_ref().map(|record| record.by_path());
        let lacks = list.files().filter(|(_, entry)| {
            let there = known.as_ref().and_then(|known| known.get(&*entry.path));
            !there.is_some_and(|there| there.holds(entry))
        });
        let lacks = lacks.map(|(place, _)| place).collect();
        list::write(&dir, list).map_err(storing("the list of a build context", &dir))?;
        Ok(Some(Offer { id, lacks }))
    }

    /// Begins to use the context whose list was left with [`Store::offer_context`]; what that said is lacking follows.
    /// `None`: it is used by another build, was let go, or another list was left meanwhile.
    ///
    /// # Errors
    /// The disk.
    pub fn open_context(&self, place: Place<'_>, id: &str) -> Result<Option<Opened>, Error> {
        let name = shelf::name(place);
        let dir = self.contexts_dir().join(&name);
        if !dir.exists() {
            return Ok(None);
        }
        if let Some(shared) = shelf::lock_shared(self, &name)?
            && let Some(header) = record::header(&dir).filter(|header| header.is_of(id))
        {
            let kept = Kept::new(&dir, header.tree, shared);
            return Ok(Some(Opened::Unchanged(kept)));
        }
        let Some(alone) = shelf::lock_alone(self, &name)? else {
            return Ok(None);
        };
        let Some(list) = list::read(&dir).filter(|list| list.id() == id) else {
            return Ok(None);
        };
        shelf::make_room(self, Some((&name, list.bytes())))?;
        let update = Update::begin(&dir, alone, list)?;
        Ok(Some(Opened::Changed(Box::new(update))))
    }
}

fn is_unchanged(dir: &Path, id: &str) -> bool {
    record::header(dir).is_some_and(|header| header.is_of(id))
}
