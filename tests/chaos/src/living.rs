//! Which processes of this run are alive, whoever their parents are and wherever they went.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Says in a process's environment which run and which life it is of.
#[derive(Clone, Debug)]
pub struct Token(String);

/// A living process that carries the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Living {
    /// Its number as we see it.
    pub pid: u32,
    /// The life it was started in.
    pub life: u32,
    /// Its command line.
    pub command: String,
    /// The file it executes, where that can be read.
    pub program: Option<PathBuf>,
}

impl Living {
    /// Whether it is the node itself, or what watches over its instances.
    #[must_use]
    pub fn is_of_the_node(&self, node: &Path) -> bool {
        self.program.as_deref() == Some(node)
    }
}

impl Token {
    /// Of a run that nobody else on the machine has.
    #[must_use]
    pub fn of(run: &str) -> Self {
        Self(format!("/quell-chaos-{run}/life-"))
    }

    /// A search path whose first folder, which need not exist, is the token: of the environment, the
    /// path is what a node hands on to every process that it starts.
    #[must_use]
    pub fn path(&self, life: u32) -> String {
        let rest = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
        format!("{}{life}:{rest}", self.0)
    }

    /// All that live now. What is dead and only not collected yet has no environment any more.
    ///
    /// # Errors
    /// When `/proc` cannot be listed.
    pub fn living(&self) -> io::Result<Vec<Living>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // Gone meanwhile, or none of ours.
            let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { continue };
            let Some(life) = self.life_in(&environment) else { continue };
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let program = fs::read_link(format!("/proc/{pid}/exe")).ok(); // gone meanwhile
            found.push(Living { pid, life, command, program });
        }
        Ok(found)
    }

    fn life_in(&self, environment: &[u8]) -> Option<u32> {
        let token = self.0.as_bytes();
        let at = environment.windows(token.len()).position(|part| part == token)? + token.len();
        let digits = environment[at..].iter().take_while(|byte| byte.is_ascii_digit());
        digits.map(|digit| char::from(*digit)).collect::<String>().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        process::{Command, Stdio},
    };

    #[test]
    fn a_process_is_found_by_its_life_and_not_after_its_end() {
        let token = Token::of(&format!("test-{}", std::process::id()));
        let mut child = Command::new("/usr/bin/env")
            .args(["setsid", "--wait", "cat"])
            .env("PATH", token.path(12))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Until it has answered it may be between two programs, and then it has no environment to be seen.
        let (mut asked, mut answered) = (child.stdin.take().unwrap(), [0]);
        asked.write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut answered).unwrap();
        let lives: Vec<u32> = token.living().unwrap().into_iter().map(|living| living.life).collect();
        assert!(!lives.is_empty() && lives.iter().all(|life| *life == 12), "{lives:?}");
        drop(asked);
        child.wait().unwrap();
        assert_eq!(token.living().unwrap(), []);
        assert_eq!(Token::of("other").life_in(b"PATH=/quell-chaos-else/life-1:/bin"), None);
    }
}
