//! The thread that writes messages and changes of state to files.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_bgp::transport::{Recorder, Records};

use super::files::{Directory, Kind, Writing};
use super::state::Shared;
use crate::daemon::clock::Moment;

/// How long nothing is written after that has failed.
const PAUSE: Duration = Duration::from_secs(10);

/// How long to wait for records where nothing is to be done without.
const IDLE: Duration = Duration::from_secs(3600);

/// What is written where, and for how long to one file.
pub(super) struct Updates {
    pub(super) directory: Directory,
    pub(super) size_limit: u64,
    pub(super) rotate_after: Duration,
    pub(super) shared: Shared,
    /// What is being written, and until when.
    file: Option<(Writing, Instant)>,
    /// Until when nothing is tried.
    paused: Option<Instant>,
}

impl Updates {
    pub(super) fn new(directory: Directory, size_limit: u64, rotate_after: Duration, shared: Shared) -> Self {
        Self { directory, size_limit, rotate_after, shared, file: None, paused: None }
    }

    /// Writes until the recorder is closed and empty.
    pub(super) fn run(mut self, recorder: &Arc<Recorder>) {
        while let Some(records) = recorder.take(self.patience(Moment::now().instant)) {
            self.step(Moment::now(), &records);
        }
        self.end_file();
    }

    /// At how many octets a file is full.
    fn full(&self) -> u64 {
        self.size_limit / 16
    }

    fn patience(&self, now: Instant) -> Duration {
        self.file.as_ref().map_or(IDLE, |(_, until)| until.saturating_duration_since(now))
    }

    fn step(&mut self, now: Moment, records: &Records) {
        let is_over =
            |(file, until): &(Writing, Instant)| *until <= now.instant || file.octets() >= self.full();
        if self.file.as_ref().is_some_and(is_over) {
            self.end_file();
        }
        let mut lost = records.dropped;
        if records.count > 0 {
            if self.paused.is_some_and(|until| now.instant < until) {
                lost = lost.saturating_add(records.count);
            } else {
                let written = self.write(now, records);
                self.paused = written.is_err().then(|| now.instant + PAUSE);
                if let Err(error) = &written {
                    lost = lost.saturating_add(records.count);
                    self.end_file();
                    self.shared.failed(error);
                } else {
                    self.shared.wrote(records.count);
                }
            }
        }
        self.shared.dropped(lost, now.instant);
    }

    fn write(&mut self, now: Moment, records: &Records) -> io::Result<()> {
        let room = self.size_limit.saturating_sub(self.full());
        let (file, _) = match &mut self.file {
            Some(file) => file,
            none => {
                let file = self.directory.begin(Kind::Updates, now.timestamp)?;
                let usage = self.directory.prune(room, &[file.path()])?;
                self.shared.began(file.path(), usage);
                none.insert((file, now.instant + self.rotate_after))
            }
        };
        file.append(&records.octets)
    }

    fn end_file(&mut self) {
        if self.file.take().is_some() {
            let usage = self.directory.prune(self.size_limit, &[]);
            self.shared.ended(usage.ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use weft_bgp::mrt::{Encoding, Observation, Observed, Peering, Timestamp};
    use weft_bgp::types::Asn;

    use super::*;

    fn updates(directory: &Path, rotate_after: Duration) -> (Updates, Shared) {
        let shared = Shared::new(directory.to_owned());
        let directory = Directory::new(directory.to_owned());
        (Updates::new(directory, 64 << 20, rotate_after, shared.clone()), shared)
    }

    /// So many records of 1 MiB.
    fn records(count: u64) -> Records {
        let octets = vec![0; usize::try_from(count << 20).unwrap()].as_slice().into();
        Records { octets, count, dropped: 0 }
    }

    fn problems(shared: &Shared) -> Vec<&'static str> {
        let problems = shared.problems(Moment::now().instant);
        problems
            .into_iter()
            .map(|problem| match problem.code.as_ref() {
                "mrt-dropped" => "dropped",
                "mrt-not-written" => "not written",
                other => panic!("{other}"),
            })
            .collect()
    }

    #[test]
    fn a_file_that_is_full_or_old_makes_room_for_the_next_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let (mut by_size, shared) = updates(dir.path(), Duration::from_secs(3600));
        for _ in 0..3 {
            by_size.step(Moment::now(), &records(2));
        }
        // Full at a sixteenth of 64 MiB.
        let sizes = || {
            let mut files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap()).collect();
            files.sort_by_key(|file| file.file_name());
            files.iter().map(|file| file.metadata().unwrap().len() >> 20).collect::<Vec<_>>()
        };
        assert_eq!(sizes(), [4, 2]);
        for _ in 0..40 {
            by_size.step(Moment::now(), &records(2));
        }
        assert!(sizes().iter().sum::<u64>() <= 64, "{:?}", sizes());
        assert_eq!((shared.json().records, shared.json().dropped), (86, 0));
        drop(by_size);

        let (by_age, _) = updates(dir.path(), Duration::ZERO);
        let recorder = Arc::new(Recorder::default());
        let peering = Peering {
            remote_as: Asn(1),
            local_as: Asn(2),
            interface: 0,
            remote: None,
            local: None,
            encoding: Encoding::PLAIN,
        };
        let observation = Observation { peering, observed: Observed::Received(vec![0; 19].into()) };
        recorder.record(Timestamp::default(), &observation);
        recorder.close();
        by_age.run(&recorder);
        let last = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
        assert_eq!(fs::read(last).unwrap().len(), 12 + 4 + 20 + 19, "a file of its own");
    }

    #[test]
    fn a_directory_that_cannot_be_is_a_problem_until_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mrt");
        fs::write(&path, "in the way").unwrap();
        let (mut updates, shared) = updates(&path, Duration::from_secs(3600));
        updates.step(Moment::now(), &records(1));
        assert_eq!((problems(&shared), shared.json().dropped), (vec!["not written"], 1));
        // For a while nothing is tried.
        fs::remove_file(&path).unwrap();
        updates.step(Moment::now(), &records(2));
        assert_eq!(
            (problems(&shared), shared.json().dropped, path.exists()),
            (vec!["not written"], 3, false)
        );
        updates.paused = None;
        updates.step(Moment::now(), &records(1));
        assert_eq!((problems(&shared), shared.json().records), (vec!["dropped"], 1));
    }
}
