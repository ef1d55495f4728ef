//! A run: rounds, a look at the laws after each, and all of them at the end.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    book::Survivor,
    check::{self, Violation},
    client::Api,
    ledger::Ledger,
    living::Token,
    load::Shared,
    weather::Weather,
};

mod figures;
mod many;
mod one;

pub use figures::Figures;
use many::Many;
use one::One;

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
    /// One, or several that share a database.
    pub nodes: usize,
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
    pub kept: Vec<PathBuf>,
}

/// What there is with one node and with several.
struct Common {
    folder: TempDir,
    shared: Arc<Shared>,
    figures: Figures,
    token: Token,
    weather: Arc<Weather>,
    life: u32,
    seed: u64,
}

enum Form {
    One(One),
    Many(Box<Many>),
}

/// Runs it all. `tell` gets a line a round.
///
/// # Errors
/// When the harness cannot do its work, which says nothing about the node; the folder is kept.
pub async fn run(order: &Order, tell: &mut dyn FnMut(&str)) -> anyhow::Result<Report> {
    let mut common = Common::prepare(order)?;
    let mut form = Form::prepare(&common, order).await?;
    let done = all(&mut form, &mut common, order, tell).await;
    let place = common.folder.path().display().to_string();
    let violations = match done {
        Ok(violations) => violations,
        Err(error) => {
            let words = form.last_words(20).join("\n  ");
            common.folder.disable_cleanup(true);
            form.keep();
            return Err(error
                .context(format!("seed {}, kept in {place}; the node said last:\n  {words}", order.seed)));
        }
    };
    let mut kept = Vec::new();
    if !violations.is_empty() {
        kept.extend(form.keep());
        kept.insert(0, common.folder.keep());
    }
    Ok(Report { figures: common.figures, violations, kept })
}

async fn all(
    form: &mut Form,
    common: &mut Common,
    order: &Order,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<Vec<Violation>> {
    let begin = Instant::now();
    for number in 0..order.rounds {
        if order.at_most.is_some_and(|limit| begin.elapsed() >= limit) {
            break;
        }
        let told = form.round(common, number).await.with_context(|| format!("round {number}"))?;
        common.figures.rounds += 1;
        tell(&format!("round {number}: {told}"));
        let violations = common.look()?;
        if !violations.is_empty() {
            common.figures.take(&common.shared, &violations, begin.elapsed());
            return Ok(violations);
        }
    }
    let violations = form.settle(common, order.rounds).await.context("after the last round")?;
    common.figures.take(&common.shared, &violations, begin.elapsed());
    Ok(violations)
}

impl Form {
    async fn prepare(common: &Common, order: &Order) -> anyhow::Result<Self> {
        let program = order.program.clone();
        Ok(match order.nodes {
            1 => Self::One(One::prepare(common, program)),
            nodes => Self::Many(Box::new(Many::prepare(common, program, nodes).await?)),
        })
    }

    async fn round(&mut self, common: &mut Common, number: u64) -> anyhow::Result<String> {
        match self {
            Self::One(one) => one.round(common, number).await,
            Self::Many(many) => many.round(common, number).await,
        }
    }

    async fn settle(&mut self, common: &mut Common, round: u64) -> anyhow::Result<Vec<Violation>> {
        match self {
            Self::One(one) => one.settle(common, round).await,
            Self::Many(many) => many.settle(common, round).await,
        }
    }

    fn last_words(&self, lines: usize) -> Vec<String> {
        match self {
            Self::One(one) => one.last_words(lines),
            Self::Many(many) => many.last_words(lines),
        }
    }

    /// What is kept besides the folder of the run.
    fn keep(&mut self) -> Option<PathBuf> {
        match self {
            Self::One(_) => None,
            Self::Many(many) => Some(many.keep()),
        }
    }
}

impl Common {
    fn prepare(order: &Order) -> anyhow::Result<Self> {
        ensure!(order.nodes > 0, "a run without a node");
        std::fs::create_dir_all(&order.folder).with_context(|| order.folder.display().to_string())?;
        let folder = order.folder.canonicalize()?;
        ensure!(
            !folder.starts_with("/tmp"),
            "{} is below /tmp, of which an instance has one of its own: it could not reach the ledger",
            folder.display()
        );
        let folder = tempfile::Builder::new().prefix(&format!("seed-{}-", order.seed)).tempdir_in(&folder)?;
        let name = folder.path().file_name().context("a folder has a name")?.to_string_lossy().into_owned();
        let weather = Arc::new(Weather::prepare(folder.path())?);
        let shared = Shared::new(Ledger::create(folder.path().join("ledger"))?);
        let (token, figures) = (Token::of(&name), Figures { nodes: order.nodes, ..Figures::default() });
        Ok(Self { folder, shared, figures, token, weather, life: 0, seed: order.seed })
    }

    /// The number of the life that is begun now.
    fn next_life(&mut self) -> u32 {
        self.life += 1;
        self.shared.begun(self.life);
        self.life
    }

    /// What can be said by now.
    fn look(&self) -> anyhow::Result<Vec<Violation>> {
        let mut ledger = self.shared.ledger();
        ledger.catch_up()?;
        Ok(check::so_far(&self.shared.book(), &ledger.entries))
    }

    /// Reads what the receipts of all cancels say that were answered 200.
    async fn read_receipts(&self, api: &Api) -> anyhow::Result<()> {
        let cancels: HashSet<String> = {
            let book = self.shared.book();
            book.asked.iter().filter_map(|asked| Some(asked.answer.as_ref()?.cancel.clone())).collect()
        };
        for cancel in cancels {
            if let Some(receipt) = api.receipt(&cancel).await? {
                self.shared.book().receipts.insert(cancel, receipt);
            }
        }
        Ok(())
    }

    fn look_for_survivors(
        &self,
        round: u64,
        should_be_dead: impl Fn(u32) -> bool,
        when: &str,
    ) -> anyhow::Result<()> {
        for living in self.token.living()?.iter().filter(|living| should_be_dead(living.life)) {
            let what = format!("of life {}, when {when}: {} {}", living.life, living.pid, living.command);
            self.shared.book().survivors.push(Survivor { round, what });
        }
        Ok(())
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
