//! Every level of privilege, dropped for real: another uid without capabilities, no user namespaces, a
//! machine whose cgroups are read-only. Each runs the adversaries in a process of its own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use supervisor::group::Isolation;

use crate::{
    BEHAVIOURS, Layer, On, check,
    checker::{TROUBLED, Witness},
    run,
    support::Node,
};

const EXPECTED: &str = "QUELL_TEST_EXPECTED";
/// Of a user that has nothing here.
const NOBODY: &str = "65534";

/// What these layers are called in the checks: no leaf, so nothing can be moved out of it.
const WITHOUT_LEAVES: Layer = Layer { name: "Lx", isolation: Isolation::Auto, on: &[], escapes: &[] };

#[tokio::test]
#[ignore = "is what the tests below run with less privilege"]
async fn as_somebody_else() {
    let expected = std::env::var(EXPECTED).unwrap();
    let node = Node::new(Isolation::Auto);
    let active: Vec<&str> =
        node.containment.layers().iter().filter(|layer| layer.active).map(|layer| layer.id).collect();
    for layer in node.containment.layers() {
        println!("{layer}");
    }
    assert_eq!(active.join("+"), expected);
    let namespace = expected.contains("L3");
    let witness = Witness::start();
    for (behaviour, on) in BEHAVIOURS {
        // What the outside does to a run takes privilege.
        if TROUBLED.contains(&behaviour) || (on == On::Namespaces && !namespace) {
            continue;
        }
        let token = format!("quell-{}-{expected}-{behaviour}-0", std::process::id());
        let outcome = run(&node, behaviour, &token).await;
        check(&WITHOUT_LEAVES, behaviour, &outcome);
        assert!(witness.lives(), "{behaviour}: the witness died");
        // Whoever has no privilege cannot take its helper's line, and so does not get to killing it.
        let helper_lost = behaviour == "kills_its_helper" && !namespace;
        assert_eq!(outcome.ended.is_err(), helper_lost, "{behaviour}: {:?}", outcome.ended);
    }
    println!("all of them");
}

/// Runs the test above under `wrapper`, from a folder that anybody can read.
fn with_less(wrapper: &[&str], expected: &str) {
    if !nix::unistd::getuid().is_root() {
        return println!("not root, so there is nothing to drop");
    }
    let missing = ["/usr/bin/setpriv", "/usr/bin/unshare", "/usr/bin/python3"];
    if let Some(missing) = missing.into_iter().find(|tool| !Path::new(tool).exists()) {
        return println!("no {missing} here, so nothing is dropped");
    }
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(dir.path(), 0o777);
    let copy = |from: &Path, name: &str| {
        let to = dir.path().join(name);
        fs::copy(from, &to).unwrap();
        open(&to, 0o755);
        to
    };
    let exe = copy(&std::env::current_exe().unwrap(), "adversaries");
    let helper = copy(&crate::support::helper().program, "helper");
    let programs = copy(Path::new(crate::PROGRAMS), "programs.py");
    let output = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg(exe)
        .args(["--exact", "privileges::as_somebody_else", "--ignored", "--nocapture"])
        .envs([(EXPECTED, expected), ("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")])
        .env("TMPDIR", dir.path())
        .env("QUELL_TEST_HELPER", helper)
        .env("QUELL_TEST_PROGRAMS", programs)
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("all of them"), "{said}");
}

#[test]
fn a_user_without_any_privilege_is_contained_by_a_user_namespace() {
    let drop = [
        "setpriv",
        "--reuid",
        NOBODY,
        "--regid",
        NOBODY,
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ];
    with_less(&drop, "L0+L3");
}

#[test]
fn without_user_namespaces_it_is_contained_by_a_subreaper() {
    // In a user namespace of its own that allows no further ones, and without its capabilities.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && \
                  exec setpriv --bounding-set=-all --inh-caps=-all \"$0\" \"$@\"";
    with_less(&["unshare", "--user", "--map-root-user", "sh", "-c", script], "L0+L1");
}

#[test]
fn where_cgroups_are_read_only_a_namespace_alone_contains_it() {
    let script = "for m in /sys/fs/cgroup/unified /sys/fs/cgroup; do \
                  mountpoint -q $m && mount -o remount,bind,ro $m; done; exec \"$0\" \"$@\"";
    with_less(&["unshare", "--mount", "sh", "-c", script], "L0+L3");
}

#[test]
fn where_numbers_of_processes_come_round_nobody_elses_is_struck() {
    // Some two hundred numbers in all, and thousands of processes: each number is used again and again.
    // (A namespace has a range of its own since Linux 6.14; before, this tests nothing new.)
    let script = "echo 500 > /proc/sys/kernel/pid_max; \"$0\" \"$@\"";
    with_less(&["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script], "L0+L2+L3");
}
