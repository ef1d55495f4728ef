//! `docs/transitions.md` is the table state x event -> effects; this generates it from the code and
//! compares. `QUELL_UPDATE_DOCS=1` rewrites it: read the difference before you commit it.

use cancel::{
    Answer, Attempt, Bounds, CancelAsk, CancelId, Cause, Effect, Engine, Event, Evidence, InstanceId, Level,
    Outcome, Policy, Reply, RequestId, Requeue, Scope, Ticket,
};

const PARENT: RequestId = RequestId(100);
const R: RequestId = RequestId(1);
const CO_TENANT: RequestId = RequestId(2);
const CHILD: RequestId = RequestId(3);
const I: InstanceId = InstanceId(1);
const OTHER: InstanceId = InstanceId(2);

const HEAD: &str = "# Transitions

What the engine does with each fact, by the state of the request `R` (on instance `I`) it is about.
Generated from the code by `crates/cancel/tests/transitions.rs`, which also compares; rewrite it with
`QUELL_UPDATE_DOCS=1 cargo test -p cancel --test transitions`. A pair that is not listed has no effect.

`co` is a running co-tenant, `child` a request that `R` made, queued. `other` is another instance.
`#1` is the cancel that brought `R` into its state, `#2` the one that is asked in the column. Policies
are the defaults: drain at the end of grace, collateral fails, synchronous, no retries.

Between fences and records the order is the order of the effects; `R` is always recorded before it is
acted upon. A stopped request is answered by `recorded`, which is why few cells hold an `Answer`.
";

/// An engine, and what it did for the last event.
#[derive(Clone)]
struct Bench(Engine);

impl Bench {
    fn tell(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.0.step(event, &mut out);
        out
    }

    fn arrive(&mut self, request: RequestId, parent: Option<RequestId>) {
        self.tell(Event::Arrived { request, parent, detached: false, policy: Policy::default() });
    }

    fn start(&mut self, capacity: u32, cooperates: bool) {
        self.tell(Event::InstanceStarted { instance: I, capacity });
        if cooperates {
            self.tell(Event::InstanceCooperates(I));
        }
    }

    fn run(&mut self, request: RequestId) {
        self.tell(Event::Placed { request, instance: I });
        self.tell(Event::Taken { request, instance: I });
    }

    fn cancel(&mut self, id: u128, scope: Scope, level: Level, cause: Cause) {
        let ask =
            CancelAsk { ticket: None, early: false, cancel: CancelId(id), request: R, scope, level, cause };
        self.tell(Event::CancelAsked(ask));
    }

    /// Running on an instance of this capacity.
    fn running(capacity: u32, cooperates: bool) -> Self {
        let mut bench = Self::queued();
        bench.start(capacity, cooperates);
        bench.tell(Event::InstanceReady(I));
        bench.run(R);
        bench
    }

    fn queued() -> Self {
        let mut bench = Self(Engine::new(Bounds::default()));
        bench.arrive(R, None);
        bench
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn with_co_tenant(self) -> Self {
        self.with(|bench| {
            bench.arrive(CO_TENANT, None);
            bench.run(CO_TENANT);
        })
    }

    fn asked(self) -> Self {
        self.with(|bench| bench.cancel(1, Scope::Request, Level::Ask, Cause::Asked))
    }

    fn killed(self) -> Self {
        self.with(|bench| bench.cancel(1, Scope::Request, Level::Kill, Cause::Asked))
    }

    fn recorded(self) -> Self {
        self.with(|bench| drop(bench.tell(Event::Recorded { cancel: CancelId(1), record: 1, ok: true })))
    }
}

const ANSWERED: Event =
    Event::Answered { request: R, instance: I, attempt: Attempt(1), answer: Answer::Returned };

fn placed(ready: bool) -> Bench {
    Bench::queued().with(|bench| {
        bench.start(4, true);
        if ready {
            bench.tell(Event::InstanceReady(I));
        }
        bench.tell(Event::Placed { request: R, instance: I });
    })
}

fn shared() -> Bench {
    Bench::running(4, true).with_co_tenant()
}

fn with_child() -> Bench {
    Bench::running(4, true).with(|bench| bench.arrive(CHILD, Some(R)))
}

fn ghost() -> Bench {
    shared().asked().recorded().with(|bench| drop(bench.tell(Event::GraceOver(R))))
}

fn states() -> Vec<(&'static str, Bench)> {
    [untouched(), being_stopped(), over()].concat()
}

fn untouched() -> Vec<(&'static str, Bench)> {
    vec![
        ("unknown", Bench(Engine::new(Bounds::default()))),
        ("queued", Bench::queued()),
        (
            "queued below a parent",
            Bench(Engine::new(Bounds::default())).with(|bench| {
                bench.arrive(PARENT, None);
                bench.arrive(R, Some(PARENT));
            }),
        ),
        ("queued with a child", Bench::queued().with(|bench| bench.arrive(CHILD, Some(R)))),
        ("placed on a starting instance", placed(false)),
        ("placed on a ready instance", placed(true)),
        ("running alone, cooperative", Bench::running(4, true)),
        ("running alone, not cooperative, capacity 1", Bench::running(1, false)),
        ("running alone, not cooperative, capacity 4", Bench::running(4, false)),
        ("running with a co-tenant", shared()),
        ("running with a child", with_child()),
        ("instance exited, not reaped", shared().with(|bench| drop(bench.tell(Event::Exited(I))))),
    ]
}

fn being_stopped() -> Vec<(&'static str, Bench)> {
    let deadline = |bench: &mut Bench| bench.cancel(1, Scope::Request, Level::Ask, Cause::Deadline);
    let harder = |bench: &mut Bench| bench.cancel(3, Scope::Request, Level::Kill, Cause::Asked);
    let unkillable = |bench: &mut Bench| drop(bench.tell(Event::KillTimedOut(I)));
    vec![
        ("asked, alone", Bench::running(4, true).asked()),
        ("asked, with a co-tenant", shared().asked()),
        ("asked, not cooperative", Bench::running(4, false).asked()),
        ("asked, with a child", with_child().asked()),
        ("terminated", Bench::running(1, false).asked()),
        ("timing out, with a co-tenant", shared().with(deadline)),
        ("being killed, with a co-tenant", shared().killed()),
        ("placed, its starting instance being killed", placed(false).killed()),
        ("stuck: killed and not dying", shared().killed().recorded().with(unkillable)),
        ("draining ghost", ghost()),
        ("draining ghost, being killed", ghost().with(harder)),
    ]
}

fn over() -> Vec<(&'static str, Bench)> {
    let answered = |bench: &mut Bench| drop(bench.tell(ANSWERED));
    let deadline = |bench: &mut Bench| bench.cancel(1, Scope::Request, Level::Ask, Cause::Deadline);
    let lost = Event::Recorded { cancel: CancelId(1), record: 1, ok: false };
    vec![
        ("cancelled, kept for its child", with_child().asked().recorded().with(answered)),
        ("finished, kept for its child", with_child().with(answered)),
        ("finished", Bench::running(4, true).with(answered)),
        ("cancelled, not yet recorded", Bench::queued().asked()),
        ("cancelled", Bench::queued().asked().recorded()),
        ("timed out", Bench::running(4, true).with(deadline).with(answered).recorded()),
        ("cancelled, the record failed", Bench::queued().asked().with(|bench| drop(bench.tell(lost)))),
    ]
}

fn events() -> Vec<(&'static str, Event)> {
    let cancel = |scope, level, cause, ticket: bool| {
        let ticket = ticket.then_some(Ticket(7));
        let cancel = CancelId(2);
        Event::CancelAsked(CancelAsk { ticket, early: false, cancel, request: R, scope, level, cause })
    };
    let answered =
        |attempt, answer| Event::Answered { request: R, instance: I, attempt: Attempt(attempt), answer };
    vec![
        ("Placed on other", Event::Placed { request: R, instance: OTHER }),
        ("Taken", Event::Taken { request: R, instance: I }),
        ("DeliveryFailed", Event::DeliveryFailed { request: R, instance: I, attempt: Attempt(1) }),
        ("Answered, returned", answered(1, Answer::Returned)),
        ("Answered, failed", answered(1, Answer::Failed { code: 4211, retry: true })),
        ("Answered, of another attempt", answered(2, Answer::Returned)),
        ("CancelAsked Request Ask", cancel(Scope::Request, Level::Ask, Cause::Asked, true)),
        ("CancelAsked Request Kill", cancel(Scope::Request, Level::Kill, Cause::Asked, true)),
        ("CancelAsked Subtree Ask", cancel(Scope::Subtree, Level::Ask, Cause::Asked, true)),
        ("CancelAsked Subtree Kill", cancel(Scope::Subtree, Level::Kill, Cause::Asked, true)),
        ("CancelAsked by its deadline", cancel(Scope::Request, Level::Ask, Cause::Deadline, false)),
        ("Recorded #1", Event::Recorded { cancel: CancelId(1), record: 1, ok: true }),
        ("GraceOver", Event::GraceOver(R)),
        ("StartFailed", Event::StartFailed { instance: I, code: 4201 }),
        ("Exited", Event::Exited(I)),
        ("Reaped", Event::Reaped(I)),
        ("KillTimedOut", Event::KillTimedOut(I)),
        ("RetireAsked", Event::RetireAsked(I)),
        ("EndAsked", Event::EndAsked(I)),
        ("Expired", Event::Expired { request: R, code: 4213 }),
        ("Withdrawn", Event::Withdrawn(R)),
    ]
}

fn who(request: RequestId) -> &'static str {
    match request {
        R => "R",
        CO_TENANT => "co",
        CHILD => "child",
        _ => "parent",
    }
}

fn outcome(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed(code) => format!("Failed {code}"),
        other => format!("{other:?}"),
    }
}

fn evidence(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::NeverStarted => "never started",
        Evidence::Answered => "answered",
        Evidence::Acknowledged(..) => "acknowledged",
        Evidence::Reaped(_) => "reaped",
        Evidence::FencedOnly(_) => "fenced only",
    }
}

fn reply(reply: Reply) -> String {
    match reply {
        Reply::Stopped(id) => format!("Stopped #{}", id.0),
        Reply::Draining(id) => format!("Draining #{}", id.0),
        Reply::Fenced(id) => format!("Fenced #{}", id.0),
        Reply::Unkillable(id) => format!("Unkillable #{}", id.0),
        Reply::NotRecorded(id) => format!("NotRecorded #{}", id.0),
        Reply::AlreadyCanceled { cancel, draining } => {
            format!("AlreadyCanceled #{}{}", cancel.0, if draining { " draining" } else { "" })
        }
        Reply::Finished(how) => format!("Finished {}", outcome(how)),
        Reply::Unknown => "Unknown".into(),
        Reply::TooManyAskers(id) => format!("TooManyAskers #{}", id.0),
    }
}

fn effect(effect: &Effect) -> String {
    match *effect {
        Effect::Accept { request, .. } => format!("Accept {}", who(request)),
        Effect::Refuse { request, why } => format!("Refuse {} {why:?}", who(request)),
        Effect::Deliver { request, attempt, .. } => format!("Deliver {} attempt {}", who(request), attempt.0),
        Effect::Fence { request, cancel, first } => {
            format!("Fence {} #{}{}", who(request), cancel.0, if first { "" } else { " again" })
        }
        Effect::Record { cancel, record, level } => format!("Record #{}.{record} {level:?}", cancel.0),
        Effect::Ask { request, .. } => format!("Ask {}", who(request)),
        Effect::Terminate(_) => "Terminate I".into(),
        Effect::StartGrace(request) => format!("StartGrace {}", who(request)),
        Effect::Drain(_) => "Drain I".into(),
        Effect::Kill(_) => "Kill I".into(),
        Effect::Quarantine(_) => "Quarantine I".into(),
        Effect::Stuck(request) => format!("Stuck {}", who(request)),
        Effect::Requeue { request, why } => {
            let why = match why {
                Requeue::Collateral => "collateral",
                Requeue::Displaced => "displaced",
                Requeue::Retry => "retry",
            };
            format!("Requeue {} {why}", who(request))
        }
        Effect::Settle { request, outcome: how, ran, evidence: on } => {
            let ran = if ran { "" } else { ", never ran" };
            format!("Settle {} {} ({}{ran})", who(request), outcome(how), evidence(on))
        }
        Effect::Gone { request, evidence: on } => format!("Gone {} ({})", who(request), evidence(on)),
        Effect::Answer { reply: told, .. } => format!("Answer {}", reply(told)),
        Effect::Close { reply: told, .. } => format!("Close {}", reply(told)),
    }
}

fn table() -> String {
    let mut text = String::from(HEAD);
    text.push_str("\n| state of R | event | effects, in order |\n|---|---|---|\n");
    for (state, bench) in states() {
        for (name, event) in events() {
            let effects = bench.clone().tell(event);
            if effects.is_empty() {
                continue;
            }
            let cell = effects.iter().map(effect).collect::<Vec<_>>().join("; ");
            text.push_str(&format!("| {state} | {name} | {cell} |\n"));
        }
    }
    text
}

#[test]
fn the_documented_transitions_are_those_of_the_code() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/transitions.md");
    let generated = table();
    if std::env::var_os("QUELL_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &generated).expect("docs can be written");
    }
    let written = std::fs::read_to_string(&path).expect("docs/transitions.md is there");
    for (line, (is, was)) in generated.lines().zip(written.lines()).enumerate() {
        assert_eq!(is, was, "docs/transitions.md line {}; QUELL_UPDATE_DOCS=1 rewrites it", line + 1);
    }
    assert_eq!(generated.lines().count(), written.lines().count(), "docs/transitions.md has other rows");
}
