//! The binary at a terminal: what it prints there, and what is typed.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus},
    sync::mpsc,
};

use super::{LIMIT, within};

/// A command whose stdin, stdout and stderr are a terminal of 120 columns and 30 lines.
pub struct AtTerminal {
    child: Option<Child>,
    keys: File,
    printed: mpsc::Receiver<Vec<u8>>,
    /// Everything it has printed so far.
    pub screen: String,
}

impl AtTerminal {
    pub fn run(mut command: Command) -> Self {
        use rustix::{
            pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
            termios::{Winsize, tcsetwinsize},
        };
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize { ws_row: 30, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let terminal = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        command.stdin(terminal.try_clone().unwrap());
        command.stdout(terminal.try_clone().unwrap());
        command.stderr(terminal);
        command.env("TERM", "xterm");
        let child = command.spawn().unwrap();
        drop(command); // it holds the terminal open
        let keys = File::from(master);
        let mut from = keys.try_clone().unwrap();
        let (tell, printed) = mpsc::channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4_096];
            // An error is the end of whoever had the terminal.
            while let Ok(count @ 1..) = from.read(&mut piece) {
                if tell.send(piece[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child: Some(child), keys, printed, screen: String::new() }
    }

    /// Waits until it has printed this, after all that was waited for before.
    pub fn prints(&mut self, words: &str) {
        let mut from = self.screen.len();
        while !self.screen[from..].contains(words) {
            let piece = self.printed.recv_timeout(LIMIT);
            let piece = piece.unwrap_or_else(|_| panic!("never printed {words:?}: {}", self.screen));
            // What was cut in two is looked at again.
            from = from.min(self.screen.len());
            self.screen.push_str(&String::from_utf8_lossy(&piece));
        }
    }

    pub fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// What Ctrl-C does at a terminal of a shell: here the terminal is nobody's, and sends nothing by itself.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.child.as_ref().unwrap().id()).unwrap();
        #[expect(clippy::disallowed_methods, reason = "our own child, not reaped yet: the pid is its own")]
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }

    /// Its end, and all that it printed.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        let mut child = self.child.take().unwrap();
        let status =
            within("its end", tokio::task::spawn_blocking(move || child.wait().unwrap())).await.unwrap();
        while let Ok(piece) = self.printed.recv_timeout(LIMIT) {
            self.screen.push_str(&String::from_utf8_lossy(&piece));
        }
        (status, std::mem::take(&mut self.screen))
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        // Ended already, or the test failed: then it must not outlive it.
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
