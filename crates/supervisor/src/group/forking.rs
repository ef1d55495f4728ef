//! Instances that are forked from a template: a process of the same function that has imported its code.
//!
//! The template is started as every instance is: behind a helper, in a leaf of its own, within the same limits,
//! in a PID namespace where there are any. It has a socket for its standard input. Asked for an instance it forks
//! a process that waits, as PID 1 of a PID namespace below its own if it may make one (that takes a user namespace,
//! as it has no privilege). The node moves that process into the instance's own leaf, seeing that it is alone, and
//! asks the kernel which namespace it is in. There it forks the runtime, and executes the helper in its own place
//! (`init::WATCH`), which nothing but "go" on its line has let the runtime run. Its parent is not the node, so its
//! exit is not collected here: what the node proves, it proves by the leaf, and by the end of PID 1.
//!
//! What it was forked in ends it as well: a template that ends takes what is in its PID namespace with it.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{fs::OpenOptionsExt as _, net::UnixStream},
    },
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use serde::Deserialize;

use super::{
    containment::{Containment, ForkedInto, GroupError},
    handing,
    init::{HelperMode, READY, WATCH, WATCH_LEASED},
    leaf::Leaf,
    lease::LeaseClock,
    limits::Limited,
    process::{self, Stat},
    running::Group,
    spawner::{
        HelperProgram, Made, Main, SpawnError, SpawnOrder, Spawner, Unclaimed, await_end, forget_unused,
        make_room,
    },
    watch::has_ended,
};

/// A template that has not answered after this forks nothing any more: it takes some milliseconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of what a template says: a reason in words at most.
const MAX_SAID: usize = 16 * 1024;
/// Of what a useless one complained.
const LAST_WORDS: usize = 4_096;
/// Processes looked for beside the one that is expected.
const SOME: usize = 4;
/// "You are where you belong."
const MOVED: u8 = b'm';

/// Why no instance was forked. Nothing is left of the attempt.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// The template will not, and says why: nothing of this version can be forked.
    #[error("{0}")]
    Refused(String),
    /// It did something else than it was asked for. It should be ended.
    #[error("{0}")]
    Failed(String),
    /// The instance has no place of its own.
    #[error(transparent)]
    Room(#[from] SpawnError),
}

impl From<io::Error> for ForkError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What a template says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Ready,
    Forked,
    Refused(String),
}

/// A process that forks instances of one version of a function. Its processes are its group's: whoever drops
/// the template must have ended that.
pub struct Template {
    group: Arc<Group>,
    control: Mutex<OwnedFd>,
}

/// An instance's main process as a template made it: a reaper that waits for "go".
pub(super) struct Forked {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) line: UnixStream,
    /// Its stdout and stderr.
    pub(super) output: Option<[OwnedFd; 2]>,
    pub(super) into: ForkedInto,
}

impl Forked {
    /// Ends one that was never let go.
    pub(super) fn end_unused(self, leaf: Option<&Leaf>) {
        if let Some(Err(error)) = leaf.map(Leaf::kill) {
            tracing::error!(%error, "a forked instance that nobody waits for could not be killed");
        }
        drop(self.line);
        await_end(&self.pidfd);
    }
}

impl Template {
    /// Lets a group that waits for it become a template: it runs from here on. The program it runs gets the
    /// socket as its standard input.
    ///
    /// # Errors
    /// When there is no socket to be had, or its helper is gone.
    pub fn start(group: Arc<Group>) -> Result<Self, GroupError> {
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|error| GroupError::Go(error.into()))?;
        let (control, its_end) = pair;
        group.go_with(&[its_end.as_fd()])?;
        Ok(Self { group, control: Mutex::new(control) })
    }

    /// Its processes.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Waits until it has imported what it is to import. Blocking.
    ///
    /// # Errors
    /// When it refuses, ends, or takes longer than `limit`.
    pub fn wait_ready(&self, limit: Duration) -> Result<(), ForkError> {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        match hear(&control, limit)? {
            Said::Ready => {
                // Looked up now, while it has made nothing that could be taken for it.
                self.group.runtime_pid();
                Ok(())
            }
            Said::Refused(why) => Err(ForkError::Refused(why)),
            Said::Forked => Err(ForkError::Failed("it forked before it was asked".to_owned())),
        }
    }

    fn fork(
        &self,
        containment: &Containment,
        helper: &HelperProgram,
        lease: Option<&LeaseClock>,
        order: &SpawnOrder,
    ) -> Result<Unclaimed, ForkError> {
        // One at a time: who is in its leaf is looked at.
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let own = self.group.leaf.as_ref().ok_or_else(|| ForkError::Refused("it has no leaf".to_owned()))?;
        let (leaf, limited) = make_room(containment, order.instance, &order.limits)?;
        let forked = match &leaf {
            Some(leaf) => self.fork_into(&control, own, (leaf, &limited), (helper, lease), order),
            None => Err(ForkError::Refused("there is no leaf for an instance".to_owned())),
        };
        match forked {
            Ok(forked) => Ok(Unclaimed::of(Made { main: Main::Forked(forked), leaf, limited })),
            Err(error) => {
                forget_unused(leaf.as_ref(), &limited);
                Err(error)
            }
        }
    }

    fn fork_into(
        &self,
        control: &OwnedFd,
        own: &Leaf,
        (leaf, limited): (&Leaf, &Limited),
        (helper, lease): (&HelperProgram, Option<&LeaseClock>),
        order: &SpawnOrder,
    ) -> Result<Forked, ForkError> {
        let (line, its_end) = UnixStream::pair()?;
        let (stdout, its_stdout) = io::pipe()?;
        let (stderr, its_stderr) = io::pipe()?;
        // By a descriptor: runtimes may be of a user who does not reach the folder it is in.
        let program = File::options().read(true).custom_flags(libc_o_path()).open(&helper.program)?;
        let namespaced = matches!(self.group.mode, HelperMode::Namespace | HelperMode::UserNamespace);
        let watch = if lease.is_some() { WATCH_LEASED } else { WATCH };
        let words = words(helper, watch, order, namespaced)?;
        let handed = [its_end.as_fd(), its_stdout.as_fd(), its_stderr.as_fd(), program.as_fd()];
        handing::send(control, words.as_bytes(), &handed)?;
        drop((its_end, its_stdout, its_stderr, program));
        match hear(control, ANSWER_LIMIT)? {
            Said::Forked => {}
            Said::Refused(why) => return Err(ForkError::Refused(why)),
            Said::Ready => return Err(ForkError::Failed("it said that it is ready once more".to_owned())),
        }
        line.set_read_timeout(Some(ANSWER_LIMIT))?;
        let (_, handed) = handing::receive(&line, &mut [0])?;
        let pidfd = handed.into_iter().next();
        let pidfd =
            pidfd.ok_or_else(|| ForkError::Failed("what it forked did not show itself".to_owned()))?;
        let pid = pid_of(&pidfd)?;
        let output = Some([stdout.into(), stderr.into()]);
        let into = if namespaced { ForkedInto::OfTemplate } else { ForkedInto::Nowhere };
        let mut forked = Forked { pid, pidfd, line, output, into };
        match self.settle(own, (leaf, limited), lease, &mut forked) {
            Ok(()) => Ok(forked),
            Err(error) => {
                let stderr = forked.output.take().map(|[_, stderr]| File::from(stderr));
                forked.end_unused(Some(leaf));
                let said = stderr.map(last_words).transpose()?.unwrap_or_default();
                Err(ForkError::Failed(format!("{error}{said}")))
            }
        }
    }

    /// Moves what was forked to where it belongs, and sees that it is alone and nothing else was forked.
    fn settle(
        &self,
        own: &Leaf,
        (leaf, limited): (&Leaf, &Limited),
        lease: Option<&LeaseClock>,
        forked: &mut Forked,
    ) -> Result<(), ForkError> {
        let failed = |what: &str| Err(ForkError::Failed(what.to_owned()));
        // Only what the template has forked is moved, whatever it may show.
        let before = own.processes(usize::MAX)?;
        let template = self.group.runtime_pid();
        let its_own = [Some(template), Some(self.group.pid()), self.group.init_pid()];
        if !before.contains(&forked.pid) || its_own.contains(&Some(forked.pid)) {
            return failed("what it forked is not where it was forked");
        }
        let alone = Stat::of(forked.pid)?.is_some_and(|stat| stat.threads == 1);
        for group in [leaf.path()].into_iter().chain(limited.joined()) {
            fs::write(group.join("cgroup.procs"), forked.pid.to_string())?;
        }
        // It lives still, so its number was its own all the while.
        if has_ended(&forked.pidfd)? {
            return failed("what it forked has ended");
        }
        if !alone || leaf.processes(SOME)? != [forked.pid] || !process::below(forked.pid, 1).is_empty() {
            return failed("what it forked is not alone");
        }
        let (levels, number) = namespace_of(forked.pid)?;
        if number == 1 && levels == namespace_of(template)?.0 + 1 {
            forked.into = ForkedInto::Own;
        }
        let strange = |pid: &u32| !its_own.contains(&Some(*pid));
        if own.processes(usize::MAX)?.iter().any(strange) {
            return failed("there are other processes beside it");
        }
        let mut line = &forked.line;
        line.write_all(&[MOVED])?;
        // For the helper that it becomes. Until then its template's ends it.
        lease.map(|lease| lease.hand_to(line)).transpose()?;
        let mut said = [0; READY.len()];
        match line.read(&mut said)? {
            1 if said == READY => Ok(()),
            _ => failed("what it forked has ended"),
        }
    }
}

impl Spawner {
    /// Has a template fork an instance, which waits for [`Group::go`] inside its own leaf, as one that was
    /// spawned. What is run, and as whom, is the template's; its environment is the order's.
    ///
    /// # Errors
    /// See [`ForkError`]; nothing is left of a failed try.
    pub async fn fork(&self, template: Arc<Template>, order: SpawnOrder) -> Result<Group, ForkError> {
        let instance = order.instance;
        let (containment, helper) = (Arc::clone(&self.containment), Arc::clone(&self.helper));
        let lease = self.lease.clone();
        let forked = move || template.fork(&containment, &helper, lease.as_ref(), &order);
        let forked = tokio::task::spawn_blocking(forked);
        let made = forked.await.map_err(|error| ForkError::Failed(error.to_string()))??;
        Ok(Group::of(instance, made, self.orders.clone())?)
    }
}

/// What a template is told: the environment of the instance, and the arguments of the helper.
fn words(
    helper: &HelperProgram,
    watch: &str,
    order: &SpawnOrder,
    namespaced: bool,
) -> Result<String, ForkError> {
    let text = |word: &std::ffi::OsStr| {
        word.to_str().map(str::to_owned).ok_or_else(|| {
            ForkError::Refused("its environment is not UTF-8, and cannot be told to a fork server".to_owned())
        })
    };
    let mut env = serde_json::Map::new();
    for (name, value) in &order.env {
        env.insert(text(name)?, text(value)?.into());
    }
    let mut args = Vec::new();
    for arg in &helper.args {
        args.push(text(arg)?);
    }
    args.push(watch.to_owned());
    let mut keep = Vec::new();
    for folder in order.keep.iter().chain([&order.cwd]) {
        keep.push(text(folder.as_os_str())?);
    }
    let inside = namespaced.then(|| serde_json::json!({ "tmp": order.limits.tmp, "keep": keep }));
    let words = serde_json::json!({ "env": env, "helper": args, "namespace": inside }).to_string();
    if words.len() > MAX_SAID * 4 {
        return Err(ForkError::Refused("its environment is too long for a fork server".to_owned()));
    }
    Ok(words)
}

fn hear(control: &OwnedFd, limit: Duration) -> Result<Said, ForkError> {
    sockopt::set_socket_timeout(control, sockopt::Timeout::Recv, Some(limit)).map_err(io::Error::from)?;
    let mut said = vec![0; MAX_SAID];
    let (size, _) = match handing::receive(control, &mut said) {
        Ok(received) => received,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let seconds = limit.as_secs_f32();
            return Err(ForkError::Failed(format!("it has not answered within {seconds} s")));
        }
        Err(error) => return Err(error.into()),
    };
    if size == 0 {
        return Err(ForkError::Failed("it has ended".to_owned()));
    }
    serde_json::from_slice(&said[..size])
        .map_err(|error| ForkError::Failed(format!("it said what is not understood: {error}")))
}

/// What one that has ended complained of; nothing is waited for.
fn last_words(mut stderr: File) -> io::Result<String> {
    rustix::io::ioctl_fionbio(&stderr, true)?;
    let mut said = [0; LAST_WORDS];
    let size = match stderr.read(&mut said) {
        Ok(size) => size,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error),
    };
    let said = String::from_utf8_lossy(&said[..size]);
    Ok(said.lines().next_back().map(|line| format!("; it said: {line}")).unwrap_or_default())
}

/// How many PID namespaces a process is in, one in the other, and its number in the innermost.
fn namespace_of(pid: u32) -> Result<(usize, u32), ForkError> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let numbers: Vec<u32> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let innermost = numbers.last().copied();
    let innermost = innermost.ok_or_else(|| ForkError::Failed("its PID namespace is not told".to_owned()))?;
    Ok((numbers.len(), innermost))
}

/// The number of a pidfd's process, as this node sees it.
fn pid_of(pidfd: &OwnedFd) -> Result<u32, ForkError> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.ok_or_else(|| ForkError::Failed("what it forked showed something else, or has ended".to_owned()))
}

fn libc_o_path() -> i32 {
    nix::fcntl::OFlag::O_PATH.bits()
}
