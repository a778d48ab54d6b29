//! Kernel parameters under `/proc/sys` (proc_sys(5)).
//!
//! Keys are written as paths, `net/ipv4/conf/eth0.100/forwarding`: an interface name may hold dots, so the
//! dotted spelling of `sysctl(8)` is ambiguous. `net/...` shows the network namespace of the calling thread.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::netns;

/// Why a kernel parameter could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key would leave `/proc/sys`.
    #[error("{key:?} is no sysctl key: write it as a relative path such as net/ipv4/ip_forward")]
    Key {
        /// The key that was given.
        key: String,
    },
    /// Reading failed.
    #[error("cannot read sysctl {key}: {source}")]
    Read {
        /// The key that was given.
        key: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Writing failed.
    #[error("cannot set sysctl {key} to {value}: {source}")]
    Write {
        /// The key that was given.
        key: String,
        /// The value that was refused.
        value: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The network namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] netns::Error),
}

/// Where the kernel shows its parameters.
pub const ROOT: &str = "/proc/sys";

/// Reads a parameter, without the trailing newline.
pub fn read(key: &str) -> Result<String, Error> {
    read_below(Path::new(ROOT), key)
}

/// The same, where `/proc/sys` is mounted elsewhere too: in a container it is often read-only where it belongs.
pub fn read_below(root: &Path, key: &str) -> Result<String, Error> {
    let text =
        fs::read_to_string(path(root, key)?).map_err(|source| Error::Read { key: key.to_owned(), source })?;
    Ok(text.trim_end().to_owned())
}

/// Writes a parameter.
pub fn write(key: &str, value: &str) -> Result<(), Error> {
    write_below(Path::new(ROOT), key, value)
}

/// Writes a parameter where `/proc/sys` is mounted elsewhere too.
pub fn write_below(root: &Path, key: &str, value: &str) -> Result<(), Error> {
    fs::write(path(root, key)?, value).map_err(|source| Error::Write {
        key: key.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// Writes a parameter unless it has that value already; says whether it had to. A parameter that is right is
/// not written, because writing some of them has side effects (`forwarding` resets others).
pub fn ensure(key: &str, value: &str) -> Result<bool, Error> {
    if read(key)? == value {
        return Ok(false);
    }
    write(key, value)?;
    Ok(true)
}

/// Reads a parameter of the network namespace at `netns`.
pub fn read_in(netns: &Path, key: &str) -> Result<String, Error> {
    netns::run(netns, || read(key))?
}

/// Writes a parameter of the network namespace at `netns`.
pub fn write_in(netns: &Path, key: &str, value: &str) -> Result<(), Error> {
    netns::run(netns, || write(key, value))?
}

fn path(root: &Path, key: &str) -> Result<PathBuf, Error> {
    let good = !key.is_empty() && key.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if good && !key.contains('\0') { Ok(root.join(key)) } else { Err(Error::Key { key: key.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_cannot_leave_proc_sys() {
        for key in ["", "/etc/passwd", "net/../../../etc/passwd", "net//ipv4", "./net", "net/ipv4/"] {
            assert!(matches!(read(key), Err(Error::Key { .. })), "{key:?} was taken");
        }
        assert_eq!(read("kernel/ostype").unwrap(), "Linux");
    }

    #[test]
    fn a_missing_parameter_is_named() {
        let error = read("net/ipv4/no_such_parameter").unwrap_err();
        assert!(error.to_string().contains("net/ipv4/no_such_parameter"), "{error}");
    }
}
