//! The system calls the journal is made of, behind a trait so that tests can fail and cut the power at each of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

/// One directory and the files in it.
pub(super) trait Disk {
    /// An open file. While it is open its inode number is not given to another.
    type File;

    /// Opens a file for reading and appending; `None` when there is none of this name.
    fn open(&self, name: &str) -> io::Result<Option<Self::File>>;
    /// Opens a new, empty file for reading and appending, in place of any other of this name.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// The file's inode number and length.
    fn stat(&self, file: &Self::File) -> io::Result<(u64, u64)>;
    /// Everything from `offset` to the end.
    fn read(&self, file: &mut Self::File, offset: u64) -> io::Result<Vec<u8>>;
    /// Writes at the end. A failure may leave any first part of `bytes` behind.
    fn append(&self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file off behind `length` bytes.
    fn truncate(&self, file: &mut Self::File, length: u64) -> io::Result<()>;
    /// Returns once the file's bytes would survive a power cut.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Gives a file another name, in place of any other of that name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Returns once the names in the directory would survive a power cut.
    fn sync_names(&self) -> io::Result<()>;
}

/// A real directory.
#[derive(Debug)]
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).append(true).mode(0o600);
        options
    }
}

impl Disk for Directory {
    type File = File;

    fn open(&self, name: &str) -> io::Result<Option<File>> {
        match Self::options().open(self.0.join(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let path = self.0.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Self::options().create_new(true).open(path)
    }

    fn stat(&self, file: &File) -> io::Result<(u64, u64)> {
        let metadata = file.metadata()?;
        Ok((metadata.ino(), metadata.len()))
    }

    fn read(&self, file: &mut File, offset: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(offset))?;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn truncate(&self, file: &mut File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}
