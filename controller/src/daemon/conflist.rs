//! `10-weft.conflist`: what a container runtime reads to learn that the node takes pods, and which plugins to call.
//!
//! It is written once the node has converged and the plugin has what it needs, and stays from then on: a runtime that does
//! not find it takes the whole node for not ready. What somebody else makes of it is put right at once.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::source::FolderWatch;
use crate::api::json::Problem;

/// Name of the file. Runtimes take the first of the directory in the order of names.
pub(super) const FILE_NAME: &str = "10-weft.conflist";
/// Not a name that runtimes read.
const TEMPORARY_NAME: &str = ".10-weft.conflist.new";
/// The plugin that maps ports of the host, of the reference plugins.
const PORTMAP: &str = "portmap";
/// How often the file is looked at without a cause: programs come and go in the plugins' directory.
const AUDIT: Duration = Duration::from_secs(30);
/// How soon what failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The file: where it is, and what it says.
#[derive(Clone, Debug)]
pub(super) struct Conflist {
    /// The directory that the runtime reads.
    pub(super) directory: PathBuf,
    /// Where the runtime finds the plugins.
    pub(super) bin_dir: PathBuf,
    /// Where the plugin finds `node.json`.
    pub(super) run_dir: PathBuf,
    /// Where the plugin keeps addresses.
    pub(super) state_dir: PathBuf,
}

/// Starts keeping the file, from when `ready` is true on, for as long as `ready` has a sender; nothing is done where there
/// is none to keep. What is received is what could not be done.
///
/// # Errors
/// There is nothing to watch the directory with.
pub(super) fn keep(
    conflist: Option<Conflist>,
    ready: watch::Receiver<bool>,
) -> io::Result<watch::Receiver<Option<Problem>>> {
    let (told, state) = watch::channel(None);
    match conflist {
        Some(conflist) => {
            let changes = FolderWatch::start_for(&conflist.directory, FILE_NAME)?;
            tokio::spawn(follow(conflist, changes, ready, told));
        }
        None => drop(tokio::spawn(async move { told.closed().await })),
    }
    Ok(state)
}

async fn follow(
    conflist: Conflist,
    changes: FolderWatch,
    mut ready: watch::Receiver<bool>,
    told: watch::Sender<Option<Problem>>,
) {
    if ready.wait_for(|ready| *ready).await.is_err() {
        return;
    }
    loop {
        let step = conflist.clone();
        let Ok((written, earlier)) = spawn_blocking(move || (step.write(), step.earlier())).await else {
            return;
        };
        match &written {
            Ok(true) => {
                tracing::info!(file = FILE_NAME, "told the container runtime that this node takes pods");
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "cannot write {FILE_NAME}; trying again"),
        }
        let pause = if written.is_err() { RETRY } else { AUDIT };
        let problem = match written {
            Err(error) => Some(problem(&conflist.directory, &error)),
            Ok(_) => earlier.map(|name| overruled(&conflist.directory, &name)),
        };
        told.send_if_modified(|state| {
            let changed = *state != problem;
            *state = problem;
            changed
        });
        let news = async {
            tokio::select! {
                () = changes.changed() => true,
                end = ready.changed() => end.is_ok(),
            }
        };
        if let Ok(false) = timeout(pause, news).await {
            return;
        }
    }
}

impl Conflist {
    /// Writes the file if it is not what it should be; says whether it had to. Readers see the old one or the new.
    fn write(&self) -> io::Result<bool> {
        let text = self.text();
        let path = self.directory.join(FILE_NAME);
        if holds(&path, text.as_bytes()) {
            return Ok(false);
        }
        fs::create_dir_all(&self.directory)?;
        let temporary = self.directory.join(TEMPORARY_NAME);
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        Ok(true)
    }

    /// The file that runtimes take in place of ours, if there is one: the first by name of those that they read.
    fn earlier(&self) -> Option<String> {
        let files = fs::read_dir(&self.directory).ok()?;
        let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        // As libcni has it (ConfFiles in libcni/api.go).
        let is_read = |name: &String| {
            Path::new(name)
                .extension()
                .is_some_and(|end| ["conf", "conflist", "json"].iter().any(|read| end == *read))
        };
        names.filter(is_read).min().filter(|first| first.as_str() < FILE_NAME)
    }

    fn text(&self) -> String {
        let mut plugins = vec![json!({
            "type": "weft-cni",
            "runDir": self.run_dir,
            "stateDir": self.state_dir,
            "capabilities": {"ips": true, "mac": true, "io.kubernetes.cri.pod-annotations": true},
        })];
        if self.bin_dir.join(PORTMAP).is_file() {
            plugins.push(json!({"type": PORTMAP, "capabilities": {"portMappings": true}}));
        }
        let list: Value = json!({
            // What runtimes go by that know no `cniVersions` (CNI 1.1.0, section 1).
            "cniVersion": "1.0.0",
            "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
            "name": "weft",
            "plugins": plugins,
        });
        format!("{list:#}\n")
    }
}

/// Whether a plain file of just this content is there.
fn holds(path: &Path, text: &[u8]) -> bool {
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    // Asked before it is opened: to open a FIFO is to wait for its writer, and to read garbage may take long.
    let plain = fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() == length);
    plain && fs::read(path).is_ok_and(|found| found == text)
}

fn problem(directory: &Path, error: &io::Error) -> Problem {
    Problem::error(
        "conflist",
        format!(
            "cannot write {FILE_NAME} in {}: {error}; the runtime may not know that this node takes pods",
            directory.display()
        ),
        "make room, or give weftd the right to write there; it tries again every few seconds",
    )
}

fn overruled(directory: &Path, name: &str) -> Problem {
    Problem::error(
        "conflist-overruled",
        format!(
            "the container runtime takes {name} in {} and not {FILE_NAME}, which comes behind it by name: pods get the network \
             of another plugin",
            directory.display()
        ),
        "take the other plugin off the host, or at least its file out of the directory, and start its pods again",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn conflist(parent: &Path) -> Conflist {
        Conflist {
            directory: parent.join("net.d"),
            bin_dir: parent.join("bin"),
            run_dir: "/run/weft".into(),
            state_dir: "/var/lib/weft".into(),
        }
    }

    fn read(conflist: &Conflist) -> Value {
        serde_json::from_slice(&fs::read(conflist.directory.join(FILE_NAME)).unwrap()).unwrap()
    }

    #[test]
    fn the_plugin_is_chained_before_portmap_where_there_is_one() {
        let parent = tempfile::tempdir().unwrap();
        let conflist = conflist(parent.path());
        assert!(conflist.write().unwrap());
        let written = read(&conflist);
        let plugin = json!({
            "type": "weft-cni", "runDir": "/run/weft", "stateDir": "/var/lib/weft",
            "capabilities": {"ips": true, "mac": true, "io.kubernetes.cri.pod-annotations": true},
        });
        assert_eq!(written["plugins"], json!([plugin]));
        assert_eq!((&written["cniVersion"], &written["cniVersions"][3]), (&json!("1.0.0"), &json!("1.1.0")));
        fs::create_dir(&conflist.bin_dir).unwrap();
        fs::write(conflist.bin_dir.join(PORTMAP), "").unwrap();
        assert!(conflist.write().unwrap());
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
        assert_eq!(read(&conflist)["plugins"], json!([plugin, portmap]));
        assert_eq!(fs::read_dir(&conflist.directory).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn what_is_right_is_left_alone_and_nothing_else_is() {
        let parent = tempfile::tempdir().unwrap();
        let conflist = conflist(parent.path());
        let path = conflist.directory.join(FILE_NAME);
        assert!(conflist.write().unwrap());
        let inode = fs::metadata(&path).unwrap().ino();
        assert!(!conflist.write().unwrap());
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        let right = read(&conflist);
        for garbage in ["", "{", &"x".repeat(fs::read(&path).unwrap().len())] {
            fs::write(&path, garbage).unwrap();
            assert!(conflist.write().unwrap());
            assert_eq!(read(&conflist), right);
        }
        let elsewhere = parent.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(conflist.write().unwrap());
        assert!(fs::symlink_metadata(&path).unwrap().is_file() && elsewhere.is_file());
    }

    #[test]
    fn a_file_that_overrules_ours_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let conflist = conflist(parent.path());
        conflist.write().unwrap();
        for behind in ["10-weft.conflist.bak", "20-other.conflist", "05-note.txt", ".10-weft.conflist.new"] {
            fs::write(conflist.directory.join(behind), "{}").unwrap();
        }
        assert_eq!(conflist.earlier(), None);
        fs::write(conflist.directory.join("10-flannel.conflist"), "{}").unwrap();
        assert_eq!(conflist.earlier().as_deref(), Some("10-flannel.conflist"));
        fs::write(conflist.directory.join("05-cilium.conf"), "{}").unwrap();
        let problem = overruled(&conflist.directory, &conflist.earlier().unwrap());
        assert!(problem.text.contains("takes 05-cilium.conf in"), "{problem:?}");
    }

    #[tokio::test]
    async fn it_comes_with_readiness_and_comes_back_and_what_fails_is_told() {
        let parent = tempfile::tempdir().unwrap();
        let conflist = conflist(parent.path());
        fs::create_dir(&conflist.directory).unwrap();
        let path = conflist.directory.join(FILE_NAME);
        // In its way, so that it cannot be written at first.
        fs::create_dir_all(path.join("inside")).unwrap();
        let (ready, told) = watch::channel(false);
        let mut state = keep(Some(conflist.clone()), told).unwrap();
        let awaited = timeout(Duration::from_millis(300), state.changed()).await;
        assert!(awaited.is_err(), "it was written before the node was ready");
        ready.send_replace(true);
        let mut next = async || {
            timeout(DEADLINE, state.changed()).await.expect("news of the file").unwrap();
            state.borrow_and_update().clone()
        };
        let problem = next().await.expect("a directory is in the way");
        assert!(problem.code == "conflist" && problem.text.contains("net.d"), "{problem:?}");
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(next().await, None);
        let written = read(&conflist);
        fs::remove_file(&path).unwrap();
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while !path.is_file() {
            assert!(tokio::time::Instant::now() < deadline, "the file did not come back");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(read(&conflist), written);
    }
}
