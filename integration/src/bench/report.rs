//! What was measured, as JSON and as a table, beside what it should be.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::results::Row;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Contender {
    /// `weft-cni`.
    #[serde(rename = "weft-cni")]
    Weft,
    /// The reference plugins `ptp` and `host-local`.
    #[serde(rename = "ptp+host-local")]
    Ptp,
    /// The kernel's own share ([`super::floor`]).
    #[serde(rename = "floor")]
    Floor,
}

impl Contender {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Weft, Self::Ptp, Self::Floor];
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Weft => "weft-cni",
            Self::Ptp => "ptp+host-local",
            Self::Floor => "floor",
        })
    }
}

/// What one process does, from its start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Case {
    /// Nothing, or for a plugin, VERSION.
    Start,
    /// ADD.
    Add,
    /// DEL of a pod whose namespace stays.
    Del,
    /// DEL right after the pod's namespace was given up.
    DelGone,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Start => "start",
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::DelGone => "DEL, namespace gone",
        })
    }
}

/// Under which conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Condition {
    /// How many pods the node has besides.
    pub(super) present: u32,
    /// How many processes run at once.
    pub(super) parallel: u32,
    /// What they do.
    pub(super) case: Case,
}

/// Times of processes that succeeded, and the failures of those that did not.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples {
    took: Vec<Duration>,
    errors: usize,
    first_error: Option<String>,
}

impl Samples {
    /// Adds one.
    pub(super) fn record(&mut self, result: anyhow::Result<Duration>) {
        match result {
            Ok(took) => self.took.push(took),
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }

    /// The smallest time that `percent` of all do not exceed (nearest rank); `None` without any.
    #[must_use]
    pub(super) fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.took.clone();
        sorted.sort();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }

    fn summary(&self) -> Option<Summary> {
        let (p50, p99) = (self.percentile(50)?, self.percentile(99)?);
        Some(Summary { p50, p99, samples: self.took.len() })
    }
}

/// Times of one contender under one condition, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Summary {
    #[serde(rename = "p50Ms", serialize_with = "milliseconds")]
    p50: Duration,
    #[serde(rename = "p99Ms", serialize_with = "milliseconds")]
    p99: Duration,
    samples: usize,
}

fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((time.as_secs_f64() * 1e6).round() / 1e3)
}

/// All that one run measured.
#[derive(Debug, Default)]
pub(super) struct Measured {
    cells: BTreeMap<Condition, BTreeMap<Contender, Samples>>,
    bursts: BTreeMap<Contender, Samples>,
    errors: BTreeMap<Contender, Samples>,
}

impl Measured {
    /// Adds the times of processes.
    pub(super) fn record(
        &mut self,
        condition: Condition,
        contender: Contender,
        results: Vec<anyhow::Result<Duration>>,
    ) {
        let samples = self.cells.entry(condition).or_default().entry(contender).or_default();
        results.into_iter().for_each(|result| samples.record(result));
    }

    /// Adds the time of a whole burst, if all its processes succeeded.
    pub(super) fn record_burst(
        &mut self,
        contender: Contender,
        took: Duration,
        results: Vec<anyhow::Result<Duration>>,
    ) {
        let errors = self.unmeasured(contender, results);
        if errors == 0 {
            self.bursts.entry(contender).or_default().record(Ok(took));
        }
    }

    /// Adds processes whose times do not matter; returns how many failed.
    pub(super) fn unmeasured(
        &mut self,
        contender: Contender,
        results: Vec<anyhow::Result<Duration>>,
    ) -> usize {
        let samples = self.errors.entry(contender).or_default();
        let before = samples.errors;
        results.into_iter().filter(Result::is_err).for_each(|result| samples.record(result));
        samples.errors - before
    }

    fn p50(&self, present: u32, parallel: u32, case: Case, contender: Contender) -> Option<f64> {
        let samples = self.cells.get(&Condition { present, parallel, case })?.get(&contender)?;
        Some(samples.percentile(50)?.as_secs_f64())
    }
}

/// How large the run was.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Size {
    /// How many processes run at once, in turn.
    pub parallel: Vec<u32>,
    /// How many pods the node has the second time.
    pub present: u32,
    /// How many pods a burst adds.
    pub burst: u32,
    /// How many at once.
    pub burst_parallel: u32,
}

/// One ratio beside its goal.
#[derive(Debug, Serialize)]
struct Goal {
    what: String,
    ratio: f64,
    limit: f64,
    met: bool,
}

#[derive(Debug, Serialize)]
struct Cell {
    #[serde(flatten)]
    condition: Condition,
    contender: Contender,
    #[serde(flatten)]
    summary: Summary,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Burst {
    contender: Contender,
    #[serde(flatten)]
    summary: Summary,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Failures {
    contender: Contender,
    count: usize,
    first: Option<String>,
}

/// The outcome of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    cpus: usize,
    size: Size,
    cells: Vec<Cell>,
    bursts: Vec<Burst>,
    failures: Vec<Failures>,
    goals: Vec<Goal>,
}

impl Report {
    /// Sums up what was measured.
    #[must_use]
    pub(super) fn new(size: Size, measured: &Measured) -> Self {
        let mut failures: BTreeMap<Contender, Failures> = BTreeMap::new();
        let all = measured.cells.values().flatten().chain(&measured.errors);
        for (contender, samples) in all.filter(|(_, samples)| samples.errors > 0) {
            let entry = failures.entry(*contender).or_insert(Failures {
                contender: *contender,
                count: 0,
                first: None,
            });
            entry.count += samples.errors;
            entry.first = entry.first.take().or_else(|| samples.first_error.clone());
        }
        let mut cells = Vec::new();
        for (condition, contenders) in &measured.cells {
            cells.extend(contenders.iter().filter_map(|(contender, samples)| {
                Some(Cell { condition: *condition, contender: *contender, summary: samples.summary()? })
            }));
        }
        let bursts = measured.bursts.iter();
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            cells,
            bursts: bursts
                .filter_map(|(contender, samples)| {
                    Some(Burst { contender: *contender, summary: samples.summary()? })
                })
                .collect(),
            failures: failures.into_values().collect(),
            goals: goals(&size, measured),
            size,
        }
    }

    /// Medians of one pod's ADD and DEL on a node without others, for the results of all parts. Processor time and memory of processes that
    /// live for milliseconds are not measured.
    #[must_use]
    pub fn rows(&self, kernel: &str) -> Vec<Row> {
        let alone = |cell: &&Cell| cell.condition.present == 0 && cell.condition.parallel == 1;
        let row = |cell: &Cell| {
            let scenario = match cell.condition.case {
                Case::Add => "cni-add",
                Case::Del => "cni-del",
                Case::Start | Case::DelGone => return None,
            };
            let (daemon, version) = match cell.contender {
                Contender::Weft => ("weft", env!("CARGO_PKG_VERSION")),
                Contender::Floor => ("floor", kernel),
                Contender::Ptp => return None,
            };
            Some(Row {
                scenario: scenario.into(),
                daemon: daemon.into(),
                version: version.into(),
                wall_seconds: cell.summary.p50.as_secs_f64(),
                cpu_seconds: None,
                peak_mb: None,
                runs: cell.summary.samples,
                timed_out: false,
            })
        };
        self.cells.iter().filter(alone).filter_map(row).collect()
    }

    /// How many processes of `contender` failed.
    #[must_use]
    pub fn failures(&self, contender: Contender) -> usize {
        self.failures
            .iter()
            .filter(|failures| failures.contender == contender)
            .map(|failures| failures.count)
            .sum()
    }
}

/// The goals whose numbers were measured.
fn goals(size: &Size, measured: &Measured) -> Vec<Goal> {
    use Case::{Add, Del, DelGone};
    use Contender::{Floor, Ptp, Weft};
    let alone = |case, contender| measured.p50(0, 1, case, contender);
    let over_floor =
        |present| Some(measured.p50(present, 1, Add, Weft)? / measured.p50(present, 1, Add, Floor)?);
    let burst = |contender| Some(measured.bursts.get(&contender)?.percentile(50)?.as_secs_f64());
    let ratio = |above: Option<f64>, below: Option<f64>| Some(above? / below?);
    let (present, all, at_once) = (size.present, size.burst, size.burst_parallel);
    let wanted = [
        ("ADD p50 over ptp + host-local's".to_owned(), 0.25, ratio(alone(Add, Weft), alone(Add, Ptp))),
        ("ADD p50 over the floor".to_owned(), 1.5, ratio(alone(Add, Weft), alone(Add, Floor))),
        ("DEL p50 over the floor".to_owned(), 1.2, ratio(alone(Del, Weft), alone(Del, Floor))),
        (
            "DEL p50 with the namespace gone over the floor with it there".to_owned(),
            1.0,
            ratio(alone(DelGone, Weft), alone(Del, Floor)),
        ),
        (
            format!("{all} pods added by {at_once} at once over ptp + host-local's"),
            0.3,
            ratio(burst(Weft), burst(Ptp)),
        ),
        (
            format!("ADD p50 over the floor with {present} pods there, over the same without"),
            1.1,
            ratio(over_floor(present), over_floor(0)),
        ),
    ];
    let measured = wanted.into_iter().filter_map(|(what, limit, ratio)| Some((what, limit, ratio?)));
    measured.map(|(what, limit, ratio)| Goal { what, ratio, limit, met: ratio <= limit }).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Milliseconds from the start of a process to its end, p50 / p99, on {} CPUs.\n",
            self.cpus
        )?;
        write!(f, "{:<20} {:>8} {:>5}", "", "parallel", "pods")?;
        for contender in Contender::ALL {
            write!(f, " {:>19}", contender.to_string())?;
        }
        writeln!(f, " {:>9} {:>7}", "weft/ptp", "/floor")?;
        for row in self.cells.chunk_by(|one, next| one.condition == next.condition) {
            let Some(Cell { condition, .. }) = row.first() else { continue };
            write!(f, "{:<20} {:>8} {:>5}", condition.case, condition.parallel, condition.present)?;
            let summaries = row.iter().map(|cell| (cell.contender, cell.summary)).collect();
            writeln!(f, "{}", columns(&summaries))?;
        }
        write!(f, "{:<20} {:>8} {:>5}", "ADD, all of a burst", self.size.burst_parallel, self.size.burst)?;
        let bursts = self.bursts.iter().map(|burst| (burst.contender, burst.summary)).collect();
        writeln!(f, "{}\n", columns(&bursts))?;
        for goal in &self.goals {
            let met = if goal.met { "met" } else { "MISSED" };
            writeln!(f, "{:<66} {:>5.2}  at most {:.2}  {met}", goal.what, goal.ratio, goal.limit)?;
        }
        for Failures { contender, count, first } in &self.failures {
            writeln!(f, "{contender}: {count} failed; the first: {}", first.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }
}

/// The columns of all contenders, and the ratios.
fn columns(summaries: &BTreeMap<Contender, Summary>) -> String {
    let mut text = String::new();
    for contender in Contender::ALL {
        let cell = summaries.get(&contender).map_or_else(
            || "-".to_owned(),
            |Summary { p50, p99, .. }| {
                format!("{:.2} / {:.2}", p50.as_secs_f64() * 1e3, p99.as_secs_f64() * 1e3)
            },
        );
        // Writing to a string does not fail.
        let _ = write!(text, " {cell:>19}");
    }
    let p50 = |contender| Some(summaries.get(&contender)?.p50.as_secs_f64());
    for (other, width) in [(Contender::Ptp, 9), (Contender::Floor, 7)] {
        let ratio = p50(Contender::Weft).zip(p50(other)).map(|(weft, other)| format!("{:.2}", weft / other));
        let _ = write!(text, " {:>width$}", ratio.as_deref().unwrap_or("-"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(times: impl IntoIterator<Item = u64>) -> Vec<anyhow::Result<Duration>> {
        times.into_iter().map(|time| Ok(Duration::from_millis(time))).collect()
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut samples = Samples::default();
        assert_eq!(samples.percentile(50), None);
        milliseconds((1..=200).rev()).into_iter().for_each(|time| samples.record(time));
        assert_eq!(samples.percentile(50), Some(Duration::from_millis(100)));
        assert_eq!(samples.percentile(99), Some(Duration::from_millis(198)));
    }

    #[test]
    fn goals_are_ratios_of_medians_and_failures_are_counted() {
        let size = Size { parallel: vec![1], present: 2, burst: 4, burst_parallel: 2 };
        let mut measured = Measured::default();
        let add = Condition { present: 0, parallel: 1, case: Case::Add };
        measured.record(add, Contender::Weft, milliseconds([4, 4, 90]));
        measured.record(add, Contender::Floor, milliseconds([2, 2, 2]));
        measured.record(
            add,
            Contender::Ptp,
            vec![Err(anyhow::anyhow!("full")), Ok(Duration::from_millis(40))],
        );
        measured.record_burst(Contender::Ptp, Duration::from_secs(1), milliseconds([1]));
        measured.record_burst(Contender::Weft, Duration::from_secs(1), vec![Err(anyhow::anyhow!("late"))]);
        let report = Report::new(size, &measured);
        let goals: Vec<_> = report.goals.iter().map(|goal| (goal.ratio, goal.met)).collect();
        assert_eq!(goals, [(0.1, true), (2.0, false)], "a burst with a failure is no burst");
        let rows: Vec<_> = report.rows("6.1").into_iter().map(|r| (r.scenario, r.daemon, r.runs)).collect();
        let expected = [("cni-add", "weft", 3), ("cni-add", "floor", 3)];
        assert_eq!(rows, expected.map(|(scenario, daemon, runs)| (scenario.into(), daemon.into(), runs)));
        assert_eq!((report.failures(Contender::Ptp), report.failures(Contender::Weft)), (1, 1));
        let text = report.to_string();
        assert!(
            text.contains("MISSED") && text.contains("ptp+host-local: 1 failed; the first: full"),
            "{text}"
        );
    }
}
