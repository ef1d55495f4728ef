//! The data folder of a node: made, and its store opened; what is wrong with it is told with what to do.

use std::path::{Path, PathBuf};

use store::{Embedded, StoreError};

use crate::output::Usage;

/// The folder, whole: made if it is not there.
///
/// # Errors
/// [`Usage`] if it cannot be one.
pub(crate) fn made(data: &Path) -> Result<PathBuf, Usage> {
    let refused = |error: std::io::Error| {
        let why = if data.exists() && !data.is_dir() { "it is a file".to_owned() } else { error.to_string() };
        Usage(format!(
            "the data folder {} cannot be made ({why}): give --data, or `data` in quell.toml, a folder that the node may \
             write to",
            data.display()
        ))
    };
    std::fs::create_dir_all(data).map_err(refused)?;
    data.canonicalize().map_err(refused)
}

/// The store in it.
///
/// # Errors
/// What the store says, with what to do about it.
pub(crate) fn store_in(data: &Path) -> anyhow::Result<Embedded> {
    Embedded::open(data).map_err(|error| {
        let hint = match &error {
            StoreError::Locked(_) => {
                "cannot start (give --data, or `data` in quell.toml, another folder; or end the node that runs)".to_owned()
            }
            _ => format!(
                "cannot start with the data folder {0}: its user must be able to write to it; and a quell.db that is damaged, or \
                 no store at all, is replaced by a copy that `quell backup` made (docs/runbook.md), or moved away with its -wal \
                 and -shm for a node that begins anew; or give --data another folder",
                data.display()
            ),
        };
        anyhow::Error::new(error).context(hint)
    })
}
