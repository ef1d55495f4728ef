//! This program once more, in a process of its own, as the node and its clients are.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, ensure};
use tokio::sync::oneshot;

/// Ends with this value; by itself if the whole bench is killed, since its input ends then.
pub(crate) struct Own {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Own {
    pub(crate) fn start<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let to = child.stdin.take().context("no stdin")?;
        let from = BufReader::new(child.stdout.take().context("no stdout")?);
        Ok(Self { child, to, from })
    }

    pub(crate) fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        Ok(writeln!(self.to, "{line}")?)
    }

    /// The next line it says.
    pub(crate) fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        ensure!(!line.is_empty(), "it ended without a word");
        Ok(line.trim().to_owned())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // It has nothing to save.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Resolves once whoever started this process is gone.
pub(crate) fn alone() -> oneshot::Receiver<()> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let mut rest = [0; 64];
        while matches!(std::io::stdin().read(&mut rest), Ok(some) if some > 0) {}
        drop(tell);
    });
    told
}
