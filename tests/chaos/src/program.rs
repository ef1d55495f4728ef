//! Where the node's program is: beside this one, and up to date.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

/// The built `quell`. Under cargo it is built first, as nothing but a test of its own package makes cargo
/// do that; where it is up to date this takes no time.
///
/// # Errors
/// When there is none, or it cannot be built.
pub fn node() -> anyhow::Result<PathBuf> {
    let folder = profile_folder()?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "quell", "--bin", "quell"]);
        build.args(folder.ends_with("release").then_some("--release"));
        // Whatever folder this program was built into, whoever chose it.
        build.arg("--target-dir").arg(folder.parent().context("a profile is below the target folder")?);
        if let Some(workspace) = std::env::var_os("CARGO_MANIFEST_DIR") {
            build.current_dir(workspace);
        }
        build.stdin(Stdio::null());
        let built = build.status().context("cargo cannot be run")?;
        ensure!(built.success(), "the node cannot be built: {built}");
    }
    let program = folder.join("quell");
    ensure!(program.is_file(), "there is no {}; build it, or name one by --node", program.display());
    Ok(program)
}

/// Where a run whose target folder lies below `/tmp` makes its own: an instance has a `/tmp` of its own, and
/// could not reach the ledger there.
const ELSEWHERE: &str = "/var/tmp/quell-chaos";

/// Where runs make their folders unless they are told another: in the target folder, on a disk.
///
/// # Errors
/// When this program is in no target folder.
pub fn folder() -> anyhow::Result<PathBuf> {
    let folder = profile_folder()?.with_file_name("chaos");
    Ok(if folder.starts_with("/tmp") { PathBuf::from(ELSEWHERE) } else { folder })
}

/// The folder of the profile this was built with.
fn profile_folder() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("this program is in no folder")?;
    // A test is one below.
    let folder =
        if folder.ends_with("deps") { folder.parent().context("deps is in no folder")? } else { folder };
    Ok(folder.to_owned())
}
