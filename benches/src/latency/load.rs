//! A generator of invocations, in a process of its own so that what it does starves no measuring: as many as
//! so many clients get done, or at times that are fixed in advance.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::values::Values;
use crate::own::{self, Own};

/// Invocations that are under way at once at fixed times. What is due beyond that is not sent, and told: the machine
/// has become slower than it was when it was asked what it can.
const UNDER_WAY: usize = 2_048;
/// Latencies on their way to the one that notes them.
const NOTES: usize = 4_096;
/// Before a load counts as steady: connections are made, runtimes have been called.
const RAMP: Duration = Duration::from_millis(500);

/// When each is to begin, whatever became of those before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    start: Instant,
    /// Of a second.
    rate: f64,
}

impl Schedule {
    pub(crate) fn new(start: Instant, rate: f64) -> Self {
        Self { start, rate }
    }

    /// Computed from the start: rounding does not add up.
    pub(crate) fn at(self, number: u32) -> Instant {
        self.start + Duration::from_secs_f64(f64::from(number) / self.rate)
    }
}

/// Where the generator sends its invocations.
#[derive(Clone, Debug)]
pub(crate) struct Goes {
    pub(crate) url: String,
    pub(crate) token: String,
}

/// The generator at work.
pub(crate) struct Load(Own);

/// What has become of a load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) count: usize,
    /// Answered a second.
    pub(crate) rate: f64,
    /// Due, and not sent.
    pub(crate) shed: usize,
    pub(crate) p99_us: f64,
}

impl Load {
    fn start(goes: &Goes, mut job: Value) -> anyhow::Result<Self> {
        job["url"] = json!(goes.url);
        job["token"] = json!(goes.token); // not among the arguments, where everybody can read it
        let mut own = Own::start(["load"])?;
        own.tell(&job.to_string())?;
        Ok(Self(own))
    }

    /// How many a second so many clients get done, each with one at a time.
    pub(crate) fn capacity(goes: &Goes, clients: usize, time: Duration) -> anyhow::Result<Done> {
        Self::start(goes, json!({ "clients": clients, "ms": time.as_millis() as u64 }))?.done()
    }

    /// So many a second from now on; returns once it is steady.
    pub(crate) fn steady(goes: &Goes, rate: f64, time: Duration) -> anyhow::Result<Self> {
        let ms = (RAMP + time).as_millis() as u64;
        let mut load = Self::start(goes, json!({ "rate": rate, "ms": ms }))?;
        let word = tokio::task::block_in_place(|| load.0.line())?;
        ensure!(word == "steady", "the generator says {word:?}");
        Ok(load)
    }

    /// Waits for its end.
    pub(crate) fn done(mut self) -> anyhow::Result<Done> {
        let line = tokio::task::block_in_place(|| self.0.line()).context("the generator of load")?;
        let said: Value = serde_json::from_str(&line).with_context(|| format!("the generator: {line}"))?;
        let number = |name: &str| said[name].as_f64().with_context(|| format!("the generator: {line}"));
        Ok(Done {
            count: number("count")? as usize,
            rate: number("rate")?,
            shed: number("shed")? as usize,
            p99_us: number("p99_us")?,
        })
    }
}

/// `quell-bench load`: does the job that its input names, and says what has become of it.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let job: Value = serde_json::from_str(&line)?;
    tokio::select! {
        done = work(&job) => {
            println!("{}", done?);
            Ok(())
        }
        _ = own::alone() => Ok(()),
    }
}

async fn work(job: &Value) -> anyhow::Result<Value> {
    let text = |name: &str| job[name].as_str().with_context(|| format!("no {name}"));
    let target = Arc::new(Goes { url: text("url")?.to_owned(), token: text("token")?.to_owned() });
    let time = Duration::from_millis(job["ms"].as_u64().context("no ms")?);
    drop(rustls::crypto::ring::default_provider().install_default());
    let http = Client::builder().no_proxy().timeout(crate::node::LIMIT).build()?;
    let (tell, mut told) = mpsc::channel::<Duration>(NOTES);
    let notes = tokio::spawn(async move {
        let mut latencies = Values::new()?;
        while let Some(took) = told.recv().await {
            latencies.add_time(took)?;
        }
        anyhow::Ok(latencies)
    });
    let start = Instant::now();
    let shed = match (job["clients"].as_u64(), job["rate"].as_f64()) {
        (Some(clients), None) => closed(&http, &target, clients, start + time, &tell).await.map(|()| 0)?,
        (None, Some(rate)) => open(&http, &target, Schedule::new(start, rate), start + time, &tell).await?,
        _ => anyhow::bail!("neither clients nor a rate"),
    };
    let took = start.elapsed().as_secs_f64();
    drop(tell);
    let latencies = notes.await??;
    Ok(json!({
        "rate": latencies.count() as f64 / took,
        "shed": shed,
        "count": latencies.count(),
        "p99_us": latencies.quantile(0.99),
    }))
}

async fn invoke(http: &Client, goes: &Goes) -> anyhow::Result<()> {
    let request = http.post(&goes.url).header("X-Auth-Token", &goes.token).json(&json!({ "n": 1 }));
    let reply = request.send().await?;
    ensure!(reply.status() == 200, "{}: {}", reply.status(), reply.text().await?);
    drop(reply.bytes().await?);
    Ok(())
}

async fn closed(
    http: &Client,
    goes: &Arc<Goes>,
    clients: u64,
    end: Instant,
    tell: &mpsc::Sender<Duration>,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (http, goes, tell) = (http.clone(), Arc::clone(goes), tell.clone());
        tasks.spawn(async move {
            while Instant::now() < end {
                let start = Instant::now();
                invoke(&http, &goes).await?;
                tell.send(start.elapsed()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Each latency counts from when it was to begin: one that could not be sent in time has waited. Returns how many
/// were not sent at all.
async fn open(
    http: &Client,
    goes: &Arc<Goes>,
    schedule: Schedule,
    end: Instant,
    tell: &mpsc::Sender<Duration>,
) -> anyhow::Result<usize> {
    let under_way = Arc::new(Semaphore::new(UNDER_WAY));
    let mut tasks = JoinSet::new();
    let (mut steady, mut shed) = (Some(schedule.start + RAMP), 0);
    for number in 0.. {
        let intended = schedule.at(number);
        if intended >= end {
            break;
        }
        if steady.is_some_and(|from| intended >= from) {
            steady = None;
            println!("steady");
        }
        tokio::time::sleep_until(intended.into()).await;
        let Ok(place) = Arc::clone(&under_way).try_acquire_owned() else {
            shed += 1;
            continue;
        };
        let (http, goes, tell) = (http.clone(), Arc::clone(goes), tell.clone());
        tasks.spawn(async move {
            invoke(&http, &goes).await?;
            drop(place);
            Ok::<_, anyhow::Error>(tell.send(intended.elapsed()).await?)
        });
        while let Some(done) = tasks.try_join_next() {
            done??;
        }
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(shed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_fixed_in_advance_and_their_rounding_does_not_add_up() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 3.0);
        assert_eq!(schedule.at(0), start);
        assert_eq!(schedule.at(3_000), start + Duration::from_secs(1_000));
        assert!(schedule.at(1) < schedule.at(2));
        let third = schedule.at(1) - start;
        assert!(third.abs_diff(Duration::from_nanos(333_333_333)) < Duration::from_nanos(2), "{third:?}");
    }

    #[test]
    fn what_begins_late_is_counted_from_when_it_was_to_begin() {
        let start = Instant::now();
        let schedule = Schedule::new(start.checked_sub(Duration::from_secs(5)).unwrap(), 1.0);
        assert!(schedule.at(2).elapsed() >= Duration::from_secs(3));
    }

    #[tokio::test]
    async fn a_job_without_clients_and_without_a_rate_is_refused() {
        let job = json!({ "url": "http://127.0.0.1:1", "token": "t", "ms": 1 });
        assert!(work(&job).await.unwrap_err().to_string().contains("neither clients nor a rate"));
    }
}
