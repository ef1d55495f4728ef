//! The data folder: made private, owned by one process, its names on the disk.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{StoreError, fault::unopenable};

const DATABASE: &str = "quell.db";
const LOCK: &str = "lock";
/// Another number at each start of the machine.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// Payloads and code may hold secrets; SQLite gives its log the mode of the database.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// A data folder that is ours until `lock` is closed.
pub(crate) struct Folder {
    pub(crate) database: PathBuf,
    pub(crate) lock: File,
}

/// Takes the folder, making it where there is none.
pub(crate) fn lock(dir: &Path) -> Result<File, StoreError> {
    if !dir.is_dir() {
        make(dir).map_err(|error| unopenable(dir, error))?;
    }
    let path = dir.join(LOCK);
    let lock = private_file(&path).map_err(|error| unopenable(&path, error))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => Err(StoreError::Locked(dir.display().to_string())),
        Err(error) => Err(unopenable(&path, error)),
    }
}

/// Names the one place in the world where this lock can be held: this file, on this machine since it was started. Whoever
/// holds it knows that no other process of that place lives. Empty where the machine does not say when it was started.
pub(crate) fn place(lock: &File) -> io::Result<String> {
    let boot = match fs::read_to_string(BOOT) {
        Ok(text) => text.trim().to_owned(),
        Err(error) => {
            tracing::warn!(%error, "{BOOT} cannot be read: a copy of this data folder is known by its endpoint alone");
            return Ok(String::new());
        }
    };
    let file = lock.metadata()?;
    Ok(format!("{boot} {:x}:{}", file.dev(), file.ino()))
}

/// The same, with an empty database file where there is none.
pub(crate) fn take(dir: &Path) -> Result<Folder, StoreError> {
    let lock = lock(dir)?;
    let database = dir.join(DATABASE);
    // Made here so that it is never readable by others, not even for a moment.
    private_file(&database)
        .and_then(|file| file.set_permissions(Permissions::from_mode(FILE_MODE)))
        .and_then(|()| sync(dir))
        .map_err(|error| unopenable(&database, error))?;
    Ok(Folder { database, lock })
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
}

fn make(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(dir)?;
    // Every folder above may be new too, and a name is on the disk when its folder was synced.
    let whole = dir.canonicalize()?;
    for above in whole.ancestors().skip(1) {
        match sync(above) {
            // We may pass through it but not read it, so we made nothing in it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            done => done?,
        }
    }
    Ok(())
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
