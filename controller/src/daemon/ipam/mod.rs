//! The pods' addresses as the daemon knows them: shown, compared with everything else that knows of them, and freed where
//! they leak.
//!
//! One task does it all, one thing after the other, on a thread that may wait: for the store's lock, the kernel, the
//! pods' network namespaces.
//!
//! An address is freed only where its entry was found nowhere on two looks, the grace period apart, and is still nowhere
//! while the right to change the entry is held: the host end of its link is gone, and the network namespace that the entry
//! names is gone or does not have it.

mod blocks;
mod compare;
mod free;
mod http;
mod keeper;
mod looks;
mod observe;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};
use weft_cni::ipam::FILE_NAME as STORE_FILE;
use weft_cni::node::FILE_NAME as NODE_FILE;

use self::keeper::Keeper;
use super::events::Events;
use super::socket::Refusal;
use super::source::FolderWatch;
use crate::api::ipam::{IpamBlockJson, IpamCheckJson, IpamFreedJson, IpamJson, IpamReleaseRequest};
use crate::api::json::Problem;

pub(super) use self::http::routes;

/// The longest time between two looks.
const LOOK: Duration = Duration::from_secs(60);
/// The shortest, however short the grace period.
const LOOK_MIN: Duration = Duration::from_secs(1);
/// How often addresses that rest are counted: they become free without a word.
const RESTING: Duration = Duration::from_secs(5);
/// How many questions may wait.
const ASKS_MAX: usize = 16;

/// Where to look, and how patiently.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Where `node.json` is.
    pub(super) run_dir: PathBuf,
    /// Where the store is.
    pub(super) state_dir: PathBuf,
    /// Where the runtime keeps what ADD answered.
    pub(super) cni_cache_dir: PathBuf,
    /// How far apart the two looks must be that free an address.
    pub(super) grace: Duration,
}

/// A question to the task.
#[derive(Debug)]
pub(super) enum Ask {
    /// Which addresses are taken?
    Show(oneshot::Sender<Result<IpamJson, Refusal>>),
    /// Does everything fit together? The grace period, where it is not the daemon's.
    Check(Option<Duration>, oneshot::Sender<Result<IpamCheckJson, Refusal>>),
    /// Free these addresses.
    Release(IpamReleaseRequest, oneshot::Sender<Result<IpamFreedJson, Refusal>>),
}

/// What the task tells without being asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// How full the node's blocks are.
    pub(super) blocks: Vec<IpamBlockJson>,
    /// What is wrong.
    pub(super) problems: Vec<Problem>,
    /// How many addresses were nowhere at the last look.
    pub(super) leaked: u64,
    /// How many addresses were freed because they were nowhere, since the start.
    pub(super) freed: u64,
}

/// Something to be done.
enum Work {
    Refresh,
    Look,
    Answer(Ask),
}

/// Starts the task. It ends when nobody can ask it any more.
///
/// # Errors
/// The state directory cannot be used, or there is nothing to watch it with.
pub(super) fn start(
    settings: Settings,
    events: Events,
) -> Result<(mpsc::Sender<Ask>, watch::Receiver<State>)> {
    let store_changes = FolderWatch::start_for(&settings.state_dir, STORE_FILE)
        .context("cannot watch the state directory")?;
    let node_changes =
        FolderWatch::start_for(&settings.run_dir, NODE_FILE).context("cannot watch the run directory")?;
    let period = settings.grace.clamp(LOOK_MIN, LOOK);
    let mut keeper = Keeper::open(settings, events)?;
    let (asks, mut asked) = mpsc::channel(ASKS_MAX);
    let (told, state) = watch::channel(State::default());
    tokio::spawn(async move {
        let mut looks = interval(period);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let work = tokio::select! {
                ask = asked.recv() => match ask {
                    Some(ask) => Work::Answer(ask),
                    None => return,
                },
                () = store_changes.changed() => Work::Refresh,
                () = node_changes.changed() => Work::Refresh,
                () = sleep(RESTING), if keeper.state().blocks.iter().any(|block| block.resting > 0) => Work::Refresh,
                _ = looks.tick() => Work::Look,
            };
            let done = spawn_blocking(move || {
                keeper.work(work);
                keeper
            });
            let Ok(back) = done.await else { return };
            keeper = back;
            told.send_if_modified(|state| {
                let changed = state != keeper.state();
                state.clone_from(keeper.state());
                changed
            });
        }
    });
    Ok((asks, state))
}
