//! From the order to the running program: what is executed when, and what it inherits.

use std::{
    fs,
    io::Read as _,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt as _, net::UnixStream},
    },
    process::{Command, Stdio},
};

use supervisor::group::{Exit, HelperProgram, Isolation};

use crate::support::{END, Node, Watched, abandon_a_spawn, helper, in_each_isolation, within};

#[tokio::test]
async fn nothing_is_executed_before_go_and_nothing_after_an_end_that_wins() {
    // 26: a cancel between set-up and start has no effect.
    in_each_isolation(async |node: Node| {
        let group = node.held("sh", &["-c", "echo ran > ran"]).await;
        let exe = fs::read_link(format!("/proc/{}/exe", group.pid())).unwrap();
        assert_eq!(exe, helper().program);
        let proof = group.end(END).await.unwrap();
        // Its line is closed before it is struck, so that no strike that is refused lets it go: the
        // helper may see the one first or the other.
        assert!(matches!(proof.exit, Exit::Signal(9) | Exit::Code(125)), "{:?}", proof.exit);
        group.go().unwrap();
        assert!(!node.dir.path().join("ran").exists());
    })
    .await;
}

#[tokio::test]
async fn the_environment_of_a_function_reaches_the_runtime_and_not_the_helper() {
    in_each_isolation(async |node: Node| {
        let mut reports = node.reports();
        let mut order =
            node.order("sh", &["-c", "echo \"$GLIBC_TUNABLES|$_ODD\" > $1", "sh", reports.path()]);
        // The dynamic loader of the helper would obey such names, and run a function's code before go.
        order.env.push(("GLIBC_TUNABLES".into(), "glibc.malloc.check=0".into()));
        order.env.push(("_ODD".into(), "kept".into()));
        let group = node.spawner.spawn(order).await.unwrap();
        let environment = fs::read(format!("/proc/{}/environ", group.pid())).unwrap();
        let names: Vec<_> = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        assert!(!names.iter().any(|name| name.starts_with("GLIBC_TUNABLES=")), "{names:?}");
        group.go().unwrap();
        assert_eq!(reports.line().await, "glibc.malloc.check=0|kept");
        group.end(END).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_runtime_gets_its_arguments_environment_and_folder_and_nothing_else() {
    in_each_isolation(async |node: Node| {
        let mut reports = node.reports();
        let group =
            node.sh("pwd > $1; env | cut -d= -f1 | sort | tr '\\n' ' ' > $1; echo > $1", &reports).await;
        let here = node.dir.path().canonicalize().unwrap();
        assert_eq!(reports.line().await, here.to_str().unwrap());
        // PWD (and `_` in some shells) is the shell's own.
        let names = reports.line().await;
        assert_eq!(
            names.split(' ').filter(|name| !["", "PWD", "_"].contains(name)).collect::<Vec<_>>(),
            ["PATH"]
        );
        group.end(END).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn no_descriptor_but_the_standard_three_reaches_a_runtime() {
    in_each_isolation(async |node: Node| {
        let mut reports = node.reports();
        // Opened without close-on-exec, as a careless C library in the node would.
        let leaky = fs::File::open("/dev/zero").unwrap();
        nix::fcntl::fcntl(&leaky, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let list = "links = [(int(fd), os.readlink('/proc/self/fd/' + fd)) for fd in os.listdir('/proc/self/fd')\n         \
                      if os.path.lexists('/proc/self/fd/' + fd)]\n\
                    report([link for link in sorted(links) if not link[1].startswith('/proc/')])";
        let group = node.python(list, &reports).await;
        let line = reports.line().await;
        assert_eq!(line.matches("pipe:").count(), 2, "{line}");
        assert_eq!(line.matches('(').count(), 3, "{line}");
        assert!(line.starts_with("[(0, '/dev/null'), (1, 'pipe:"), "{line}");
        drop(leaky);
        group.end(END).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_runtime_starts_with_default_signals_even_below_a_node_that_ignores_them() {
    // `trap ''` ignores, and ignoring survives exec: the way a node inherits it from its own parent.
    let ignoring = HelperProgram {
        program: "/bin/sh".into(),
        args: ["-c", "trap '' TERM CHLD HUP; exec \"$0\" \"$@\""]
            .map(Into::into)
            .into_iter()
            .chain([helper().program.into_os_string()])
            .collect(),
        user: None,
    };
    let node = Node::named("test-signals", Isolation::ProcessGroup, ignoring);
    within(async {
        let mut reports = node.reports();
        let ask = "report([signal.getsignal(s) == signal.SIG_DFL for s in \
                   (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP)] + [signal.pthread_sigmask(0, [])])";
        let group = node.python(ask, &reports).await;
        assert_eq!(reports.line().await, "[True, True, True, set()]");
        group.end(END).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_exit_is_told_as_it_was_to_everybody_who_waits_and_again_after_the_proof() {
    in_each_isolation(async |node: Node| {
        for (script, exit) in [("exit 7", Exit::Code(7)), ("kill -s USR1 $$", Exit::Signal(10))] {
            let group = node.held("sh", &["-c", script]).await;
            let waiters = async { tokio::join!(group.exited(), group.exited()) };
            let (told, ()) = tokio::join!(waiters, async { group.go().unwrap() });
            assert_eq!((told.0.unwrap(), told.1.unwrap()), (exit, exit));
            assert_eq!(group.exited().await.unwrap(), exit);
            assert_eq!(group.end(END).await.unwrap().exit, exit);
            assert_eq!(group.exited().await.unwrap(), exit);
            assert!(!exit.was_not_executed());
        }
    })
    .await;
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_told_from_one_that_failed() {
    in_each_isolation(async |node: Node| {
        let plain = node.dir.path().join("plain");
        fs::write(&plain, "no program").unwrap();
        fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
        for (program, code) in [("/no/such/program", 127), (plain.to_str().unwrap(), 126)] {
            let group = node.run(program, &[]).await;
            let exit = group.exited().await.unwrap();
            assert_eq!(exit, Exit::Code(code));
            assert!(exit.was_not_executed());
            group.end(END).await.unwrap();
        }
    })
    .await;
}

#[test]
fn a_helper_without_a_node_executes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let run = |mode: &str, parent: u32| {
        let (mut line, its_end) = UnixStream::pair().unwrap();
        let mut child = Command::new(helper().program)
            .args([
                &parent.to_string(),
                mode,
                "-",
                "0",
                "-",
                "-",
                "0",
                "0",
                "0",
                "0",
                "sh",
                "-c",
                "echo ran > ran",
            ])
            .current_dir(dir.path())
            .stdin(Stdio::from(OwnedFd::from(its_end)))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        line.shutdown(std::net::Shutdown::Write).unwrap();
        let code = child.wait().unwrap().code();
        // A reaper tells how it went through its line, and then ends in order.
        let mut word = Vec::new();
        line.read_to_end(&mut word).unwrap();
        match (code, &word[..]) {
            (Some(0), [b'c', told]) => Some(i32::from(*told)),
            (code, _) => code,
        }
    };
    for mode in ["exec", "reaper"] {
        assert_eq!(run(mode, std::process::id()), Some(125), "{mode}: the line was closed without go");
        assert_eq!(run(mode, 1), Some(124), "{mode}: another parent than the node that spawned it");
    }
    assert_eq!(run("magic", std::process::id()), Some(124));
    assert!(!dir.path().join("ran").exists());
}

#[tokio::test]
async fn a_spawn_whose_asker_is_gone_leaves_nothing() {
    in_each_isolation(async |node: Node| {
        abandon_a_spawn(&node, false).await;
        abandon_a_spawn(&node, true).await;
        if let Some(base) = node.containment.base().filter(|_| node.has_leaves()) {
            assert_eq!(crate::support::leaves(base), Vec::<String>::new());
        }
    })
    .await;
}

#[tokio::test]
async fn members_are_what_lives_in_it() {
    in_each_isolation(async |node: Node| {
        let mut reports = node.reports();
        let group = node.sh("sleep 1000 & echo $! > $1; wait", &reports).await;
        let sleeper = reports.line().await.parse().unwrap();
        let watched = Watched::of(i32::try_from(sleeper).unwrap());
        let mut pids: Vec<u32> = group.members().iter().map(|member| member.pid).collect();
        pids.sort_unstable();
        let mut expected = [group.pid(), sleeper];
        expected.sort_unstable();
        assert_eq!(pids, expected);
        group.end(END).await.unwrap();
        assert!(watched.is_dead());
        assert_eq!(group.members(), []);
    })
    .await;
}
