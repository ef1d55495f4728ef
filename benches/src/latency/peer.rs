//! Somebody else's cancel, by the commands of its own client, beside the same floor as ours.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::{
    figure::{Found, Title},
    measure::{Effort, Sample, Scenario, figure},
    stops::{Floor, Site},
};

/// How to start one request there, and how to cancel it: both are lines for `sh`.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Prints the id of what it has started, and returns once that runs.
    pub(crate) start: String,
    /// Gets the id as its first argument.
    pub(crate) cancel: String,
}

/// The first word that a start has printed.
fn id(said: &str) -> anyhow::Result<&str> {
    said.split_whitespace().next().context("--peer-start printed no id")
}

impl Peer {
    fn started(&self) -> anyhow::Result<String> {
        let mut command = Command::new("sh");
        let said =
            command.args(["-c", &self.start]).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        ensure!(said.status.success(), "--peer-start: {}", said.status);
        Ok(id(&String::from_utf8_lossy(&said.stdout))?.to_owned())
    }

    /// From the start of the command to its end.
    fn canceled(&self, id: &str) -> anyhow::Result<Duration> {
        let mut command = Command::new("sh");
        command.args(["-c", &self.cancel, "sh", id]).stdin(Stdio::null()).stdout(Stdio::null());
        let start = Instant::now();
        let ended = command.status()?;
        let took = start.elapsed();
        ensure!(ended.success(), "--peer-cancel {id}: {ended}");
        Ok(took)
    }
}

struct Canceled<'a> {
    peer: &'a Peer,
    site: &'a Site,
    floor: &'a mut Floor,
}

impl Scenario for Canceled<'_> {
    const BESIDE: Option<&'static str> = Some("a shell that does nothing");

    async fn floor(&mut self) -> anyhow::Result<Duration> {
        self.site.floor(self.floor).await
    }

    async fn beside(&mut self) -> anyhow::Result<Option<Duration>> {
        let start = Instant::now();
        let ended = tokio::task::block_in_place(|| Command::new("sh").args(["-c", ":"]).status())?;
        ensure!(ended.success(), "sh: {ended}");
        Ok(Some(start.elapsed()))
    }

    async fn ours(&mut self) -> anyhow::Result<Sample> {
        tokio::task::block_in_place(|| {
            let id = self.peer.started()?;
            Ok(self.peer.canceled(&id)?.into())
        })
    }
}

pub(crate) async fn measure(
    effort: Effort,
    peer: &Peer,
    site: &Site,
    floor: &mut Floor,
    found: &mut Found,
) -> anyhow::Result<()> {
    let title = Title::new("force.peer", "the peer's cancel")
        .over("request + SIGKILL to reaped of a Python runtime, the store's sync beside it")
        .noted(format!(
            "Counted from the start of `{}` to its end, its shell included. Whether anything has stopped by then \
             is not looked at.",
            peer.cancel
        ));
    found.push(figure(title, effort, &mut Canceled { peer, site, floor }).await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_first_word_and_reaches_the_cancel_as_its_argument() {
        let peer = Peer { start: "echo job-7 started".into(), cancel: "test \"$1\" = job-7".into() };
        let id = peer.started().unwrap();
        assert_eq!(id, "job-7");
        peer.canceled(&id).unwrap();
        let why = peer.canceled("job-8").unwrap_err().to_string();
        assert!(why.starts_with("--peer-cancel job-8"), "{why}");
    }

    #[test]
    fn a_start_that_says_nothing_or_fails_is_told_as_such() {
        let start = |start: &str| Peer { start: start.into(), cancel: ":".into() }.started().unwrap_err();
        assert!(start(":").to_string().contains("printed no id"));
        assert!(start("exit 3").to_string().contains("--peer-start"), "{}", start("exit 3"));
    }
}
