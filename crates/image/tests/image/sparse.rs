//! Files with holes: every form that tar has for them.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use layby_image::unpack::{Limits, UnpackError, Whiteouts, unpack};
use tempfile::TempDir;

use crate::support::{Tar, sha256};

fn unpack_plain(tar: &[u8], root: &Path) -> Result<(), UnpackError> {
    unpack(tar, root, Whiteouts::Overlay, &Limits::default())
}

/// Text filled up to a tar's block.
pub(crate) fn block(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// An archive of a file with holes in pax format 1.0, with this map and this data behind it.
pub(crate) fn sparse_1_0(map: &str, size: u64, data: &str) -> Vec<u8> {
    let mut bytes = block(map);
    bytes.extend(data.bytes());
    Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", size.to_string().as_bytes()),
        ])
        .entry(b'0', "GNUSparseFile.0/sparse", "", &bytes)
        .finish()
}

pub(crate) fn mend_checksum(tar: &mut [u8]) {
    tar[148..156].copy_from_slice(b"        ");
    let sum: u32 = tar[..512].iter().map(|byte| u32::from(*byte)).sum();
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn files_with_holes_are_unpacked_in_every_form_that_tar_writes() {
    let expected = [&[0; 5][..], b"ab", &[0; 3], b"cd", &[0; 4]].concat();
    let old = {
        let mut tar = Tar::new().entry(b'S', "old", "", b"abcd").finish();
        tar[257..265].copy_from_slice(b"ustar  \0");
        let octal = |number: u64| format!("{number:011o}\0").into_bytes();
        for (at, number) in [(386, 5), (398, 2), (410, 10), (422, 2), (483, 16)] {
            tar[at..at + 12].copy_from_slice(&octal(number));
        }
        mend_checksum(&mut tar);
        tar
    };
    let pax_0_0 = Tar::new()
        .pax(&[
            ("GNU.sparse.size", b"16"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"5"),
            ("GNU.sparse.numbytes", b"2"),
            ("GNU.sparse.offset", b"10"),
            ("GNU.sparse.numbytes", b"2"),
        ])
        .file("old", "abcd")
        .finish();
    let pax_0_1 = Tar::new()
        .pax(&[
            ("GNU.sparse.size", b"16"),
            ("GNU.sparse.name", b"old"),
            ("GNU.sparse.map", b"5,2,10,2"),
        ])
        .file("GNUSparseFile.0/old", "abcd")
        .finish();
    let pax_1_0 = sparse_1_0("2\n5\n2\n10\n2\n", 16, "abcd");
    for (name, tar, path) in [
        ("old GNU", old, "old"),
        ("pax 0.0", pax_0_0, "old"),
        ("pax 0.1", pax_0_1, "old"),
        ("pax 1.0", pax_1_0, "sparse"),
    ] {
        let dir = TempDir::new().unwrap();
        unpack_plain(&tar, dir.path()).expect(name);
        assert_eq!(fs::read(dir.path().join(path)).unwrap(), expected, "{name}");
    }
}

/// What GNU tar itself writes, in each of its forms.
#[test]
fn the_real_tar_and_this_one_agree_on_files_with_holes() {
    let source = TempDir::new().unwrap();
    let path = source.path().join("holes");
    let file = fs::File::create(&path).unwrap();
    file.set_len(40 << 20).unwrap();
    // More parts than fit into one header.
    for n in 0..40 {
        file.write_all_at(b"data", n << 20).unwrap();
    }
    let expected = sha256(&fs::read(&path).unwrap());
    for format in [
        vec!["--format=gnu"],
        vec!["--format=pax", "--sparse-version=0.0"],
        vec!["--format=pax", "--sparse-version=0.1"],
        vec!["--format=pax", "--sparse-version=1.0"],
    ] {
        let output = Command::new("tar")
            .args(["--create", "--sparse", "--file=-", "--directory"])
            .arg(source.path())
            .args(&format)
            .arg("holes")
            .output()
            .unwrap();
        assert!(output.status.success());
        assert!(output.stdout.len() < 10 << 20, "it has holes");
        let dir = TempDir::new().unwrap();
        unpack_plain(&output.stdout, dir.path()).expect(format[0]);
        let unpacked = dir.path().join("holes");
        assert_eq!(
            sha256(&fs::read(&unpacked).unwrap()),
            expected,
            "{format:?}"
        );
        assert!(
            fs::metadata(&unpacked).unwrap().blocks() * 512 < 10 << 20,
            "{format:?}"
        );
    }
}
