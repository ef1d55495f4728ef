//! `quell completions` and `quell man`: written from the same commands that are parsed.

use std::{path::Path, process::ExitCode};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{cli::Cli, output};

/// Prints what a shell needs to complete commands.
pub(crate) fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "quell", &mut script);
    output::text(&String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}

/// Writes a page for each command into a folder.
pub(crate) fn man(folder: &Path) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    clap_mangen::generate_to(Cli::command(), folder)
        .with_context(|| format!("the pages cannot be written into {}", folder.display()))?;
    output::note(format_args!("quell: man pages are in {}; try `man -l {0}/quell.1`", folder.display()));
    Ok(ExitCode::SUCCESS)
}
