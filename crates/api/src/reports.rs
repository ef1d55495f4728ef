//! What a node counted of its functions' requests, in the shapes of the API: series of one value a minute.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use store::FunctionKey;
use supervisor::{Counts, FunctionSpec, MINUTES_KEPT, Minute, Of};

use crate::{
    auth::{Head, Right},
    error::ApiError,
    functions::number,
    list_invocations,
    registry::Api,
    spec::bad,
    urn::Urn,
};

const MINUTE_MS: i64 = 60_000;
/// The period of the project's figures, in minutes, if none is asked for.
const DEFAULT_PERIOD: usize = 60;
/// Values of a series of instances, and functions of a report: the most and the default (the API's own).
const MAX_ROWS: usize = 500;
const DEFAULT_ROWS: usize = 100;

/// One series: its name, and its value in a minute in which something happened; `None`: there is none.
type Series = (&'static str, fn(&Counts) -> Option<f64>);

const COUNT: Series = ("count", |counts| Some(counts.count.into()));
const FAILED: Series = ("fail_count", |counts| Some(counts.failed.into()));
const FUNCTION_ERRORS: Series = ("function_error_count", |counts| Some(counts.function_errors.into()));
const SYSTEM_ERRORS: Series = ("system_error_count", |counts| Some(counts.system_errors.into()));
const REJECTED: Series = ("reject_count", |counts| Some(counts.rejected.into()));
const DURATION: Series = ("duration", |counts| {
    let mean = counts.duration_us.checked_div(counts.timed.into())?;
    Some(ms(mean))
});
const LONGEST: Series = ("max_duration", |counts| (counts.timed > 0).then(|| ms(counts.longest_us)));
const SHORTEST: Series = ("min_duration", |counts| (counts.timed > 0).then(|| ms(counts.shortest_us)));
const INSTANCES: Series = ("instance_num", |counts| Some(counts.instances.into()));
const RESERVED: Series = ("reserved_instance_num", |counts| Some(counts.reserved.into()));
const RUNNING: Series = ("concurrency_num", |counts| Some(counts.running.into()));

const STATISTICS: [Series; 10] =
    [COUNT, FAILED, FUNCTION_ERRORS, SYSTEM_ERRORS, REJECTED, DURATION, LONGEST, SHORTEST, RESERVED, RUNNING];
const METRICS: [Series; 11] = [
    COUNT,
    FAILED,
    FUNCTION_ERRORS,
    SYSTEM_ERRORS,
    REJECTED,
    DURATION,
    LONGEST,
    SHORTEST,
    INSTANCES,
    RESERVED,
    RUNNING,
];

/// What a report may be ordered by: its name, and its figure.
type Ranking = (&'static str, fn(&Counts) -> u32);

const REPORTS: [Ranking; 5] = [
    ("failcount", |counts| counts.failed),
    ("count", |counts| counts.count),
    ("rejectcount", |counts| counts.rejected),
    ("functionerrorcount", |counts| counts.function_errors),
    ("systemerrorcount", |counts| counts.system_errors),
];

#[expect(clippy::cast_precision_loss, reason = "a duration of 2^53 us is one of 285 years")]
fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}

/// The minutes of a window, newest last: so many up to this one, after leaving out the newest `skipped`.
fn window(now_ms: i64, minutes: usize, skipped: usize) -> impl Iterator<Item = i64> + Clone {
    let length = |minutes: usize| i64::try_from(minutes).unwrap_or(i64::MAX);
    let this = now_ms - now_ms.rem_euclid(MINUTE_MS);
    let last = this - length(skipped) * MINUTE_MS;
    (0..length(minutes)).rev().map(move |back| last - back * MINUTE_MS)
}

/// Values of a window, -1 where there is none.
fn series(all: &[Series], minutes: &[Minute], window: impl Iterator<Item = i64> + Clone) -> Value {
    let at = |start: i64| {
        let found = minutes.binary_search_by_key(&start, |minute| minute.start_ms);
        found.ok().map(|at| &minutes[at].counts)
    };
    let mut shown = Map::new();
    for (name, value) in all {
        let point = |start| json!({ "timestamp": start, "value": at(start).and_then(value).unwrap_or(-1.0) });
        shown.insert((*name).to_owned(), window.clone().map(point).collect());
    }
    Value::Object(shown)
}

/// A period in minutes, as far back as figures are kept.
fn period(text: Option<&str>) -> Result<usize, ApiError> {
    match number(text, "period")? {
        None => Ok(DEFAULT_PERIOD),
        Some(period) if (1..=MINUTES_KEPT).contains(&period) => Ok(period),
        Some(period) => {
            let why =
                format!("period {period} is not between 1 and {MINUTES_KEPT} minutes: a node keeps no more");
            Err(bad("FSS.1001", why))
        }
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

impl Api {
    async fn reported(&self, head: &Head, project: &str, urn: &str) -> Result<Arc<FunctionSpec>, ApiError> {
        self.caller(head, project, Right::Read)?;
        self.version(&Urn::parse(urn, project)?, project)
    }

    async fn last(&self, of: Of, all: &[Series], period: usize) -> Value {
        let window = window(now_ms(), period, 0);
        let from = window.clone().next().unwrap_or(i64::MAX);
        series(all, &self.handle.minutes(of, from).await, window)
    }
}

/// ShowFunctionMetrics.
pub(crate) async fn metrics(
    State(api): State<Arc<Api>>,
    Path((project, urn, minutes)): Path<(String, String, String)>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    let function = api.reported(&head, &project, &urn).await?;
    let period = period(Some(&minutes))?;
    Ok(Json(api.last(Of::Function(FunctionKey::clone(&function.key)), &METRICS, period).await))
}

/// ListFunctionStatistics.
pub(crate) async fn statistics(
    State(api): State<Arc<Api>>,
    Path((project, urn, minutes)): Path<(String, String, String)>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    let function = api.reported(&head, &project, &urn).await?;
    let period = period(Some(&minutes))?;
    Ok(Json(api.last(Of::Function(FunctionKey::clone(&function.key)), &STATISTICS, period).await))
}

#[derive(Debug, Deserialize)]
pub(crate) struct PageQuery {
    marker: Option<String>,
    limit: Option<String>,
}

/// ShowFuncReservedInstanceMetrics: `limit` minutes up to `marker` minutes ago.
pub(crate) async fn instances(
    State(api): State<Arc<Api>>,
    Path((project, urn)): Path<(String, String)>,
    Query(query): Query<PageQuery>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    let function = api.reported(&head, &project, &urn).await?;
    let skipped = number(query.marker.as_deref(), "marker")?.unwrap_or(0).min(MINUTES_KEPT);
    let window = window(now_ms(), rows(query.limit.as_deref())?.min(MINUTES_KEPT - skipped), skipped);
    let from = window.clone().next().unwrap_or(i64::MAX);
    let minutes = api.handle.minutes(Of::Function(FunctionKey::clone(&function.key)), from).await;
    // The one answer of the API with names of this kind.
    let all = [("instanceNum", INSTANCES.1), ("reservedInstanceNum", RESERVED.1)];
    Ok(Json(series(&all, &minutes, window)))
}

fn rows(limit: Option<&str>) -> Result<usize, ApiError> {
    Ok(match number(limit, "limit")? {
        None | Some(0) => DEFAULT_ROWS,
        Some(limit) => limit.min(MAX_ROWS),
    })
}

#[derive(Debug, Deserialize)]
pub(crate) struct StatisticsQuery {
    filter: Option<String>,
    period: Option<String>,
}

/// ListStatistics: those of all functions of the project together.
pub(crate) async fn project_statistics(
    State(api): State<Arc<Api>>,
    Path(project): Path<String>,
    Query(query): Query<StatisticsQuery>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    api.caller(&head, &project, Right::Read)?;
    match query.filter.as_deref() {
        Some("monitor_data") => {}
        Some("monthly_report") => {
            return Err(ApiError::unsupported_because("a node counts minutes of one day, and not months"));
        }
        Some(other) => {
            let why = format!("filter {other:?} is neither \"monitor_data\" nor \"monthly_report\"");
            return Err(bad("FSS.1001", why));
        }
        None => return Err(bad("FSS.1001", "filter is missing".into())),
    }
    let period = period(query.period.as_deref())?;
    let statistics = api.last(Of::Project(project), &STATISTICS, period).await;
    Ok(Json(json!({ "count": [], "gbs": [], "gpu_gbs": [], "statistics": statistics })))
}

#[derive(Debug, Deserialize)]
pub(crate) struct ReportQuery {
    #[serde(rename = "type")]
    kind: Option<String>,
    start_time: Option<String>,
    end_time: Option<String>,
    limit: Option<String>,
}

/// ListFunctionAsMetric: the functions with the most of something, the most first.
pub(crate) async fn report(
    State(api): State<Arc<Api>>,
    Path(project): Path<String>,
    Query(query): Query<ReportQuery>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    api.caller(&head, &project, Right::Read)?;
    let kind = query.kind.as_deref().filter(|kind| !kind.is_empty()).unwrap_or(REPORTS[0].0);
    let Some((_, value)) = REPORTS.iter().find(|(name, _)| *name == kind) else {
        let known = REPORTS.map(|(name, _)| name);
        return Err(bad("FSS.1001", format!("type {kind:?} is not one of {known:?}")));
    };
    let time = |text: Option<&str>| match text.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => list_invocations::time(text).map(Some),
    };
    let from = time(query.start_time.as_deref())?.unwrap_or(0);
    let until = time(query.end_time.as_deref())?.unwrap_or(i64::MAX);
    let limit = rows(query.limit.as_deref())?;
    let totals = api.handle.totals(project.clone(), from, until).await;
    let mut values: Vec<(u32, String)> = totals
        .iter()
        .map(|(key, counts)| (value(counts), crate::urn::long(&api.settings.region, key)))
        .filter(|(value, _)| *value > 0)
        .collect();
    values.sort_unstable_by(|(one, name), (other, other_name)| other.cmp(one).then(name.cmp(other_name)));
    let count = values.len();
    let page: Vec<Value> =
        values.into_iter().take(limit).map(|(value, key)| json!({ "key": key, "value": value })).collect();
    let next = if page.len() < count { page.len() } else { 0 };
    Ok(Json(json!({ "values": page, "count": count, "next_marker": next })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends_with_this_minute_or_before_the_newest_that_are_skipped() {
        let minutes: Vec<i64> = window(185_000, 3, 0).collect();
        assert_eq!(minutes, [60_000, 120_000, 180_000]);
        let earlier: Vec<i64> = window(185_000, 2, 1).collect();
        assert_eq!(earlier, [60_000, 120_000]);
        assert_eq!(window(185_000, 0, 0).count(), 0);
    }

    #[test]
    fn minutes_without_anything_are_minus_one_and_so_is_a_duration_of_nothing() {
        let counts = Counts { count: 2, failed: 2, ..Counts::default() };
        let timed =
            Counts { count: 2, timed: 2, duration_us: 3_000, longest_us: 2_500, shortest_us: 500, ..counts };
        let minutes = [Minute { start_ms: 60_000, counts }, Minute { start_ms: 180_000, counts: timed }];
        let shown = series(&METRICS, &minutes, window(185_000, 3, 0));
        let values = |name: &str| {
            let points = shown[name].as_array().unwrap();
            points.iter().map(|point| point["value"].as_f64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(values("count"), [2.0, -1.0, 2.0]);
        assert_eq!(values("system_error_count"), [0.0, -1.0, 0.0]);
        assert_eq!(values("duration"), [-1.0, -1.0, 1.5]);
        assert_eq!(values("max_duration"), [-1.0, -1.0, 2.5]);
        assert_eq!(values("min_duration"), [-1.0, -1.0, 0.5]);
        assert_eq!(shown["count"][0]["timestamp"], 60_000);
        assert_eq!(shown.as_object().unwrap().len(), METRICS.len());
    }

    #[test]
    fn a_period_is_as_long_as_figures_are_kept() {
        assert_eq!(period(None), Ok(DEFAULT_PERIOD));
        assert_eq!(period(Some("1440")), Ok(1_440));
        for wrong in ["0", "1441", "-5", "day"] {
            assert_eq!(period(Some(wrong)).unwrap_err().code, "FSS.1001", "{wrong}");
        }
    }
}
