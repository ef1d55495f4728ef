//! Every level of privilege, dropped for real: another uid without capabilities, no user namespaces, a
//! machine whose cgroups are read-only, a cgroup that root gave away. Each runs the adversaries in a process
//! of its own.

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
    delegated::Delegated,
    run,
    support::Node,
};

const EXPECTED: &str = "QUELL_TEST_EXPECTED";
/// Of a user that has nothing here.
const NOBODY: &str = "65534";
/// What it takes to become that user.
const DROP: [&str; 8] = [
    "setpriv",
    "--reuid",
    NOBODY,
    "--regid",
    NOBODY,
    "--clear-groups",
    "--bounding-set=-all",
    "--inh-caps=-all",
];

/// What these layers are called in the checks: no leaf, so nothing can be moved out of it, or a namespace
/// around it.
const TIGHT: Layer = Layer { name: "Lx", isolation: Isolation::Auto, on: &[], escapes: &[] };
/// The runtime's user may write the cgroups beside its leaf as well, and end its helper: what did both is
/// seen by nobody.
const DELEGATED: Layer =
    Layer { name: "Ly", isolation: Isolation::Auto, on: &[], escapes: &["escapes_twice"] };

#[tokio::test]
#[ignore = "is what the tests below run with less privilege"]
async fn as_somebody_else() {
    let expected = std::env::var(EXPECTED).unwrap();
    let node = Node::new(Isolation::Auto);
    // The fork stop comes with the limits, and own networks with HTTP functions: they are tested with them.
    let layers = node.containment.layers().iter();
    let active: Vec<&str> = layers
        .filter(|layer| layer.active && !["L4", "L6"].contains(&layer.id))
        .map(|layer| layer.id)
        .collect();
    for layer in node.containment.layers() {
        println!("{layer}");
    }
    assert_eq!(active.join("+"), expected);
    let (leaf, namespace) = (expected.contains("L2"), expected.contains("L3"));
    let witness = Witness::start();
    for (behaviour, on) in BEHAVIOURS {
        // What the outside does to a run takes privilege.
        if TROUBLED.contains(&behaviour) || (on == On::Namespaces && !namespace) {
            continue;
        }
        let token = format!("quell-{}-{expected}-{behaviour}-0", std::process::id());
        let outcome = run(&node, behaviour, &token).await;
        check(if leaf && !namespace { &DELEGATED } else { &TIGHT }, behaviour, &outcome);
        assert!(witness.lives(), "{behaviour}: the witness died");
        // Whoever has no privilege cannot take its helper's line, and so does not get to killing it. A leaf
        // proves without the helper.
        let strikes_it = matches!(behaviour, "kills_its_helper" | "escapes_twice");
        let helper_lost = strikes_it && !namespace && !leaf;
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
    with_less(&DROP, "L0+L3");
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
    // 51: a recycled pid, and the kill hits strangers.
    // Some two hundred numbers in all, and thousands of processes: each number is used again and again.
    // (A namespace has a range of its own since Linux 6.14; before, this tests nothing new.)
    let script = "echo 500 > /proc/sys/kernel/pid_max; \"$0\" \"$@\"";
    with_less(&["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script], "L0+L2+L3");
}

/// Runs it in a cgroup that root gave to nobody, as whom `become_nobody` makes it.
fn in_a_delegated_cgroup(become_nobody: &[&str], expected: &str) {
    if !nix::unistd::getuid().is_root() {
        return println!("not root, so there is nothing to give away");
    }
    let Some(delegated) = Delegated::to(NOBODY.parse().unwrap()) else { return };
    // Mounted with the flags that systemd uses: who has less privilege may not take them away.
    let script = "for m in /sys/fs/cgroup/unified /sys/fs/cgroup; do \
                  mountpoint -q $m && mount -o remount,bind,nosuid,nodev,noexec $m; done; \
                  echo 0 > \"$0/cgroup.procs\" && exec \"$@\"";
    let enter = ["unshare", "--mount", "sh", "-c", script, delegated.path()];
    with_less(&[&enter, become_nobody].concat(), expected);
}

#[test]
fn in_a_cgroup_of_its_own_a_user_without_any_privilege_has_leaves_and_namespaces() {
    in_a_delegated_cgroup(&DROP, "L0+L2+L3");
}

#[test]
fn in_a_cgroup_of_its_own_it_has_leaves_without_user_namespaces_as_well() {
    // A user namespace takes the capability to allow no further ones; it is the same user inside.
    let namespace = ["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c"];
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && \
                  exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all \"$0\" \"$@\"";
    in_a_delegated_cgroup(&[&DROP[..6], &namespace, &[script]].concat(), "L0+L1+L2");
}
