//! Waiting until other nodes have a route to a pod: until weftd has announced the blocks of its addresses to a peer,
//! which it writes into `node.json`.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::node_error;
use crate::node::NodeFile;
use crate::spec::{Code, Error};

/// Waits at most `patience` until the blocks of all `addresses` are announced. weftd need not run: what it announced
/// last counts.
#[expect(clippy::disallowed_methods, reason = "one process waits once, for real")]
pub(super) fn wait(
    run_dir: &Path,
    boot_id: &str,
    addresses: &[IpAddr],
    patience: Duration,
) -> Result<(), Error> {
    let started = Instant::now();
    // Before the first look, so that no change falls between.
    let watch = watch(run_dir).map_err(|errno| io_error(run_dir, errno))?;
    loop {
        let node = NodeFile::read(run_dir, boot_id).map_err(node_error)?;
        let missing = not_announced(&node, addresses);
        if missing.is_empty() {
            return Ok(());
        }
        let left = patience.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(too_late(&missing, patience));
        }
        wait_for_change(&watch, left).map_err(|errno| io_error(run_dir, errno))?;
    }
}

fn watch(run_dir: &Path) -> Result<Inotify, Errno> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    // weftd writes by rename(2).
    inotify.add_watch(run_dir, AddWatchFlags::IN_MOVED_TO)?;
    Ok(inotify)
}

/// Returns after something was renamed in the directory, after `left`, or a little before.
fn wait_for_change(watch: &Inotify, left: Duration) -> Result<(), Errno> {
    // A millisecond more than is left, since the timeout is cut to milliseconds.
    let timeout =
        PollTimeout::try_from(left.saturating_add(Duration::from_millis(1))).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno),
    }
    match watch.read_events() {
        Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// The blocks that are not announced, and addresses that are in none, as text.
fn not_announced(node: &NodeFile, addresses: &[IpAddr]) -> Vec<String> {
    let blocks: Vec<_> = node.families().into_iter().flat_map(|family| family.blocks).collect();
    let missing = |address: &IpAddr| match blocks.iter().find(|block| block.cidr.contains(address)) {
        Some(block) if block.announced => None,
        Some(block) => Some(block.cidr),
        None => Some(IpNet::from(*address)),
    };
    addresses.iter().filter_map(missing).map(|net| net.to_string()).collect()
}

fn too_late(missing: &[String], patience: Duration) -> Error {
    let msg = format!(
        "waitForRoute: {} was announced to no peer within {} s",
        missing.join(" and "),
        patience.as_secs()
    );
    Error::new(Code::TryAgainLater, msg)
        .details("see `weftctl peers`; waitForRouteSeconds makes the wait longer")
}

fn io_error(run_dir: &Path, errno: Errno) -> Error {
    Error::new(Code::Io, format!("waitForRoute: cannot watch {}: {}", run_dir.display(), errno.desc()))
}
