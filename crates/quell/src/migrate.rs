//! `quell migrate`: what a lone node keeps, moved into a database that several nodes share.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::Args;
use store::{Embedded, Postgres, Store as _, StoreError};

use crate::{output, settings, stores};

/// From where to where.
#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// The data folder of the node, which must not run.
    #[arg(long, env = "QUELL_DATA", default_value = "quell-data")]
    data: PathBuf,
    /// The database, as in the setting `store`; it must be empty.
    #[arg(long, env = "QUELL_STORE", value_name = "URL")]
    store: String,
    /// As the setting of this name.
    #[arg(long, env = "QUELL_STORE_PASSWORD_FILE", value_name = "FILE")]
    store_password_file: Option<PathBuf>,
    /// As the setting of this name.
    #[arg(long, env = "QUELL_STORE_CA", value_name = "FILE")]
    store_ca: Option<PathBuf>,
}

pub(crate) async fn migrate(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    let url = settings::server(&args.store, args.store_password_file.as_deref(), args.store_ca.as_deref())?;
    let data = args.data.canonicalize().with_context(|| format!("{} is not there", args.data.display()))?;
    if !data.join("quell.db").exists() {
        bail!("{} holds no store (quell.db): nothing to migrate", data.display());
    }
    let from = Embedded::open(&data)?;
    let name = stores::name_of(&from, &data).await?;
    let password = args.store_password_file.as_deref().map(stores::password).transpose()?;
    let beside = folder_to_lock(&data)?;
    let to = Postgres::connect(
        url.as_str(),
        password.as_deref(),
        args.store_ca.as_deref(),
        name.clone(),
        &beside,
    )?;
    let moved = store::copy(&from, &to).await;
    to.close().await?;
    std::fs::remove_dir_all(&beside)?;
    let moved = moved.map_err(|error| match error {
        StoreError::Exists => {
            anyhow::anyhow!("the database has functions or requests already: give an empty one")
        }
        error => error.into(),
    })?;
    let mark = data.join(stores::MOVED_FILE);
    std::fs::write(&mark, "by quell migrate; a node of this folder starts with the setting store alone\n")
        .with_context(|| format!("{}: it is all moved, and must not be run here again", mark.display()))?;
    output::line(format_args!(
        "moved {} versions of functions, {} aliases, {} credentials, {} requests and {} receipts; what is not over belongs \
         to this node, {name}",
        moved.functions, moved.aliases, moved.credentials, moved.invocations, moved.receipts
    ));
    output::line(format_args!(
        "start the node with the setting store; {} is not used any more, and is yours to keep or delete",
        data.join("quell.db").display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// A folder to lock for the copy: the node's own is locked by the store that is read.
fn folder_to_lock(data: &std::path::Path) -> anyhow::Result<PathBuf> {
    let folder = data.join("migrate");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
