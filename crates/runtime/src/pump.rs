//! Container output on its way: from pipes into the files that [`crate::logs`] reads.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::logs::{LogLine, MAX_FILE_BYTES, MAX_LINE_BYTES, older};

/// How much is read of one stream before others get their turn.
const TURN_BYTES: usize = 64 * 1024;

/// The writing end of one container's log.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: Option<File>,
    size: u64,
}

impl Log {
    /// Nothing is opened before the first line.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            size: 0,
        }
    }

    /// Appends lines. A log that cannot be written (a full disk) loses them; the container goes on.
    fn append(&mut self, lines: &[u8]) {
        if self.size + lines.len() as u64 > MAX_FILE_BYTES
            && fs::rename(&self.path, older(&self.path)).is_ok()
        {
            self.file = None;
        }
        if self.file.is_none() {
            let opened = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&self.path);
            let Ok(mut file) = opened else { return };
            self.size = file.seek(SeekFrom::End(0)).unwrap_or(0);
            self.file = Some(file);
        }
        if let Some(file) = &mut self.file {
            match file.write_all(lines) {
                Ok(()) => self.size += lines.len() as u64,
                Err(_) => self.file = None,
            }
        }
    }

    /// Closes the file until the next line.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }
}

/// One output of a container, on its way to the log.
#[derive(Debug)]
pub(crate) struct Pump {
    pipe: File,
    stream: &'static str,
    partial: Vec<u8>,
}

impl Pump {
    /// `pipe` must not block.
    pub(crate) fn new(pipe: OwnedFd, stream: &'static str) -> Self {
        Self {
            pipe: File::from(pipe),
            stream,
            partial: Vec::new(),
        }
    }

    /// The pipe, to poll.
    pub(crate) fn pipe(&self) -> &File {
        &self.pipe
    }

    /// Moves what is there, but no more than its turn. Whether more can come.
    pub(crate) fn turn(&mut self, log: &mut Log) -> bool {
        let mut taken = 0;
        while taken < TURN_BYTES {
            let mut buffer = [0; 4096];
            match self.pipe.read(&mut buffer) {
                Ok(0) => {
                    self.flush(log);
                    return false;
                }
                Ok(length) => {
                    taken += length;
                    self.take(&buffer[..length], log);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        if self.partial.is_empty() {
            self.partial = Vec::new();
        }
        true
    }

    /// Moves all that is left after the last writer has ended, and the last line even without its end.
    pub(crate) fn finish(mut self, log: &mut Log) {
        let mut left = 1024 * 1024 / TURN_BYTES;
        while left > 0 && self.turn(log) && self.has_more() {
            left -= 1;
        }
        self.flush(log);
    }

    fn has_more(&self) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let mut fds = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    fn take(&mut self, bytes: &[u8], log: &mut Log) {
        let mut out = Vec::new();
        let at_ms = now_ms();
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, ends) = part
                .strip_suffix(b"\n")
                .map_or((part, false), |text| (text, true));
            self.partial.extend_from_slice(text);
            while self.partial.len() > MAX_LINE_BYTES {
                let rest = self
                    .partial
                    .split_off(char_start(&self.partial, MAX_LINE_BYTES));
                self.line(at_ms, &mut out);
                self.partial = rest;
            }
            if ends {
                self.line(at_ms, &mut out);
            }
        }
        if !out.is_empty() {
            log.append(&out);
        }
    }

    fn flush(&mut self, log: &mut Log) {
        if !self.partial.is_empty() {
            let mut out = Vec::new();
            self.line(now_ms(), &mut out);
            log.append(&out);
        }
    }

    /// Writes what is gathered as one line.
    fn line(&mut self, at_ms: u64, out: &mut Vec<u8>) {
        let text = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        let line = LogLine {
            at_ms,
            stream: self.stream.to_owned(),
            text: String::from_utf8_lossy(text).into_owned(),
        };
        self.partial.clear();
        // Text and numbers always serialize.
        if serde_json::to_writer(&mut *out, &line).is_ok() {
            out.push(b'\n');
        }
    }
}

/// The last place up to `at` where a character of UTF-8 begins; `at` itself in other bytes.
fn char_start(bytes: &[u8], at: usize) -> usize {
    (at.saturating_sub(3)..=at)
        .rev()
        .find(|i| bytes[*i] & 0xc0 != 0x80)
        .unwrap_or(at)
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nix::fcntl::OFlag;
    use nix::unistd::pipe2;

    use super::*;
    use crate::logs::{Follow, read};
    use crate::spec::Bundle;

    struct Rig {
        dir: tempfile::TempDir,
        log: Log,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let bundle = Bundle::new(dir.path());
            fs::create_dir(bundle.logs()).expect("logs");
            Self {
                log: Log::new(bundle.log("web")),
                dir,
            }
        }

        fn write(&mut self, bytes: &[u8]) {
            let (out, input) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe");
            let mut pump = Pump::new(out, "stdout");
            let mut input = File::from(input);
            for chunk in bytes.chunks(4096) {
                input.write_all(chunk).expect("write");
                assert!(pump.turn(&mut self.log));
            }
            drop(input);
            pump.finish(&mut self.log);
        }

        fn texts(&self, tail: Option<usize>) -> Vec<String> {
            let lines = read(self.dir.path(), "web", tail).expect("read");
            lines.into_iter().map(|line| line.text).collect()
        }
    }

    #[test]
    fn lines_are_kept_and_the_last_one_needs_no_end() {
        let mut rig = Rig::new();
        rig.write(b"one\r\n\ntwo \xff\nthree");
        assert_eq!(rig.texts(None), ["one", "", "two \u{fffd}", "three"]);
        assert_eq!(rig.texts(Some(1)), ["three"]);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let mut rig = Rig::new();
        rig.write("ä".repeat(MAX_LINE_BYTES).as_bytes());
        let texts = rig.texts(None);
        assert_eq!(texts.concat(), "ä".repeat(MAX_LINE_BYTES));
        assert!(texts.iter().all(|text| text.len() <= MAX_LINE_BYTES));
    }

    #[test]
    fn a_follower_reads_on_over_a_rotation_and_the_files_stay_bounded() {
        let mut rig = Rig::new();
        rig.write(b"first\n");
        let (lines, mut follow) = Follow::after(rig.dir.path(), "web", None).expect("follow");
        assert_eq!(lines.len(), 1);
        assert!(follow.poll().expect("poll").is_empty());
        let line = format!("{}\n", "x".repeat(1000));
        let mut seen = 0;
        for _ in 0..40 {
            rig.write(line.repeat(1000).as_bytes());
            loop {
                let more = follow.poll().expect("poll");
                seen += more.len();
                if more.is_empty() {
                    break;
                }
            }
        }
        assert_eq!(seen, 40_000);
        let path = Bundle::new(rig.dir.path()).log("web");
        for file in [&path, &older(&path)] {
            assert!(fs::metadata(file).expect("file").len() <= MAX_FILE_BYTES);
        }
        rig.write(b"last\n");
        assert_eq!(rig.texts(Some(1)), ["last"]);
        assert_eq!(follow.poll().expect("poll").len(), 1);
    }
}
