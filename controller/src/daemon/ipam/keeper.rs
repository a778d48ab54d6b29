//! What the task knows and does.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;
use jiff::Timestamp;
use weft_cni::ipam::{BlockUsage, Entry, State as EntryState, Store};
use weft_cni::node::{self, BlockFile, NodeFile, boot_id};
use weft_routing::netlink::Socket;

use super::blocks::{self, Low, Supply};
use super::compare::{Finding, compare};
use super::looks::Looks;
use super::observe::{Observation, observe};
use super::{Ask, Settings, State, Work};
use crate::api::ipam::{
    IpamAddressJson, IpamAddressState, IpamBlockJson, IpamCheckJson, IpamComparedJson, IpamFindingJson,
    IpamFindingKind as Kind, IpamFreedJson, IpamHolderJson, IpamJson, IpamPodJson, IpamRuntimeJson,
};
use crate::api::json::Problem;
use crate::daemon::clock::Moment;
use crate::daemon::events::{Events, NewEvent};
use crate::daemon::happened;
use crate::daemon::socket::Refusal;

/// An ADD or DEL at work looks like a fault for as long as it takes: what is found is looked for again after this time.
const CONFIRM: Duration = Duration::from_millis(300);

/// The store, and what was found out about it so far.
pub(super) struct Keeper {
    pub(super) settings: Settings,
    pub(super) store: Store,
    pub(super) boot_id: String,
    pub(super) looks: Looks,
    pub(super) freed: u64,
    events: Events,
    low: BTreeMap<Supply, Low>,
    faults: Option<Problem>,
    state: State,
}

impl Keeper {
    pub(super) fn open(settings: Settings, events: Events) -> Result<Self> {
        let boot_id = boot_id()?;
        let store = Store::open(&settings.state_dir, &boot_id).context("cannot use the state directory")?;
        Ok(Self {
            settings,
            store,
            boot_id,
            looks: Looks::default(),
            freed: 0,
            events,
            low: BTreeMap::new(),
            faults: None,
            state: State::default(),
        })
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Does one thing. Whoever asked may have gone: then nobody is told.
    pub(super) fn work(&mut self, work: Work) {
        match work {
            Work::Refresh => {}
            Work::Look => {
                if let Err(error) = self.check(self.settings.grace) {
                    tracing::warn!(error = format!("{error:#}"), "cannot look for addresses that leak");
                }
            }
            Work::Answer(Ask::Show(reply)) => drop(reply.send(self.show().map_err(refused))),
            Work::Answer(Ask::Check(grace, reply)) => {
                drop(reply.send(self.check(grace.unwrap_or(self.settings.grace)).map_err(refused)));
            }
            Work::Answer(Ask::Release(request, reply)) => drop(reply.send(self.release(request))),
        }
        // A store that cannot be read is told of by whoever follows it for the pods' routes.
        if let Ok(blocks) = self.blocks() {
            self.tell(blocks);
        }
    }

    /// The node's blocks as the plugin has been told of them; none before it was told of any in this boot.
    fn blocks(&mut self) -> Result<Vec<IpamBlockJson>> {
        let node = match NodeFile::read(&self.settings.run_dir, &self.boot_id) {
            Ok(node) => node,
            Err(node::Error::Missing { .. } | node::Error::EarlierBoot { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let blocks = blocks::of(&node);
        let wanted: Vec<_> = blocks.iter().map(blocks::stored).collect();
        let usage = self.store.usage(&wanted)?;
        let told = |(block, usage): (&BlockFile<IpNet>, &BlockUsage)| {
            let reserved = self.store.usage(&blocks::reserved_in(blocks::stored(block), &node.reserved))?;
            Ok(blocks::json(block, usage, &reserved))
        };
        blocks.iter().zip(&usage).map(told).collect()
    }

    /// Takes down how full the blocks are; says so where it became worse.
    fn tell(&mut self, blocks: Vec<IpamBlockJson>) {
        let low = blocks::low(&blocks);
        for (supply, now) in &low {
            if self.low.get(supply).is_none_or(|before| before.level < now.level) {
                self.happened(now.code(), now.text(supply));
            }
        }
        let mut problems: Vec<Problem> = low.iter().map(|(supply, low)| low.problem(supply)).collect();
        problems.extend(self.faults.clone());
        self.low = low;
        self.state = State { blocks, problems, leaked: self.looks.addresses(), freed: self.freed };
    }

    fn show(&mut self) -> Result<IpamJson> {
        let blocks = self.blocks()?;
        let mut addresses: Vec<_> = self.store.entries()?.iter().flat_map(taken).collect();
        addresses.sort_by_key(|taken| taken.address);
        Ok(IpamJson { blocks, addresses })
    }

    /// Looks at everything, frees what was nowhere for long enough, and tells what does not fit.
    fn check(&mut self, grace: Duration) -> Result<IpamCheckJson> {
        if let Err(error) = self.store.entries() {
            return Ok(self.unreadable(&error, grace));
        }
        let mut socket = Socket::new()?;
        let mut seen = self.observe(&mut socket)?;
        let mut findings = compare(&seen);
        if !findings.is_empty() {
            sleep(CONFIRM);
            seen = self.observe(&mut socket)?;
            let before = std::mem::take(&mut findings);
            findings = compare(&seen);
            findings.retain(|finding| before.iter().any(|other| other.identity() == finding.identity()));
        }
        let now = Moment::now();
        let due = self.looks.take(now.instant, now.timestamp, &seen, grace);
        let freed = self.free(&mut socket, &due)?;
        let is_freed = |finding: &Finding| {
            finding.key.is_some() && freed.iter().any(|freed| freed.addresses == finding.addresses)
        };
        findings.retain(|finding| !is_freed(finding));
        self.faults = faults(&findings);
        Ok(IpamCheckJson {
            ok: findings.is_empty() && freed.is_empty(),
            findings: findings.into_iter().map(|finding| self.told(finding)).collect(),
            freed,
            compared: self.compared(&seen),
            grace_seconds: grace.as_secs(),
        })
    }

    pub(super) fn observe(&mut self, socket: &mut Socket) -> Result<Observation> {
        let entries = self.store.entries()?;
        let time = u64::try_from(Moment::now().timestamp.as_second()).unwrap_or(0);
        Ok(observe(socket, entries, &self.boot_id, &self.settings.cni_cache_dir, time)?)
    }

    /// Where the store cannot be read there is nothing to compare with, and nothing is freed.
    fn unreadable(&self, error: &weft_cni::ipam::Error, grace: Duration) -> IpamCheckJson {
        let finding = IpamFindingJson {
            kind: Kind::StoreUnreadable,
            addresses: Vec::new(),
            text: error.to_string(),
            remedy:
                "no address is given out from it; drain the node, remove the store, and start its pods again"
                    .into(),
            missing_since: None,
        };
        IpamCheckJson {
            ok: false,
            findings: vec![finding],
            freed: Vec::new(),
            compared: self.compared(&Observation::default()),
            grace_seconds: grace.as_secs(),
        }
    }

    fn compared(&self, seen: &Observation) -> IpamComparedJson {
        IpamComparedJson {
            entries: seen.entries.len(),
            links: seen.links.len(),
            routes: seen.routes.len(),
            neighbours: seen.neighbours.len(),
            runtime: IpamRuntimeJson {
                directory: self.settings.cni_cache_dir.display().to_string(),
                interfaces: seen.runtime.as_ref().map(std::collections::BTreeSet::len),
            },
        }
    }

    fn told(&self, finding: Finding) -> IpamFindingJson {
        let Finding { kind, addresses, key, text, remedy } = finding;
        let missing_since: Option<Timestamp> = key.and_then(|key| self.looks.missing_since(&key));
        IpamFindingJson { kind, addresses, text, remedy: remedy.to_owned(), missing_since }
    }

    /// Takes down an event, and logs it.
    pub(super) fn happened(&self, kind: &'static str, text: String) {
        let event = NewEvent { peer: None, kind, text, bytes: bytes::Bytes::new() };
        happened::log(tracing::Level::WARN, &event, 0);
        self.events.push(Moment::now().timestamp, event);
    }
}

/// What is not done by itself, as `weftctl status` lists it: leaks, and what is nobody's. Routes and neighbours that are
/// missing are put back, and told of where that fails.
fn faults(findings: &[Finding]) -> Option<Problem> {
    let lasting = |finding: &&Finding| !matches!(finding.kind, Kind::RouteMissing | Kind::NeighbourMissing);
    let first = findings.iter().find(lasting)?;
    let more = match findings.iter().filter(lasting).count() {
        1 => String::new(),
        count => format!(" (and {} more)", count.saturating_sub(1)),
    };
    Some(Problem::warning(
        "addresses-inconsistent",
        format!("store, kernel and runtime differ: {}: {}{more}", first.kind, first.text),
        "weftctl ipam check lists everything that does not fit, and what becomes of it",
    ))
}

fn taken(entry: &Entry) -> Vec<IpamAddressJson> {
    let state = match entry.state {
        EntryState::Reserved => IpamAddressState::Reserved,
        EntryState::Committed(_) => IpamAddressState::Committed,
    };
    let taken = |address: &_| IpamAddressJson { address: *address, state, holder: holder(entry) };
    entry.addresses.iter().map(taken).collect()
}

/// Who has the addresses of an entry.
pub(super) fn holder(entry: &Entry) -> IpamHolderJson {
    let pod = entry.pod.as_ref();
    IpamHolderJson {
        pod: pod.map(|pod| IpamPodJson { namespace: pod.namespace.clone(), name: pod.name.clone() }),
        container: entry.key.container_id.clone(),
        interface: entry.key.ifname.clone(),
        network: entry.key.network.clone(),
        host_link: entry.host_link.clone(),
        netns: entry.netns.clone(),
        since: entry.since.and_then(|since| Timestamp::from_second(i64::try_from(since).ok()?).ok()),
    }
}

/// The addresses of an entry that is gone.
pub(super) fn freed(entry: &Entry, removed: Vec<String>) -> IpamFreedJson {
    IpamFreedJson { addresses: entry.addresses.clone(), holder: Some(holder(entry)), removed }
}

fn refused(error: anyhow::Error) -> Refusal {
    Refusal::Refused(format!("{error:#}"))
}
