//! README's first command, to its end and cut short.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
};

use support::{Pidfd, within};

fn demo() -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quell"));
    command.arg("demo").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QUELL_")) {
        command.env_remove(name);
    }
    command.spawn().unwrap()
}

#[tokio::test]
async fn the_demo_runs_to_its_end_and_leaves_nothing() {
    let waiting = tokio::task::spawn_blocking(|| demo().wait_with_output().unwrap());
    let output = within("the demo", waiting).await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert_eq!(err, "", "nothing beside the picture");
    let states = |word: &str| out.lines().filter(|line| line.contains(word)).count();
    assert_eq!(states("  running "), 15 + 15 + 4, "the tree, its receipt, the four co-tenants: {out}");
    assert_eq!(states("in scope"), 15 + 1);
    assert_eq!(states("co-tenant"), 3);
    assert_eq!(states("HTTP 500 {\"error_code\":\"FSS.4208\""), 4);
    assert!(out.contains("0 of what requests had started"), "{out}");
    assert!(out.trim_end().ends_with("left: 0."), "{out}");
}

#[tokio::test]
async fn ctrl_c_in_the_demo_leaves_no_process_and_is_no_success() {
    let mut child = demo();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let cut = tokio::task::spawn_blocking(move || {
        let (mut line, mut pids) = (String::new(), Vec::new());
        // The rows of the tree end with the process of each request's instance.
        while pids.len() < 15 && stdout.read_line(&mut line).unwrap() > 0 {
            if line.contains("  running ") {
                pids.extend(line.split_whitespace().next_back().and_then(|pid| pid.parse::<u32>().ok()));
            }
            line.clear();
        }
        let runtimes: Vec<Pidfd> = pids.into_iter().filter_map(Pidfd::open).collect();
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        #[expect(clippy::disallowed_methods, reason = "our own child, not reaped yet: the pid is its own")]
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        (child.wait_with_output().unwrap(), runtimes, rest)
    });
    let (output, runtimes, rest) = within("the demo", cut).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // It may have come to its end before the signal did; what counts is that nothing is left.
    assert!(output.status.success() || said.contains("interrupted"), "{said}");
    assert!(rest.contains("left: 0."), "{rest}");
    assert!(runtimes.iter().all(Pidfd::is_gone));
}
