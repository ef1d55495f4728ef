//! `quell.toml`: what counts, what is refused and how that is said, and what SIGHUP changes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{TestNode, within};
use tempfile::TempDir;

/// Whatever `quell` says, started in a folder with these variables.
async fn quell(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quell"));
    for (name, _) in std::env::vars() {
        if name.starts_with("QUELL_") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).args(args).envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let Output { status, stdout, stderr } = within("its end", output).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A folder with a `quell.toml`.
fn written(text: &str) -> (TempDir, PathBuf) {
    let folder = TestNode::folder();
    let file = folder.path().join("quell.toml");
    fs::write(&file, text).unwrap();
    (folder, file)
}

/// `quell config show` as JSON: the value and the origin of a key.
async fn shown(
    folder: &Path,
    args: &[&str],
    variables: &[(&str, &str)],
) -> impl Fn(&str) -> (Value, String) + use<> {
    let args = [&["config", "show", "--output", "json"], args].concat();
    let (code, out, err) = quell(folder, &args, variables).await;
    assert_eq!(code, 0, "{err}");
    let all: Value = serde_json::from_str(&out).unwrap();
    move |key| (all[key]["value"].clone(), all[key]["from"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn what_a_person_would_type_first_is_refused_with_what_to_write() {
    for (text, said) in [
        ("max_instance = 4", "quell.toml:1:1: unknown key `max_instance`; did you mean `max_instances`?"),
        ("\n\ndrain = 30", "quell.toml:3:1: unknown key `drain`; did you mean `drain_s`?"),
        ("tmp-size = 4", "quell.toml:1:1: unknown key `tmp-size`; did you mean `tmp_mib`?"),
        ("QUELL_IDLE_S = 4", "quell.toml:1:1: unknown key `QUELL_IDLE_S`; did you mean `idle_s`?"),
        ("colour = \"red\"", "unknown key `colour`; `quell config show` lists all there are"),
        (
            "drain_s = \"30s\"",
            ":1:11: drain_s: the text \"30s\" is not a number of seconds: write 30, without quotes and unit",
        ),
        (
            "max_instances = \"512\"",
            ":1:17: max_instances: the text \"512\" is not a whole number: write 512,",
        ),
        ("max_instances = 1.5", "max_instances: the number 1.5 is not a whole number"),
        (
            "[server]\nlisten = \"127.0.0.1:1\"",
            "unknown section `server`: all keys stand at the top, there are no sections: its keys are right",
        ),
        ("listen = 7171", "listen: the number 7171 is not an address and a port"),
        (
            "listen = \"7171\"",
            "listen: `7171` is an invalid address: numbers and a port are expected, as in 127.0.0.1:7171: write 127.0.0.1:7171",
        ),
        ("listen = \":7171\"", "write 0.0.0.0:7171 for every address of the machine"),
        ("listen = \"localhost:7171\"", "write 127.0.0.1:7171, names are not looked up"),
        ("listen = \"127.0.0.1\"", "the port is missing"),
        ("listen = 127.0.0.1:7171", "texts, paths and addresses stand in double quotes"),
        ("listen: \"127.0.0.1:7171\"", "a line is `key = value`"),
        ("max_processes = 0", "max_processes: `0` is not between 8 and 1000000"),
        ("idle_s = -1", "idle_s: `-1` is not between 0 and 31536000 seconds"),
        ("idle_s = nan", "is not between"),
        ("max_instances = 99999999999999999999", "max_instances"),
        ("idle_s = 1\nidle_s = 2", "quell.toml:2:1: the key `idle_s` is there twice"),
        ("isolation = \"docker\"", "isolation: `docker` is none of auto, cgroup, subreaper, process-group"),
        ("isolation = true", "isolation: true is not one of \"auto\""),
        ("log = \"verbose\"", "log: `verbose` is no level: off, error, warn, info, debug, trace are"),
        (
            "images = \"/opt/images\"",
            "images: the text \"/opt/images\" is not a list of paths: [\"...\"] is expected",
        ),
        ("images = [\"nowhere\"]", "nowhere cannot be read"),
        ("runtime_user = 0", "runtime_user: `0`: root is no other user"),
        ("runtime_user = \"nobody\"", "neither `auto`, `node` nor the number of a user"),
        ("project = \"my team\"", "project: `my team` is no name: 1 to 64 letters"),
        ("data = \"\"", "data: it is empty: a path is expected"),
        ("tls_cert = \"a.pem\"", "quell.toml:1:1: it needs tls_key beside it (--tls-key, QUELL_TLS_KEY)"),
        ("tls_cert = \"a.pem\"\ntls_key = \"b.pem\"", "a.pem cannot be read"),
        // Whoever has to mend both is told of both.
        ("tls_cert = \"a.pem\"\ntls_key = \"b.pem\"", "b.pem cannot be read"),
        ("tls_cert = \"a.pem\"", "a.pem cannot be read"),
        ("otlp_endpoint = \"collector:4318\"", "is no endpoint: http:// or https:// and a host are expected"),
        (
            "listen = \"127.0.0.1:1\"\nmetrics_listen = \"127.0.0.1:1\"",
            "quell.toml:2:1: metrics_listen and listen are both 127.0.0.1:1: give one of them another port",
        ),
        (
            "log_total_mib = 1\nlog_instance_mib = 2",
            "log_instance_mib is 2, more than log_total_mib, which is 1",
        ),
    ] {
        let (folder, _) = written(text);
        for args in [&["config", "check"] as &[&str], &["serve"]] {
            let (code, out, err) = quell(folder.path(), args, &[]).await;
            assert!(code == 2 && err.contains(said) && out.is_empty(), "{text:?}: {code} {err}");
            assert!(err.starts_with("quell: the configuration is wrong"), "{err}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{text}: nothing was made");
    }
}

#[tokio::test]
async fn a_lease_without_a_store_to_hold_it_in_is_a_mistake_unless_it_is_the_default() {
    let (folder, _) = written("lease_s = 10");
    let (code, _, err) = quell(folder.path(), &["config", "check"], &[]).await;
    assert_eq!(code, 0, "as in a file made of the example: {err}");
    let why = "it needs store beside it: a node with a store of its own has no lease";
    for (args, variables, place) in [
        (&["serve", "--lease", "20"][..], &[][..], "--lease"),
        (&["serve"], &[("QUELL_LEASE_S", "20")], "QUELL_LEASE_S"),
    ] {
        let (code, _, err) = quell(folder.path(), args, variables).await;
        assert!(code == 2 && err.contains(&format!("{place}: {why}")), "{code} {err}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was made");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_told_with_the_reason() {
    let (folder, file) = written("");
    for (args, said) in [
        (vec!["serve", "--config", "none.toml"], "none.toml: there is no such file"),
        (vec!["serve", "--config", "."], "it is a folder"),
        (vec!["config", "check", "none.toml"], "none.toml: there is no such file"),
        (vec!["config", "check", "none.toml"], "quell config example > FILE"),
        (vec!["config", "show", "quell.toml"], "`quell config show --config quell.toml`"),
    ] {
        let (code, _, err) = quell(folder.path(), &args, &[]).await;
        assert!(code == 2 && err.contains(said), "{args:?}: {code} {err}");
    }
    fs::write(&file, b"data = \"\xff\"").unwrap();
    let (code, _, err) = quell(folder.path(), &["config", "check"], &[]).await;
    assert!(code == 2 && err.contains("it is not UTF-8"), "{err}");
    fs::write(&file, vec![b'#'; (1 << 20) + 1]).unwrap();
    let (code, _, err) = quell(folder.path(), &["config", "check"], &[]).await;
    assert!(code == 2 && err.contains("larger than 1 MiB"), "{err}");
}

#[tokio::test]
async fn all_mistakes_are_told_at_once_wherever_they_are() {
    let (folder, _) = written("max_instance = 4\ndrain_s = \"30s\"\nlisten = here\ntls_cert = \"a.pem\"\n");
    let args = ["serve", "--body-timeout", "0", "--isolation", "magic"];
    let (code, _, err) = quell(folder.path(), &args, &[("QUELL_KEEP_DAYS", "forever")]).await;
    assert_eq!(code, 2);
    for said in [
        "wrong in 8 places:",
        "\n  quell.toml:1:1: unknown key",
        "\n  quell.toml:2:11: drain_s",
        "\n  quell.toml:3:10: ",
        "\n  --body-timeout: `0` is not between",
        "\n  --isolation: `magic` is none of",
        "\n  quell.toml:4:1: a.pem cannot be read",
        "\n  quell.toml:4:1: it needs tls_key beside it",
        "\n  QUELL_KEEP_DAYS: `forever` is not a whole number",
    ] {
        assert!(err.contains(said), "{said}: {err}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was made");
}

#[tokio::test]
async fn flags_count_more_than_the_environment_and_that_more_than_the_file() {
    let (folder, file) = written("idle_s = 1\ndrain_s = 1.5\nkeep_days = 1\ndata = \"d\"\n");
    let variables = [("QUELL_IDLE_S", "2"), ("QUELL_DRAIN_S", "2"), ("QUELL_REGION", "")];
    let here = shown(folder.path(), &["--idle", "3", "--log", "debug"], &variables).await;
    assert_eq!(here("idle_s"), (3.into(), "flag".into()));
    assert_eq!(here("drain_s"), (2.into(), "environment".into()));
    assert_eq!(here("keep_days"), (1.into(), "quell.toml:3:1".into()));
    assert_eq!(here("region"), ("local".into(), "default".into()), "an empty variable is none");
    assert_eq!(here("log"), ("debug".into(), "flag".into()));
    assert_eq!(here("tls_cert").0, Value::Null);
    let elsewhere = tempfile::tempdir().unwrap();
    let named = shown(elsewhere.path(), &[], &[("QUELL_CONFIG", file.to_str().unwrap())]).await;
    let data = folder.path().join("d");
    assert_eq!(named("data").0, data.to_str().unwrap(), "relative paths belong to the folder of the file");
    assert!(named("keep_days").1.ends_with("quell.toml:3:1"));
    let flag = shown(elsewhere.path(), &["--config", "/dev/null"], &[("QUELL_CONFIG", "none")]).await;
    assert_eq!(flag("idle_s"), (60.into(), "default".into()));
}

#[tokio::test]
async fn the_example_is_a_file_to_begin_with_and_a_right_file_is_called_so() {
    let (folder, file) = written("");
    let (code, example, err) = quell(folder.path(), &["config", "example"], &[]).await;
    assert!(code == 0 && example.contains("\n#drain_s = 30\n"), "{err}");
    fs::write(&file, example.replace("#drain_s = 30", "drain_s = 31")).unwrap();
    let (code, out, err) = quell(folder.path(), &["config", "check"], &[]).await;
    assert!(code == 0 && out == "quell.toml: nothing is wrong with it\n", "{out}{err}");
    assert_eq!(shown(folder.path(), &[], &[]).await("drain_s").0, 31);
}

#[tokio::test]
async fn a_mistyped_variable_is_told_in_the_log() {
    let (folder, _) =
        written("listen = \"127.0.0.1:0\"\nisolation = \"cgroup\"\ndata = \"/dev/null/nowhere\"");
    let variables = [("QUELL_MAX_INSTANCE", "4"), ("QUELL_SERVICE_HOST", "10.0.0.1")];
    let (code, _, err) = quell(folder.path(), &["serve"], &variables).await;
    assert!(code == 2 && err.contains("did you mean QUELL_MAX_INSTANCES?"), "{code} {err}");
    assert!(err.contains("variable=\"QUELL_MAX_INSTANCE\"") && !err.contains("SERVICE_HOST"), "{err}");
}

async fn most_instances(node: &TestNode) -> Value {
    let quotas = node.get("/v2/default/fgs/quotas").await.json();
    let all = quotas["quotas"]["resources"].as_array().unwrap_or_else(|| panic!("{quotas}")).clone();
    all.into_iter().find(|one| one["type"] == "fgs_func_occurs").unwrap()["quota"].clone()
}

#[tokio::test]
async fn a_hang_up_changes_what_can_change_and_tells_what_cannot() {
    let (_folder, file) = written("max_instances = 7\n");
    let node = TestNode::start_with(&["--config", file.to_str().unwrap()]).await;
    assert_eq!(most_instances(&node).await, 7);
    fs::write(&file, "max_instances = 9\nregion = \"moon\"\nrate_limit = 1\n").unwrap();
    node.signal(Signal::SIGHUP);
    node.logs("needs a restart");
    node.logs("the configuration was reloaded");
    within("the new limit of requests", async { while node.view().await["error_code"] != "FSS.0429" {} })
        .await;
    fs::write(&file, "max_instances = 11\nrate_limit = 0\nregoin = \"moon\"\n").unwrap();
    node.signal(Signal::SIGHUP);
    node.logs("did you mean `region`?");
    fs::write(&file, "max_instances = 10\nlog = \"debug\"\n").unwrap();
    node.signal(Signal::SIGHUP);
    node.logs("the configuration was reloaded");
    assert_eq!(most_instances(&node).await, 10, "and requests are not limited any more");
    node.stop().await;
}

#[tokio::test]
async fn a_file_that_was_found_and_is_gone_changes_nothing() {
    let (folder, file) = written("max_instances = 7\n");
    let data = TestNode::folder();
    let mut command = TestNode::command(data.path(), &[]);
    command.current_dir(folder.path());
    let node = TestNode::start_by(command, data.path()).await;
    assert_eq!(most_instances(&node).await, 7);
    fs::remove_file(&file).unwrap();
    node.signal(Signal::SIGHUP);
    node.logs("its file is gone, nothing has changed");
    assert_eq!(most_instances(&node).await, 7);
    fs::write(&file, "max_instances = 8\n").unwrap();
    node.signal(Signal::SIGHUP);
    node.logs("the configuration was reloaded");
    assert_eq!(most_instances(&node).await, 8);
    node.stop().await;
}
