//! That no other node of this name is on this machine: a copy of a data folder has the name of the first, and would end as left over
//! what that one runs.

use std::{fs::File, io, path::PathBuf, time::Duration};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::containment::GroupError;

/// How often a folder that is held is tried again, and how long each time is waited for it: a child of a life that was killed holds it from
/// its birth to its exec, and nothing tells when that is.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// Holds those of these folders that are there, for as long as what is returned lives.
///
/// # Errors
/// [`GroupError::Namesake`] where another process holds one of them; where one cannot be looked at.
pub(super) async fn hold(folders: impl IntoIterator<Item = &PathBuf>) -> Result<Vec<File>, GroupError> {
    let mut held = Vec::new();
    for folder in folders {
        let look = |error| GroupError::Look { path: folder.display().to_string(), error };
        let opened = match File::open(folder) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(look(error)),
        };
        let mut tries = 0;
        loop {
            match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if tries < TRIES => tries += 1,
                Err(Errno::WOULDBLOCK) => return Err(GroupError::Namesake(folder.display().to_string())),
                Err(error) => return Err(look(error.into())),
            }
            tokio::time::sleep(PAUSE).await;
        }
        held.push(opened);
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_folder_is_held_by_one_and_free_when_that_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().to_owned(), folder.path().join("is not there")];
        let held = hold(&folders).await.unwrap();
        assert_eq!(held.len(), 1);
        assert!(matches!(hold(&folders).await, Err(GroupError::Namesake(_))));
        drop(held);
        assert!(hold(&folders).await.is_ok());
    }
}
