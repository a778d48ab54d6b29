//! Documents: a folder of YAML files made into a [`Cluster`], or every error that stands in the way; or the objects of an API
//! server, each of which stands alone ([`Admission`]).
//!
//! A folder is taken as a whole: `*.yaml` and `*.yml`, not its subfolders, no dotfiles, at most 4 MiB a file and 64 MiB
//! altogether. Checked in three steps, each only on what passed the one before: the text (`yaml`), each object by its type
//! (`decode`), and all objects together (`check`).

mod admission;
mod check;
mod decode;
mod secrets;
mod services;
mod yaml;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

pub use self::admission::Admission;
use crate::api::Invalid;
use crate::api::json::DocumentError;
use crate::cluster::{Cluster, Kind, Object};

/// The largest file, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// The largest folder, in bytes.
const MAX_FOLDER: u64 = 64 << 20;

/// How many errors are listed; a folder with more is wrong in few ways, many times.
const MAX_ERRORS: usize = 1000;

/// What a look at the documents gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What is to be in force; `None`: whatever was before.
    pub cluster: Option<Cluster>,
    /// Every error, in order.
    pub errors: Vec<DocumentError>,
    /// Of an API server: which states of objects these are. For a node, of its own IPBlocks; for nobody's, of every kind of Weft's.
    pub versions: Versions,
}

/// Which states of objects an API server told of last.
pub type Versions = BTreeMap<(Kind, String), Version>;

/// Which state of an object an API server told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// `metadata.resourceVersion`: changes with every change.
    pub resource_version: String,
    /// `metadata.generation`: changes with the spec.
    pub generation: i64,
    /// Of an IPBlock: whether its node has given it up as it is.
    pub released: bool,
}

impl From<Result<Cluster, Vec<DocumentError>>> for Reading {
    fn from(loaded: Result<Cluster, Vec<DocumentError>>) -> Self {
        match loaded {
            Ok(cluster) => Self { cluster: Some(cluster), ..Self::default() },
            Err(errors) => Self { errors, ..Self::default() },
        }
    }
}

/// An object and where it comes from.
#[derive(Clone, Debug)]
struct Parsed {
    name: String,
    object: Object,
    origin: Origin,
}

/// Where an object comes from.
#[derive(Clone, Debug)]
enum Origin {
    /// A document of a file.
    File { file: Arc<str>, located: Arc<yaml::Located> },
    /// The Kubernetes API.
    Api,
}

impl Origin {
    fn file(&self) -> Option<String> {
        match self {
            Self::File { file, .. } => Some(file.to_string()),
            Self::Api => None,
        }
    }

    fn line_of(&self, field: &str) -> Option<usize> {
        match self {
            Self::File { located, .. } => Some(located.line_of(field)),
            Self::Api => None,
        }
    }

    /// Whether a Node's podCIDRs are written as the one `podCIDR`.
    fn has_single_pod_cidr(&self) -> bool {
        match self {
            Self::File { located, .. } => {
                located.get("spec").is_some_and(|spec| spec.get("podCIDRs").is_none())
            }
            Self::Api => false,
        }
    }
}

impl Parsed {
    fn title(&self) -> String {
        format!("{}/{}", self.object.kind().as_str(), self.name)
    }

    fn error(&self, field: &str, invalid: Invalid) -> DocumentError {
        DocumentError {
            file: self.origin.file(),
            line: self.origin.line_of(field),
            object: Some(self.title()),
            field: Some(field.into()),
            message: invalid.message,
            remedy: invalid.remedy,
        }
    }
}

/// Reads a folder, or one file.
///
/// # Errors
/// Every error found, in order of file and line; never an empty list.
pub fn load(path: &Path) -> Result<Cluster, Vec<DocumentError>> {
    read_all(path).finish(&check::Scope::Folder)
}

/// What is wrong with a folder, or one file, also where weftd would take it and keep a session down: nothing, or every error found, in order of file
/// and line.
#[must_use]
pub fn validate(path: &Path) -> Vec<DocumentError> {
    read_all(path).finish(&check::Scope::Beforehand).err().unwrap_or_default()
}

fn read_all(path: &Path) -> Loader {
    let mut loader = Loader::default();
    match path.metadata() {
        Ok(found) if found.is_dir() => loader.folder(path),
        Ok(_) => loader.file(path),
        Err(error) => {
            let message = format!("cannot read {}: {error}", path.display());
            let remedy = "name a folder, or a file, that exists and that this user may read";
            loader.fail(None, None, Invalid::new(message, remedy));
        }
    }
    loader
}

#[derive(Default)]
struct Loader {
    bytes: u64,
    files: usize,
    parsed: Vec<Parsed>,
    errors: Vec<DocumentError>,
}

impl Loader {
    fn fail(&mut self, file: Option<&str>, line: Option<usize>, invalid: Invalid) {
        self.errors.push(DocumentError {
            file: file.map(Into::into),
            line,
            object: None,
            field: None,
            message: invalid.message,
            remedy: invalid.remedy,
        });
    }

    fn folder(&mut self, folder: &Path) {
        let names = std::fs::read_dir(folder).and_then(|entries| {
            entries.map(|entry| entry.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>()
        });
        let mut names = match names {
            Ok(names) => names,
            Err(error) => {
                let message = format!("cannot read the folder {}: {error}", folder.display());
                return self.fail(None, None, Invalid::new(message, "name a folder that this user may read"));
            }
        };
        names.sort_unstable();
        for name in names {
            let shown = name.to_string_lossy();
            if !shown.starts_with('.') && (shown.ends_with(".yaml") || shown.ends_with(".yml")) {
                self.file(&folder.join(&name));
            }
        }
        if self.files == 0 {
            let message = format!("the folder {} holds no *.yaml and no *.yml", folder.display());
            self.fail(None, None, Invalid::new(message, "put the documents there"));
        }
    }

    fn file(&mut self, path: &Path) {
        self.files += 1;
        let name: Arc<str> = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into();
        let text = match read(path, MAX_FOLDER.saturating_sub(self.bytes)) {
            Ok(text) => text,
            Err(invalid) => return self.fail(Some(&name), None, invalid),
        };
        self.bytes += u64::try_from(text.len()).unwrap_or(u64::MAX);
        let documents = match yaml::documents(text.strip_prefix('\u{feff}').unwrap_or(&text)) {
            Ok(documents) => documents,
            Err(malformed) => return self.fail(Some(&name), Some(malformed.line), malformed.invalid),
        };
        if documents.is_empty() {
            let invalid = Invalid::new("the file holds no document", "write one, or remove the file");
            return self.fail(Some(&name), Some(1), invalid);
        }
        for document in documents {
            decode::document(&name, document, &mut self.parsed, &mut self.errors);
        }
    }

    /// The whole set is checked only where each part of it was understood: a dangling name may otherwise be just the one
    /// whose object has a typing error.
    fn finish(mut self, scope: &check::Scope) -> Result<Cluster, Vec<DocumentError>> {
        self.errors.extend(check::each(&self.parsed));
        let understood = self.errors.is_empty();
        self.errors.extend(check::duplicates(&self.parsed));
        let mut cluster = Cluster::default();
        for parsed in &self.parsed {
            cluster.apply(parsed.name.clone(), parsed.object.clone());
        }
        if understood {
            self.errors.extend(check::together(&self.parsed, &cluster, scope));
        }
        if self.errors.is_empty() {
            return Ok(cluster);
        }
        self.errors.sort();
        self.errors.dedup();
        if let Some(more) = self.errors.len().checked_sub(MAX_ERRORS).filter(|more| *more > 0) {
            self.errors.truncate(MAX_ERRORS);
            self.fail(None, None, Invalid::new(format!("{more} more errors"), "mend those listed first"));
        }
        Err(self.errors)
    }
}

/// Reads a file whole, unless it is too large, in which case it is not read to its end.
fn read(path: &Path, left: u64) -> Result<String, Invalid> {
    let unreadable = |error: io::Error| {
        Invalid::new(format!("cannot read the file: {error}"), "make it a file that this user may read")
    };
    // Asked before it is opened: to open a FIFO is to wait for its writer.
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err(Invalid::new("this is not a file", "name it otherwise, or take it out of the folder"));
    }
    let mut bytes = Vec::new();
    let limit = MAX_FILE.min(left);
    let file = File::open(path).map_err(unreadable)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= limit) {
        return String::from_utf8(bytes).map_err(|error| {
            let message = format!("the file is not UTF-8, from byte {}", error.utf8_error().valid_up_to());
            Invalid::new(message, "save it as UTF-8")
        });
    }
    Err(match limit < MAX_FILE {
        true => Invalid::new("the folder holds more than 64 MiB", "take out what is not for Weft"),
        false => Invalid::new("the file is larger than 4 MiB", "part it, or take it out of the folder"),
    })
}
