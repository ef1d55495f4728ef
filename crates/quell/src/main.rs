//! Quell: a FaaS node daemon whose invocations really stop.

mod args;
mod cli;
mod client;
mod config;
mod contexts;
mod credentials;
mod data_folder;
mod demo;
mod deploy;
mod function_file;
mod images;
mod listeners;
mod logs;
mod manager;
mod migrate;
mod near;
mod open_listener;
#[cfg_attr(not(feature = "otlp"), path = "no_otlp.rs")]
mod otlp;
mod output;
mod reload;
mod runtime_user;
mod serve;
mod settings;
mod signals;
mod stores;
mod terminal;
mod tips;
mod trust;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

/// The hidden first argument under which this binary is the helper that becomes a runtime.
pub(crate) const INSTANCE_INIT: &str = "__instance-init";

fn main() -> ExitCode {
    // Before anything else: the helper must not start a runtime, parse options or open files.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == INSTANCE_INIT) {
        return supervisor::group::instance_init(args);
    }
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let cli = cli::Cli::try_parse().unwrap_or_else(|error| tips::with_tip(error, &words).exit());
    let node = match cli.settings() {
        Ok(node) => node,
        Err(mistakes) => return output::failed(&mistakes.into()),
    };
    let (filter, format) = cli.logging(node.as_ref());
    output::start_logging(filter, format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::failed(&anyhow::Error::new(error).context("no async runtime")),
    };
    match runtime.block_on(cli.run(node)) {
        // Whoever was to read it has not got all of it.
        Ok(code) if code == ExitCode::SUCCESS && output::was_lost() => ExitCode::from(output::REFUSED),
        Ok(code) => code,
        Err(error) => output::failed(&error),
    }
}
