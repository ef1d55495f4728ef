//! Where logs are: `<project>/<package>/<function>/<version>/<start>-<instance>.<part>.log`, and beside each part
//! the ids of the requests that have lines in it.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use store::{FunctionFilter, FunctionKey};

/// Nobody but the node reads what functions print, nor writes it.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
const LINES: &str = "log";
const REQUESTS: &str = "requests";

/// A part of the log of an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Part {
    /// `<start>-<instance>`: sorts by time, and is not used twice.
    pub(super) stem: String,
    pub(super) number: u32,
    /// The folder of its function's version.
    pub(super) folder: PathBuf,
}

impl Part {
    pub(super) fn lines(&self) -> PathBuf {
        self.folder.join(format!("{}.{:06}.{LINES}", self.stem, self.number))
    }

    pub(super) fn requests(&self) -> PathBuf {
        self.folder.join(format!("{}.{:06}.{REQUESTS}", self.stem, self.number))
    }

    /// The instance, as it is shown.
    pub(super) fn instance(&self) -> &str {
        self.stem.split_once('-').map_or("", |(_, instance)| instance)
    }

    fn of(folder: &Path, name: &str) -> Option<Self> {
        let (stem, rest) = name.split_once('.')?;
        let (number, kind) = rest.split_once('.')?;
        let named = stem.split_once('-').is_some_and(|(start, _)| start.parse::<u64>().is_ok());
        let number = number.parse().ok().filter(|_| kind == LINES && named)?;
        Some(Self { stem: stem.to_owned(), number, folder: folder.to_owned() })
    }

    /// Its size with the ids beside it, and when it was last written to, in milliseconds since the Unix epoch.
    pub(super) fn size_and_time(&self) -> io::Result<(u64, i64)> {
        let lines = fs::metadata(self.lines())?;
        let beside = fs::metadata(self.requests()).map(|file| file.len()).unwrap_or_default();
        let since = lines.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok((lines.len() + beside, i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        for path in [self.requests(), self.lines()] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        // The folders of a function without logs; one that is not empty stays.
        let folders = self.folder.ancestors().take(4);
        for folder in folders {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// The name of an instance's log.
pub(super) fn stem(start_ms: i64, instance: &str) -> String {
    format!("{start_ms:013}-{instance}")
}

/// The folder of a version of a function.
pub(super) fn folder(root: &Path, key: &FunctionKey) -> PathBuf {
    let FunctionKey { project, package, name, version } = key;
    root.join(encoded(project)).join(encoded(package)).join(encoded(name)).join(encoded(version))
}

/// A name as that of one folder: whatever is not plain is written as `%` and a number.
fn encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => out.push(char::from(byte)),
            b'.' if at > 0 => out.push('.'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
}

/// A file that is written at its end.
pub(super) fn append(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().create(true).append(true).mode(FILE_MODE).open(path)
}

/// Parts of logs, oldest instances first, each with its parts in order. What cannot be read is not there.
pub(super) fn parts(folders: impl IntoIterator<Item = PathBuf>) -> Vec<Part> {
    let mut parts = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            parts.extend(entry.file_name().to_str().and_then(|name| Part::of(&folder, name)));
        }
    }
    parts.sort_unstable();
    parts
}

/// The folders of a function: of the versions that are named, or of all.
pub(super) fn of_function(root: &Path, filter: &FunctionFilter) -> Vec<PathBuf> {
    let FunctionFilter { project, package, name, versions } = filter;
    let function = root.join(encoded(project)).join(encoded(package)).join(encoded(name));
    if versions.is_empty() {
        return below(&function);
    }
    versions.iter().map(|version| function.join(encoded(version))).collect()
}

/// The folders of a project's functions.
pub(super) fn of_project(root: &Path, project: &str) -> Vec<PathBuf> {
    let packages = below(&root.join(encoded(project)));
    packages.iter().flat_map(|package| below(package)).flat_map(|function| below(&function)).collect()
}

/// All there are.
pub(super) fn all(root: &Path) -> Vec<PathBuf> {
    let packages = below(root).into_iter().flat_map(|project| below(&project));
    packages.flat_map(|package| below(&package)).flat_map(|function| below(&function)).collect()
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_folder_below_its_own_project_whatever_it_is() {
        for (name, folder) in [("a-b_1.x", "a-b_1.x"), ("..", "%2E."), ("a/b", "a%2Fb"), ("\u{e9}", "%C3%A9")]
        {
            assert_eq!(encoded(name), folder);
        }
    }

    #[test]
    fn parts_are_found_by_their_names_and_nothing_else_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let key = |name: &str| FunctionKey {
            project: "p".into(),
            package: "k".into(),
            name: name.into(),
            version: "latest".into(),
        };
        for name in ["f", "g"] {
            make_folder(&folder(dir.path(), &key(name))).unwrap();
        }
        let own = folder(dir.path(), &key("f"));
        let part =
            |start, instance: &str, number| Part { stem: stem(start, instance), number, folder: own.clone() };
        let all_parts = [part(5, "i9", 1), part(5, "i9", 2), part(40, "i1", 1)];
        for part in all_parts.iter().rev() {
            append(&part.lines()).unwrap();
            append(&part.requests()).unwrap();
        }
        append(&own.join("else.txt")).unwrap();
        append(&own.join("x-i1.000001.log")).unwrap();
        let filter = FunctionFilter::whole(key("f"));
        assert_eq!(parts(of_function(dir.path(), &filter)), all_parts);
        assert_eq!(parts(of_project(dir.path(), "p")), all_parts);
        assert!(parts(of_project(dir.path(), "q")).is_empty());
        assert_eq!(all_parts[2].instance(), "i1");
    }
}
