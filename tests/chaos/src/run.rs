//! A run: rounds on one data folder, a look at the laws after each, and all of them at the end.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    book::Survivor,
    check::{self, Violation},
    client::Api,
    ledger::Ledger,
    life::{Life, Setting},
    living::Token,
    load::{self, Served, Shared},
    plan::{End, Round},
    weather::{Change, Weather},
};

mod figures;

pub use figures::Figures;

/// After the last start everything ends within this time, or it is counted as lost.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
/// A life that is to come to rest is killed after this time even if it has not.
const IDLE_LIMIT: Duration = Duration::from_secs(15);
/// How often the node is asked meanwhile how much is left.
const SETTLE_POLL: Duration = Duration::from_millis(100);
/// Clients whose node is gone learn it at once; one that has not ended by then never will.
const CLIENTS_LIMIT: Duration = Duration::from_secs(40);

/// What to run.
#[derive(Clone, Debug)]
pub struct Order {
    /// The built `quell`.
    pub program: PathBuf,
    /// The folder in which the run makes its own. Not below `/tmp`: an instance has one of its own.
    pub folder: PathBuf,
    /// Names the schedule.
    pub seed: u64,
    /// How many rounds.
    pub rounds: u64,
    /// No round is begun after this time.
    pub at_most: Option<Duration>,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// What was done, counted.
    pub figures: Figures,
    /// What was broken.
    pub violations: Vec<Violation>,
    /// Where it all is: kept if something was broken.
    pub kept: Option<PathBuf>,
}

struct Run {
    setting: Setting,
    folder: TempDir,
    shared: Arc<Shared>,
    figures: Figures,
    life: u32,
    seed: u64,
}

/// Runs it all. `tell` gets a line a round.
///
/// # Errors
/// When the harness cannot do its work, which says nothing about the node; the folder is kept.
pub async fn run(order: &Order, tell: &mut dyn FnMut(&str)) -> anyhow::Result<Report> {
    let mut run = Run::prepare(order)?;
    let done = run.all(order, tell).await;
    let place = run.folder.path().display().to_string();
    let violations = match done {
        Ok(violations) => violations,
        Err(error) => {
            let words = crate::life::last_words(&run.setting.log, 20).join("\n  ");
            run.folder.disable_cleanup(true);
            return Err(error
                .context(format!("seed {}, kept in {place}; the node said last:\n  {words}", order.seed)));
        }
    };
    let kept = (!violations.is_empty()).then(|| run.folder.keep());
    Ok(Report { figures: run.figures, violations, kept })
}

impl Run {
    fn prepare(order: &Order) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&order.folder).with_context(|| order.folder.display().to_string())?;
        let folder = order.folder.canonicalize()?;
        ensure!(
            !folder.starts_with("/tmp"),
            "{} is below /tmp, of which an instance has one of its own: it could not reach the ledger",
            folder.display()
        );
        let folder = tempfile::Builder::new().prefix(&format!("seed-{}-", order.seed)).tempdir_in(&folder)?;
        let name = folder.path().file_name().context("a folder has a name")?.to_string_lossy().into_owned();
        let setting = Setting {
            program: order.program.clone(),
            data: folder.path().join("data"),
            log: folder.path().join("node.log"),
            token: Token::of(&name),
            weather: Arc::new(Weather::prepare(folder.path())?),
        };
        let shared = Shared::new(Ledger::create(folder.path().join("ledger"))?);
        Ok(Self { setting, folder, shared, figures: Figures::default(), life: 0, seed: order.seed })
    }

    async fn all(&mut self, order: &Order, tell: &mut dyn FnMut(&str)) -> anyhow::Result<Vec<Violation>> {
        let begin = Instant::now();
        for number in 0..order.rounds {
            if order.at_most.is_some_and(|limit| begin.elapsed() >= limit) {
                break;
            }
            let told = self.round(number).await.with_context(|| format!("round {number}"))?;
            self.figures.rounds += 1;
            tell(&format!("round {number}: {told}"));
            let violations = self.look()?;
            if !violations.is_empty() {
                self.figures.take(&self.shared, &violations, begin.elapsed());
                return Ok(violations);
            }
        }
        let violations = self.settle(order.rounds).await.context("after the last round")?;
        self.figures.take(&self.shared, &violations, begin.elapsed());
        Ok(violations)
    }

    /// What can be said by now.
    fn look(&self) -> anyhow::Result<Vec<Violation>> {
        let mut ledger = self.shared.ledger();
        ledger.catch_up()?;
        Ok(check::so_far(&self.shared.book(), &ledger.entries))
    }

    async fn round(&mut self, number: u64) -> anyhow::Result<String> {
        let plan = Round::draw(self.seed, number);
        for after in &plan.stillborn {
            let life = self.begin()?;
            tokio::time::sleep(*after).await;
            life.kill()?;
            self.figures.kills_at_start += 1;
        }
        let (life, api) = self.serve(number).await?;
        if number == 0 {
            let ledger = self.shared.ledger().path().to_owned();
            api.deploy(&ledger).await?;
        }
        let before = self.shared.book().counts();
        let begin = Instant::now();
        let served = Served { api, shared: Arc::clone(&self.shared), round: number, life: life.number };
        let mut clients = load::begin(&served, &plan);
        let watched = served.api.clone();
        clients.spawn(async move {
            served.sample().await;
            Ok(())
        });
        if let Some(turn) = plan.weather {
            if matches!(turn.change, Change::Failing(_)) {
                self.shared.book().failing.insert(life.number);
            }
            let weather = Arc::clone(&self.setting.weather);
            clients.spawn(async move {
                tokio::time::sleep(turn.at).await;
                weather.turn(turn.change).await
            });
        }
        let number_of_life = life.number;
        let how = self.end(life, &watched, plan.end, number).await?;
        let lived = begin.elapsed();
        collect(clients).await?;
        let after = self.shared.book().counts();
        Ok(format!(
            "life {number_of_life}{}, {how} after {:.2} s; accepted {}, cancels sent {}, answered 200 {}",
            plan.weather.map(|turn| format!(", {:?}", turn.change)).unwrap_or_default(),
            lived.as_secs_f32(),
            after[0] - before[0],
            after[1] - before[1],
            after[2] - before[2]
        ))
    }

    fn begin(&mut self) -> anyhow::Result<Life> {
        self.life += 1;
        self.setting.start(self.life)
    }

    /// Starts a life that serves. It listens only when nothing of an earlier one lives any more.
    async fn serve(&mut self, round: u64) -> anyhow::Result<(Life, Api)> {
        let mut life = self.begin()?;
        let endpoint = life.ready().await?;
        self.look_for_survivors(round, life.number, &format!("life {} listens", life.number))?;
        Ok((life, Api::new(&endpoint, &self.setting.data)?))
    }

    fn look_for_survivors(&self, round: u64, before: u32, when: &str) -> anyhow::Result<()> {
        for living in self.setting.token.living()?.iter().filter(|living| living.life < before) {
            let what = format!("of life {}, when {when}: {} {}", living.life, living.pid, living.command);
            self.shared.book().survivors.push(Survivor { round, what });
        }
        Ok(())
    }

    async fn end(&mut self, life: Life, api: &Api, end: End, round: u64) -> anyhow::Result<&'static str> {
        let how = match end {
            End::Kill(after) => {
                tokio::time::sleep(after).await;
                "killed"
            }
            End::KillAtAnswer(count, at_most) => {
                match tokio::time::timeout(at_most, self.shared.answers(count)).await {
                    Ok(()) => "killed at an answer",
                    Err(_) => "killed",
                }
            }
            End::KillIdle(after) => {
                tokio::time::sleep(after).await;
                until_idle(api, IDLE_LIMIT).await?;
                "killed when idle"
            }
            End::Term(after) => {
                tokio::time::sleep(after).await;
                let number = life.number;
                life.end().await?;
                self.figures.clean_ends += 1;
                self.look_for_survivors(round, number + 1, &format!("life {number} had ended in order"))?;
                return Ok("ended in order");
            }
        };
        life.kill()?;
        self.figures.kills += 1;
        Ok(how)
    }

    /// One more life, in which everything that was accepted comes to its end.
    async fn settle(&mut self, round: u64) -> anyhow::Result<Vec<Violation>> {
        let (life, api) = self.serve(round).await?;
        // What is left then is lost, and the listing says which it is.
        until_idle(&api, SETTLE_LIMIT).await?;
        let listing = api.all().await?;
        let number = life.number;
        life.end().await?;
        self.look_for_survivors(round, number + 1, "everything had ended")?;
        let mut ledger = self.shared.ledger();
        ledger.catch_up()?;
        self.figures.listed = listing.len();
        self.figures.syncs = self.setting.weather.felt()?;
        Ok(check::at_the_end(&self.shared.book(), &ledger.entries, &listing))
    }
}

/// Waits until nothing waits or runs any more, for so long at most.
async fn until_idle(api: &Api, limit: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    while api.unsettled().await? > 0 && Instant::now() < deadline {
        tokio::time::sleep(SETTLE_POLL).await;
    }
    Ok(())
}

async fn collect(mut clients: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    let all = async {
        while let Some(client) = clients.join_next().await {
            client??;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(CLIENTS_LIMIT, all).await.context("a client did not learn that the node was gone")?
}
