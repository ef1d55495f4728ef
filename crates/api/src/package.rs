//! Code packages: decoded, checked, unpacked. A package is data of strangers: names, sizes and counts
//! are looked at before anything is written, and it appears under its digest whole or not at all.

use std::{
    collections::HashSet,
    fs,
    io::{Cursor, ErrorKind, Read, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

use axum::http::StatusCode;
use base64::Engine as _;
use bytes::Bytes;
use sha2::{Digest as _, Sha512};
use zip::ZipArchive;

use crate::{
    error::ApiError,
    settings::{MAX_FILES, MAX_PACKAGE, MAX_UNPACKED},
    spec::bad,
};

/// How every zip file begins; an empty one begins with the end.
const ZIP: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];

/// A page or two at a time, on the stack.
const COPY_BYTES: usize = 16 << 10;

/// Base64 as clients write it: with or without line breaks.
pub(crate) fn decode(text: &str) -> Result<Bytes, ApiError> {
    let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    if text.len() / 4 * 3 > MAX_PACKAGE {
        return Err(too_large());
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    bytes.map(Bytes::from).map_err(|error| bad("FSS.1011", format!("func_code.file is not base64: {error}")))
}

fn too_large() -> ApiError {
    let message = format!("the code package is larger than {MAX_PACKAGE} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "FSS.1071", message)
}

/// SHA-512, lower-case hex.
pub(crate) fn digest(package: &[u8]) -> String {
    hex::encode(Sha512::digest(package))
}

/// Where the code of this digest is, or will be, unpacked.
pub(crate) fn dir(data: &Path, digest: &str, file: &str) -> PathBuf {
    // Plain source is the same bytes under any name, and a folder with that one file.
    let name: String = file.chars().filter(|c| c.is_ascii_alphanumeric()).take(32).collect();
    data.join("code").join(format!("{}-{name}", digest.get(..32).unwrap_or(digest)))
}

/// Unpacks a package into `dir` unless it is there. Blocking.
pub(crate) fn unpack(package: &[u8], file: &str, dir: &Path) -> Result<(), ApiError> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().ok_or_else(|| ApiError::internal("the code folder has no parent"))?;
    let staging = parent.join(format!(".new-{}", uuid::Uuid::new_v4()));
    let written = fs::create_dir_all(&staging).map_err(disk).and_then(|()| {
        if ZIP.iter().any(|magic| package.starts_with(magic)) {
            unzip(package, &staging)
        } else {
            create(&staging.join(source_name(file)?), 0o644)?.write_all(package).map_err(disk)
        }
    });
    // On the disk before it has its name: after a power loss a folder of that name is taken for whole.
    let written = written.and_then(|()| on_the_disk(&staging).map_err(disk));
    let placed = written.and_then(|()| match fs::rename(&staging, dir) {
        Ok(()) => Ok(()),
        // Somebody else unpacked the same digest meanwhile.
        Err(_) if dir.is_dir() => Ok(()),
        Err(error) => Err(disk(error)),
    });
    if staging.is_dir()
        && let Err(error) = fs::remove_dir_all(&staging)
    {
        tracing::warn!(%error, "a half-unpacked package is left behind");
    }
    placed
}

/// Everything written below a folder. One call for its whole file system: functions are rarely changed.
fn on_the_disk(folder: &Path) -> std::io::Result<()> {
    nix::unistd::syncfs(fs::File::open(folder)?).map_err(std::io::Error::from)
}

/// The name of plain source: `index.py`, or what the client said if it is a bare file name.
fn source_name(file: &str) -> Result<String, ApiError> {
    if file.is_empty() || file.ends_with(".zip") {
        return Ok("index.py".to_owned());
    }
    let bare = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    if !bare || file.contains('/') {
        return Err(bad("FSS.1013", format!("code_filename {file:?} is not a file name")));
    }
    Ok(file.to_owned())
}

fn unzip(package: &[u8], into: &Path) -> Result<(), ApiError> {
    let mut zip = ZipArchive::new(Cursor::new(package)).map_err(|error| broken(&error))?;
    if zip.len() > MAX_FILES {
        return Err(bad("FSS.1011", format!("the package holds more than {MAX_FILES} files")));
    }
    let (mut names, mut left) = (HashSet::new(), MAX_UNPACKED);
    for at in 0..zip.len() {
        let mut entry = zip.by_index(at).map_err(|error| broken(&error))?;
        let name = safe_name(entry.name_raw())?;
        if entry.is_symlink() {
            return Err(bad("FSS.1011", format!("{} is a symbolic link", name.display())));
        }
        if entry.is_dir() {
            fs::create_dir_all(into.join(&name)).map_err(|error| placing(&name, error))?;
            continue;
        }
        if !names.insert(name.clone()) {
            return Err(bad("FSS.1011", format!("{} is in the package twice", name.display())));
        }
        let executable = entry.unix_mode().unwrap_or(0) & 0o111 != 0;
        let mut file = create(&into.join(&name), if executable { 0o755 } else { 0o644 })?;
        left = copy(&mut entry, &mut file, left, &name)?;
    }
    Ok(())
}

/// A name that stays below the folder: relative, no `..`, no drive letters, UTF-8.
fn safe_name(raw: &[u8]) -> Result<PathBuf, ApiError> {
    let refuse = |why: &str| {
        bad("FSS.1011", format!("{:?} is no name for a file: {why}", String::from_utf8_lossy(raw)))
    };
    let name = std::str::from_utf8(raw).map_err(|_| refuse("not UTF-8"))?;
    if name.contains(['\\', '\0', ':']) {
        return Err(refuse("it holds a backslash, a colon or a zero"));
    }
    let path = Path::new(name);
    if path.components().next().is_none() {
        return Err(refuse("empty"));
    }
    match path.components().find(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        None => Ok(path.components().filter(|part| matches!(part, Component::Normal(_))).collect()),
        Some(_) => Err(refuse("it leads out of the package")),
    }
}

/// Copies one entry and returns how many bytes the rest may have. What the package says of its sizes
/// is not believed: bytes are counted as they come, and never held in memory as a whole.
fn copy(entry: &mut impl Read, file: &mut fs::File, left: u64, name: &Path) -> Result<u64, ApiError> {
    let mut chunk = [0; COPY_BYTES];
    let mut left = left;
    loop {
        let size = match entry.read(&mut chunk) {
            Ok(0) => return Ok(left),
            Ok(size) => size,
            Err(error) => return Err(bad("FSS.1011", format!("{} is damaged: {error}", name.display()))),
        };
        left = left
            .checked_sub(size as u64)
            .ok_or_else(|| bad("FSS.1011", format!("the package holds more than {MAX_UNPACKED} bytes")))?;
        file.write_all(&chunk[..size]).map_err(disk)?;
    }
}

fn create(path: &Path, mode: u32) -> Result<fs::File, ApiError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| placing(path, error))?;
    }
    let file = fs::File::options().write(true).create_new(true).mode(mode).open(path);
    let file = file.map_err(|error| placing(path, error))?;
    // The mask of the node must not take bits away that runtimes of other users need.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(disk)?;
    Ok(file)
}

/// A name that has no place is the fault of the package; anything else is ours.
fn placing(path: &Path, error: std::io::Error) -> ApiError {
    match error.kind() {
        ErrorKind::AlreadyExists
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::InvalidFilename => {
            let name = path.file_name().unwrap_or_default().display();
            bad("FSS.1011", format!("{name} in the package has no place: {error}"))
        }
        _ => disk(error),
    }
}

fn broken(error: &zip::result::ZipError) -> ApiError {
    bad("FSS.1011", format!("the package is no zip file that can be read: {error}"))
}

fn disk(error: std::io::Error) -> ApiError {
    ApiError::internal(format!("the package could not be unpacked: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zip::{ZipWriter, write::SimpleFileOptions};

    fn package(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, contents) in files {
            zip.start_file(*name, SimpleFileOptions::default().unix_permissions(0o755)).unwrap();
            zip.write_all(contents).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn unpacked(package: &[u8]) -> (tempfile::TempDir, Result<(), ApiError>) {
        let data = tempfile::tempdir().unwrap();
        let result = unpack(package, "", &data.path().join("code/x"));
        (data, result)
    }

    #[track_caller]
    fn refused(package: &[u8]) -> String {
        let (data, result) = unpacked(package);
        let error = result.unwrap_err();
        assert_eq!(error.code, "FSS.1011", "{error}");
        let left: Vec<_> = fs::read_dir(data.path().join("code")).unwrap().collect();
        assert!(left.is_empty(), "nothing stays: {left:?}");
        error.message
    }

    #[test]
    fn a_package_is_unpacked_with_its_executable_bits() {
        let (data, result) = unpacked(&package(&[("index.py", b"x"), ("bin/tool", b"y")]));
        result.unwrap();
        let tool = data.path().join("code/x/bin/tool");
        assert_eq!(fs::read(&tool).unwrap(), b"y");
        assert_eq!(fs::metadata(&tool).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for name in ["../x", "a/../../x", "/etc/x", "..", "c:\\x", "a\\..\\x"] {
            let message = refused(&package(&[("ok.py", b""), (name, b"x")]));
            assert!(message.contains("is no name for a file"), "{name}: {message}");
        }
    }

    #[test]
    fn a_bomb_is_noticed_by_its_bytes() {
        let zeros = vec![0; 65 << 20];
        let files: Vec<(String, &[u8])> = (0..8).map(|at| (format!("f{at}"), zeros.as_slice())).collect();
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, zeros)| (name.as_str(), *zeros)).collect();
        let bomb = package(&files);
        assert!(bomb.len() < 1 << 20, "it is small on the wire");
        assert!(refused(&bomb).contains("more than"));
    }

    #[test]
    fn names_that_stand_in_each_others_way_are_refused() {
        let long = "x".repeat(300);
        for files in [["a", "a/b"], ["a/b", "a"], ["a", "a/"], ["ok.py", long.as_str()]] {
            let package = package(&files.map(|name| (name, b"".as_slice())));
            assert!(refused(&package).contains("has no place"), "{files:?}");
        }
    }

    #[test]
    fn half_a_package_is_refused() {
        let whole = package(&[("index.py", &[7; 1000])]);
        refused(&whole[..whole.len() / 2]);
    }

    #[test]
    fn a_symbolic_link_is_refused() {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        zip.add_symlink("link", "/etc/passwd", SimpleFileOptions::default()).unwrap();
        assert!(refused(&zip.finish().unwrap().into_inner()).contains("symbolic link"));
    }

    #[test]
    fn plain_source_becomes_one_file() {
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().join("code/x");
        unpack(b"def handler(e, c): pass", "main.py", &dir).unwrap();
        assert!(dir.join("main.py").is_file());
        let other = data.path().join("code/y");
        assert_eq!(unpack(b"x", "../main.py", &other).unwrap_err().code, "FSS.1013");
    }
}
