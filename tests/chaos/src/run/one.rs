//! One node on one data folder: each round is a life of it.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use tokio::time::Instant;

use super::{Common, IDLE_LIMIT, SETTLE_LIMIT, collect, until_idle};
use crate::{
    check::{self, Violation},
    client::Api,
    life::{Life, Setting},
    load::{self, Served},
    places::{Place, Places},
    plan::{End, Round},
    weather::{Change, Weather},
};

/// The node.
pub(super) struct One {
    setting: Setting,
}

impl One {
    pub(super) fn prepare(common: &Common, program: PathBuf) -> Self {
        let folder = common.folder.path();
        let setting = Setting {
            program,
            data: folder.join("data"),
            log: folder.join("node.log"),
            token: common.token.clone(),
            weather: Arc::clone(&common.weather),
            shared: None,
        };
        Self { setting }
    }

    pub(super) fn last_words(&self, lines: usize) -> Vec<String> {
        crate::life::last_words(&self.setting.log, lines)
    }

    pub(super) async fn round(&mut self, common: &mut Common, number: u64) -> anyhow::Result<String> {
        let plan = Round::draw(common.seed, number);
        for after in &plan.stillborn {
            let life = self.setting.start(common.next_life())?;
            tokio::time::sleep(*after).await;
            life.kill()?;
            common.figures.kills_at_start += 1;
        }
        let (life, api) = self.serve(common, number).await?;
        if number == 0 {
            let ledger = common.shared.ledger().path().to_owned();
            api.deploy(&ledger).await?;
        }
        let before = common.shared.book().counts();
        let begin = Instant::now();
        let place = Place { api: api.clone(), life: life.number };
        let places = Arc::new(Places::of(vec![place]));
        let served = Served { places, shared: Arc::clone(&common.shared), round: number, seed: common.seed };
        let mut clients = load::begin(&served, &plan);
        let watched = api.clone();
        clients.spawn(async move {
            served.sample(watched).await;
            Ok(())
        });
        if let Some(turn) = plan.weather {
            if matches!(turn.change, Change::Failing(_)) {
                common.shared.book().failing.insert(life.number);
            }
            let weather: Arc<Weather> = Arc::clone(&common.weather);
            clients.spawn(async move {
                tokio::time::sleep(turn.at).await;
                weather.turn(turn.change).await
            });
        }
        let number_of_life = life.number;
        let how = end(common, life, &api, plan.end, number).await?;
        let lived = begin.elapsed();
        collect(clients).await?;
        let after = common.shared.book().counts();
        Ok(format!(
            "life {number_of_life}{}, {how} after {:.2} s; accepted {}, cancels sent {}, answered 200 {}",
            plan.weather.map(|turn| format!(", {:?}", turn.change)).unwrap_or_default(),
            lived.as_secs_f32(),
            after[0] - before[0],
            after[1] - before[1],
            after[2] - before[2]
        ))
    }

    /// Starts a life that serves. It listens only when nothing of an earlier one lives any more.
    async fn serve(&self, common: &mut Common, round: u64) -> anyhow::Result<(Life, Api)> {
        let mut life = self.setting.start(common.next_life())?;
        let endpoint = life.ready().await?;
        let number = life.number;
        common.look_for_survivors(round, |of| of < number, &format!("life {number} listens"))?;
        Ok((life, Api::new(&endpoint, &self.setting.data)?))
    }

    /// One more life, in which everything that was accepted comes to its end.
    pub(super) async fn settle(&mut self, common: &mut Common, round: u64) -> anyhow::Result<Vec<Violation>> {
        let (life, api) = self.serve(common, round).await?;
        // What is left then is lost, and the listing says which it is.
        until_idle(&api, SETTLE_LIMIT).await?;
        let listing = api.all().await?;
        common.read_receipts(&api).await?;
        life.end().await.context("the last life")?;
        common.look_for_survivors(round, |_| true, "everything had ended")?;
        let mut ledger = common.shared.ledger();
        ledger.catch_up()?;
        common.figures.listed = listing.len();
        common.figures.syncs = common.weather.felt()?;
        Ok(check::at_the_end(&common.shared.book(), &ledger.entries, &listing))
    }
}

async fn end(
    common: &mut Common,
    life: Life,
    api: &Api,
    end: End,
    round: u64,
) -> anyhow::Result<&'static str> {
    let how = match end {
        End::Kill(after) => {
            tokio::time::sleep(after).await;
            "killed"
        }
        End::KillAtAnswer(count, at_most) => {
            match tokio::time::timeout(at_most, common.shared.answers(count)).await {
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
            common.figures.clean_ends += 1;
            let when = format!("life {number} had ended in order");
            common.look_for_survivors(round, |of| of <= number, &when)?;
            return Ok("ended in order");
        }
    };
    life.kill()?;
    common.figures.kills += 1;
    Ok(how)
}
