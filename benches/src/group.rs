//! Containment alone, without HTTP and disk: what a proof costs beside the bare kill it proves.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use cancel::InstanceId;
use nix::{
    errno::Errno,
    sys::{prctl, signal::Signal, wait::waitpid},
    unistd::Pid,
};
use supervisor::group::{Containment, Group, HelperProgram, Isolation, Limits, SpawnOrder, Spawner};

use crate::samples::{Samples, Show};

const LIMIT: Duration = Duration::from_secs(30);
/// Processes of the large tree, all below one shell.
const MANY: usize = MANY_U32 as usize;
const MANY_U32: u32 = 1_000;
/// The large tree is measured this many times less often.
const RARELY: usize = 15;

struct Bench {
    spawner: Spawner,
    instances: u64,
}

impl Bench {
    async fn spawn(&mut self, script: &str) -> anyhow::Result<Group> {
        self.instances += 1;
        let order = SpawnOrder {
            instance: InstanceId(self.instances),
            program: OsString::from("sh"),
            args: vec!["-c".into(), script.into()],
            env: std::env::var_os("PATH").map(|path| ("PATH".into(), path)).into_iter().collect(),
            cwd: "/".into(),
            keep: Vec::new(),
            // As in life: the groups that limit are made, left and removed.
            limits: Limits { memory: Some(1 << 30), processes: Some(2 * MANY_U32), ..Limits::default() },
            listen: Vec::new(),
        };
        Ok(self.spawner.spawn(order).await?)
    }

    /// Waits until the runtime stands: it has this many processes.
    async fn standing(&mut self, script: &str, processes: usize) -> anyhow::Result<Group> {
        let group = self.spawn(script).await?;
        group.go()?;
        let deadline = Instant::now() + LIMIT;
        while group.living() < processes {
            anyhow::ensure!(Instant::now() < deadline, "{} of {processes} processes stand", group.living());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(group)
    }
}

fn many() -> String {
    format!("i=0; while [ $i -lt {} ]; do sleep 1000 & i=$((i+1)); done; wait", MANY - 1)
}

/// From the kill to the last of the group collected, by whoever inherits them: this process.
#[expect(clippy::disallowed_methods, reason = "the floor is the bare call; its leader is not reaped before")]
fn bare_kill(script: &str, processes: usize) -> anyhow::Result<Duration> {
    let child = Command::new("sh").args(["-c", script]).process_group(0).stdin(Stdio::null()).spawn()?;
    let leader = Pid::from_raw(child.id().cast_signed());
    let list = format!("/proc/{leader}/task/{leader}/children");
    while std::fs::read_to_string(&list)?.split_whitespace().count() + 1 < processes {
        std::thread::yield_now();
    }
    let start = Instant::now();
    nix::sys::signal::killpg(leader, Signal::SIGKILL)?;
    loop {
        match waitpid(None::<Pid>, None) {
            Ok(_) => {}
            Err(Errno::ECHILD) => return Ok(start.elapsed()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn bare_start() -> anyhow::Result<Duration> {
    let start = Instant::now();
    Command::new("sh").args(["-c", "exit 0"]).stdin(Stdio::null()).status()?;
    Ok(start.elapsed())
}

pub(crate) async fn measure(count: usize, show: &mut Show<'_>) -> anyhow::Result<()> {
    prctl::set_child_subreaper(true)?;
    let quell = std::env::current_exe()?.with_file_name("quell");
    let helper = HelperProgram { program: quell, args: vec!["__instance-init".into()], user: None };
    let name = format!("bench-{}", std::process::id());
    let containment = Arc::new(Containment::probe(&name, Isolation::Auto, &helper)?);
    let active: Vec<&str> =
        containment.layers().iter().filter(|layer| layer.active).map(|layer| layer.id).collect();
    let spawner = Spawner::start(helper, Arc::clone(&containment), None)?;
    let mut bench = Bench { spawner, instances: 0 };
    let (tiny, large) = ("exec sleep 1000", many());
    for (what, script, processes, count) in
        [("a tiny process", tiny, 1, count), ("1,000 processes", large.as_str(), MANY, count / RARELY)]
    {
        let (mut floor, mut proven) = (Samples::default(), Samples::default());
        for _ in 0..count {
            floor.add(bare_kill(script, processes)?);
            let group = bench.standing(script, processes).await?;
            let start = Instant::now();
            group.end(LIMIT).await.map_err(|why| anyhow::anyhow!("not proven: {why}"))?;
            proven.add(start.elapsed());
        }
        show(&format!("floor: SIGKILL and wait of {what}"), &floor, true);
        show(&format!("group: {what} killed and proven dead ({})", active.join("+")), &proven, false);
    }
    let (mut floor, mut started) = (Samples::default(), Samples::default());
    for _ in 0..count {
        floor.add(bare_start()?);
        let start = Instant::now();
        let group = bench.spawn("exit 0").await?;
        group.go()?;
        group.exited().await?;
        started.add(start.elapsed());
        group.end(LIMIT).await.map_err(|why| anyhow::anyhow!("not proven: {why}"))?;
    }
    show("floor: a shell started and seen to end", &floor, true);
    show("group: the same in its containment", &started, false);
    containment.close().context("the bench's cgroup stays behind")?;
    Ok(())
}
