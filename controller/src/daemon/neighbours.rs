//! Who is at the other end of the links that peers are known by: a task that sends and hears router advertisements there.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};
use weft_routing::ndisc::{Counters, Link, Routers, Socket};
use weft_routing::netlink::Mac;

use super::clock::Moment;
use crate::api::json::Problem;

/// How many advertisements are read at once, and how long what comes after them waits: a flood costs no more than that.
const BATCH: usize = 32;
const PAUSE: Duration = Duration::from_millis(100);
/// How soon a socket that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// The links, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Links {
    /// Each with the MAC address that advertisements tell.
    pub(super) links: BTreeMap<u32, (Link, Option<Mac>)>,
    /// Who was there when weftd ran last.
    pub(super) remembered: BTreeMap<u32, Ipv6Addr>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Neighbours {
    /// The router of each link that has one.
    pub(super) found: BTreeMap<u32, Ipv6Addr>,
    /// Advertisements.
    pub(super) counters: Counters,
    /// Why none can be sent or heard.
    pub(super) problem: Option<Problem>,
}

/// Starts looking; there is no socket while there is no link. The task ends when `wanted` has no sender any more.
pub(super) fn keep(wanted: watch::Receiver<Links>) -> watch::Receiver<Neighbours> {
    let (told, found) = watch::channel(Neighbours::default());
    tokio::spawn(follow(wanted, told));
    found
}

async fn follow(mut wanted: watch::Receiver<Links>, told: watch::Sender<Neighbours>) {
    let mut keeper = Keeper::default();
    loop {
        let links = wanted.borrow_and_update().clone();
        keeper.step(Moment::now().instant, &links);
        told.send_if_modified(|told| {
            let found = keeper.state();
            let changed = *told != found;
            *told = found;
            changed
        });
        let deadline = keeper.next_deadline();
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            heard = receive(keeper.socket.as_ref()) => {
                keeper.heard(Moment::now().instant, heard);
                sleep(PAUSE).await;
            }
            () = until(deadline) => {}
        }
    }
}

#[derive(Debug, Default)]
struct Keeper {
    routers: Routers,
    socket: Option<AsyncFd<Socket>>,
    /// Why there is none, and when to try again.
    failed: Option<(Problem, Instant)>,
    /// Who was remembered has been told of: later they are old news.
    reminded: bool,
}

impl Keeper {
    fn step(&mut self, now: Instant, wanted: &Links) {
        let links = wanted.links.iter().map(|(index, (link, _))| (*index, *link)).collect();
        self.routers.follow(now, &links);
        if links.is_empty() {
            (self.socket, self.failed) = (None, None);
            return;
        }
        if !std::mem::replace(&mut self.reminded, true) {
            wanted.remembered.iter().for_each(|(link, router)| self.routers.remember(now, *link, *router));
        }
        if self.socket.is_none() && self.failed.as_ref().is_none_or(|(_, again)| *again <= now) {
            let opened = Socket::new().and_then(register);
            self.failed = opened.as_ref().err().map(|error| (cannot_open(error), now + RETRY));
            self.socket = opened.ok();
        }
        for link in self.routers.tick(now) {
            let mac = wanted.links.get(&link).and_then(|(_, mac)| *mac);
            let sent = self.socket.as_ref().map(|socket| socket.get_ref().advertise(link, mac));
            if let Some(Err(error)) = sent {
                tracing::debug!(link, %error, "cannot send a router advertisement");
            }
        }
    }

    fn heard(&mut self, now: Instant, heard: io::Result<Vec<(u32, Ipv6Addr, Vec<u8>)>>) {
        match heard {
            Ok(messages) => {
                for (link, source, message) in messages {
                    self.routers.heard(now, link, source, &message);
                }
            }
            Err(error) => {
                self.socket = None;
                self.failed = Some((cannot_open(&error), now + RETRY));
            }
        }
    }

    fn state(&self) -> Neighbours {
        Neighbours {
            found: self.routers.found(),
            counters: self.routers.counters(),
            problem: self.failed.as_ref().map(|(problem, _)| problem.clone()),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.routers.next_deadline().into_iter().chain(self.failed.as_ref().map(|(_, again)| *again)).min()
    }
}

#[expect(
    deprecated,
    reason = "what it warns of, a descriptor that somebody else closes, cannot be: the socket is the descriptor's owner"
)]
fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

fn cannot_open(error: &io::Error) -> Problem {
    Problem::error(
        "no-router-advertisements",
        format!(
            "router advertisements can neither be sent nor heard: {error}; a peer on an interface is found only if it connects"
        ),
        "give weftd CAP_NET_RAW, as manifests/overlays/unnumbered does",
    )
}

/// Waits for advertisements; for ever while there is no socket.
async fn receive(socket: Option<&AsyncFd<Socket>>) -> io::Result<Vec<(u32, Ipv6Addr, Vec<u8>)>> {
    let Some(socket) = socket else { return std::future::pending().await };
    let mut guard = socket.readable().await?;
    let mut messages = Vec::new();
    while messages.len() < BATCH {
        match guard.try_io(|socket| socket.get_ref().receive()) {
            Ok(message) => messages.push(message?),
            // There is none.
            Err(_) => break,
        }
    }
    Ok(messages)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
