//! Runtime images: those embedded in the binary, written out below the data folder, and those of the
//! operator's own folders. Each is described by its image.toml.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use supervisor::RuntimeImage;

include!(concat!(env!("OUT_DIR"), "/embedded_images.rs"));

/// `image.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageFile {
    name: String,
    runtimes: Vec<String>,
    command: Vec<String>,
    #[serde(default)]
    fork_server: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Over `env`, in instances that may hold several requests at once.
    #[serde(default)]
    env_shared: BTreeMap<String, String>,
    #[serde(default)]
    interpreter: Option<String>,
    #[serde(default)]
    requires: Option<String>,
    /// The runtime is an HTTP server on this port.
    #[serde(default)]
    http_port: Option<u16>,
    /// Told for people; what a runtime really does is seen when it opens its cancellation poll.
    #[serde(default)]
    #[expect(dead_code, reason = "documentation of the image, kept so that it may be written there")]
    cooperative: bool,
}

/// Writes the embedded images to `<data>/images/<version of their contents>` unless they are there,
/// and reads their descriptions.
pub(crate) fn install(data: &Path) -> anyhow::Result<Vec<Arc<RuntimeImage>>> {
    let dir = data.join("images").join(fingerprint());
    if !dir.is_dir() {
        let staging = data.join("images").join(format!(".new-{}", std::process::id()));
        write_out(&staging).with_context(|| format!("{} cannot be written", staging.display()))?;
        // On the disk before it has its name, which says that it is whole.
        let written = fs::File::open(&staging).map(nix::unistd::syncfs);
        written?.with_context(|| format!("{} cannot be written", staging.display()))?;
        fs::rename(&staging, &dir).with_context(|| format!("{} cannot be written", dir.display()))?;
    }
    described(&dir.canonicalize()?)
}

/// The embedded images, as they are or would be in this folder.
pub(crate) fn described(dir: &Path) -> anyhow::Result<Vec<Arc<RuntimeImage>>> {
    let mut images = Vec::new();
    for (name, contents) in FILES.iter().filter(|(name, _)| name.ends_with("image.toml")) {
        let text = std::str::from_utf8(contents).with_context(|| format!("{name} is not UTF-8"))?;
        let folder = dir.join(Path::new(name).parent().unwrap_or(Path::new("")));
        images.push(Arc::new(describe(text, folder).with_context(|| format!("{name} is not understood"))?));
    }
    Ok(images)
}

fn describe(text: &str, dir: PathBuf) -> anyhow::Result<RuntimeImage> {
    let ImageFile {
        name,
        runtimes,
        command,
        fork_server,
        env,
        env_shared,
        interpreter,
        requires,
        http_port,
        ..
    } = toml::from_str(text)?;
    if http_port == Some(0) {
        bail!("http_port is the port of a server, from 1 to 65535");
    }
    if name.is_empty() || runtimes.is_empty() || command.first().is_none_or(String::is_empty) {
        bail!("an image has a name, runtimes that it serves, and a command");
    }
    Ok(RuntimeImage {
        dir,
        name,
        runtimes,
        command,
        fork_server,
        env,
        env_shared,
        interpreter,
        requires,
        http_port,
    })
}

/// Adds the images of an operator's folder: each folder in it that has an image.toml is one. They are used
/// where they are.
///
/// # Errors
/// When one cannot be read, or has the name of another, or serves a runtime that another serves.
pub(crate) fn add_own(folder: &Path, images: &mut Vec<Arc<RuntimeImage>>) -> anyhow::Result<()> {
    let unreadable = || format!("--images {} cannot be read", folder.display());
    let mut dirs = Vec::new();
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        dirs.push(entry.with_context(unreadable)?.path());
    }
    dirs.retain(|dir| dir.join("image.toml").exists());
    if dirs.is_empty() {
        bail!("--images {}: no folder in it has an image.toml", folder.display());
    }
    dirs.sort();
    for dir in dirs {
        let file = dir.join("image.toml");
        let text = fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        let dir = dir.canonicalize().with_context(unreadable)?;
        let image = describe(&text, dir).with_context(|| format!("{} is not understood", file.display()))?;
        for known in images.iter() {
            if known.name == image.name {
                bail!("{}: there is an image {} already", file.display(), image.name);
            }
            if let Some(runtime) = image.runtimes.iter().find(|name| known.runtimes.contains(name)) {
                bail!("{}: the image {} serves {runtime} already", file.display(), known.name);
            }
        }
        images.push(Arc::new(image));
    }
    Ok(())
}

/// Changes when any embedded file does, so that a new binary never runs on an old one's images.
fn fingerprint() -> String {
    // FNV-1a: names a folder; nothing here is secret or hostile.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let bytes = FILES.iter().flat_map(|(name, contents)| name.bytes().chain(contents.iter().copied()));
    for byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

fn write_out(into: &Path) -> std::io::Result<()> {
    for (name, contents) in FILES {
        let path = into.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, contents)?;
        // Runtimes may run as another user than the node.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// The embedded example functions: name of the folder, and its files.
pub(crate) fn write_examples(into: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let prefix = "python/examples/";
    let mut folders = Vec::new();
    for (name, contents) in FILES.iter().filter(|(name, _)| name.starts_with(prefix)) {
        let path = into.join(name.trim_start_matches(prefix));
        let Some(parent) = path.parent() else { continue };
        fs::create_dir_all(parent)?;
        fs::write(&path, contents)?;
        if path.ends_with("function.toml") {
            folders.push(parent.to_path_buf());
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_images_install_once_and_can_be_read() {
        let data = tempfile::tempdir().unwrap();
        let first = install(data.path()).unwrap();
        let again = install(data.path()).unwrap();
        assert_eq!(first, again);
        let python = first.iter().find(|image| image.name == "python").unwrap();
        assert!(python.dir.join("bootstrap.py").is_file());
        assert!(python.runtimes.iter().any(|runtime| runtime == "Python3.10"));
        let node = first.iter().find(|image| image.name == "nodejs").unwrap();
        assert!(node.dir.join("bootstrap.js").is_file() && !node.dir.join("tests").exists());
        assert!(node.runtimes.iter().any(|runtime| runtime == "Node.js20.15"));
        assert!(first.iter().any(|image| image.runtimes.iter().any(|runtime| runtime == "Custom")));
    }

    #[test]
    fn an_own_image_is_added_and_what_is_wrong_with_one_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut images = described(Path::new("")).unwrap();
        let embedded = images.len();
        let said = |error: anyhow::Error| format!("{error:#}");
        let none = said(add_own(folder.path(), &mut images).unwrap_err());
        assert!(none.contains("has an image.toml"), "{none}");
        fs::create_dir(folder.path().join("bash")).unwrap();
        let write = |text: &str| fs::write(folder.path().join("bash/image.toml"), text).unwrap();
        for (text, part) in [
            ("name = 7", "expected a string"),
            ("name = \"bash\"\nruntimes = [\"Bash\"]\ncommand = []", "a command"),
            ("name = \"bash\"\nruntimes = [\"Bash\"]\ncommand = [\"x\"]\nspeed = 3", "unknown field"),
            ("name = \"python\"\nruntimes = [\"Bash\"]\ncommand = [\"x\"]", "there is an image python"),
            ("name = \"bash\"\nruntimes = [\"Custom\"]\ncommand = [\"x\"]", "serves Custom already"),
        ] {
            write(text);
            let error = said(add_own(folder.path(), &mut images).unwrap_err());
            assert!(error.contains(part) && error.contains("image.toml"), "{error}");
        }
        assert_eq!(images.len(), embedded);
        write(
            "name = \"bash\"\nruntimes = [\"Bash\"]\ncommand = [\"bash\", \"{image}/run\"]\n[env]\nA = \"b\"",
        );
        add_own(folder.path(), &mut images).unwrap();
        let own = images.last().unwrap();
        assert_eq!((own.name.as_str(), own.env["A"].as_str()), ("bash", "b"));
    }
}
