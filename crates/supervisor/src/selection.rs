//! Which live requests are meant where they are not named one by one.
//!
//! A selection is taken in the shell, in one message: it is of one moment in the order of all that arrives.

use std::{
    fmt::{self, Display},
    sync::Arc,
    time::{Duration, Instant},
};

use cancel::{RequestId, State};
use serde::Serialize;
use store::{FunctionFilter, FunctionKey, Labels, StoreError};
use utoipa::ToSchema;

use crate::{
    request::Request,
    settings::MAX_SELECTED,
    shell::{Shell, micros},
    view::RequestRow,
};

/// Where a request stands, as a selection may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No runtime holds it: it waits for a place, for its instance to start, or for its next attempt.
    Waiting,
    /// A runtime holds it.
    Running,
    /// It has settled, and its code may still run on a draining instance.
    Draining,
}

/// What the requests that are meant have in common; all that is given must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Whose they are.
    pub project: String,
    /// What they run.
    pub function: Option<FunctionFilter>,
    /// They arrived longer ago than this.
    pub older_than: Option<Duration>,
    /// Where they stand; of what drains only where that is asked for.
    pub standing: Option<Standing>,
    /// The request that made them.
    pub parent: Option<RequestId>,
    /// What was said of them.
    pub labels: Labels,
    /// Only what had arrived by then.
    pub as_of: Option<AsOf>,
}

/// A moment in one life of a node: in the order of arrivals, and by its monotonic clock. A text of numbers for
/// everybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsOf {
    life_ms: i64,
    order: u64,
    /// Since the life began.
    at_us: u64,
    /// By the clock on the wall, in milliseconds since the Unix epoch, where several nodes share a store: all that means
    /// something to the others.
    wall_ms: Option<i64>,
}

impl AsOf {
    /// Reads what [`Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (life, rest) = text.split_once('.')?;
        let (order, at) = rest.split_once('.')?;
        let (at, wall) = at.split_once('.').map_or((at, None), |(at, wall)| (at, Some(wall)));
        let wall_ms = wall.map(str::parse).transpose().ok()?;
        let (life_ms, order, at_us) = (life.parse().ok()?, order.parse().ok()?, at.parse().ok()?);
        Some(Self { life_ms, order, at_us, wall_ms })
    }

    /// The same as other nodes understand it, if it is of a node that shares its store.
    pub(crate) fn wall_ms(&self) -> Option<i64> {
        self.wall_ms
    }

    /// The same with what other nodes understand.
    pub(crate) fn at_wall(self, ms: i64) -> Self {
        Self { wall_ms: Some(ms), ..self }
    }
}

impl Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.life_ms, self.order, self.at_us)?;
        self.wall_ms.map_or(Ok(()), |wall| write!(f, ".{wall}"))
    }
}

/// Why there is no selection; nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSelected {
    /// More match than one selection may have.
    #[error("{0} requests match, and one selection may have {MAX_SELECTED}: narrow it")]
    TooMany(usize),
    /// The moment is of an earlier life of the node, or of another one.
    #[error("as_of is of an earlier life of the node, or of another node: plan again")]
    EarlierLife,
    /// What other nodes have cannot be read.
    #[error("what other nodes have could not be read: {0}")]
    Store(#[from] StoreError),
    /// The node has ended.
    #[error("the node has ended")]
    Gone,
}

/// Requests that were selected, in the order of their arrival: first those of this node.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    pub(crate) as_of: AsOf,
    pub(crate) requests: Vec<Found>,
    /// The first of those that are elsewhere, as they are shown.
    pub(crate) first_elsewhere: Vec<RequestRow>,
}

/// One of them, as it stood then.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) request: RequestId,
    pub(crate) function: Arc<FunctionKey>,
    pub(crate) standing: Standing,
    pub(crate) whereabouts: Whereabouts,
}

/// Who can say what a cancel of it would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// This node.
    Here,
    /// Another node, or whichever claims it.
    Elsewhere {
        /// It is fenced already.
        stopping: bool,
    },
}

/// A page of live requests, in the order of their arrival; first those of the node that was asked, then those of
/// others and those that wait for any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ListedPage {
    /// The requests of this page.
    pub requests: Vec<RequestRow>,
    /// How many match in all.
    pub count: usize,
    /// Where the next page begins; 0 after the last.
    pub next_marker: u64,
    /// The node that was asked, where several share its store: then each row names its node, but what waits for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

impl Shell {
    /// Selects now. Costs a look at each live request, as a look at the node does.
    pub(crate) fn select(&self, selection: &Selection) -> Result<Selected, NotSelected> {
        let mut found = self.matching(selection)?;
        if found.len() > MAX_SELECTED {
            return Err(NotSelected::TooMany(found.len()));
        }
        found.sort_unstable_by_key(|(order, ..)| *order);
        let requests = found.into_iter().filter_map(|(_, request, standing)| {
            let function = Arc::clone(&self.requests.get(&request)?.function.key);
            Some(Found { request, function, standing, whereabouts: Whereabouts::Here })
        });
        let (began, life_ms) = self.life_began;
        let as_of = AsOf { life_ms, order: self.next_order, at_us: micros(began), wall_ms: None };
        Ok(Selected { as_of, requests: requests.collect(), first_elsewhere: Vec::new() })
    }

    pub(crate) fn list(
        &self,
        selection: &Selection,
        after: u64,
        limit: usize,
    ) -> Result<ListedPage, NotSelected> {
        let mut found = self.matching(selection)?;
        let count = found.len();
        found.retain(|(order, ..)| *order > after);
        found.sort_unstable_by_key(|(order, ..)| *order);
        let more = found.len() > limit;
        found.truncate(limit);
        let next_marker = found.last().filter(|_| more).map_or(0, |(order, ..)| *order);
        let views = found.iter().filter_map(|(_, request, _)| self.engine.request(*request));
        let requests = views.map(|view| self.request_row(&view)).collect();
        Ok(ListedPage { requests, count, next_marker, node: None })
    }

    fn matching(&self, selection: &Selection) -> Result<Vec<(u64, RequestId, Standing)>, NotSelected> {
        let (began, life_ms) = self.life_began;
        let now = Instant::now();
        let (before, moment) = match selection.as_of {
            Some(as_of) if as_of.life_ms != life_ms => return Err(NotSelected::EarlierLife),
            Some(as_of) => {
                (as_of.order, began.checked_add(Duration::from_micros(as_of.at_us)).unwrap_or(now))
            }
            None => (u64::MAX, now),
        };
        let moment = moment.min(now);
        let fits = self
            .requests
            .iter()
            .filter(|(_, request)| request.order < before && selection.fits(request, moment));
        let found = fits.filter_map(|(id, request)| {
            let standing = self.standing(*id)?;
            // Whoever has begun to run since did not run then.
            let stood = standing != Standing::Running || selection.standing.is_none() || ran(request, moment);
            (stood && selection.wants(standing)).then_some((request.order, *id, standing))
        });
        Ok(found.collect())
    }

    fn standing(&self, request: RequestId) -> Option<Standing> {
        Some(match self.engine.request(request)?.state {
            State::Queued | State::Placed => Standing::Waiting,
            State::Running => Standing::Running,
            State::Draining => Standing::Draining,
            State::Settled => return None,
        })
    }
}

/// Whether a runtime held it at that moment already.
fn ran(request: &Request, moment: Instant) -> bool {
    request.started.is_some_and(|(started, _)| started <= moment)
}

impl Selection {
    /// Whether it is meant, as things were at that moment: nobody grows older after it.
    fn fits(&self, request: &Request, moment: Instant) -> bool {
        let key = &request.function.key;
        let (then, age) = request.taken_up;
        let age = moment.saturating_duration_since(then) + age;
        // What was taken up from an earlier life and hangs below nothing was made by the nearest that is over.
        let made_by =
            |parent: &RequestId| request.parent.as_ref().or(request.orphan_of.first()) == Some(parent);
        key.project == self.project
            && self.function.as_ref().is_none_or(|function| function.fits(key))
            && self.older_than.is_none_or(|limit| age > limit)
            && self.parent.as_ref().is_none_or(made_by)
            && request.labels.include(&self.labels)
    }

    fn wants(&self, standing: Standing) -> bool {
        self.standing.map_or(standing != Standing::Draining, |wanted| wanted == standing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_comes_back_from_its_text() {
        let moment = AsOf { life_ms: 1_764_000_000_123, order: 20_501, at_us: 7, wall_ms: None };
        for moment in [moment, moment.at_wall(1_764_000_000_456)] {
            assert_eq!(AsOf::parse(&moment.to_string()), Some(moment));
        }
        for wrong in ["", "1", "1.2", "1.2.", ".1.2", "1.2.3.", "1.2.3.4.5", "a.b.c", "1.-2.3"] {
            assert_eq!(AsOf::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_drains_is_meant_only_where_it_is_asked_for() {
        let of = |standing| Selection {
            project: String::new(),
            function: None,
            older_than: None,
            standing,
            parent: None,
            labels: Labels::default(),
            as_of: None,
        };
        let all = [Standing::Waiting, Standing::Running, Standing::Draining];
        assert_eq!(all.map(|standing| of(None).wants(standing)), [true, true, false]);
        assert_eq!(all.map(|standing| of(Some(Standing::Draining)).wants(standing)), [false, false, true]);
    }
}
