//! Files with holes: the three ways in which pax headers tell of them (GNU tar manual, "Storing Sparse Files").

use std::io;

use super::{invalid, number};

/// The most parts of one file: more than any file system makes of an image's files.
pub(super) const MAX_PARTS: usize = 100_000;

/// Where the data of a file with holes belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sparse {
    /// Offset and length of each part, ascending, in bytes.
    pub(crate) map: Vec<(u64, u64)>,
    /// The file's size with its holes.
    pub(crate) size: u64,
}

/// The `GNU.sparse.` records of a pax header.
#[derive(Default)]
pub(super) struct Records {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    /// Formats 0.0 and 0.1.
    map: Option<Vec<(u64, u64)>>,
    /// Format 0.0: an offset whose length has not come.
    offset: Option<u64>,
    /// Format 1.0.
    major: Option<u64>,
    any: bool,
}

/// What pax records say of a sparse file.
pub(super) struct Known {
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: u64,
    /// `None`: it stands at the beginning of the data.
    pub(super) map: Option<Vec<(u64, u64)>>,
}

impl Records {
    pub(super) fn take(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        self.any = true;
        let text = || std::str::from_utf8(value).map_err(|_| invalid("a pax number is not text"));
        match key.trim_start_matches("GNU.sparse.") {
            "name" => self.name = Some(value.to_owned()),
            "size" | "realsize" => self.size = Some(number(text()?)?),
            "major" => self.major = Some(number(text()?)?),
            "offset" => self.offset = Some(number(text()?)?),
            "numbytes" => {
                let offset = self.offset.take();
                let offset = offset.ok_or_else(|| invalid("a sparse entry's map is malformed"))?;
                let length = number(text()?)?;
                self.push(offset, length)?;
            }
            "map" => {
                let mut numbers = text()?.split(',').map(number::<u64>);
                while let Some(offset) = numbers.next() {
                    let length = numbers.next();
                    let length =
                        length.ok_or_else(|| invalid("a sparse entry's map is malformed"))?;
                    self.push(offset?, length?)?;
                }
            }
            // `minor` and `numblocks` say nothing that is not said otherwise.
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let map = self.map.get_or_insert_default();
        if map.len() >= MAX_PARTS {
            return Err(invalid("a sparse entry has too many parts"));
        }
        map.push((offset, length));
        Ok(())
    }

    /// `None`: the entry is not sparse.
    pub(super) fn finish(self) -> io::Result<Option<Known>> {
        if !self.any {
            return Ok(None);
        }
        let size = self
            .size
            .ok_or_else(|| invalid("a sparse entry has no size"))?;
        let map = match (self.map, self.major) {
            (None, Some(1)) => None,
            (map, None | Some(0)) => Some(map.unwrap_or_default()),
            _ => return Err(invalid("a sparse entry is of a format that is not known")),
        };
        let name = self.name;
        Ok(Some(Known { name, size, map }))
    }
}

impl Sparse {
    /// Checks that the parts ascend, do not overlap, and lie in the file.
    pub(super) fn new(map: Vec<(u64, u64)>, size: u64) -> io::Result<Self> {
        let mut end: u64 = 0;
        for (offset, length) in &map {
            let next = offset.checked_add(*length);
            match next {
                Some(next) if *offset >= end && next <= size => end = next,
                _ => return Err(invalid("a sparse entry's map is malformed")),
            }
        }
        if size > 1 << 60 {
            return Err(invalid("an entry claims to be larger than 1 EiB"));
        }
        Ok(Self { map, size })
    }

    /// How much of the file is no hole.
    pub(super) fn data_bytes(&self) -> u64 {
        self.map.iter().map(|(_, length)| length).sum()
    }
}
