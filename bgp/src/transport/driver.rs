//! What owns the speaker.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::pending;
use std::io;
use std::iter::from_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep_until, timeout};

use super::bfd::{Sessions, Standings};
use super::connection::{self, Arrival, Link, Socket, Written};
use super::keys::{self, Key, Keys};
use super::limits::{Limits, Permit};
use super::notices::Notices;
use super::recorder::Recorder;
use super::signature::{self, AoInUse, Signed};
use super::{Command, LINGER, Notice, Request, listener, sockopt};
use crate::config::{PeerConfig, SpeakerConfig};
use crate::ingress::ahead::Piece;
use crate::mrt::Observation;
use crate::protection::Protection;
use crate::speaker::{Caller, Input, Output, Speaker};
use crate::types::{ConnectionId, PeerAddress};

/// How many arrivals may wait before the connections stop reading: at most this many reads' worth of memory, and of what they decode to.
const ARRIVALS_MAX: usize = 64;

/// How long arrivals are handled before timers, requests and notices get their turn. One of many routes may take longer.
const ARRIVALS_BUDGET: Duration = Duration::from_millis(2);

/// How long requests are served before what has arrived gets its turn. One may take longer.
const REQUESTS_BUDGET: Duration = Duration::from_millis(2);

/// How many buffers may wait for one connection to take them. The speaker sends no UPDATE beyond what the peer has room for,
/// so that only a fault gets here; it costs the session.
const QUEUE_MAX: usize = 16 * 1024;

/// A tick that comes later than that is of a process that did not run, or was busy: it has not read what it should.
const LATE: Duration = Duration::from_millis(200);

/// How long BFD may wait for peers to close the sessions that a new configuration ends.
const BFD_PATIENCE: Duration = Duration::from_secs(1);

/// The one place that reads the clock.
#[expect(clippy::disallowed_methods, reason = "the transport is where time enters")]
fn now() -> Instant {
    Instant::now()
}

pub(super) struct Driver {
    speaker: Speaker,
    /// Inputs that came up while outputs were carried out.
    inputs: VecDeque<Input>,
    connections: BTreeMap<ConnectionId, Connection>,
    accepted: u64,
    limits: Limits,
    listeners: BTreeMap<SocketAddr, AbortHandle>,
    /// What the listeners are to have.
    keys: watch::Sender<Keys>,
    /// Every task; what it tells comes as an [`Arrival`].
    tasks: JoinSet<()>,
    /// Where they run.
    runtime: runtime::Handle,
    arrivals: mpsc::Sender<Arrival>,
    arrived: mpsc::Receiver<Arrival>,
    written: Arc<Written>,
    notices: Notices,
    daemon: mpsc::Sender<Notice>,
    bfd: Sessions,
    /// As the speaker told them last.
    dynamic: BTreeMap<PeerAddress, Arc<PeerConfig>>,
    /// Where messages are written down.
    recorder: Option<Arc<Recorder>>,
    /// What BFD waits for before it gets a new configuration.
    bfd_waits: Option<BfdWaits>,
}

/// BFD goes after BGP: some take AdminDown for a failure, and would not hear why the session ended.
struct BfdWaits {
    /// The connections that the configuration ended, and whose peers have not closed.
    closing: BTreeSet<ConnectionId>,
    until: Instant,
}

#[derive(Debug)]
enum Connection {
    Dialling(AbortHandle),
    Open(Link),
}

impl Driver {
    pub(super) fn new(
        speaker: Speaker,
        listeners: BTreeSet<SocketAddr>,
        daemon: mpsc::Sender<Notice>,
        runtime: runtime::Handle,
    ) -> Self {
        let (arrivals, arrived) = mpsc::channel(ARRIVALS_MAX);
        let mut driver = Self {
            speaker,
            inputs: VecDeque::new(),
            connections: BTreeMap::new(),
            accepted: 0,
            limits: Limits::new(),
            listeners: BTreeMap::new(),
            keys: watch::Sender::new(Keys::new()),
            tasks: JoinSet::new(),
            runtime,
            arrivals,
            arrived,
            written: Arc::default(),
            notices: Notices::default(),
            daemon,
            bfd: Sessions::default(),
            dynamic: BTreeMap::new(),
            recorder: None,
            bfd_waits: None,
        };
        driver.listen(listeners);
        driver
    }

    /// Has a thread of its own pack what peers are told; without one, it is done between arrivals. Tells when there is something packed.
    fn pack_aside(&mut self) -> Arc<Notify> {
        let packed = Arc::new(Notify::new());
        let wake = Arc::clone(&packed);
        let help = self.speaker.help(move || wake.notify_one());
        if let Err(error) = std::thread::Builder::new().name("egress".into()).spawn(help) {
            tracing::warn!(%error, "no thread for packing UPDATEs: they are packed between arrivals");
            self.speaker.dismiss();
        }
        packed
    }

    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let (daemon, written) = (self.daemon.clone(), Arc::clone(&self.written));
        let packed = self.pack_aside();
        let stopped = loop {
            self.end_bfd_wait();
            let deadline = self.speaker.next_deadline().map(|(at, _)| at);
            if let Some(late) = deadline.and_then(|at| now().checked_duration_since(at)) {
                // A process that was held up must not take its own silence for its peers'.
                if late > LATE {
                    self.feed(Input::HeldUp);
                }
                if let Ok(arrival) = self.arrived.try_recv() {
                    self.arrive(arrival);
                }
                // Who has taken what was written does not hold it up.
                self.inputs.extend(self.written());
                self.feed(Input::Tick);
            }
            tokio::select! {
                Some(arrival) = self.arrived.recv() => {
                    // What was asked for before comes first, and who asks waits for one round however much arrives.
                    let until = now() + REQUESTS_BUDGET;
                    let mut waiting = from_fn(|| if now() < until { requests.try_recv().ok() } else { None });
                    if let Some(done) = waiting.find_map(|request| self.serve(request)) {
                        break Some(done);
                    }
                    self.arrive(arrival);
                }
                request = requests.recv() => match request.map(|request| self.serve(request)) {
                    Some(None) => {}
                    Some(stop) => break stop,
                    None => break None,
                },
                () = packed.notified() => self.feed(Input::Packed),
                () = written.changed() => {
                    self.inputs.extend(self.written());
                    self.feed_all();
                }
                standings = self.bfd.changed() => self.bfd_said(&standings),
                () = until(deadline) => {}
                () = until(self.bfd_waits.as_ref().map(|waits| waits.until)) => {}
                room = daemon.reserve(), if !self.notices.is_empty() => {
                    // An error: the daemon listens no more. It may still ask and stop.
                    if let (Ok(room), Some(notice)) = (room, self.notices.next()) {
                        room.send(notice);
                    }
                }
                // Finished tasks only need to be forgotten.
                Some(_) = self.tasks.join_next() => {}
            }
        };
        self.stop().await;
        if let Some(done) = stopped {
            // Whoever asked may have given up.
            let _ = done.send(());
        }
    }

    /// Does what a handle asks for; whom to tell, if that is to stop.
    fn serve(&mut self, request: Request) -> Option<oneshot::Sender<()>> {
        match request {
            Request::Command(command) => self.obey(command),
            Request::Inspect(look) => look(&self.speaker),
            Request::Bfd(answer) => self.bfd.report(answer),
            Request::AoKeys(answer) => {
                // Whoever asked may have given up.
                let _ = answer.send(self.ao_keys());
            }
            Request::Stop(done) => return Some(done),
        }
        None
    }

    fn ao_keys(&self) -> BTreeMap<ConnectionId, AoInUse> {
        let in_use = self.connections.iter().filter_map(|(id, connection)| match connection {
            Connection::Open(link) => Some((*id, link.in_use.in_use()?)),
            Connection::Dialling(_) => None,
        });
        in_use.collect()
    }

    /// Handles an arrival and those that wait behind it, while the time for that lasts.
    fn arrive(&mut self, first: Arrival) {
        let until = now() + ARRIVALS_BUDGET;
        let mut next = Some(first);
        while let Some(arrival) = next {
            self.handle(arrival);
            next = if now() < until { self.arrived.try_recv().ok() } else { None };
        }
    }

    fn handle(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Listener { address, state } => {
                if self.listeners.contains_key(&address) {
                    self.notices.listener(address, state);
                }
            }
            Arrival::Accepted { stream, remote, key } => self.accept(stream, remote, key),
            Arrival::KeyRefused { prefix, error } => self.key_refused(prefix, &error),
            Arrival::Dialled { connection, result } => self.dialled(connection, result),
            // A connection that the speaker has closed may still have something to say.
            Arrival::Read { connection, pieces } => self.read(connection, pieces),
            Arrival::Closed { connection, error } => {
                if self.connections.remove(&connection).is_some() {
                    self.feed(Input::Closed { connection, error });
                }
                if let Some(waits) = &mut self.bfd_waits {
                    waits.closing.remove(&connection);
                }
                self.end_bfd_wait();
            }
        }
    }

    fn read(&mut self, connection: ConnectionId, pieces: Vec<Piece>) {
        for piece in pieces {
            if self.connections.contains_key(&connection) {
                self.feed(match piece {
                    Piece::Bytes(bytes) => Input::Bytes { connection, bytes },
                    Piece::Updates(updates) => Input::Updates { connection, updates },
                });
            }
        }
    }

    fn accept(&mut self, stream: TcpStream, remote: SocketAddr, key: Option<Key>) {
        // A connection that is gone before it was accepted has no local address.
        let Ok(local) = stream.local_addr() else { return };
        let Some(permit) = self.limits.admit(remote.ip()) else {
            return self.feed(Input::Refused { remote });
        };
        let signed = match self.speaker.caller(local, remote) {
            None => None,
            Some(caller) => match self.protect(caller, &stream, remote, key) {
                Ok(signed) => signed,
                Err(error) => return self.feed(Input::Unprotected { caller, error }),
            },
        };
        self.accepted += 1;
        let (connection, socket) = (ConnectionId::Accepted(self.accepted), Socket { stream, signed });
        self.open(connection, socket, Some(permit), Input::Accepted { connection, local, remote });
    }

    /// Gives an accepted connection what its peer's sessions must have, and sees that it has been so from its first segment on.
    fn protect(
        &self,
        caller: Caller,
        stream: &TcpStream,
        remote: SocketAddr,
        key: Option<Key>,
    ) -> Result<Option<Signed>, String> {
        let Some(config) = self.speaker.caller_config(caller) else {
            return Ok(None);
        };
        let Protection { signature, ttl_security } = config.protection();
        let signed = signature::ensure(stream, remote.ip(), key, signature.as_ref())?;
        if let Some(hops) = ttl_security {
            let ipv4 = remote.is_ipv4();
            sockopt::send_with_ttl_max(stream, ipv4)
                .and_then(|()| sockopt::receive_from_within(stream, ipv4, hops))
                .and_then(|()| sockopt::ensure_opened_within(stream, hops))
                .map_err(|error| format!("GTSM: {error}"))?;
        }
        Ok(signed)
    }

    /// A listener goes without the key of a peer, or of a range or a part of it: whoever connects from there is refused.
    fn key_refused(&mut self, prefix: IpNet, error: &str) {
        let Some(config) = self.speaker.config().cloned() else { return };
        let is_there = |(peer, config): &(&PeerAddress, &Arc<PeerConfig>)| {
            keys::address_of(**peer, config).map(IpNet::from) == Some(prefix)
        };
        let named: Vec<_> =
            config.peers.iter().filter(is_there).map(|(peer, _)| Caller::Peer(*peer)).collect();
        let range = config.ranges.keys().filter(|range| range.contains(&prefix));
        let range = range.max_by_key(|range| range.prefix_len()).map(|range| Caller::Range(*range));
        let concerned = if named.is_empty() { range.into_iter().collect() } else { named };
        for caller in concerned {
            self.feed(Input::Unprotected { caller, error: error.to_owned() });
        }
    }

    fn dialled(&mut self, connection: ConnectionId, result: io::Result<Socket>) {
        // The speaker may have closed it meanwhile; then the socket just goes.
        if self.connections.remove(&connection).is_none() {
            return;
        }
        match result.and_then(|socket| Ok((socket.stream.local_addr()?, socket))) {
            Ok((local, socket)) => {
                self.open(connection, socket, None, Input::Connected { connection, local });
            }
            Err(error) => self.feed(Input::ConnectFailed { connection, error: error.to_string() }),
        }
    }

    /// Hands a connection to the speaker, and gives it a task unless the speaker closes it at once.
    fn open(&mut self, id: ConnectionId, socket: Socket, permit: Option<Permit>, input: Input) {
        let (arrivals, written) = (self.arrivals.clone(), Arc::clone(&self.written));
        let (mut link, connection) = connection::pair(id, QUEUE_MAX, arrivals, written, permit);
        if let Some(signed) = &socket.signed {
            link.in_use = signed.observer();
        }
        self.connections.insert(id, Connection::Open(link));
        self.feed(input);
        if self.connections.contains_key(&id) || connection.has_last_words() {
            self.tasks.spawn_on(connection.run(socket), &self.runtime);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Configure(config) => {
                let keys = keys::of(&config);
                self.keys.send_if_modified(|old| std::mem::replace(old, keys.clone()) != keys);
                self.configure(config);
            }
            Command::Remember(peers) => self.feed(Input::Remember(peers)),
            Command::ResumeBfd(sessions) => self.bfd.resume(sessions),
            Command::NextHops(answers) => self.feed(Input::NextHops(answers)),
            Command::Reset { peer } => self.feed(Input::Reset { peer }),
            Command::Refresh { peer, direction } => self.feed(Input::Refresh { peer, direction }),
            Command::Listen(addresses) => self.listen(addresses),
            Command::Record(recorder) => {
                let observed = recorder.is_some();
                self.recorder = recorder;
                self.feed(Input::Observe(observed));
            }
        }
    }

    /// Tells the speaker, and BFD when the peers whose sessions that ends have heard why, or the time for that is up.
    fn configure(&mut self, config: Arc<SpeakerConfig>) {
        let before = self.open_connections();
        // One that waits already waits no longer than it would.
        let waits = || BfdWaits { closing: BTreeSet::new(), until: now() + BFD_PATIENCE };
        self.bfd_waits.get_or_insert_with(waits);
        self.feed(Input::Configure(config));
        let after = self.open_connections();
        if let Some(waits) = &mut self.bfd_waits {
            waits.closing.extend(&before - &after);
        }
        self.end_bfd_wait();
    }

    fn open_connections(&self) -> BTreeSet<ConnectionId> {
        let open =
            self.connections.iter().filter(|(_, connection)| matches!(connection, Connection::Open(_)));
        open.map(|(id, _)| *id).collect()
    }

    /// Has BFD go on if there is nothing to wait for any more.
    fn end_bfd_wait(&mut self) {
        let is_over = |waits: &mut BfdWaits| waits.closing.is_empty() || waits.until <= now();
        if self.bfd_waits.take_if(is_over).is_some() {
            self.configure_bfd();
        }
    }

    fn configure_bfd(&mut self) {
        if let Some(config) = self.speaker.config() {
            self.bfd.configure(&config.peers, &self.dynamic);
        }
    }

    fn bfd_said(&mut self, standings: &Standings) {
        for (peer, change) in self.bfd.news(standings) {
            self.feed(Input::Bfd { peer, change });
        }
        self.notices.bfd(self.bfd.resumptions());
    }

    fn listen(&mut self, addresses: BTreeSet<SocketAddr>) {
        self.listeners.retain(|address, task| {
            let stays = addresses.contains(address);
            if !stays {
                task.abort();
            }
            stays
        });
        for address in addresses {
            let (tasks, runtime) = (&mut self.tasks, &self.runtime);
            let (arrivals, keys) = (&self.arrivals, &self.keys);
            self.listeners.entry(address).or_insert_with(|| {
                tasks.spawn_on(listener::run(address, keys.subscribe(), arrivals.clone()), runtime)
            });
        }
    }

    /// Gives the speaker an input and carries out all that it asks for.
    fn feed(&mut self, input: Input) {
        self.inputs.push_back(input);
        self.feed_all();
        // What it asks of next hops decides on all routes over them.
        self.tell();
    }

    /// Tells the daemon one thing, if it has room.
    fn tell(&mut self) {
        if let Ok(room) = self.daemon.try_reserve()
            && let Some(notice) = self.notices.next()
        {
            room.send(notice);
        }
    }

    fn feed_all(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            self.speaker.handle(now(), input);
            while let Some(output) = self.speaker.poll() {
                self.carry_out(output);
                // While it goes through a table, whoever has taken what he was told of it is told more.
                if self.speaker.is_settling() {
                    self.written().into_iter().for_each(|input| self.speaker.handle(now(), input));
                }
            }
        }
    }

    /// What connections have written, of those that are left.
    fn written(&self) -> Vec<Input> {
        let written = self.written.take().into_iter();
        let of_open = written.filter(|(connection, _)| self.connections.contains_key(connection));
        of_open.map(|(connection, bytes)| Input::Written { connection, bytes }).collect()
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Dial { connection, source, remote, protection } => {
                let arrivals = self.arrivals.clone();
                let dial = async move {
                    let result = connection::dial(source, remote, protection).await;
                    // An error means that the driver has ended, and the socket ends with it.
                    let _ = arrivals.send(Arrival::Dialled { connection, result }).await;
                };
                let task = self.tasks.spawn_on(dial, &self.runtime);
                self.connections.insert(connection, Connection::Dialling(task));
            }
            Output::Write { connection, bytes } => self.write(connection, bytes),
            Output::Close { connection } => {
                if let Some(Connection::Dialling(task)) = self.connections.remove(&connection) {
                    task.abort();
                }
            }
            Output::RollOver { connection, keys } => {
                let Some(Connection::Open(link)) = self.connections.get(&connection) else { return };
                if let Err(TrySendError::Full(_)) = link.keys.try_send(keys) {
                    self.fail(connection, "the queue of changes of its TCP-AO keys is full");
                }
            }
            Output::Agreed { connection, session } => {
                if let Some(Connection::Open(link)) = self.connections.get(&connection) {
                    // A connection has one session at most.
                    let _ = link.agreed.set(session);
                }
            }
            // More may be decided before the speaker is done.
            Output::BestPaths(changes) => {
                self.notices.best_paths(changes);
                self.tell();
            }
            // The speaker decides next, which takes the longer the more routes there are.
            Output::NextHopsLost(next_hops) => {
                if let Err(TrySendError::Full(Notice::NextHopsLost(next_hops))) =
                    self.daemon.try_send(Notice::NextHopsLost(next_hops))
                {
                    self.notices.lost(next_hops);
                }
            }
            Output::TrackNextHop(next_hop) => self.notices.track(next_hop),
            Output::UntrackNextHop(next_hop) => self.notices.untrack(next_hop),
            Output::Converged => self.notices.converged(),
            Output::Announced(prefixes) => self.notices.announced(prefixes),
            Output::Aggregates(prefixes) => self.notices.aggregates(prefixes),
            Output::Neighbour { link, address } => self.notices.neighbour(link, address),
            Output::Dynamic { peers, remember } => self.dynamic_peers(peers, remember),
            Output::Event(event) => self.notices.event(event),
            Output::Observation(observation) => self.record(&observation),
        }
    }

    fn record(&self, observation: &Observation) {
        if let Some(recorder) = &self.recorder {
            recorder.record(SystemTime::now().into(), observation);
        }
    }

    fn dynamic_peers(&mut self, peers: BTreeMap<PeerAddress, Arc<PeerConfig>>, remember: BTreeSet<IpAddr>) {
        self.notices.dynamic(remember);
        self.dynamic = peers;
        if self.bfd_waits.is_none() {
            self.configure_bfd();
        }
    }

    fn write(&mut self, connection: ConnectionId, bytes: Bytes) {
        let Some(Connection::Open(link)) = self.connections.get(&connection) else { return };
        if let Err(TrySendError::Full(_)) = link.queue.try_send(bytes) {
            self.fail(connection, "the queue of messages to the peer is full");
        }
        // A queue that is closed belongs to a connection whose end is on its way here.
    }

    fn fail(&mut self, connection: ConnectionId, error: &str) {
        self.connections.remove(&connection);
        self.inputs.push_back(Input::Closed { connection, error: Some(error.to_owned()) });
    }

    async fn stop(mut self) {
        for (_, task) in std::mem::take(&mut self.listeners) {
            task.abort();
        }
        self.feed(Input::Stop);
        // Nobody takes arrivals any more; a task that waits to tell one shall write on instead.
        drop(self.arrived);
        let Self { mut tasks, bfd, .. } = self;
        // A connection's task ends when the peer has closed too. What has not left within the time is given up with the process.
        let _ = timeout(LINGER, async { while tasks.join_next().await.is_some() {} }).await;
        // Only now: some take AdminDown for a failure, which is none to who has heard already that BGP restarts (RFC 5882 section 4.3).
        bfd.stop().await;
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}
