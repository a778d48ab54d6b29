//! The node's drain: who asks for it, how far it is, and what a next run must know of it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use weft_cni::node::boot_id;

use super::agent::{Agent, Knowledge, Task};
use super::clock::Moment;
use super::socket::Refusal;
use crate::api::json::{DrainJson, DrainPhase, Problem};
use crate::cluster::{Cluster, Node};
use crate::plan::{Drain, DrainAsks, DrainTerms, Draining, drain_terms};

/// The file in the run directory. It is there while the node drains, or is to.
pub(super) const FILE_NAME: &str = "drain.json";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DrainFile {
    boot_id: String,
    /// `weftctl drain` asks for it.
    requested: bool,
    /// How far it was.
    phase: Option<DrainPhase>,
}

/// What an earlier run of this boot knew of the drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Remembered {
    requested: bool,
    phase: Option<DrainPhase>,
}

/// Reads what an earlier run wrote; nothing where that is not there or of another boot. What cannot be read is taken for the request
/// that it was, so that a node that is drained announces nothing.
///
/// # Errors
/// The kernel does not tell the id of this boot.
fn read(run_dir: &Path) -> Result<Remembered> {
    let boot_id = boot_id()?;
    let text =
        fs::read(run_dir.join(FILE_NAME)).and_then(|text| Ok(serde_json::from_slice::<DrainFile>(&text)?));
    Ok(match text {
        Ok(file) if file.boot_id == boot_id => Remembered { requested: file.requested, phase: file.phase },
        Ok(_) => Remembered::default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Remembered::default(),
        Err(error) => {
            tracing::warn!(%error, "{FILE_NAME} of an earlier run cannot be read: the node stays drained until weftctl undrain");
            Remembered { requested: true, phase: Some(DrainPhase::Drained) }
        }
    })
}

/// Writes the file, or takes it away where there is nothing to remember.
fn write(run_dir: &Path, what: Remembered) -> Result<()> {
    let (path, temporary) = (run_dir.join(FILE_NAME), run_dir.join("drain.json.new"));
    if what == Remembered::default() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        };
    }
    let Remembered { requested, phase } = what;
    let text = serde_json::to_vec(&DrainFile { boot_id: boot_id()?, requested, phase })?;
    // It need not outlive this boot, so no disk is waited for.
    fs::write(&temporary, text)?;
    Ok(fs::rename(temporary, path)?)
}

/// The drain, as the loop knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Drained {
    asks: DrainAsks,
    progress: Draining,
    /// What the file says.
    written: Remembered,
}

impl Drained {
    /// As an earlier run of this boot left it.
    ///
    /// # Errors
    /// The kernel does not tell the id of this boot.
    pub(super) fn remembered(run_dir: &Path) -> Result<Self> {
        let written = read(run_dir)?;
        let asks = DrainAsks { requested: written.requested, ending: false };
        Ok(Self { asks, progress: Draining::new(written.phase), written })
    }

    /// How far the node is drained now, and because of whom. Without its Node (no terms) it stays as it was.
    fn look(
        &mut self,
        now: Instant,
        terms: Option<DrainTerms>,
        before: Option<&Drain>,
        told: bool,
    ) -> Option<Drain> {
        let terms = terms.or_else(|| {
            let reason = Some(before?.reason.clone());
            Some(DrainTerms { reason, drain_time: self.progress.drain_time() })
        })?;
        let phase = self.progress.look(now, terms.reason.is_some(), terms.drain_time, told);
        phase.zip(terms.reason).map(|(phase, reason)| Drain { phase, reason })
    }

    fn to_remember(&self) -> Remembered {
        Remembered { requested: self.asks.requested, phase: self.progress.phase() }
    }

    /// Whether weftd was told to end and has withdrawn all that it should have.
    pub(super) fn has_left(&self) -> bool {
        self.asks.ending && self.progress.phase() == Some(DrainPhase::Drained)
    }
}

impl Agent {
    /// Brings the drain up to date with the documents, the command and the clock, before the plan is made of it.
    pub(super) fn look_at_drain(&mut self, cluster: &Cluster) {
        let before = self.known.facts.drain.clone();
        let terms = drain_terms(cluster, &self.node, self.known.drain.asks);
        let told = !self.known.announced.is_empty();
        self.known.facts.drain = self.known.drain.look(Moment::now().instant, terms, before.as_ref(), told);
        // A next run must know before peers do.
        self.remember_drain();
        if self.known.facts.drain != before {
            self.tell_of_drain(before.as_ref());
        }
    }

    fn remember_drain(&mut self) {
        let what = self.known.drain.to_remember();
        if self.known.drain.written == what {
            return;
        }
        match write(&self.run_dir, what) {
            Ok(()) => {
                self.known.drain.written = what;
                self.known.failed.remove(&Task::DrainFile);
            }
            Err(error) => {
                let text = format!("cannot write {FILE_NAME} in {}: {error:#}", self.run_dir.display());
                tracing::error!("{text}");
                let remedy = "a restart of weftd would not know how far the node is drained; make room, or give weftd the right to write";
                self.known.failed.insert(Task::DrainFile, Problem::error("drain-file", text, remedy));
            }
        }
    }

    fn tell_of_drain(&self, before: Option<&Drain>) {
        let text = match &self.known.facts.drain {
            None => "the node is drained no more: all is announced again".to_owned(),
            Some(now) if before.is_some_and(|before| before.phase == now.phase) => {
                format!("the drain is now because of {}", now.reason)
            }
            Some(Drain { phase: DrainPhase::LowPreference, reason }) => {
                format!("the node drains because of {reason}: peers are told that others are better")
            }
            Some(Drain { phase: DrainPhase::Withdrawn, .. }) => {
                "the node drains: everything is withdrawn".to_owned()
            }
            Some(Drain { phase: DrainPhase::Drained, reason }) => {
                format!("the node is drained because of {reason}: its sessions are ended and stay down")
            }
        };
        self.note("drain", text);
    }

    fn own_node(&self) -> Option<&Node> {
        self.known.cluster.as_ref()?.nodes.get(&self.node).map(AsRef::as_ref)
    }

    /// Takes in that weftd is to end. Where the machine is shut down, nobody comes back whom peers should wait for, so that the node
    /// leaves the network first; gives whether there is something to wait for, until [`Drained::has_left`].
    pub(super) async fn leave(&mut self) -> Result<bool> {
        let shut_down = self.own_node().is_some_and(|node| node.shutting_down);
        if !shut_down || self.bgp.is_none() || self.known.drain.asks.ending {
            return Ok(false);
        }
        self.known.drain.asks.ending = true;
        self.replan().await?;
        Ok(!self.known.drain.has_left())
    }

    /// Begins the drain that `weftctl drain` asks for.
    pub(super) async fn drain(&mut self) -> Result<Result<DrainJson, Refusal>> {
        if self.known.plan.is_none() {
            return Ok(Err(unplanned()));
        }
        // One that waits for the end of the pods goes on when asked to.
        let waits = |drain: &DrainJson| drain.phase == DrainPhase::LowPreference && drain.until.is_none();
        if let Some(drain) = self.known.drained(&Moment::now()).filter(|drain| !waits(drain)) {
            let text =
                format!("the node drains already because of {}: {}", drain.reason, drain.phase.as_str());
            return Ok(Err(Refusal::Refused(text)));
        }
        if self.own_node().is_none() {
            return Ok(Err(Refusal::Refused(without_node(&self.node))));
        }
        self.known.drain.asks.requested = true;
        self.replan().await?;
        Ok(self.known.drained(&Moment::now()).ok_or_else(unplanned))
    }

    /// Ends the drain that `weftctl drain` began.
    pub(super) async fn undrain(&mut self) -> Result<Result<(), Refusal>> {
        if self.known.plan.is_none() {
            return Ok(Err(unplanned()));
        }
        let requested = std::mem::take(&mut self.known.drain.asks.requested);
        self.replan().await?;
        let text = match &self.known.facts.drain {
            None if requested => return Ok(Ok(())),
            None => "the node is not being drained".to_owned(),
            Some(_) => {
                let own = self.own_node();
                let keys = own.into_iter().flat_map(|node| &node.drain_taints);
                let keys: Vec<String> = keys.map(|key| format!("{key}-")).collect();
                let node = &self.node;
                let down = own.is_some_and(|node| node.shutting_down) || self.known.drain.asks.ending;
                match keys.is_empty() {
                    true if down => "the node is drained because it is shut down: when its kubelet says Ready again, the drain ends".to_owned(),
                    true => without_node(node),
                    false => format!(
                        "the node is drained because of a taint, which has to go: kubectl taint node {node} {}",
                        keys.join(" ")
                    ),
                }
            }
        };
        Ok(Err(Refusal::Refused(text)))
    }
}

fn without_node(node: &str) -> String {
    format!("there is no Node {node} any more, and until it is back all stays as it is")
}

fn unplanned() -> Refusal {
    let text = "no documents are in force yet, so that nothing is announced; weftctl status says why";
    Refusal::Refused(text.to_owned())
}

impl Knowledge {
    /// When the drain goes on.
    pub(super) fn drain_deadline(&self) -> Option<Instant> {
        self.drain.progress.next_deadline(!self.announced.is_empty())
    }

    /// How far the node is drained.
    pub(super) fn drained(&self, now: &Moment) -> Option<DrainJson> {
        let (phase, since) = self.drain.progress.state()?;
        let reason = self.facts.drain.as_ref()?.reason.clone();
        let until = self.drain_deadline().map(|until| now.timestamp_of(until));
        Some(DrainJson { phase, since: now.timestamp_of(since), until, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_run_knows_how_far_the_node_was() {
        let dir = tempfile::tempdir().unwrap();
        let read = || super::read(dir.path()).unwrap();
        assert_eq!(read(), Remembered::default());
        let drained = Remembered { requested: true, phase: Some(DrainPhase::Withdrawn) };
        write(dir.path(), drained).unwrap();
        assert_eq!(read(), drained);
        let text = fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        fs::write(dir.path().join(FILE_NAME), text.replace(&boot_id().unwrap(), "another")).unwrap();
        assert_eq!(read(), Remembered::default(), "a reboot ends it");
        write(dir.path(), Remembered::default()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
        write(dir.path(), Remembered::default()).unwrap();
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn what_an_earlier_run_left_waits_for_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let left = Remembered { requested: true, phase: Some(DrainPhase::Drained) };
        write(dir.path(), left).unwrap();
        let (mut drain, now) = (Drained::remembered(dir.path()).unwrap(), Instant::now());
        assert_eq!(drain.look(now, None, None, false), None, "the own Node is not there");
        assert_eq!(drain.to_remember(), left);
        let reason = Some("a test".to_owned());
        let terms = DrainTerms { reason: reason.clone(), drain_time: std::time::Duration::ZERO };
        let drained = drain.look(now, Some(terms), None, false);
        assert_eq!(drained, reason.map(|reason| Drain { phase: DrainPhase::Drained, reason }));
        assert_eq!(drain.look(now, None, drained.as_ref(), false), drained, "gone again, it stays as it was");
        let ended = DrainTerms { reason: None, drain_time: std::time::Duration::ZERO };
        assert_eq!(drain.look(now, Some(ended), drained.as_ref(), false), None);
        assert_eq!(drain.to_remember(), Remembered { requested: true, phase: None });
    }

    #[test]
    fn what_cannot_be_read_announces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), "{").unwrap();
        let held = Remembered { requested: true, phase: Some(DrainPhase::Drained) };
        assert_eq!(super::read(dir.path()).unwrap(), held);
    }
}
