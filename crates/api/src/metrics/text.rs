//! Families of series as the encoder takes them.

use meter::{BOUNDS_US, Distribution};
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder},
    metrics::{MetricType, exemplar::Exemplar},
    registry::Unit,
};

type Written = Result<(), std::fmt::Error>;

/// Names and values of labels.
pub(super) struct Labels<'a>(pub(super) Vec<(&'static str, &'a str)>);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Written {
        self.0.as_slice().encode(encoder)
    }
}

/// No exemplars: there is no series that says which request it was.
type NoExemplar = Option<&'static Exemplar<Vec<(String, String)>, f64>>;
const NONE: NoExemplar = None;

/// What is written to.
pub(super) struct Page<'a, 'b>(pub(super) &'a mut DescriptorEncoder<'b>);

impl Page<'_, '_> {
    fn family(
        &mut self,
        (name, help, unit): (&str, &str, Option<Unit>),
        kind: MetricType,
        mut series: impl FnMut(&mut MetricEncoder<'_>) -> Written,
    ) -> Written {
        series(&mut self.0.encode_descriptor(name, help, unit.as_ref(), kind)?)
    }

    /// A family of one number for each combination of labels.
    fn each<'l>(
        &mut self,
        (name, help): (&str, &str),
        kind: MetricType,
        values: impl IntoIterator<Item = (Vec<(&'static str, &'l str)>, u64)>,
        write: impl Fn(MetricEncoder<'_>, u64) -> Written,
    ) -> Written {
        let mut values = values.into_iter();
        self.family((name, help, None), kind, |to| {
            values.try_for_each(|(labels, value)| write(to.encode_family(&Labels(labels))?, value))
        })
    }

    /// One number that only grows.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> Written {
        self.family((name, help, None), MetricType::Counter, |to| to.encode_counter(&value, NONE))
    }

    /// The same for each combination of labels.
    pub(super) fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Vec<(&'static str, &'l str)>, u64)>,
    ) -> Written {
        self.each((name, help), MetricType::Counter, values, |mut to, value| to.encode_counter(&value, NONE))
    }

    /// One number that only grows, of a unit that is divided.
    pub(super) fn seconds_counter(&mut self, name: &str, help: &str, value: f64) -> Written {
        self.family((name, help, Some(Unit::Seconds)), MetricType::Counter, |to| {
            to.encode_counter(&value, NONE)
        })
    }

    /// One number of this moment.
    pub(super) fn gauge(&mut self, name: &str, help: &str, unit: Option<Unit>, value: f64) -> Written {
        self.family((name, help, unit), MetricType::Gauge, |to| to.encode_gauge(&value))
    }

    /// The same for each combination of labels.
    pub(super) fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Vec<(&'static str, &'l str)>, u64)>,
    ) -> Written {
        self.each((name, help), MetricType::Gauge, values, |mut to, value| {
            to.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
        })
    }

    /// Times, in seconds.
    pub(super) fn histograms<'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Vec<(&'static str, &'l str)>, Distribution)>,
    ) -> Written {
        let mut values = values.into_iter();
        self.family((name, help, Some(Unit::Seconds)), MetricType::Histogram, |to| {
            values.try_for_each(|(labels, seen)| {
                let bounds = BOUNDS_US.iter().map(|us| seconds(*us)).chain([f64::INFINITY]);
                let buckets: Vec<(f64, u64)> = bounds.zip(seen.buckets).collect();
                let (sum, count) = (seconds(seen.sum_us), seen.count());
                let exemplars =
                    None::<&std::collections::HashMap<usize, Exemplar<Vec<(String, String)>, f64>>>;
                match labels.is_empty() {
                    true => to.encode_histogram(sum, count, &buckets, exemplars),
                    false => {
                        let labels = Labels(labels);
                        to.encode_family(&labels)?.encode_histogram(sum, count, &buckets, exemplars)
                    }
                }
            })
        })
    }

    /// What never changes, as labels.
    pub(super) fn info(&mut self, name: &str, help: &str, labels: Vec<(&'static str, &str)>) -> Written {
        self.family((name, help, None), MetricType::Info, |to| to.encode_info(&Labels(labels.clone())))
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds since the start: exact for 285 years")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
