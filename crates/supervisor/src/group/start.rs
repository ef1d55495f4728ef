//! Starting a helper: from its orders to a process that waits for "go", pinned.

use std::{
    io::{self, Read as _},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{
    helper_order::HelperOrder,
    init::{HelperMode, hidden},
    lease::LeaseClock,
    namespace::spawn_as_init,
    network::{HandedOut, MAX_LISTENERS},
    process::Stat,
    spawner::{HelperProgram, SpawnOrder},
};

/// A helper that has no namespace after this will have none.
const INIT_LIMIT: Duration = Duration::from_secs(5);
/// `i`, a pid, a line feed.
const MAX_INIT_WORDS: usize = 16;
/// Of what a useless helper complained.
const WORDS: u64 = 4_096;

/// A helper that waits for "go".
pub(super) struct Helper {
    pub(super) mode: HelperMode,
    pub(super) child: Child,
    pub(super) pidfd: OwnedFd,
    /// Its line: orders one way, a word or two the other.
    pub(super) line: UnixStream,
    /// PID 1 of its namespace, pinned, where that is not the helper itself.
    pub(super) init: Option<(u32, OwnedFd)>,
    /// Its network, where that is one of its own.
    pub(super) network: Option<HandedOut>,
}

/// What a helper joins, and what it limits itself.
#[derive(Default)]
pub(super) struct Joins {
    pub(super) groups: Vec<PathBuf>,
    pub(super) mapped: Option<u64>,
    pub(super) processes: Option<u64>,
    /// What its helper heeds besides the line.
    pub(super) lease: Option<LeaseClock>,
}

/// Starts one, in the calling thread: the helper is bound to that by PDEATHSIG.
pub(super) fn start_helper(
    helper: &HelperProgram,
    joins: Joins,
    mode: HelperMode,
    order: SpawnOrder,
) -> io::Result<Helper> {
    let listeners = order.listen.len();
    let in_namespace = matches!(mode, HelperMode::Namespace | HelperMode::UserNamespace);
    if listeners > 0 && !in_namespace || listeners > MAX_LISTENERS {
        return Err(io::Error::other("a network of its own is not to be had here"));
    }
    if joins.lease.is_some() && mode == HelperMode::Exec {
        return Err(io::Error::other("what becomes the runtime cannot heed a lease"));
    }
    let told = HelperOrder {
        parent: std::process::id(),
        mode,
        user: helper.user,
        tmp: order.limits.tmp,
        mapped: joins.mapped,
        processes: joins.processes,
        groups: joins.groups,
        keep: order.keep,
        listen: order.listen,
        leased: joins.lease.is_some(),
        program: order.program,
        args: order.args,
    };
    let (line, its_end) = UnixStream::pair()?;
    // Before it is there: whatever happens to the node afterwards, it has its limit.
    joins.lease.map(|lease| lease.hand_to(&line)).transpose()?;
    let mut command = Command::new(&helper.program);
    command
        .args(&helper.args)
        .args(told.into_args())
        .env_clear()
        .envs(order.env.into_iter().map(|(name, value)| (hidden(&name), value)))
        .current_dir(order.cwd)
        .stdin(Stdio::from(OwnedFd::from(its_end)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = match mode {
        HelperMode::Namespace => spawn_as_init(&mut command)?,
        _ => command.spawn()?,
    };
    // It holds the helper's end of the line.
    drop(command);
    // The child is ours and unreaped: its number is its own.
    let made = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(io::Error::from);
    let made = made.and_then(|pidfd| {
        let init = match mode {
            HelperMode::UserNamespace => Some(pin_init(&line, child.id())?),
            _ => None,
        };
        Ok((pidfd, init, network(&line, listeners)?))
    });
    match made {
        Ok((pidfd, init, network)) => Ok(Helper { mode, child, pidfd, line, init, network }),
        Err(error) => {
            drop(line);
            let said = last_words(&mut child)?;
            Err(io::Error::other(format!("{error}{said}")))
        }
    }
}

/// Its network, if it is to have one: this waits until the helper has it.
fn network(line: &UnixStream, listeners: usize) -> io::Result<Option<HandedOut>> {
    if listeners == 0 {
        return Ok(None);
    }
    line.set_read_timeout(Some(INIT_LIMIT))?;
    HandedOut::read(line, listeners).map(Some)
}

/// Ends a helper that is of no use, and tells what it complained of.
fn last_words(child: &mut Child) -> io::Result<String> {
    // Killed, not asked: it may be frozen. PID 1 of its namespace dies with it.
    child.kill()?;
    child.wait()?;
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(WORDS).read_to_string(&mut said)?;
    }
    Ok(if said.trim().is_empty() { said } else { format!("; it said: {}", said.trim()) })
}

/// Reads who PID 1 of the helper's namespace is, and pins it: its parent, the helper, has not reaped it
/// as long as it lives and is its parent.
fn pin_init(line: &UnixStream, helper: u32) -> io::Result<(u32, OwnedFd)> {
    line.set_read_timeout(Some(INIT_LIMIT))?;
    let (mut words, mut byte) = (String::new(), [0]);
    while !words.ends_with('\n') && words.len() < MAX_INIT_WORDS {
        let mut reader = line;
        if reader.read(&mut byte)? == 0 {
            return Err(io::Error::other("the helper ended before it had a namespace"));
        }
        words.push(char::from(byte[0]));
    }
    let odd = || io::Error::other(format!("the helper said {words:?}"));
    let pid: u32 = words.trim().strip_prefix('i').and_then(|pid| pid.parse().ok()).ok_or_else(odd)?;
    let target = Pid::from_raw(pid.cast_signed()).ok_or_else(odd)?;
    let pidfd = pidfd_open(target, PidfdFlags::empty())?;
    match Stat::of(pid)? {
        Some(stat) if stat.parent == helper => Ok((pid, pidfd)),
        _ => Err(io::Error::other("PID 1 of the namespace is gone already")),
    }
}
