//! Code packages: archives and plain source. Whatever is in one, nothing is written outside its folder.
#![no_main]

use std::{fs, path::Path};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Package {
    bytes: Vec<u8>,
    file: String,
}

/// In memory: what is tried thousands of times a second needs no disk.
const ROOM: &str = "/dev/shm";

fuzz_target!(|package: Package| {
    let Ok(room) = tempfile::tempdir_in(Path::new(ROOM)) else { return };
    let below = room.path().join("below");
    fs::create_dir(&below).unwrap();
    api::fuzzing::package(&package.bytes, &package.file, &below);
    let outside = fs::read_dir(room.path()).unwrap().count();
    assert_eq!(outside, 1, "something was written beside the folder");
    let staging = fs::read_dir(&below).unwrap().flatten().filter(|entry| entry.file_name() != "code").count();
    assert_eq!(staging, 0, "something was left beside the code");
});
