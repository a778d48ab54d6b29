//! The directory of MRT files: `updates.TIME.mrt` and `rib.TIME.mrt`, TIME being when each was begun, in UTC.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::sys::statvfs::statvfs;

/// What is left on the file system for others: less than this, and nothing is written. The store of pods' addresses may be there too.
const FREE_MIN: u64 = 64 << 20;

/// What a file is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Messages and changes of state.
    Updates,
    /// A table.
    Rib,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Updates => "updates.",
            Self::Rib => "rib.",
        }
    }
}

/// The end of a file's name, and that of one that is not whole yet.
const SUFFIX: &str = ".mrt";
const PARTIAL: &str = ".mrt.partial";

/// The directory.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    path: PathBuf,
}

/// How many files there are, and of how many octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) files: u64,
    pub(super) octets: u64,
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Begins a file; the directory is made if it is not there. An updates file has its name at once, a table once it is whole.
    ///
    /// # Errors
    /// What the kernel says, and that the file system is nearly full. A file that is there already is an error: none is written to
    /// twice, whatever lies in the directory.
    pub(super) fn begin(&self, kind: Kind, now: Timestamp) -> io::Result<Writing> {
        match DirBuilder::new().mode(0o750).create(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.ensure_room()?;
        let name = format!("{}{}", kind.prefix(), now.strftime("%Y%m%dT%H%M%S.%6fZ"));
        let whole = self.path.join(format!("{name}{SUFFIX}"));
        let path = match kind {
            Kind::Updates => whole.clone(),
            Kind::Rib => self.path.join(format!("{name}{PARTIAL}")),
        };
        let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path)?;
        Ok(Writing { directory: self.clone(), file, path, whole, octets: 0 })
    }

    /// Takes away what an earlier run has left half done.
    pub(super) fn clear(&self) -> io::Result<()> {
        for (name, _) in self.list(PARTIAL)? {
            fs::remove_file(self.path.join(name))?;
        }
        Ok(())
    }

    /// Takes away the oldest files until the others have `limit` octets together at most. Those of `kept` stay.
    pub(super) fn prune(&self, limit: u64, kept: &[&Path]) -> io::Result<Usage> {
        let mut files = self.list(SUFFIX)?;
        // By time: it stands behind the first dot.
        files.sort_by(|(a, _), (b, _)| time_of(a).cmp(time_of(b)));
        let mut usage = Usage {
            files: u64::try_from(files.len()).unwrap_or(u64::MAX),
            octets: files.iter().map(|(_, octets)| octets).sum(),
        };
        for (name, octets) in files {
            let path = self.path.join(name);
            if usage.octets <= limit {
                break;
            }
            if kept.contains(&path.as_path()) {
                continue;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            usage =
                Usage { files: usage.files.saturating_sub(1), octets: usage.octets.saturating_sub(octets) };
        }
        Ok(usage)
    }

    /// Our files whose names end so, and their sizes. Others are none of our business.
    fn list(&self, suffix: &str) -> io::Result<Vec<(String, u64)>> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let is_ours = [Kind::Updates, Kind::Rib].iter().any(|kind| name.starts_with(kind.prefix()));
            if is_ours && name.ends_with(suffix) && entry.file_type()?.is_file() {
                files.push((name, entry.metadata().map_or(0, |metadata| metadata.len())));
            }
        }
        Ok(files)
    }

    fn ensure_room(&self) -> io::Result<()> {
        let free = statvfs(&self.path).map_err(io::Error::from)?;
        let octets = free.blocks_available().saturating_mul(free.fragment_size());
        if octets < FREE_MIN {
            let text = format!(
                "only {} MiB are left on the file system, and 64 MiB are left to others",
                octets >> 20
            );
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        Ok(())
    }
}

fn time_of(name: &str) -> &str {
    name.split_once('.').map_or(name, |(_, time)| time)
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Writing {
    directory: Directory,
    file: File,
    path: PathBuf,
    whole: PathBuf,
    octets: u64,
}

impl Writing {
    /// Its size in octets.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends whole records. If that fails, what is in the file stays readable: a part of a record is cut off again.
    pub(super) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        self.directory.ensure_room()?;
        if let Err(error) = self.file.write_all(records) {
            self.file.set_len(self.octets)?;
            return Err(error);
        }
        self.octets = self.octets.saturating_add(u64::try_from(records.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Ends it under its name, and tells that.
    pub(super) fn finish(self) -> io::Result<PathBuf> {
        if self.path != self.whole {
            fs::rename(&self.path, &self.whole)?;
        }
        Ok(self.whole)
    }

    /// Takes it away again.
    pub(super) fn discard(self) {
        // What cannot be removed now is when a weftd starts the next time.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + second).unwrap()
    }

    fn names(directory: &Directory) -> Vec<String> {
        let entries = fs::read_dir(&directory.path).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_named_by_their_time_for_the_group_to_read_and_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::new(dir.path().join("mrt"));
        let mut updates = directory.begin(Kind::Updates, at(0)).unwrap();
        updates.append(b"records").unwrap();
        assert_eq!(
            (updates.octets(), names(&directory)),
            (7, vec!["updates.20261118T110640.000000Z.mrt".to_owned()])
        );
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(updates.path()), mode(&directory.path)), (0o640, 0o750));
        let again = directory.begin(Kind::Updates, at(0)).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);

        let mut table = directory.begin(Kind::Rib, at(1)).unwrap();
        table.append(b"a table").unwrap();
        assert_eq!(names(&directory)[0], "rib.20261118T110641.000000Z.mrt.partial");
        let whole = table.finish().unwrap();
        assert_eq!(fs::read(whole).unwrap(), b"a table");
        assert_eq!(names(&directory)[0], "rib.20261118T110641.000000Z.mrt");

        let _left = directory.begin(Kind::Rib, at(2)).unwrap();
        directory.begin(Kind::Rib, at(3)).unwrap().discard();
        assert_eq!(names(&directory).len(), 3);
        directory.clear().unwrap();
        assert_eq!(names(&directory).len(), 2);
    }

    #[test]
    fn the_oldest_go_whichever_kind_they_are_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::new(dir.path().to_owned());
        for (kind, second) in [(Kind::Updates, 1), (Kind::Rib, 2), (Kind::Updates, 3), (Kind::Rib, 4)] {
            let mut file = directory.begin(kind, at(second)).unwrap();
            file.append(&[0; 100]).unwrap();
            file.finish().unwrap();
        }
        fs::write(dir.path().join("notes.mrt"), [0; 500]).unwrap();
        fs::create_dir(dir.path().join("rib.a.mrt")).unwrap();
        assert_eq!(directory.prune(400, &[]).unwrap(), Usage { files: 4, octets: 400 });
        // The oldest is still being written.
        let current = dir.path().join("updates.20261118T110641.000000Z.mrt");
        assert_eq!(directory.prune(250, &[&current]).unwrap(), Usage { files: 2, octets: 200 });
        let left = [
            "notes.mrt",
            "rib.20261118T110644.000000Z.mrt",
            "rib.a.mrt",
            "updates.20261118T110641.000000Z.mrt",
        ];
        assert_eq!(names(&directory), left);
        assert_eq!(directory.prune(0, &[]).unwrap(), Usage::default());
        assert_eq!(names(&directory), ["notes.mrt", "rib.a.mrt"]);
    }

    #[test]
    fn what_is_nearly_full_is_left_to_others() {
        // It has no room at all, whoever runs this.
        let error = Directory::new("/proc".into()).begin(Kind::Updates, at(0)).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().contains("only 0 MiB")),
            (io::ErrorKind::StorageFull, true)
        );
    }
}
