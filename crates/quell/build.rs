//! Embeds the runtime images: the one binary must be able to run functions wherever it is copied to.
//!
//! Writes a table of (path below `runtime-images/`, contents) for every file there that is not a test
//! or a by-product.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?);
    let images = manifest.join("../../runtime-images").canonicalize()?;
    println!("cargo::rerun-if-changed={}", images.display());
    let mut files = Vec::new();
    collect(&images, &mut files)?;
    files.sort();
    let mut table = String::from("pub(crate) const FILES: &[(&str, &[u8])] = &[\n");
    for file in files {
        let name = file.strip_prefix(&images).map_err(io::Error::other)?;
        writeln!(table, "    ({:?}, include_bytes!({file:?})),", name.display().to_string())
            .map_err(io::Error::other)?;
    }
    table.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    fs::write(out.join("embedded_images.rs"), table)
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if !matches!(name.as_str(), "tests" | "__pycache__" | "node_modules") {
                collect(&path, into)?;
            }
        } else if !name.ends_with(".pyc") && !name.starts_with('.') {
            into.push(path);
        }
    }
    Ok(())
}
