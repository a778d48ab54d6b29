//! What was measured, as JSON and as a table, beside what it should be.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::bail;

use super::Daemon;
use crate::bench::results::Row;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// One peer tells a million prefixes: until another has them.
    A,
    /// A further peer comes: until it has them.
    B,
    /// The first one dies: until nobody has any.
    C,
    /// Ten peers tell the same prefixes: until nothing changes any more.
    D,
    /// A hundred clients of a reflector: until each has what all others told.
    E,
    /// One peer tells 100,000 prefixes: until the kernel has them.
    F,
    /// It dies: until the kernel has none.
    G,
    /// Two peers tell 100,000 prefixes, and one of them dies: until the kernel sends nothing to its next hop.
    H,
}

/// What Weft's time is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Goal {
    /// So much of the best other daemon's at most.
    OfBest(f64),
    /// So much of FRR's at most.
    OfFrr(f64),
    /// So much of the kernel's own share at most.
    OfFloor(f64),
    /// So many seconds at most.
    Seconds(f64),
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 8] = [Self::A, Self::B, Self::C, Self::D, Self::E, Self::F, Self::G, Self::H];

    fn words(self) -> &'static str {
        match self {
            Self::A => "a table in and out",
            Self::B => "the table to one more",
            Self::C => "the table's end",
            Self::D => "ten paths a prefix",
            Self::E => "reflection to a hundred",
            Self::F => "a table into the kernel",
            Self::G => "and out of it",
            Self::H => "around a dead next hop",
        }
    }

    fn goal(self) -> Goal {
        match self {
            Self::A | Self::B | Self::C | Self::D => Goal::OfBest(0.5),
            Self::E => Goal::OfFrr(1.0),
            Self::F | Self::G => Goal::OfFloor(1.15),
            Self::H => Goal::Seconds(0.005),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for Scenario {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Self::ALL.into_iter().find(|scenario| scenario.to_string() == text) {
            Some(scenario) => Ok(scenario),
            None => bail!("{text:?} is no scenario; there are A to H"),
        }
    }
}

/// How one run went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    /// Seconds.
    pub(super) wall: f64,
    /// Seconds of the processor that the daemon used.
    pub(super) cpu: f64,
    /// The most memory that it had, in MiB.
    pub(super) peak: f64,
    /// Whether it took too long.
    pub(super) timed_out: bool,
    /// Seconds of the processor that its peers used: beside the wall time it says whether they were in the way.
    pub(super) peers_cpu: f64,
    /// Prefixes that the sinks were told, each as often as they were.
    pub(super) announced: Option<u64>,
}

/// The runs of one daemon in one scenario, with so many prefixes.
#[derive(Clone, Debug)]
struct Runs {
    version: String,
    outcomes: Vec<Outcome>,
}

/// All that was measured.
#[derive(Clone, Debug)]
pub struct Report {
    fraction: usize,
    /// By scenario, prefixes and daemon.
    runs: BTreeMap<(Scenario, usize, Daemon), Runs>,
    left_out: BTreeMap<Daemon, String>,
}

impl Report {
    /// Nothing yet, of one in so many of the routes that the scenarios are stated for.
    pub(super) fn new(fraction: usize) -> Self {
        Self { fraction, runs: BTreeMap::new(), left_out: BTreeMap::new() }
    }

    pub(super) fn leave_out(&mut self, daemon: Daemon, why: &str) {
        self.left_out.insert(daemon, why.to_owned());
    }

    pub(super) fn record(
        &mut self,
        scenario: Scenario,
        daemon: Daemon,
        version: &str,
        prefixes: usize,
        outcome: Outcome,
    ) {
        let runs = self.runs.entry((scenario, prefixes, daemon));
        let runs = runs.or_insert_with(|| Runs { version: version.to_owned(), outcomes: Vec::new() });
        runs.outcomes.push(outcome);
    }

    /// Medians, those with the most prefixes where there are several of one scenario.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let most = |scenario| self.runs.keys().filter(|key| key.0 == scenario).map(|key| key.1).max();
        let rows = self.runs.iter().filter(|((scenario, prefixes, _), _)| Some(*prefixes) == most(*scenario));
        rows.map(|((scenario, _, daemon), runs)| Row {
            scenario: scenario.to_string(),
            daemon: daemon.to_string(),
            version: runs.version.clone(),
            wall_seconds: runs.median(|outcome| outcome.wall),
            cpu_seconds: Some(runs.median(|outcome| outcome.cpu)),
            peak_mb: Some(runs.median(|outcome| outcome.peak)),
            runs: runs.outcomes.len(),
            timed_out: runs.timed_out(),
        })
        .collect()
    }

    /// The wall times of this scenario by daemon, of those that were in time.
    fn walls(&self, scenario: Scenario, prefixes: usize) -> BTreeMap<Daemon, f64> {
        let of_scenario =
            self.runs.range((scenario, prefixes, Daemon::Weft)..=(scenario, prefixes, Daemon::Floor));
        of_scenario
            .filter(|(_, runs)| !runs.timed_out())
            .map(|((.., daemon), runs)| (*daemon, runs.median(|outcome| outcome.wall)))
            .collect()
    }
}

impl Runs {
    fn median(&self, of: impl Fn(&Outcome) -> f64) -> f64 {
        let mut values: Vec<f64> = self.outcomes.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn timed_out(&self) -> bool {
        self.outcomes.iter().any(|outcome| outcome.timed_out)
    }

    /// Whether the peers may have been what was measured.
    fn peers_were_busy(&self) -> bool {
        self.median(|outcome| outcome.peers_cpu) > 0.8 * self.median(|outcome| outcome.wall)
    }
}

impl Goal {
    /// Beside what Weft's time is held, in words and seconds, and what the ratio is at most.
    fn beside(self, walls: &BTreeMap<Daemon, f64>) -> Option<(&'static str, f64, f64)> {
        let of = |daemon| walls.get(&daemon).copied();
        let others = walls.iter().filter(|(daemon, _)| !matches!(daemon, Daemon::Weft | Daemon::Floor));
        Some(match self {
            Self::OfBest(limit) => ("best", others.map(|(_, wall)| *wall).min_by(f64::total_cmp)?, limit),
            Self::OfFrr(limit) => ("FRR", of(Daemon::Frr)?, limit),
            Self::OfFloor(limit) => ("floor", of(Daemon::Floor)?, limit),
            Self::Seconds(limit) => ("goal", limit, 1.0),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.fraction > 1 {
            writeln!(f, "One in {} of the routes: the goals are stated for all of them.", self.fraction)?;
        }
        writeln!(
            f,
            "{:<34} {:<6} {:>8} {:>8} {:>7} {:>10} {:>10} {:>11}",
            "medians", "", "wall s", "CPU s", "peak MB", "peers' CPU", "announced", "weft's is"
        )?;
        for ((scenario, prefixes, daemon), runs) in &self.runs {
            let what = format!("{scenario}: {} ({prefixes})", scenario.words());
            let announced = runs.outcomes.last().and_then(|outcome| outcome.announced);
            write!(
                f,
                "{what:<34} {daemon:<6} {:>8.4} {:>8.3} {:>7.1} {:>10.3} {:>10}",
                runs.median(|outcome| outcome.wall),
                runs.median(|outcome| outcome.cpu),
                runs.median(|outcome| outcome.peak),
                runs.median(|outcome| outcome.peers_cpu),
                announced.map_or_else(|| "-".to_owned(), |count| count.to_string()),
            )?;
            let walls = self.walls(*scenario, *prefixes);
            if runs.timed_out() {
                write!(f, "  took more than {} s", super::LIMIT.as_secs())?;
            } else if let Some(weft) = walls.get(&Daemon::Weft).filter(|_| *daemon != Daemon::Weft) {
                write!(f, " {:>10.2}x", weft / runs.median(|outcome| outcome.wall))?;
            } else if let Some((name, beside, limit)) = scenario.goal().beside(&walls)
                && let Some(weft) = walls.get(&Daemon::Weft)
            {
                let met = if weft / beside <= limit { "met" } else { "MISSED" };
                write!(f, " {:>11}  at most {limit} x {name} ({beside:.4}): {met}", "")?;
            }
            if *daemon != Daemon::Floor && runs.peers_were_busy() {
                write!(f, "  (its peers were busy most of the time)")?;
            }
            writeln!(f)?;
        }
        for (daemon, why) in &self.left_out {
            writeln!(f, "skipped: {daemon}: {why}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(wall: f64, timed_out: bool) -> Outcome {
        Outcome { wall, cpu: 1.0, peak: 10.0, timed_out, peers_cpu: wall / 2.0, announced: Some(7) }
    }

    fn report(walls: &[(Scenario, Daemon, &[f64])]) -> Report {
        let mut report = Report::new(1);
        for (scenario, daemon, walls) in walls {
            walls
                .iter()
                .for_each(|wall| report.record(*scenario, *daemon, "1", 100, outcome(*wall, *wall >= 60.0)));
        }
        report
    }

    #[test]
    fn the_median_of_the_runs_counts_and_the_goal_is_beside_the_best_other() {
        let report = report(&[
            (Scenario::A, Daemon::Weft, &[9.0, 0.4, 0.5]),
            (Scenario::A, Daemon::Bird, &[1.1, 1.0, 1.2]),
            (Scenario::A, Daemon::Gobgp, &[60.0]),
            (Scenario::H, Daemon::Weft, &[0.004]),
        ]);
        let rows = report.rows();
        let walls: Vec<_> =
            rows.iter().map(|row| (row.daemon.as_str(), row.wall_seconds, row.timed_out)).collect();
        let expected =
            [("weft", 0.5, false), ("bird", 1.1, false), ("gobgp", 60.0, true), ("weft", 0.004, false)];
        assert_eq!(walls, expected);
        let text = report.to_string();
        assert!(text.contains("at most 0.5 x best (1.1000): met") && text.contains("0.45x"), "{text}");
        assert!(
            text.contains("took more than 60 s") && text.contains("at most 1 x goal (0.0050): met"),
            "{text}"
        );
    }

    #[test]
    fn of_a_scenario_with_two_sizes_the_large_one_is_the_row() {
        let mut report = report(&[(Scenario::H, Daemon::Weft, &[0.002])]);
        report.record(Scenario::H, Daemon::Weft, "1", 1000, outcome(0.5, false));
        report.leave_out(Daemon::Gobgp, "it is not installed");
        assert_eq!(report.rows().iter().map(|row| row.wall_seconds).collect::<Vec<_>>(), [0.5]);
        let text = report.to_string();
        assert!(text.contains("(100)") && text.contains("(1000)") && text.contains("MISSED"), "{text}");
        assert!(text.contains("skipped: gobgp: it is not installed"), "{text}");
    }

    #[test]
    fn scenarios_have_names() {
        let all = Scenario::ALL.map(|scenario| scenario.to_string().parse::<Scenario>().unwrap());
        assert_eq!(all, Scenario::ALL);
        assert!("I".parse::<Scenario>().unwrap_err().to_string().contains("A to H"));
    }
}
