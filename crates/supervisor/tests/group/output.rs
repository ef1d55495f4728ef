//! What runtimes print: kept within a bound, in whole lines, and never waited for.

use cancel::InstanceId;
use supervisor::group::{Group, OutputRing};

use crate::support::{END, Node, in_each_isolation};

fn ring(group: &Group) -> OutputRing {
    OutputRing::start(InstanceId(1), group.take_output().unwrap())
}

#[tokio::test]
async fn a_flood_is_read_for_ever_and_only_its_end_is_kept() {
    in_each_isolation(async |node: Node| {
        let mut reports = node.reports();
        let group = node.sh("seq 1 200000; echo done > $1; exec sleep 1000", &reports).await;
        let output = ring(&group);
        assert!(group.take_output().is_none());
        assert_eq!(reports.line().await, "done", "a runtime never blocks on what it prints");
        let tail = output.tail(usize::MAX);
        assert!(tail.len() <= OutputRing::KEPT_BYTES, "{}", tail.len());
        let lines: Vec<u32> = tail.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(lines.last(), Some(&200_000));
        assert!(lines.windows(2).all(|pair| pair[0] + 1 == pair[1]), "whole lines, none lost between");
        assert_eq!(output.tail(2), "199999\n200000");
        group.end(END).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_last_words_of_a_runtime_are_there_when_its_exit_is() {
    in_each_isolation(async |node: Node| {
        for round in 0..20 {
            let group =
                node.held("sh", &["-c", "echo out; echo err >&2; printf 'no newline' >&2; exit 1"]).await;
            let output = ring(&group);
            group.go().unwrap();
            group.exited().await.unwrap();
            let tail = output.tail(10);
            assert!(tail.contains("out") && tail.contains("err\nno newline"), "round {round}: {tail:?}");
            group.end(END).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn lines_of_the_two_pipes_do_not_mix_and_an_endless_one_is_cut() {
    in_each_isolation(async |node: Node| {
        let mut reports = node.reports();
        let program = "\
os.write(1, b'left'); os.write(2, b'right\\n'); os.write(1, b'hand\\n')\n\
os.write(2, b'x' * 1000000 + b'\\n')\n\
os.write(1, b'\\xff\\xfe broken\\n')\n\
report('done'); time.sleep(1000)";
        let group = node.python(program, &reports).await;
        let output = ring(&group);
        assert_eq!(reports.line().await, "done");
        let tail = output.tail(10);
        let mut lines: Vec<&str> = tail.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines.len(), 4, "{tail:?}");
        assert_eq!(&lines[..2], ["lefthand", "right"]);
        assert!(lines[2].starts_with("xxxx") && lines[2].ends_with(OutputRing::CUT), "{}", lines[2].len());
        assert_eq!(lines[3], "\u{fffd}\u{fffd} broken");
        group.end(END).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_pipe_that_a_stranger_holds_is_not_waited_for() {
    in_each_isolation(async |node: Node| {
        let mut reports = node.reports();
        // In group-only isolation it survives and holds the pipes; with a leaf it dies.
        let script = "echo said; setsid sh -c 'echo $$ > $1; exec sleep 1000' sh $1 & wait";
        let group = node.sh(script, &reports).await;
        let output = ring(&group);
        let holder = reports.process().await;
        group.end(END).await.unwrap();
        output.finish();
        output.finished().await;
        assert_eq!(output.tail(10), "said");
        if !holder.is_dead() {
            holder.kill();
        }
    })
    .await;
}
