//! Which kind of helper works on this machine: each is tried once, to its end.

use std::{
    io,
    io::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
    process::Output,
};

use super::{
    containment::{GroupError, Isolation, Layer},
    init::{GO, HelperMode},
    spawner::{HelperProgram, SpawnOrder},
    start::{Helper, Joins, start_helper},
    warden::Ended,
};

/// Any port does in a network that nobody else is in.
const PROBED_PORT: u16 = 8000;

/// The strongest helper that this isolation allows and the machine has, and its two layers.
pub(super) fn probe(
    isolation: Isolation,
    helper: &HelperProgram,
) -> Result<(HelperMode, [Layer; 2]), GroupError> {
    let not_asked = || Err("not asked for".to_owned());
    let namespace = match isolation {
        Isolation::Auto => namespace(helper),
        Isolation::Cgroup | Isolation::Subreaper | Isolation::ProcessGroup => not_asked(),
    };
    let reaper = match isolation {
        Isolation::Auto if namespace.is_ok() => Err("PID 1 of the namespace does its work".to_owned()),
        Isolation::Auto | Isolation::Subreaper => tried(helper, HelperMode::Reaper, &[]),
        Isolation::Cgroup | Isolation::ProcessGroup => not_asked(),
    };
    if let (Isolation::Subreaper, Err(why)) = (isolation, &reaper) {
        return Err(GroupError::NoHelper(why.clone()));
    }
    let mode = namespace.as_ref().or(reaper.as_ref()).copied().unwrap_or(HelperMode::Exec);
    Ok((mode, [reaper_layer(&reaper), namespace_layer(&namespace)]))
}

fn reaper_layer(tried: &Result<HelperMode, String>) -> Layer {
    let detail = match tried {
        Ok(_) => "a helper above each runtime inherits what its processes leave behind and ends it; that it \
                  has no child left proves that no descendant is alive. Weak against a runtime that kills \
                  its own helper: then nothing is claimed"
            .to_owned(),
        Err(why) => why.clone(),
    };
    Layer { id: "L1", name: "child subreaper", active: tried.is_ok(), detail }
}

fn namespace_layer(tried: &Result<HelperMode, String>) -> Layer {
    let detail = match tried {
        Ok(HelperMode::UserNamespace) => "PID 1 of a namespace for each instance, by a user namespace: when it is \
                                          seen dead, whatever was born inside is; runtimes cannot see or signal \
                                          anything outside"
            .to_owned(),
        Ok(_) => "PID 1 of a namespace for each instance: when it is seen dead, whatever was born inside is; \
                  runtimes cannot see or signal anything outside"
            .to_owned(),
        Err(why) => format!("{why}; to get it run as root, or allow user namespaces"),
    };
    Layer { id: "L3", name: "PID namespace", active: tried.is_ok(), detail }
}

/// Whether an instance can have a network of its own: that goes with the namespace whose end proves that
/// nobody is left in it.
pub(super) fn network(mode: HelperMode, helper: &HelperProgram) -> Layer {
    let tried = match mode {
        HelperMode::Namespace | HelperMode::UserNamespace => {
            let listen = vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, PROBED_PORT)];
            tried(helper, mode, &listen).map(drop)
        }
        HelperMode::Exec | HelperMode::Reaper => Err("it goes with the PID namespace".to_owned()),
    };
    let detail = match &tried {
        Ok(()) => {
            "HTTP functions, and functions that ask for it, have a loopback device of their own, where every \
                   instance can have port 8000, and reach nothing but their node"
                .to_owned()
        }
        Err(why) => format!("{why}; HTTP functions listen where PORT says, on the loopback device of all"),
    };
    Layer { id: "L6", name: "network namespace", active: tried.is_ok(), detail }
}

impl HelperProgram {
    /// Runs a program with `--version`, as its user, to see whether that one can. Blocking.
    ///
    /// # Errors
    /// When it cannot, or the program fails.
    pub fn try_program(&self, program: &str) -> io::Result<()> {
        let order =
            SpawnOrder { program: program.into(), args: vec!["--version".into()], ..SpawnOrder::probe() };
        let Helper { child, mut line, .. } = start_helper(self, Joins::default(), HelperMode::Exec, order)?;
        line.write_all(&[GO])?;
        // What it prints is little, and read to its end.
        succeeded(&child.wait_with_output()?)
    }
}

fn succeeded(output: &Output) -> io::Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{}: {said}", output.status)))
}

/// With the privilege there is, else by a user namespace.
fn namespace(helper: &HelperProgram) -> Result<HelperMode, String> {
    tried(helper, HelperMode::Namespace, &[]).or_else(|first| {
        tried(helper, HelperMode::UserNamespace, &[])
            .map_err(|second| format!("{first}; by a user namespace: {second}"))
    })
}

/// On a thread of its own: to make PID 1 of a namespace, a thread leaves its own for a moment.
fn tried(helper: &HelperProgram, mode: HelperMode, listen: &[SocketAddrV4]) -> Result<HelperMode, String> {
    let tried = std::thread::scope(|scope| scope.spawn(|| try_once(helper, mode, listen)).join());
    match tried {
        Ok(tried) => tried.map(|()| mode).map_err(|error| error.to_string()),
        Err(_) => Err("the probe panicked".to_owned()),
    }
}

/// Does once what every instance will need: starts, lets go, sees the end.
fn try_once(program: &HelperProgram, mode: HelperMode, listen: &[SocketAddrV4]) -> io::Result<()> {
    let order = SpawnOrder { listen: listen.to_vec(), ..SpawnOrder::probe() };
    let Helper { child, mut line, network, .. } = start_helper(program, Joins::default(), mode, order)?;
    drop(network);
    line.write_all(&[GO])?;
    succeeded(&child.wait_with_output()?)?;
    if mode != HelperMode::Exec {
        let mut word = [0; 2];
        std::io::Read::read_exact(&mut line, &mut word)?;
        if Ended::of_word(word) != Some(Ended::Code(0)) {
            return Err(io::Error::other(format!("the helper's last word was {word:?}")));
        }
    }
    Ok(())
}
