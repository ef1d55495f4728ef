//! Every family there is, with its name and what it says.

use prometheus_client::{encoding::DescriptorEncoder, registry::Unit};
use supervisor::{CancelTimes, MODES, Metrics, Nodes};

use super::{Seen, text::Page};

type Written = Result<(), std::fmt::Error>;

pub(super) fn write(seen: &Seen, encoder: &mut DescriptorEncoder<'_>) -> Written {
    let page = &mut Page(encoder);
    page.info("quell_build", "The version of the node", vec![("version", env!("CARGO_PKG_VERSION"))])?;
    requests(page, seen.handle.metrics())?;
    cancels(page, seen.handle.metrics())?;
    instances(page, seen.handle.metrics())?;
    functions(page, seen)?;
    node(page, seen)?;
    if let Some(nodes) = seen.handle.nodes() {
        among_nodes(page, nodes)?;
    }
    store(page, seen)?;
    http(page, seen)?;
    process(page, seen)
}

fn requests(page: &mut Page<'_, '_>, metrics: &Metrics) -> Written {
    let modes = [("sync", &metrics.synchronous), ("async", &metrics.asynchronous)];
    page.counters(
        "quell_requests_accepted",
        "Requests that were taken on",
        modes.map(|(mode, of)| (vec![("mode", mode)], of.accepted.get())),
    )?;
    page.counter(
        "quell_requests_taken_up",
        "Requests that came from the store: of an earlier life of the node, or made by the result of another",
        metrics.taken_up.get(),
    )?;
    page.counters(
        "quell_requests_refused",
        "Invocations that were refused",
        metrics.refused.iter().map(|(reason, count)| (vec![("reason", reason)], count.get())),
    )?;
    page.counters(
        "quell_requests_settled",
        "Requests that reached their one result",
        modes.into_iter().flat_map(|(mode, of)| {
            of.settled
                .iter()
                .map(move |(outcome, count)| (vec![("mode", mode), ("outcome", outcome)], count.get()))
        }),
    )?;
    page.counter(
        "quell_requests_requeued",
        "Attempts that failed or lost their instance, and whose request waits again",
        metrics.requeued.get(),
    )?;
    page.histograms(
        "quell_request_queued",
        "From the acceptance of a request to the hand-over of its last attempt",
        modes.map(|(mode, of)| (vec![("mode", mode)], of.queued.get())),
    )?;
    page.histograms(
        "quell_request_ran",
        "From the hand-over of the last attempt to the result",
        modes.map(|(mode, of)| (vec![("mode", mode)], of.ran.get())),
    )
}

fn cancels(page: &mut Page<'_, '_>, metrics: &Metrics) -> Written {
    page.counters(
        "quell_cancel_answers",
        "What askers of cancels were told: stopped, draining and fenced are X-Quell-Stop",
        metrics.answers.iter().map(|(answer, count)| (vec![("answer", answer)], count.get())),
    )?;
    page.counters(
        "quell_cancels",
        "Cancels that are over, with those by a time limit and by a caller that went away",
        metrics.cancels.iter().flat_map(|(cause, of)| {
            of.0.iter().map(move |(result, count)| (vec![("cause", cause), ("result", result)], count.get()))
        }),
    )?;
    page.counter(
        "quell_cancel_co_tenants",
        "Requests out of scope that ended or wait again since they shared an instance with one that was killed",
        metrics.co_tenants.get(),
    )?;
    let phases = |times: &CancelTimes| {
        [
            ("recorded", times.recorded.get()),
            ("exited", times.exited.get()),
            ("emptied", times.emptied.get()),
            ("proven", times.proven.get()),
            ("answered", times.answered.get()),
        ]
    };
    page.histograms(
        "quell_cancel_phase",
        "From the fence to its record and to the answer; and of each killed instance, from the first strike until its \
         main process had ended, nobody was left, and that was proven",
        MODES.iter().zip(&metrics.times).flat_map(|((scope, level), times)| {
            phases(times).map(|(phase, seen)| (vec![("phase", phase), ("scope", *scope), ("level", *level)], seen))
        }),
    )
}

fn instances(page: &mut Page<'_, '_>, metrics: &Metrics) -> Written {
    page.counter(
        "quell_instances_started",
        "Instances of which a process was asked for",
        metrics.starts.get(),
    )?;
    page.counter(
        "quell_instance_starts_failed",
        "Instances that did not come to be ready",
        metrics.failed_starts.get(),
    )?;
    page.counter("quell_instances_reaped", "Instances that were proven gone", metrics.reaped.get())?;
    page.counter(
        "quell_instances_unkillable",
        "Instances that could not be proven gone in time",
        metrics.stuck.get(),
    )?;
    page.histograms(
        "quell_instance_start",
        "From the order of an instance to its first poll",
        [(Vec::new(), metrics.start.get())],
    )
}

fn functions(page: &mut Page<'_, '_>, seen: &Seen) -> Written {
    page.gauges(
        "quell_function_instances",
        "Instances of a version of a function",
        seen.functions.instances(),
    )?;
    page.gauges("quell_function_requests", "Requests of a version of a function", seen.functions.requests())?;
    page.counters(
        "quell_function_settled",
        "Requests of a version of a function that reached their result",
        seen.functions.settled(),
    )?;
    page.gauge(
        "quell_functions_together",
        "Versions of functions that have no series of their own, and are counted together as \"others\"",
        None,
        float(seen.functions.beyond),
    )
}

fn node(page: &mut Page<'_, '_>, seen: &Seen) -> Written {
    let census = &seen.census;
    let (waiting, most) = seen.handle.inbox();
    for (name, help, value) in [
        ("quell_requests_live", "Requests that are not over", census.live),
        ("quell_instances_max", "Instances that there may be", census.max_instances),
        ("quell_instances_quarantined", "Instances whose processes cannot be killed", census.quarantined),
        ("quell_draining", "1 while the node takes no new requests", u64::from(census.draining)),
        (
            "quell_unwritten",
            "Results and records of cancels that the disk has refused so far",
            census.unwritten,
        ),
        ("quell_core_inbox", "Messages that wait for the core", waiting as u64),
        (
            "quell_core_inbox_max",
            "Messages that may wait for it; beyond, invocations are refused",
            most as u64,
        ),
    ] {
        page.gauge(name, help, None, float(value))?;
    }
    for (name, help, value) in [
        ("quell_events", "Events in memory", census.event_bytes),
        (
            "quell_events_max",
            "Events that there may be; beyond, invocations are refused",
            census.max_event_bytes,
        ),
    ] {
        page.gauge(name, help, Some(Unit::Bytes), float(value))?;
    }
    page.gauge(
        "quell_core_answer",
        "How long the core took to answer this very question: its lag",
        Some(Unit::Seconds),
        seen.answered.as_secs_f64(),
    )?;
    page.counter(
        "quell_core_messages",
        "Messages that the core has worked off",
        seen.handle.metrics().messages.get(),
    )?;
    let lost = seen.handle.metrics().spans_lost.get();
    page.counter("quell_spans_lost", "Spans that a collector of traces did not take in time", lost)?;
    page.counter("quell_log_lines_lost", "Lines of functions that are in no log", census.log_lines_lost)
}

/// Of a node that shares its store.
fn among_nodes(page: &mut Page<'_, '_>, nodes: &Nodes) -> Written {
    page.gauge(
        "quell_node_lease_seconds_left",
        "How long what runs here may go on without another renewal of the lease",
        None,
        nodes.lease_left().as_secs_f64(),
    )?;
    page.gauge(
        "quell_nodes_accepts",
        "1 while new requests are taken as far as lease and store go",
        None,
        float(u64::from(nodes.accepts())),
    )?;
    let metrics = nodes.metrics();
    page.gauge(
        "quell_nodes_unplaceable_functions",
        "Functions of which requests wait for labels that no live node has, at most a hundred",
        None,
        float(metrics.unplaceable_functions()),
    )?;
    page.counters(
        "quell_node_parts",
        "Parts of cancels that reach over nodes which were carried out here and reported",
        metrics.parts.iter().map(|(result, count)| (vec![("result", result)], count.get())),
    )?;
    page.counter(
        "quell_node_claimed",
        "Requests that were taken out of the shared queue",
        metrics.claimed.get(),
    )?;
    page.counter(
        "quell_node_given_back",
        "Requests that found no place here in time, and were given back for any node to run",
        metrics.given_back.get(),
    )?;
    page.counter(
        "quell_node_takeovers",
        "Nodes whose lease was over, and whose work this one took away",
        metrics.takeovers.get(),
    )
}

fn store(page: &mut Page<'_, '_>, seen: &Seen) -> Written {
    page.histograms(
        "quell_store_commit",
        "From the first write of a commit until the disk has it",
        [(Vec::new(), seen.store.commits.get())],
    )?;
    page.counter("quell_store_writes", "Writes that were in commits", seen.store.writes.get())?;
    page.counter("quell_store_commits_failed", "Commits that the disk refused", seen.store.failed.get())
}

fn http(page: &mut Page<'_, '_>, seen: &Seen) -> Written {
    let http = &seen.api.metrics;
    page.counters(
        "quell_http_answers",
        "Answers of the API by the class of their status",
        ["1xx", "2xx", "3xx", "4xx", "5xx"]
            .into_iter()
            .zip(&http.answers)
            .map(|(class, count)| (vec![("class", class)], count.get())),
    )?;
    page.counter("quell_http_unauthorised", "Answers 401 and 403", http.unauthorised.get())?;
    page.counter("quell_http_limited", "Answers 429", http.limited.get())
}

fn process(page: &mut Page<'_, '_>, seen: &Seen) -> Written {
    let Some(process) = seen.process else { return Ok(()) };
    page.seconds_counter("process_cpu", "CPU time of the node without its runtimes", process.cpu_s)?;
    page.gauge("process_resident_memory", "Its memory", Some(Unit::Bytes), float(process.resident_bytes))?;
    page.gauge("process_threads", "Its threads", None, float(process.threads))?;
    page.gauge("process_open_fds", "Its open files", None, float(process.open_files))?;
    page.gauge("process_max_fds", "Files it may have open", None, float(process.max_files))
}

#[expect(clippy::cast_precision_loss, reason = "exact to 2^53, which no gauge here comes near")]
fn float(value: u64) -> f64 {
    value as f64
}
