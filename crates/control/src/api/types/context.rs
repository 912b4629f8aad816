//! Words of build contexts that a node keeps.

use layby_image::contexts::{Entry, Kind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The lists of the contexts that a build is about to be sent with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContextsBody {
    /// At most 100.
    pub contexts: Vec<ContextList>,
}

/// What is in a build context, by the word of the machine that it lies on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContextList {
    /// Which context it is: the same text from build to build, of up to 200 bytes. Contexts of other users and tokens are
    /// others, whatever they are called.
    pub key: String,
    /// All that is in it, sorted by the bytes of the paths; each lies in a folder that is in the list too.
    pub entries: Vec<ContextEntry>,
}

/// A file, link or folder: one that has neither a size nor a target is a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContextEntry {
    /// Relative to the context.
    pub path: String,
    /// Permission bits, with set-id and sticky.
    #[schema(maximum = 4095)]
    pub mode: u32,
    /// When it was changed last, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Of a file: a text of up to 128 bytes that is another one whenever the content may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<String>,
    /// Where a link leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl From<ContextEntry> for Entry {
    fn from(entry: ContextEntry) -> Self {
        let kind = match (entry.target, entry.size_bytes) {
            (Some(target), _) => Kind::Link { target },
            (None, Some(size_bytes)) => Kind::File {
                size_bytes,
                stamp: entry.stamp.unwrap_or_default(),
            },
            (None, None) => Kind::Folder,
        };
        Self {
            path: entry.path,
            mode: entry.mode,
            mtime_ns: entry.mtime_ns,
            kind,
        }
    }
}

/// What has to be sent of some contexts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContextsView {
    /// For each list that was left, in order; `null`: another build uses what is kept of it, so all of it has to be sent, as
    /// if nothing were kept.
    pub contexts: Vec<Option<ContextOffer>>,
}

/// What has to be sent of one context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContextOffer {
    /// What to call the list in `kept/<n>`.
    pub id: String,
    /// The places in the list, from 0, of the files that are lacking.
    pub lacks: Vec<u32>,
}

/// `kept/<n>` of an upload: the context `<n>` is as a list says that was left; of `context/<n>/` only what is lacking is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptContext {
    /// Which context it is.
    pub key: String,
    /// The list.
    pub id: String,
}
