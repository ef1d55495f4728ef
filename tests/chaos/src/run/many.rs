//! Several nodes that share a database: they go on from round to round, and in each something happens to some of them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use tokio::time::Instant;

use super::{Common, IDLE_LIMIT, SETTLE_LIMIT, SETTLE_POLL, collect};
use crate::{
    book::Survivor,
    check::{self, Violation},
    client::Api,
    database::Database,
    fault::{Fault, LEASE, Moment, Trial},
    life::{Life, Setting, Sharing, last_words},
    load::{self, Served},
    places::{Place, Places},
    plan::Round,
    weather::Change,
};

/// A node that lost its lease, or whose database was away, serves again within this time.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// What a killed node ran is dead within this time: its helpers see to it, nobody else.
const MOMENTS: Duration = Duration::from_secs(10);

/// The nodes and what they share.
pub(super) struct Many {
    settings: Vec<Setting>,
    lives: Vec<Option<Life>>,
    /// Which node each life is of.
    node_of: Vec<usize>,
    places: Arc<Places>,
    /// Of each node at the end of the last round.
    epochs: Vec<i64>,
    database: Database,
}

impl Many {
    pub(super) async fn prepare(common: &Common, program: PathBuf, nodes: usize) -> anyhow::Result<Self> {
        common.shared.book().many = true;
        let folder = common.folder.path();
        let database = Database::create(folder.join("database.log")).await?;
        let setting = |node: usize| Setting {
            program: program.clone(),
            data: folder.join(format!("data-{node}")),
            log: folder.join(format!("node-{node}.log")),
            token: common.token.clone(),
            weather: Arc::clone(&common.weather),
            shared: Some(Sharing { url: database.url(), lease: LEASE }),
        };
        Ok(Self {
            settings: (0..nodes).map(setting).collect(),
            lives: (0..nodes).map(|_| None).collect(),
            node_of: vec![usize::MAX], // lives are counted from 1
            places: Arc::new(Places::of(Vec::new())),
            epochs: vec![0; nodes],
            database,
        })
    }

    pub(super) fn last_words(&self, lines: usize) -> Vec<String> {
        self.settings.iter().flat_map(|setting| last_words(&setting.log, lines)).collect()
    }

    /// Leaves what is in the database for whoever wants to look.
    pub(super) fn keep(&mut self) -> PathBuf {
        self.database.keep().to_owned()
    }

    pub(super) async fn round(&mut self, common: &mut Common, number: u64) -> anyhow::Result<String> {
        if number == 0 {
            self.first(common).await?;
        }
        let trial = Trial::draw(common.seed, number, self.settings.len());
        let mut plan = Round::draw(common.seed, number);
        spread(&mut plan, trial.spread());
        let before = common.shared.book().counts();
        let begin = Instant::now();
        let served = Served {
            places: Arc::clone(&self.places),
            shared: Arc::clone(&common.shared),
            round: number,
            seed: common.seed,
        };
        let mut clients = load::begin(&served, &plan);
        // Disks of nodes have nothing that was promised; their clocks are all off by the same, the database's is not.
        if let Some(turn) = plan.weather.filter(|turn| matches!(turn.change, Change::Clock(_))) {
            let weather = Arc::clone(&common.weather);
            clients.spawn(async move {
                tokio::time::sleep(turn.at).await;
                weather.turn(turn.change).await
            });
        }
        let sampling = tokio::spawn(served.clone().sample_all(self.settings.len()));
        self.happen(common, &trial, number).await?;
        collect(clients).await?;
        self.all_ready().await?;
        if trial.until_idle {
            self.until_idle(IDLE_LIMIT).await;
        }
        sampling.abort();
        self.judge_unrecorded(common, &served).await?;
        common.shared.book().failing.clear(); // the database is back, and what could not be written is
        let after = common.shared.book().counts();
        Ok(format!(
            "{:?} {:?}, {:.2} s; accepted {}, cancels sent {}, answered 200 {}",
            trial.fault,
            trial.moment,
            begin.elapsed().as_secs_f32(),
            after[0] - before[0],
            after[1] - before[1],
            after[2] - before[2]
        ))
    }

    /// All nodes at once, on a database in which there is nothing.
    async fn first(&mut self, common: &mut Common) -> anyhow::Result<()> {
        let mut places = Vec::new();
        for node in 0..self.settings.len() {
            self.start(common, node)?;
        }
        for node in 0..self.settings.len() {
            places.push(self.listening(common, node, 0).await?);
        }
        let ledger = common.shared.ledger().path().to_owned();
        places[0].api.deploy(&ledger).await?;
        for place in &places {
            // The others hear of it.
            let begin = Instant::now();
            while place.api.youngest().await.is_err() {
                ensure!(begin.elapsed() < READY_LIMIT, "life {} does not know the functions", place.life);
                tokio::time::sleep(SETTLE_POLL).await;
            }
        }
        self.places = Arc::new(Places::of(places));
        self.all_ready().await
    }

    fn start(&mut self, common: &mut Common, node: usize) -> anyhow::Result<()> {
        let number = common.next_life();
        self.node_of.push(node);
        self.lives[node] = Some(self.settings[node].start(number)?);
        Ok(())
    }

    /// Waits until a started node listens: nothing of an earlier life of it lives any more then.
    async fn listening(&mut self, common: &Common, node: usize, round: u64) -> anyhow::Result<Place> {
        let life = self.lives[node].as_mut().context("it was started")?;
        let endpoint = life.ready().await?;
        let number = life.number;
        let earlier = |of: u32| of < number && self.is_of(of, node);
        common.look_for_survivors(round, earlier, &format!("life {number} of the same node listens"))?;
        Ok(Place { api: Api::new(&endpoint, &self.settings[node].data)?, life: number })
    }

    fn is_of(&self, life: u32, node: usize) -> bool {
        self.node_of.get(life as usize) == Some(&node)
    }

    async fn start_again(&mut self, common: &mut Common, nodes: &[usize], round: u64) -> anyhow::Result<()> {
        for node in nodes {
            self.start(common, *node)?;
        }
        for node in nodes {
            let place = self.listening(common, *node, round).await?;
            self.places.moved(*node, place);
        }
        Ok(())
    }

    async fn happen(&mut self, common: &mut Common, trial: &Trial, round: u64) -> anyhow::Result<()> {
        match trial.moment {
            Moment::After(after) => tokio::time::sleep(after).await,
            // Too late is in time as well.
            Moment::AtAnswer(count, at_most) => {
                drop(tokio::time::timeout(at_most, common.shared.answers(count)).await);
            }
        }
        match &trial.fault {
            Fault::Kill { nodes, gone, stillborn } => {
                self.kill(common, nodes, *gone, round).await?;
                if let Some(after) = stillborn {
                    for node in nodes {
                        self.start(common, *node)?;
                    }
                    tokio::time::sleep(*after).await;
                    for node in nodes {
                        self.lives[*node].take().context("it was started")?.kill()?;
                        common.figures.kills_at_start += 1;
                    }
                }
                self.start_again(common, nodes, round).await
            }
            Fault::Sleep(node, lasts) => self.sleep(common, *node, *lasts, round).await,
            Fault::Leave(node, gone) => {
                let life = self.lives[*node].take().context("every node lives")?;
                let number = life.number;
                life.end().await?;
                common.figures.clean_ends += 1;
                let when = format!("life {number} had ended in order");
                common.look_for_survivors(round, |of| of <= number && self.is_of(of, *node), &when)?;
                tokio::time::sleep(*gone).await;
                self.start_again(common, &[*node], round).await
            }
            Fault::Database(gone) => self.lose_database(common, *gone, round).await,
        }
    }

    /// Kills all of them before it looks at any.
    async fn kill(
        &mut self,
        common: &mut Common,
        nodes: &[usize],
        gone: Duration,
        round: u64,
    ) -> anyhow::Result<()> {
        let mut killed = Vec::new();
        for node in nodes {
            let life = self.lives[*node].take().context("every node lives")?;
            killed.push(life.number);
            life.kill()?;
            common.figures.kills += 1;
        }
        tokio::time::sleep(gone).await;
        if gone < LEASE {
            return Ok(()); // the next life looks after it
        }
        let begin = Instant::now();
        while common.token.living()?.iter().any(|living| killed.contains(&living.life)) {
            if begin.elapsed() > MOMENTS {
                return common.look_for_survivors(round, |of| killed.contains(&of), "its node was long dead");
            }
            tokio::time::sleep(SETTLE_POLL).await;
        }
        Ok(())
    }

    /// A node that sleeps beyond its lease: its code is dead before anybody may run the same again.
    async fn sleep(
        &mut self,
        common: &mut Common,
        node: usize,
        lasts: Duration,
        round: u64,
    ) -> anyhow::Result<()> {
        let life = self.lives[node].as_mut().context("every node lives")?;
        let number = life.number;
        life.signal(Signal::STOP)?;
        tokio::time::sleep(lasts).await;
        let looked = self.look_for_code(common, |of| of == number, "its node slept beyond its lease", round);
        let life = self.lives[node].as_mut().context("every node lives")?;
        life.signal(Signal::CONT)?;
        common.figures.sleeps += 1;
        looked
    }

    async fn lose_database(&mut self, common: &mut Common, gone: Duration, round: u64) -> anyhow::Result<()> {
        let lives = self.lives.iter().flatten().map(|life| life.number);
        common.shared.book().failing.extend(lives);
        self.database.crash()?;
        common.figures.database_kills += 1;
        tokio::time::sleep(gone).await;
        if gone > LEASE {
            self.look_for_code(common, |_| true, "the database was away for longer than a lease", round)?;
        }
        self.database.begin().await
    }

    /// What is not the node's own program is code of functions, or was started by it.
    fn look_for_code(
        &self,
        common: &Common,
        is_late: impl Fn(u32) -> bool,
        when: &str,
        round: u64,
    ) -> anyhow::Result<()> {
        let program = &self.settings[0].program;
        for living in common.token.living()? {
            if is_late(living.life) && !living.is_of_the_node(program) {
                let what = format!("of life {}, when {when}: {} {}", living.life, living.pid, living.command);
                common.shared.book().survivors.push(Survivor { round, what });
            }
        }
        Ok(())
    }

    /// Waits until every node holds its lease again and writes.
    async fn all_ready(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        for node in 0..self.settings.len() {
            let place = self.places.pick(node as u64).context("every node listens")?;
            while !place.api.is_ready().await {
                self.lives[node].as_mut().context("every node lives")?.still_there()?;
                ensure!(begin.elapsed() < READY_LIMIT, "life {} does not get ready", place.life);
                tokio::time::sleep(SETTLE_POLL).await;
            }
        }
        Ok(())
    }

    /// Whose epoch is another than at the end of the last round had another life, or lost its lease.
    async fn judge_unrecorded(&mut self, common: &Common, served: &Served) -> anyhow::Result<()> {
        let mut raised = Vec::new();
        for node in 0..self.settings.len() {
            let place = self.places.pick(node as u64).context("every node listens")?;
            let epoch = place.api.epoch().await?;
            let before = std::mem::replace(&mut self.epochs[node], epoch);
            raised.push(before != epoch);
        }
        let lost = |life: u32| {
            let node = self.node_of.get(life as usize).and_then(|node| raised.get(*node));
            common.shared.book().failing.contains(&life) || node.copied().unwrap_or(true)
        };
        served.judge_unrecorded(lost);
        Ok(())
    }

    /// Waits until nothing waits or runs any more on any node, for so long at most. Whom it asks may be without a
    /// lease for a moment.
    async fn until_idle(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        for turn in 0.. {
            let Some(place) = self.places.pick(turn) else { return };
            if matches!(place.api.unsettled().await, Ok(0)) || Instant::now() > deadline {
                return;
            }
            tokio::time::sleep(SETTLE_POLL).await;
        }
    }

    /// Everything that was accepted comes to its end, and every node says the same of it.
    pub(super) async fn settle(&mut self, common: &mut Common, round: u64) -> anyhow::Result<Vec<Violation>> {
        self.until_idle(SETTLE_LIMIT).await;
        let mut listing = Vec::new();
        for node in 0..self.settings.len() {
            let place = self.places.pick(node as u64).context("every node listens")?;
            listing = place.api.all().await?;
            let at = common.shared.length()?;
            common.shared.book().saw(&listing, at, place.life, round);
        }
        let place = self.places.pick(0).context("every node listens")?;
        common.read_receipts(&place.api).await?;
        for life in self.lives.iter_mut().filter_map(Option::take) {
            life.end().await.context("at the end")?;
        }
        common.look_for_survivors(round, |_| true, "everything had ended")?;
        let mut ledger = common.shared.ledger();
        ledger.catch_up()?;
        common.figures.listed = listing.len();
        Ok(check::at_the_end(&common.shared.book(), &ledger.entries, &listing))
    }
}

/// Has everything come so many times later.
fn spread(plan: &mut Round, times: u32) {
    for call in &mut plan.calls {
        call.at *= times;
        for cancel in &mut call.cancels {
            cancel.after *= times;
        }
    }
    for older in &mut plan.older {
        older.at *= times;
    }
}
