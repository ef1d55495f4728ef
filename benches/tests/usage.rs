//! What the harness says to whoever does not know its words.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use std::process::Command;

/// (exit code, stdout, stderr)
fn run(words: &[&str]) -> (Option<i32>, String, String) {
    // What is refused starts nothing, and help neither: it ends by itself, and at once.
    let mut command = Command::new("timeout");
    command.arg("60").arg(env!("CARGO_BIN_EXE_quell-bench")).args(words).env("RUST_BACKTRACE", "1");
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn help_is_a_page_of_words_and_no_error() {
    for words in [&["--help"] as &[&str], &["-h"], &["latency", "--help"], &["engine", "-h"]] {
        let (code, out, err) = run(words);
        assert!(code == Some(0) && err.is_empty(), "{words:?}: {code:?} {err}");
        assert!(
            out.contains("quell-bench latency") && out.contains("stops") && out.contains("--quick"),
            "{out}"
        );
    }
}

#[test]
fn what_is_not_understood_is_told_in_one_line() {
    for words in [&["bogus"] as &[&str], &["latency", "bogus"], &["latency", "--out"]] {
        let (code, out, err) = run(words);
        assert!(code == Some(2) && out.is_empty(), "{words:?}: {code:?} {out}");
        assert!(err.starts_with("quell-bench: ") && err.lines().count() == 1, "{words:?}: {err}");
    }
}

#[test]
fn a_reader_of_the_help_that_is_gone_is_no_error() {
    let mut command = Command::new("timeout");
    command.arg("60").arg(env!("CARGO_BIN_EXE_quell-bench")).arg("--help");
    let (gone, pipe) = std::io::pipe().unwrap();
    drop(gone);
    let output = command.stdout(pipe).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
