//! The `quell` that is measured: the one that belongs to this program.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

/// What cargo is to be told, so that it builds `quell` to where this program is; `None` if this program is not
/// where cargo puts one.
fn arguments(program: &Path) -> Option<Vec<String>> {
    let folder = program.parent()?;
    // Cargo names the folder after the profile, but for one.
    let profile = match folder.file_name()?.to_str()? {
        "debug" => "dev",
        other => other,
    };
    let target = folder.parent()?.to_str()?;
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let words = ["build", "--locked", "-p", "quell", "--profile", profile, "--target-dir", target];
    let words = words.into_iter().map(str::to_owned);
    Some(words.chain(["--manifest-path".to_owned(), manifest.to_str()?.to_owned()]).collect())
}

/// Under `cargo run` cargo itself decides whether it is missing or older than its sources; called by itself,
/// the bench measures what stands beside it.
pub(crate) fn ready() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let quell = program.with_file_name("quell");
    if let (Some(cargo), Some(arguments)) = (std::env::var_os("CARGO"), arguments(&program)) {
        println!("cargo {}", arguments.join(" "));
        let built = Command::new(cargo).args(arguments).status().context("cargo")?;
        ensure!(built.success(), "quell is not built: {built}");
    }
    ensure!(quell.is_file(), "{} is not built: cargo build --release -p quell", quell.display());
    Ok(quell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quell_is_built_in_the_profile_and_the_folder_of_the_bench() {
        let words = |program: &str| arguments(Path::new(program)).unwrap().join(" ");
        let release = words("/t/release/quell-bench");
        assert!(
            release
                .starts_with("build --locked -p quell --profile release --target-dir /t --manifest-path /")
        );
        assert!(words("/t/debug/quell-bench").contains("--profile dev "));
    }

    #[test]
    fn a_program_that_stands_alone_has_nothing_to_build() {
        assert_eq!(arguments(Path::new("/quell-bench")), None);
    }
}
