//! What is written down of a picture, each as an object of its own that never changes: its upload, its readings, its edits.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::label::category::Category;
use crate::label::fields::Field;
use crate::picture::MediaType;
use crate::reading::Reading;

/// That a picture was uploaded. Written after the picture itself, so that one that is recorded is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Upload {
    /// What it is known by.
    pub sha256: Digest,
    /// What its file was called.
    pub file_name: String,
    /// Its format.
    pub media_type: MediaType,
    /// How large the file is.
    pub size_bytes: u64,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// What the uploader took it for; edits may say otherwise.
    pub category: Category,
    /// Who uploaded it; empty when they did not say.
    pub who: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What came of reading it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The reading, or why there is none and will be none.
    #[serde(flatten)]
    pub outcome: ReplyOutcome,
}

/// A reading, or a refusal for good. Anything else (a crash, a busy API) is tried again and not written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyOutcome {
    /// It was read.
    Reading(Box<Reading>),
    /// It cannot be read: why.
    Refused(String),
}

/// What an analyst changed, all at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// Who.
    pub who: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What, at least one.
    pub changes: Vec<Change>,
}

/// One field, before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub field: Field,
    /// What stood there, also if nobody had written it but the machine.
    pub before: String,
    /// What stands there now.
    pub after: String,
}

#[cfg(test)]
mod tests {
    use super::{Change, Edit, Reply, ReplyOutcome};
    use crate::label::fields::Field;

    #[test]
    fn records_are_plain_json_that_others_can_read() {
        let edit = Edit {
            who: "Ada".into(),
            at_ms: 7,
            changes: vec![Change {
                field: Field::Amount("Total Fat".into()),
                before: "Bg".into(),
                after: "8g".into(),
            }],
        };
        let json = serde_json::to_string(&edit).unwrap();
        assert_eq!(
            json,
            r#"{"who":"Ada","at_ms":7,"changes":[{"field":"amount:Total Fat","before":"Bg","after":"8g"}]}"#
        );
        assert_eq!(serde_json::from_str::<Edit>(&json).unwrap(), edit);
        let refused = Reply {
            at_ms: 7,
            outcome: ReplyOutcome::Refused("it is cut short".into()),
        };
        let json = serde_json::to_string(&refused).unwrap();
        assert_eq!(json, r#"{"at_ms":7,"refused":"it is cut short"}"#);
        assert_eq!(serde_json::from_str::<Reply>(&json).unwrap(), refused);
    }
}
