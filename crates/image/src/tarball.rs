//! Reading a tar of unknown origin: every header is bounded, and nothing is held in memory but names.
//!
//! Only headers come from the `tar` crate: its own iterator reads long names and pax records of any length into
//! memory, which a small compressed layer can use to take all of it.

mod sparse;

use std::io::{self, Read};
use std::ops::Range;

use tar::{EntryType, Header};

pub(crate) use self::sparse::Sparse;

const BLOCK_BYTES: usize = 512;
/// The most bytes of extension headers (long names, pax records) before one entry.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// The most directories that may lie in each other.
const MAX_DEPTH: usize = 512;

// Where the fields stand in a header (POSIX ustar).
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const MTIME: Range<usize> = 136..148;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;

/// Reads one entry after the other. After [`Reader::next_entry`], `Read` gives the entry's data.
pub(crate) struct Reader<R> {
    inner: R,
    /// Data of the current entry that was not read yet.
    left: u64,
    padding: u64,
}

/// One entry's metadata.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// As written, with `/`.
    pub(crate) path: Vec<u8>,
    /// The target of a hard or symbolic link.
    pub(crate) link: Vec<u8>,
    pub(crate) kind: EntryType,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime_s: i64,
    pub(crate) mtime_ns: u32,
    pub(crate) device: (u32, u32),
    /// Extended attributes from pax records, name and value.
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    /// Where the data goes in a file with holes; `None`: it is all of the file.
    pub(crate) sparse: Option<Sparse>,
}

/// The extension headers that stand before an entry.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(String, Vec<u8>)>,
    sparse: sparse::Records,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            left: 0,
            padding: 0,
        }
    }

    /// The next entry; `None` at the end of the archive. What was not read of the one before is skipped.
    ///
    /// # Errors
    /// `InvalidData` says what is wrong with the archive; other kinds are errors of the reader below.
    pub(crate) fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        let mut extension_bytes = 0;
        loop {
            self.skip()?;
            let Some(header) = self.read_header()? else {
                return Ok(None);
            };
            let size = header.entry_size().map_err(bad_field)?;
            let kind = header.entry_type();
            self.begin_data(size)?;
            match kind {
                EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader => {
                    extension_bytes += size;
                    if extension_bytes > MAX_EXTENSION_BYTES {
                        return Err(invalid("a name or pax header is longer than 1 MiB"));
                    }
                    let mut data = Vec::new();
                    self.read_to_end(&mut data)?;
                    if data.len() as u64 != size {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    extensions.take(kind, data)?;
                }
                EntryType::XGlobalHeader => {}
                _ => {
                    let records = std::mem::take(&mut extensions.sparse);
                    let mut path = None;
                    let mut sparse = None;
                    if kind == EntryType::GNUSparse {
                        // The rest of the map stands before the data, and is not counted with it.
                        sparse = Some(self.old_sparse(&header)?);
                        self.begin_data(size)?;
                    }
                    if let Some(size) = extensions.size {
                        self.begin_data(size)?;
                    }
                    if let Some(known) = records.finish()? {
                        path = known.name;
                        sparse = Some(match known.map {
                            Some(map) => Sparse::new(map, known.size)?,
                            None => Sparse::new(self.sparse_map()?, known.size)?,
                        });
                    }
                    if let Some(sparse) = &sparse
                        && sparse.data_bytes() != self.left
                    {
                        return Err(invalid("a sparse entry's map does not fit its data"));
                    }
                    let mut entry = extensions.apply(&header)?;
                    if let Some(path) = path {
                        entry.path = path;
                    }
                    if sparse.is_some() {
                        entry.kind = EntryType::Regular;
                        entry.sparse = sparse;
                    }
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Reads what is behind the last entry, and gives the reader back.
    pub(crate) fn drain(mut self) -> io::Result<R> {
        io::copy(&mut self.inner, &mut io::sink())?;
        Ok(self.inner)
    }

    /// GNU tar's own sparse format: four parts of the map in the header, more in blocks behind it.
    fn old_sparse(&mut self, header: &Header) -> io::Result<Sparse> {
        let gnu = header
            .as_gnu()
            .ok_or_else(|| invalid("a sparse entry has no GNU header"))?;
        let mut map = Vec::new();
        let mut add = |part: &tar::GnuSparseHeader| {
            if !part.is_empty() {
                let (offset, length) = (part.offset(), part.length());
                map.push((offset.map_err(bad_field)?, length.map_err(bad_field)?));
            }
            Ok::<_, io::Error>(map.len())
        };
        for part in &gnu.sparse {
            add(part)?;
        }
        let mut more = gnu.is_extended();
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            self.inner.read_exact(block.as_mut_bytes())?;
            for part in block.sparse() {
                if add(part)? > sparse::MAX_PARTS {
                    return Err(invalid("a sparse entry has too many parts"));
                }
            }
            more = block.is_extended();
        }
        Sparse::new(map, gnu.real_size().map_err(bad_field)?)
    }

    /// The map of pax format 1.0: decimal numbers in lines at the beginning of the data, filled up to a block.
    fn sparse_map(&mut self) -> io::Result<Vec<(u64, u64)>> {
        let mut taken = 0;
        let mut line = |reader: &mut Self| {
            let mut value: u64 = 0;
            let mut digits = 0;
            loop {
                let mut byte = [0];
                if reader.read(&mut byte)? == 0 {
                    return Err(invalid("a sparse entry's map is cut off"));
                }
                taken += 1;
                match byte[0] {
                    b'\n' if digits > 0 => return Ok((value, taken)),
                    digit @ b'0'..=b'9' if digits < 19 => {
                        value = value * 10 + u64::from(digit - b'0');
                        digits += 1;
                    }
                    _ => return Err(invalid("a sparse entry's map is malformed")),
                }
            }
        };
        let (count, mut read) = line(self)?;
        if count > sparse::MAX_PARTS as u64 {
            return Err(invalid("a sparse entry has too many parts"));
        }
        let mut map = Vec::new();
        for _ in 0..count {
            let (offset, _) = line(self)?;
            let (length, taken) = line(self)?;
            read = taken;
            map.push((offset, length));
        }
        let rest = u64::next_multiple_of(read, BLOCK_BYTES as u64) - read;
        let skipped = io::copy(&mut self.by_ref().take(rest), &mut io::sink())?;
        match skipped == rest {
            true => Ok(map),
            false => Err(invalid("a sparse entry's map is cut off")),
        }
    }

    fn begin_data(&mut self, size: u64) -> io::Result<()> {
        // Far above any limit, and below where the rounding up could overflow.
        if size > 1 << 60 {
            return Err(invalid("an entry claims to be larger than 1 EiB"));
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK_BYTES as u64) - size;
        Ok(())
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding;
        let skipped = io::copy(&mut (&mut self.inner).take(rest), &mut io::sink())?;
        // Some writers leave out the padding of the last entry.
        if skipped < self.left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// `None` at the end: a zero block, or nothing more.
    fn read_header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The checksum field itself counts as spaces.
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        let field: u32 = block[148..156].iter().map(|byte| u32::from(*byte)).sum();
        if header.cksum().ok() != Some(sum - field + 8 * 32) {
            return Err(invalid(
                "a header has a wrong checksum (is it a tar archive?)",
            ));
        }
        Ok(Some(header))
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buffer[..most])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        Ok(n)
    }
}

impl Extensions {
    fn take(&mut self, kind: EntryType, mut data: Vec<u8>) -> io::Result<()> {
        if kind != EntryType::XHeader {
            while data.last() == Some(&0) {
                data.pop();
            }
            let field = if kind == EntryType::GNULongName {
                &mut self.path
            } else {
                &mut self.link
            };
            field.get_or_insert(data);
            return Ok(());
        }
        let mut rest = data.as_slice();
        while !rest.is_empty() {
            let (key, value, behind) =
                pax_record(rest).ok_or_else(|| invalid("a pax record is malformed"))?;
            rest = behind;
            let text =
                || std::str::from_utf8(value).map_err(|_| invalid("a pax number is not text"));
            match key {
                "path" => self.path = Some(value.to_owned()),
                "linkpath" => self.link = Some(value.to_owned()),
                "size" => self.size = Some(number(text()?)?),
                "uid" => self.uid = Some(number(text()?)?),
                "gid" => self.gid = Some(number(text()?)?),
                "mtime" => self.mtime = Some(time(text()?)?),
                _ if key.starts_with("GNU.sparse.") => self.sparse.take(key, value)?,
                _ => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        self.xattrs.push((name.to_owned(), value.to_owned()));
                    }
                }
            }
        }
        Ok(())
    }

    fn apply(self, header: &Header) -> io::Result<Entry> {
        let id = |id: u64| {
            u32::try_from(id)
                .map_err(|_| invalid("an owner, mode or device number is larger than 32 bits"))
        };
        let bytes = header.as_bytes();
        // Some writers leave fields blank that they have nothing for.
        let field = |range: Range<usize>, read: &dyn Fn() -> io::Result<u64>| match &bytes[range] {
            blank if blank.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(0),
            _ => read().map_err(bad_field),
        };
        let device = |range, read: &dyn Fn() -> io::Result<Option<u32>>| {
            field(range, &|| read().map(|number| number.unwrap_or(0).into())).and_then(id)
        };
        let (mtime_s, mtime_ns) = match self.mtime {
            Some(mtime) => mtime,
            None => (
                i64::try_from(field(MTIME, &|| header.mtime())?).unwrap_or(0),
                0,
            ),
        };
        let path = match self.path {
            Some(path) => path,
            None => header.path_bytes().into_owned(),
        };
        let kind = match header.entry_type() {
            // Old archives mark directories only by the slash.
            EntryType::Regular if path.ends_with(b"/") => EntryType::Directory,
            kind => kind,
        };
        Ok(Entry {
            path,
            link: match self.link {
                Some(link) => link,
                None => header
                    .link_name_bytes()
                    .map(|link| link.into_owned())
                    .unwrap_or_default(),
            },
            kind,
            mode: id(field(MODE, &|| header.mode().map(u64::from))?)? & 0o7777,
            uid: match self.uid {
                Some(uid) => uid,
                None => id(field(UID, &|| header.uid())?)?,
            },
            gid: match self.gid {
                Some(gid) => gid,
                None => id(field(GID, &|| header.gid())?)?,
            },
            mtime_s,
            mtime_ns,
            // Other entries may have anything in these fields.
            device: match kind {
                EntryType::Char | EntryType::Block => (
                    device(MAJOR, &|| header.device_major())?,
                    device(MINOR, &|| header.device_minor())?,
                ),
                _ => (0, 0),
            },
            xattrs: self.xattrs,
            sparse: None,
        })
    }
}

/// The `tar` crate's errors have no kind of their own.
fn bad_field(error: io::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// The first record of a pax header, `LENGTH KEY=VALUE\n` (pax(1)), and what is behind it. The value may be binary,
/// so that only the length tells where it ends.
fn pax_record(data: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let space = data.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    let record = data.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let key = std::str::from_utf8(&record[..equals]).ok()?;
    Some((key, &record[equals + 1..], &data[length..]))
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse()
        .map_err(|_| invalid("a pax number is not a number"))
}

/// Seconds with an optional fraction, possibly negative.
fn time(text: &str) -> io::Result<(i64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let ns: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let (seconds, ns): (i64, u32) = (number(seconds)?, number(&ns)?);
    Ok(match (text.starts_with('-'), ns) {
        (true, 1..) => (seconds - 1, 1_000_000_000 - ns),
        _ => (seconds, ns),
    })
}

/// The parts of a path inside a root: no empty ones, no `.`; `None` when it has a `..` or a NUL, or is too long.
///
/// Also `None` where it is nested deeper than any tree that can still be removed without trouble.
///
/// A leading `/` means the root itself, as tar readers have it.
pub(crate) fn components(path: &[u8]) -> Option<Vec<&[u8]>> {
    if path.len() > 4096 || path.contains(&0) {
        return None;
    }
    let parts: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    (parts.len() <= MAX_DEPTH && !parts.contains(&b"..".as_slice())).then_some(parts)
}
