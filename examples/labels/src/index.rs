//! What the web application knows, in memory: made of the store's objects alone, and made anew from them at each start.

use std::collections::{BTreeMap, HashSet};

use crate::digest::Digest;
use crate::edit::{Edit, Reply, ReplyOutcome, Upload};
use crate::label::category::Category;
use crate::label::extract::extract;
use crate::label::fields::{Field, Fields};
use crate::label::rule::{Label, Outcome, Verdict, check};
use crate::store::keys;

/// All pictures.
#[derive(Debug, Default)]
pub struct Index {
    pictures: BTreeMap<Digest, Picture>,
    /// The keys of all objects that it is made of.
    known: HashSet<String>,
    /// Readings and edits that were seen before the upload that they belong to.
    early: BTreeMap<Digest, Vec<(String, Early)>>,
}

#[derive(Debug)]
enum Early {
    Reply(Reply),
    Edit(Edit),
}

/// One picture, with all that is known of it.
#[derive(Debug)]
pub struct Picture {
    /// How it came.
    pub upload: Upload,
    /// The newest reading, with its key.
    pub reply: Option<(String, Reply)>,
    /// All edits, by their keys and so by their time.
    pub edits: BTreeMap<String, Edit>,
    /// What follows from these.
    pub now: Now,
}

/// What follows from upload, reading and edits.
#[derive(Debug, Clone, PartialEq)]
pub struct Now {
    /// The text, as corrected last.
    pub text: String,
    /// The fields: found in the text, then as corrected.
    pub fields: Fields,
    /// The category.
    pub category: Category,
    /// Where it stands.
    pub state: State,
    /// The check list; empty until it is read.
    pub outcomes: Vec<Outcome>,
    /// All that a search looks at, in lower case.
    haystack: String,
}

/// Where a picture stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is to be read: nobody has, or somebody wants it anew.
    Queued,
    /// It cannot be read: why.
    Refused(String),
    /// It was read, and no analyst has said that all of it is right.
    ToReview,
    /// An analyst has.
    Reviewed,
}

/// A state, without its reason: what one can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateKind {
    /// [`State::Queued`]
    Queued,
    /// [`State::Refused`]
    Refused,
    /// [`State::ToReview`]
    ToReview,
    /// [`State::Reviewed`]
    Reviewed,
}

impl StateKind {
    /// All of them, in the order of a picture's life.
    pub const ALL: [StateKind; 4] = [
        StateKind::Queued,
        StateKind::ToReview,
        StateKind::Reviewed,
        StateKind::Refused,
    ];

    /// As in addresses and files.
    pub fn key(self) -> &'static str {
        match self {
            StateKind::Queued => "queued",
            StateKind::Refused => "refused",
            StateKind::ToReview => "to-review",
            StateKind::Reviewed => "reviewed",
        }
    }

    /// As people read it.
    pub fn title(self) -> &'static str {
        match self {
            StateKind::Queued => "In the queue",
            StateKind::Refused => "Not readable",
            StateKind::ToReview => "To review",
            StateKind::Reviewed => "Reviewed",
        }
    }
}

impl State {
    /// Without the reason.
    pub fn kind(&self) -> StateKind {
        match self {
            State::Queued => StateKind::Queued,
            State::Refused(_) => StateKind::Refused,
            State::ToReview => StateKind::ToReview,
            State::Reviewed => StateKind::Reviewed,
        }
    }
}

impl Picture {
    fn new(upload: Upload) -> Picture {
        let now = now(&upload, None, &BTreeMap::new());
        Picture {
            upload,
            reply: None,
            edits: BTreeMap::new(),
            now,
        }
    }

    /// Another one for each state of what analysts see: an edit names the one that it was made on.
    pub fn version(&self) -> String {
        let reply = self.reply.as_ref().map_or("", |(key, _)| key);
        let edit = self.edits.last_key_value().map_or("", |(key, _)| key);
        Digest::of(format!("{reply} {edit}").as_bytes())
            .short()
            .to_owned()
    }

    /// When the newest of its readings and edits was written; 0 where there is none.
    pub fn newest_at_ms(&self) -> u64 {
        let reply = self.reply.as_ref().map_or(0, |(_, reply)| reply.at_ms);
        let edits = self.edits.values().map(|edit| edit.at_ms);
        edits.fold(reply, u64::max)
    }

    /// How many rules it fails.
    pub fn failures(&self) -> usize {
        let failed = |outcome: &&Outcome| outcome.verdict == Verdict::Fail;
        self.now.outcomes.iter().filter(failed).count()
    }

    /// What to call it: the product's name, or its file's.
    pub fn title(&self) -> &str {
        match self.now.fields.name.as_str() {
            "" => &self.upload.file_name,
            name => name,
        }
    }

    /// What stands in a field now.
    pub fn value(&self, field: &Field) -> String {
        match field {
            Field::Text => self.now.text.clone(),
            Field::Category => self.now.category.to_string(),
            Field::Reviewed => match self.now.state {
                State::Reviewed => "yes".into(),
                State::Queued | State::Refused(_) | State::ToReview => "no".into(),
            },
            Field::Reading => String::new(),
            field => self.now.fields.get(field).to_owned(),
        }
    }

    fn derive(&mut self) {
        self.now = now(&self.upload, self.reply.as_ref(), &self.edits);
    }
}

/// Folds what was written down into what holds.
fn now(upload: &Upload, reply: Option<&(String, Reply)>, edits: &BTreeMap<String, Edit>) -> Now {
    let changes = || {
        edits
            .values()
            .flat_map(|edit| edit.changes.iter().map(move |change| (edit.at_ms, change)))
    };
    let last = |field: Field| {
        let mut latest_first = changes().rev();
        latest_first.find(|(_, change)| change.field == field)
    };
    let recognised = match reply {
        Some((
            _,
            Reply {
                outcome: ReplyOutcome::Reading(reading),
                ..
            },
        )) => reading.text.as_str(),
        Some((
            _,
            Reply {
                outcome: ReplyOutcome::Refused(_),
                ..
            },
        ))
        | None => "",
    };
    let text = last(Field::Text).map_or(recognised, |(_, change)| &change.after);
    let mut fields = extract(text);
    for (_, change) in changes() {
        fields.set(&change.field, &change.after);
    }
    let category = last(Field::Category)
        .and_then(|(_, change)| change.after.parse().ok())
        .unwrap_or(upload.category);
    let wanted_at_ms = last(Field::Reading).map_or(0, |(at_ms, _)| at_ms);
    let state = match reply {
        None => State::Queued,
        Some((_, reply)) if reply.at_ms < wanted_at_ms => State::Queued,
        Some((
            _,
            Reply {
                outcome: ReplyOutcome::Refused(why),
                ..
            },
        )) => State::Refused(why.clone()),
        // A review is one of what was read until then: nobody has seen what a newer reading says.
        Some((_, reply)) => match last(Field::Reviewed) {
            Some((at_ms, change))
                if change.after == "yes" && at_ms > reply.at_ms.max(wanted_at_ms) =>
            {
                State::Reviewed
            }
            Some(_) | None => State::ToReview,
        },
    };
    let outcomes = match reply {
        Some((
            _,
            Reply {
                outcome: ReplyOutcome::Reading(_),
                ..
            },
        )) => check(
            category,
            Label {
                text,
                fields: &fields,
            },
        ),
        Some(_) | None => Vec::new(),
    };
    let haystack = format!(
        "{}\n{}\n{}\n{text}",
        upload.file_name, fields.name, upload.sha256
    )
    .to_lowercase();
    Now {
        text: text.to_owned(),
        fields,
        category,
        state,
        outcomes,
        haystack,
    }
}

/// What to look for. Everything that is given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Words that stand in the text, the name or the file's name.
    pub words: String,
    /// Of this category.
    pub category: Option<Category>,
    /// In this state.
    pub state: Option<StateKind>,
    /// Only those that fail a rule.
    pub failing: bool,
}

fn newest_first(picture: &Picture) -> (std::cmp::Reverse<u64>, &Digest) {
    let upload = &picture.upload;
    (std::cmp::Reverse(upload.at_ms), &upload.sha256)
}

impl Filter {
    fn fits(&self, picture: &Picture) -> bool {
        let words = self.words.to_lowercase();
        words
            .split_whitespace()
            .all(|word| picture.now.haystack.contains(word))
            && self
                .category
                .is_none_or(|category| picture.now.category == category)
            && self
                .state
                .is_none_or(|state| picture.now.state.kind() == state)
            && (!self.failing || picture.failures() > 0)
    }
}

impl Index {
    /// Takes an upload; one of a picture that is there changes nothing.
    pub fn add_upload(&mut self, upload: Upload) {
        let sha256 = upload.sha256.clone();
        self.known.insert(keys::upload(&sha256));
        if self.pictures.contains_key(&sha256) {
            return;
        }
        self.pictures.insert(sha256.clone(), Picture::new(upload));
        for (key, early) in self.early.remove(&sha256).unwrap_or_default() {
            match early {
                Early::Reply(reply) => self.add_reply(&sha256, key, reply),
                Early::Edit(edit) => self.add_edit(&sha256, key, edit),
            }
        }
    }

    /// Takes a reading; the newest counts.
    pub fn add_reply(&mut self, sha256: &Digest, key: String, reply: Reply) {
        self.known.insert(key.clone());
        let Some(picture) = self.pictures.get_mut(sha256) else {
            self.early
                .entry(sha256.clone())
                .or_default()
                .push((key, Early::Reply(reply)));
            return;
        };
        if picture
            .reply
            .as_ref()
            .is_none_or(|(newest, _)| *newest < key)
        {
            picture.reply = Some((key, reply));
            picture.derive();
        }
    }

    /// Takes an edit.
    pub fn add_edit(&mut self, sha256: &Digest, key: String, edit: Edit) {
        self.known.insert(key.clone());
        let Some(picture) = self.pictures.get_mut(sha256) else {
            self.early
                .entry(sha256.clone())
                .or_default()
                .push((key, Early::Edit(edit)));
            return;
        };
        picture.edits.insert(key, edit);
        picture.derive();
    }

    /// Whether it was made of that object, too.
    pub fn knows(&self, key: &str) -> bool {
        self.known.contains(key)
    }

    /// One picture.
    pub fn get(&self, sha256: &Digest) -> Option<&Picture> {
        self.pictures.get(sha256)
    }

    /// Those that fit, the newest first.
    pub fn find(&self, filter: &Filter) -> Vec<&Picture> {
        let mut found: Vec<&Picture> = self
            .pictures
            .values()
            .filter(|one| filter.fits(one))
            .collect();
        found.sort_by_key(|picture| newest_first(picture));
        found
    }

    /// The one to review after this one, in the order of the list; after its end, from its beginning.
    pub fn next_to_review(&self, after: &Picture) -> Option<&Picture> {
        let others = self.pictures.values().filter(|one| {
            one.now.state == State::ToReview && one.upload.sha256 != after.upload.sha256
        });
        others.min_by_key(|one| (newest_first(one) < newest_first(after), newest_first(one)))
    }

    /// Those that are to be read, the oldest first.
    pub fn queue(&self) -> Vec<Digest> {
        let mut queued: Vec<&Picture> = self
            .pictures
            .values()
            .filter(|one| one.now.state == State::Queued)
            .collect();
        queued.sort_by_key(|picture| (picture.upload.at_ms, &picture.upload.sha256));
        queued
            .into_iter()
            .map(|picture| picture.upload.sha256.clone())
            .collect()
    }

    /// How many are in a state.
    pub fn count(&self, state: StateKind) -> usize {
        self.pictures
            .values()
            .filter(|one| one.now.state.kind() == state)
            .count()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{Filter, Index, State};
    use crate::digest::Digest;
    use crate::edit::{Change, Edit, Reply, ReplyOutcome, Upload};
    use crate::label::category::Category;
    use crate::label::extract::extract;
    use crate::label::fields::Field;
    use crate::picture::MediaType;
    use crate::reading::Reading;

    fn upload(name: &str, at_ms: u64) -> Upload {
        Upload {
            sha256: Digest::of(name.as_bytes()),
            file_name: name.into(),
            media_type: MediaType::Png,
            size_bytes: 1,
            width: 1,
            height: 1,
            category: Category::Food,
            who: String::new(),
            at_ms,
        }
    }

    fn read(text: &str, at_ms: u64) -> Reply {
        let reading = Reading {
            engine: "none".into(),
            sha256: String::new(),
            width: 1,
            height: 1,
            text: text.into(),
            lines: Vec::new(),
            confidence: 90.0,
            fields: extract(text),
            took_ms: 1,
        };
        Reply {
            at_ms,
            outcome: ReplyOutcome::Reading(Box::new(reading)),
        }
    }

    fn change(field: Field, after: &str, at_ms: u64) -> Edit {
        let after = after.to_owned();
        Edit {
            who: "Ada".into(),
            at_ms,
            changes: vec![Change {
                field,
                before: String::new(),
                after,
            }],
        }
    }

    #[test]
    fn the_next_to_review_is_the_next_of_the_list_and_after_its_end_the_first() {
        let mut index = Index::default();
        let ids = ["a", "b", "c", "d"].map(|name| {
            let upload = upload(name, 9 - u64::from(name.as_bytes()[0] - b'a'));
            let sha256 = upload.sha256.clone();
            index.add_upload(upload);
            sha256
        });
        let next = |index: &Index, of: usize| {
            let next = index.next_to_review(index.get(&ids[of]).unwrap());
            next.map(|one| ids.iter().position(|id| *id == one.upload.sha256).unwrap())
        };
        assert_eq!(next(&index, 0), None, "none is read");
        for of in [0, 2, 3] {
            index.add_reply(&ids[of], "r5".into(), read("GRANOLA\n", 5));
        }
        assert_eq!(
            [0, 1, 2, 3].map(|of| next(&index, of)),
            [2, 2, 3, 0].map(Some)
        );
    }

    #[test]
    fn a_picture_goes_from_the_queue_to_review_and_can_be_sent_back() {
        let mut index = Index::default();
        let granola = upload("granola.png", 1);
        let sha256 = granola.sha256.clone();
        index.add_upload(granola);
        assert_eq!(index.queue(), std::slice::from_ref(&sha256));
        let versions = [index.get(&sha256).unwrap().version()];
        index.add_reply(&sha256, "r5".into(), read("GRANOLA\nCalories 230\n", 5));
        let picture = index.get(&sha256).unwrap();
        assert_eq!(picture.now.state, State::ToReview);
        assert_ne!(picture.version(), versions[0]);
        assert!(picture.failures() > 0);
        index.add_edit(&sha256, "e6".into(), change(Field::Reviewed, "yes", 6));
        assert_eq!(index.get(&sha256).unwrap().now.state, State::Reviewed);
        index.add_edit(&sha256, "e7".into(), change(Field::Reading, "again", 7));
        assert_eq!(index.get(&sha256).unwrap().now.state, State::Queued);
        index.add_reply(&sha256, "r8".into(), read("GRANOLA\n", 8));
        assert!(index.queue().is_empty());
    }

    #[test]
    fn a_review_is_over_once_the_picture_is_read_again() {
        let mut index = Index::default();
        let granola = upload("granola.png", 1);
        let sha256 = granola.sha256.clone();
        index.add_upload(granola);
        index.add_reply(&sha256, "r05".into(), read("GRANOLA\n", 5));
        index.add_edit(&sha256, "e06".into(), change(Field::Reviewed, "yes", 6));
        assert_eq!(index.get(&sha256).unwrap().now.state, State::Reviewed);
        index.add_edit(&sha256, "e07".into(), change(Field::Reading, "again", 7));
        // By somebody whose page still shows the old text.
        index.add_edit(&sha256, "e08".into(), change(Field::Reviewed, "yes", 8));
        assert_eq!(index.get(&sha256).unwrap().now.state, State::Queued);
        index.add_reply(&sha256, "r09".into(), read("GRANOIA\n", 9));
        let picture = index.get(&sha256).unwrap();
        assert_eq!(picture.now.state, State::ToReview);
        assert_eq!(picture.value(&Field::Reviewed), "no");
        index.add_edit(&sha256, "e10".into(), change(Field::Reviewed, "yes", 10));
        let picture = index.get(&sha256).unwrap();
        assert_eq!(picture.now.state, State::Reviewed);
        assert_eq!(picture.newest_at_ms(), 10);
    }

    #[test]
    fn corrections_of_fields_outlive_corrections_of_the_text() {
        let mut index = Index::default();
        let granola = upload("granola.png", 1);
        let sha256 = granola.sha256.clone();
        // In whatever order the store lists them.
        index.add_edit(
            &sha256,
            "e6".into(),
            change(Field::Name, "Honey Granola", 6),
        );
        index.add_reply(
            &sha256,
            "r5".into(),
            read("GRANOIA\nNET WT 12 OZ (340 g)\n", 5),
        );
        index.add_upload(granola);
        index.add_edit(
            &sha256,
            "e7".into(),
            change(Field::Text, "GRANOLA\nNET WT 13 OZ (368 g)\n", 7),
        );
        let now = &index.get(&sha256).unwrap().now;
        assert_eq!(now.fields.name, "Honey Granola");
        assert_eq!(now.fields.net_quantity, "NET WT 13 OZ (368 g)");
    }

    #[test]
    fn a_search_finds_what_fits_all_of_it_newest_first() {
        let mut index = Index::default();
        for (name, at_ms) in [("one.png", 1), ("two.png", 2), ("three.jpg", 3)] {
            let upload = upload(name, at_ms);
            let sha256 = upload.sha256.clone();
            index.add_upload(upload);
            if at_ms > 1 {
                index.add_reply(&sha256, format!("r{at_ms}"), read("Sea Salt Crackers\n", 5));
            }
        }
        let names = |filter: Filter| -> Vec<String> {
            index
                .find(&filter)
                .iter()
                .map(|one| one.upload.file_name.clone())
                .collect()
        };
        assert_eq!(
            names(Filter::default()),
            ["three.jpg", "two.png", "one.png"]
        );
        let words = |words: &str| Filter {
            words: words.into(),
            ..Filter::default()
        };
        assert_eq!(names(words("CRACKERS png")), ["two.png"]);
        assert_eq!(names(words("granola")), [""; 0]);
        let failing = Filter {
            failing: true,
            ..Filter::default()
        };
        assert_eq!(names(failing).len(), 2);
        let other = Filter {
            category: Some(Category::Cosmetic),
            ..Filter::default()
        };
        assert_eq!(names(other), [""; 0]);
    }
}
