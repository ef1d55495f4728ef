//! `quell completions` and `quell man`: written from the same commands that are parsed.

use std::{path::Path, process::ExitCode};

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{
    cli::Cli,
    output::{self, Usage},
};

/// Prints what a shell needs to complete commands.
pub(crate) fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "quell", &mut script);
    output::text(&String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}

/// Writes a page for each command into a folder.
pub(crate) fn man(folder: &Path) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(folder)
        .map_err(|error| Usage(format!("the folder {} cannot be made: {error}", folder.display())))?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    pages(&command, folder)
        .with_context(|| format!("the pages cannot be written into {}", folder.display()))?;
    output::note(format_args!("quell: man pages are in {}; try `man -l {0}/quell.1`", folder.display()));
    Ok(ExitCode::SUCCESS)
}

fn pages(command: &Command, folder: &Path) -> std::io::Result<()> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        pages(verb, folder)?;
    }
    let page = Man::new(command.clone());
    let mut text = Vec::new();
    page.render(&mut text)?;
    let text = with_headings(&String::from_utf8_lossy(&text));
    std::fs::write(folder.join(page.get_filename()), text)
}

/// What stands below the options has headings of its own (`Examples:`, a line each), and the generator one that says
/// nothing.
fn with_headings(page: &str) -> String {
    let mut lines = Vec::new();
    let mut below = false;
    for line in page.lines() {
        match line.strip_suffix(':') {
            _ if line == ".SH EXTRA" => below = true,
            _ if line.starts_with(".SH") => {
                // Lines stay as they are up to here.
                lines.extend(std::mem::take(&mut below).then(|| ".fi".to_owned()));
                lines.push(line.to_owned());
            }
            Some(heading) if below && !heading.starts_with([' ', '.']) => {
                lines.push(format!(".fi\n.SH \"{}\"\n.nf", heading.to_uppercase()));
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines.join("\n") + "\n"
}
