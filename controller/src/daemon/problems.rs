//! What is wrong with the node, each with what to do about it: one list out of everything the daemon knows.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use jiff::{Timestamp, Unit};
use weft_bgp::session::{State, Timer};
use weft_bgp::status::PeerStatus;
use weft_bgp::types::{Family, PeerAddress};

use super::clock::Moment;
use super::remedy;
use crate::api::json::{AuthenticationJson, ConfigStatusJson, FibStatusJson, PeerJson, Problem};

/// How many addresses that are no peer's are remembered.
const STRANGERS_MAX: usize = 64;
/// How long a refused connection is a problem, in seconds.
const STRANGERS_SECONDS: i64 = 600;

/// What the daemon knows that could be a problem.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// What the host and the plan have found by themselves.
    pub(super) found: &'a [Problem],
    /// The documents.
    pub(super) config: &'a ConfigStatusJson,
    /// Whether any documents are in force.
    pub(super) planned: bool,
    /// The peers, with whether each is shut down by its document, or a dynamic one that has no session yet or any more.
    pub(super) peers: &'a [(PeerJson, bool)],
    /// Rejected routes that people should hear of, by peer's name: how many, and one of them.
    pub(super) rejected: &'a BTreeMap<(String, Rejection), (usize, IpNet)>,
    /// Mesh peers behind a gateway, by peer's name.
    pub(super) behind_gateway: &'a BTreeMap<String, IpAddr>,
    /// Addresses that cannot be listened on, and why.
    pub(super) listeners: &'a BTreeMap<SocketAddr, String>,
    /// Routes in the kernel.
    pub(super) fib: &'a FibStatusJson,
    /// Connections from strangers.
    pub(super) strangers: &'a Strangers,
}

/// A reason for which routes are rejected that points at a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rejection {
    /// Their AS path has a set.
    AsSet,
    /// Nothing but our own AS in the path speaks against them.
    OwnAs,
    /// The node that announces them does not own them.
    DuplicateOrigin,
    /// They were told to customers only, which we are not to the peer (RFC 9234).
    RouteLeak,
}

/// The list, errors first.
pub(super) fn list(known: &Known<'_>, now: Timestamp) -> Vec<Problem> {
    let mut problems = known.found.to_vec();
    problems.extend(documents(known.config, known.planned));
    problems
        .extend(known.peers.iter().filter(|(_, shut_down)| !shut_down).filter_map(|(peer, _)| down(peer)));
    problems.extend(
        known
            .rejected
            .iter()
            .map(|((peer, rejection), (count, example))| rejected(peer, *rejection, *count, *example)),
    );
    problems.extend(known.behind_gateway.iter().map(|(peer, address)| behind_gateway(peer, *address)));
    problems.extend(known.listeners.iter().map(|(address, error)| listener(*address, error)));
    problems.extend(kernel(known.fib));
    problems.extend(known.strangers.problems(now));
    problems.sort();
    problems.dedup();
    problems
}

fn documents(config: &ConfigStatusJson, planned: bool) -> Option<Problem> {
    if config.ok {
        let remedy = "wait a moment: they are once the kernel's routes are read";
        let waiting = || Problem::error("documents", "the documents are read, and not in force yet", remedy);
        return (!planned).then(waiting);
    }
    if config.errors.is_empty() {
        let remedy = "wait a moment: they are read at the start, and nothing is changed before";
        return Some(Problem::error("documents", "the documents are not read yet", remedy));
    }
    let consequence = if config.is_by_object() {
        "an object stays as it was last accepted, and is not in force if it never was"
    } else if planned {
        "the last good documents stay in force"
    } else {
        "nothing is announced or withdrawn, and the kernel's routes stay as they are, until they are right"
    };
    let errors = match config.errors.len() {
        1 => "the documents have an error".to_owned(),
        n => format!("the documents have {n} errors"),
    };
    Some(Problem::error(
        "documents",
        format!("{errors}; {consequence}"),
        "correct what is listed under config.errors; a change is taken in at once",
    ))
}

/// The API server is away, or does not let us in.
pub(super) fn api(trouble: &str) -> Problem {
    Problem::warning(
        "api-unreachable",
        format!("{trouble}; what was read of the cluster last stays in force"),
        "see that the API server runs, that this node reaches it, and that weftd's account may list and watch",
    )
}

fn down(peer: &PeerJson) -> Option<Problem> {
    // These are problems of their own.
    let known = peer.authentication == Some(AuthenticationJson::Unavailable)
        || peer.max_prefixes.is_some_and(|max| max.exceeded);
    if peer.state == State::Established || known {
        return None;
    }
    if let (Some(interface), None) = (peer.peer.strip_prefix('%'), peer.neighbour) {
        return Some(Problem::error(
            "peer-down",
            format!("the session with {} is {}: no router is found on {interface}", peer.name, peer.state),
            format!(
                "look at the other end of {interface}: the link must be up with IPv6 on, and the router there must send router advertisements or \
                 connect from its link-local address"
            ),
        ));
    }
    let cause =
        peer.last_error.as_ref().map_or_else(String::new, |error| format!("; last error: {}", error.text));
    Some(Problem::error(
        "peer-down",
        format!("the session with {} ({}) is {}{cause}", peer.name, peer.peer, peer.state),
        remedy::of(peer),
    ))
}

/// A peer that tells nearly as many prefixes as it may, or more.
pub(super) fn max_prefixes(peer: &PeerStatus, now: &Moment) -> Option<Problem> {
    let max = peer.config.max_prefixes?;
    let who = format!("{} ({})", peer.config.name, peer.address);
    let limit = max.limit;
    let field = if peer.config.name.starts_with("mesh:") {
        "nodeMeshMaxPrefixes.limit of the BGPConfiguration"
    } else {
        "maxPrefixes.limit of the BGPPeer"
    };
    if peer.over_limit {
        let begins = peer.timers.get(&Timer::IdleHold).map(|at| now.timestamp_of(*at));
        let begins = begins.map(|at| at.round(Unit::Second).unwrap_or(at));
        let until = match begins {
            Some(at) => format!("it is begun again at {at}"),
            None => "it stays down until that limit or what the session depends on changes".to_owned(),
        };
        return Some(Problem::error(
            "max-prefixes",
            format!(
                "the session with {who} was ended: more than {limit} prefixes of a family were told; {until}"
            ),
            format!(
                "have the peer tell less, then begin the session by weftctl clear {}, or wait where it begins by itself; or raise \
                 {field}",
                peer.address
            ),
        ));
    }
    let family = peer.families.iter().find(|family| family.told() >= max.warning as usize)?;
    Some(Problem::warning(
        "max-prefixes",
        format!("{who} tells {} prefixes of {}, of {limit} that it may", family.told(), family.family),
        format!(
            "see what it tells (weftctl routes --rib in --peer {}), and filter it there or raise {field}",
            peer.address
        ),
    ))
}

/// A peer that tells more paths of a prefix than it may have.
pub(super) fn paths_refused(peer: &PeerStatus) -> Option<Problem> {
    let family = peer.families.iter().find(|family| family.refused > 0)?;
    Some(refused(&peer.config.name, peer.address, family.family, family.refused))
}

fn refused(name: &str, address: PeerAddress, family: Family, refused: u64) -> Problem {
    Problem::warning(
        "paths-refused",
        format!(
            "{name} ({address}) tells more than 64 paths of a prefix of {family}: {refused} were refused"
        ),
        format!(
            "have it tell fewer (weftctl routes --rib in --peer {address}), then weftctl clear {address}"
        ),
    )
}

/// A session over link-local addresses whose peer takes no IPv6 next hops for IPv4.
pub(super) fn without_ipv4(peer: &PeerStatus) -> Option<Problem> {
    let interface = peer.address.interface()?;
    let session = peer.session.as_ref()?;
    let ipv4 = Family::Ipv4Unicast;
    (peer.config.families.contains(ipv4) && !session.families.contains(ipv4)).then(|| {
        Problem::warning(
            "no-extended-next-hop",
            format!(
                "{} on {interface} exchanges no IPv4 routes: it does not offer ipv4-unicast with IPv6 next hops (RFC 8950)",
                peer.config.name
            ),
            "switch the capability extended-nexthop and ipv4-unicast on at the other end, or set families: [ipv6-unicast] on the BGPPeer",
        )
    })
}

fn rejected(peer: &str, rejection: Rejection, count: usize, example: IpNet) -> Problem {
    let routes = match count {
        1 => format!("the route {example} of {peer} is"),
        n => format!("{n} routes of {peer}, such as {example}, are"),
    };
    match rejection {
        Rejection::AsSet => Problem::warning(
            "as-set",
            format!("{routes} rejected because the AS path has an AS_SET or AS_CONFED_SET (RFC 9774)"),
            "have the router that aggregates leave sets out (aggregate-address without as-set in FRR), or set allowASSets: true on the \
             BGPPeer",
        ),
        Rejection::OwnAs => Problem::warning(
            "own-as-in-path",
            format!("{routes} rejected only because our own AS is in the path"),
            "where nodes in several racks share an AS, set numAllowedLocalASNumbers: 1 on the BGPPeer, or give the \
             racks different ASNs (asNumber of a node's BGPConfiguration, localASNumber of a BGPPeer)",
        ),
        Rejection::RouteLeak => Problem::warning(
            "route-leak",
            format!(
                "{routes} rejected because they were told to customers only, and the peer is to tell us none of those (RFC 9234)"
            ),
            "have the peer filter what it has from its own providers and peers; or correct role in the BGPPeer, if our AS is something else \
             to it (weftctl peers)",
        ),
        Rejection::DuplicateOrigin => Problem::error(
            "duplicate-origin",
            format!("{routes} rejected because only the node that has a block may originate it"),
            "compare the podCIDRs and IPBlocks of both nodes, and the documents that the other node runs with: \
             two nodes must not have one block; behind a router the end of the AS path (weftctl routes --rib in) says who announces it",
        ),
    }
}

fn behind_gateway(peer: &str, address: IpAddr) -> Problem {
    Problem::warning(
        "next-hop-not-on-link",
        format!("{peer} ({address}): next hop not on-link: routers between must know the pod blocks"),
        "peer with those routers (a BGPPeer to the ToR) so that they learn the blocks, or put the nodes in one subnet",
    )
}

fn listener(address: SocketAddr, error: &str) -> Problem {
    Problem::error(
        "not-listening",
        format!("cannot listen for BGP on {address}: {error}"),
        format!(
            "see what holds the port (ss -ltnp sport = :{}), stop it, or set listenPort in the BGPConfiguration",
            address.port()
        ),
    )
}

/// Groups of next hops that should be resilient.
pub(super) fn not_resilient(why: &str) -> Problem {
    Problem::warning(
        "next-hops-not-resilient",
        format!(
            "the kernel makes no resilient groups of next hops: {why}; it has the usual ones, whose flows move when next hops come or go"
        ),
        "run Linux 5.13 or later; where that runs, see that there is memory for resilientNextHops.buckets; then restart weftd, or leave \
         resilientNextHops out",
    )
}

fn kernel(fib: &FibStatusJson) -> Vec<Problem> {
    let mut problems = Vec::new();
    if fib.refused > 0 {
        problems.push(Problem::error(
            "routes-refused",
            format!("routes of ours that the kernel refuses: {}", fib.refused),
            "weftctl fib shows the kernel's words for each; weftd tries again by itself",
        ));
    }
    if fib.shadowed > 0 {
        problems.push(Problem::warning(
            "routes-shadowed",
            format!("routes of ours that another program's route of better metric hides: {}", fib.shadowed),
            "weftctl fib shows them; take the other route away, or give it a higher metric than routeMetric",
        ));
    }
    problems
}

/// Who connects without being a peer: the latest few.
#[derive(Clone, Debug, Default)]
pub(super) struct Strangers {
    last_seen: BTreeMap<IpAddr, Timestamp>,
}

impl Strangers {
    /// Takes down who was refused.
    pub(super) fn saw(&mut self, address: IpAddr, now: Timestamp) {
        if !self.last_seen.contains_key(&address) && self.last_seen.len() >= STRANGERS_MAX {
            let oldest = self.last_seen.iter().min_by_key(|(_, last)| **last).map(|(address, _)| *address);
            oldest.and_then(|address| self.last_seen.remove(&address));
        }
        self.last_seen.insert(address, now);
    }

    /// Forgets whoever is a peer by now.
    pub(super) fn forget(&mut self, is_peer: impl Fn(&IpAddr) -> bool) {
        self.last_seen.retain(|address, _| !is_peer(address));
    }

    fn problems(&self, now: Timestamp) -> impl Iterator<Item = Problem> {
        let recent =
            move |last: Timestamp| now.as_second().saturating_sub(last.as_second()) < STRANGERS_SECONDS;
        self.last_seen.iter().filter(move |(_, last)| recent(**last)).map(|(address, last)| {
            Problem::warning(
                "connection-refused",
                format!("{address} tries to connect and is no peer of this node; last at {last:.0}"),
                match address {
                    IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                        "add a BGPPeer with the interface that it is on, or keep that speaker from connecting"
                            .to_owned()
                    }
                    _ => {
                        format!("add a BGPPeer with peerIP: {address}, or keep that speaker from connecting")
                    }
                },
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::json::{ErrorDirection, LastErrorJson, Severity};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn peer(state: State) -> PeerJson {
        PeerJson {
            name: "tor-a".into(),
            peer: "10.0.0.1".into(),
            listen_range: None,
            neighbour: None,
            remote_as: Some(65000),
            local_as: 64601,
            state,
            since: None,
            families: Vec::new(),
            received: 0,
            accepted: 0,
            advertised: 0,
            per_family: BTreeMap::new(),
            role: None,
            capabilities: None,
            timers: None,
            bfd: None,
            graceful_restart: None,
            authentication: None,
            ttl_security: None,
            max_prefixes: None,
            last_error: None,
            detail: crate::api::peer_detail::PeerDetailJson::default(),
            route_reflector_client: false,
        }
    }

    /// What a node that is well knows.
    #[derive(Default)]
    struct Well {
        config: ConfigStatusJson,
        rejected: BTreeMap<(String, Rejection), (usize, IpNet)>,
        behind_gateway: BTreeMap<String, IpAddr>,
        listeners: BTreeMap<SocketAddr, String>,
        fib: FibStatusJson,
        strangers: Strangers,
    }

    impl Well {
        fn new() -> Self {
            Self { config: ConfigStatusJson { ok: true, errors: Vec::new() }, ..Self::default() }
        }

        fn codes(&self, peers: &[(PeerJson, bool)]) -> Vec<String> {
            let known = Known {
                found: &[],
                config: &self.config,
                planned: true,
                peers,
                rejected: &self.rejected,
                behind_gateway: &self.behind_gateway,
                listeners: &self.listeners,
                fib: &self.fib,
                strangers: &self.strangers,
            };
            list(&known, NOW).into_iter().map(|p| p.code).collect()
        }
    }

    #[test]
    fn a_node_that_is_well_has_none() {
        assert!(Well::new().codes(&[(peer(State::Established), false)]).is_empty());
    }

    #[test]
    fn a_peer_that_is_down_is_one_unless_it_is_shut_down() {
        assert_eq!(Well::new().codes(&[(peer(State::Active), false)]), ["peer-down"]);
        assert!(Well::new().codes(&[(peer(State::Idle), true)]).is_empty());
    }

    #[test]
    fn a_link_on_which_nobody_is_found_says_so() {
        let unnumbered = PeerJson { peer: "%uplink".into(), ..peer(State::Active) };
        let problem = down(&unnumbered).unwrap();
        assert!(problem.text.contains("no router is found on uplink"), "{}", problem.text);
        let found = PeerJson { neighbour: "fe80::1".parse().ok(), ..unnumbered };
        assert!(down(&found).unwrap().text.contains("(%uplink) is Active"));
    }

    #[test]
    fn paths_that_are_refused_say_whose_they_are() {
        let problem = refused("tor-a", PeerAddress::Ip([10, 0, 0, 1].into()), Family::Ipv4Unicast, 9);
        let text = "tor-a (10.0.0.1) tells more than 64 paths of a prefix of ipv4-unicast: 9 were refused";
        assert_eq!((problem.code.as_str(), problem.text.as_str()), ("paths-refused", text));
        assert!(problem.remedy.ends_with("weftctl clear 10.0.0.1"), "{}", problem.remedy);
    }

    #[test]
    fn the_remedy_is_that_of_what_went_wrong() {
        let remedy = |direction, code: Option<(u8, u8)>, text: &str, change: fn(&mut PeerJson)| {
            let (code, subcode) = code.unzip();
            let error = LastErrorJson { time: NOW, direction, code, subcode, text: text.into() };
            let mut peer = PeerJson { last_error: Some(error), ..peer(State::Active) };
            change(&mut peer);
            down(&peer).unwrap().remedy
        };
        use ErrorDirection::{Local, Received, Sent};
        let silent = "cannot connect: no answer";
        let signed: fn(&mut PeerJson) = |p| p.authentication = Some(AuthenticationJson::TcpMd5);
        let reset = "Cease/Hard Reset: Cease/";
        for (remedy, expected) in [
            (remedy(Local, None, silent, signed), "compare the password"),
            (remedy(Local, None, silent, |p| p.ttl_security = Some(1)), "TTL security on too"),
            (remedy(Local, None, silent, |_| ()), "set password, tcpAO or ttlSecurity"),
            (remedy(Local, None, "cannot connect: refused", signed), "know this node as a peer of AS 64601"),
            (remedy(Sent, Some((6, 10)), "Cease/BFD Down", |_| ()), "packets of BFD"),
            (remedy(Received, Some((6, 9)), &format!("{reset}BFD Down"), |_| ()), "packets of BFD"),
            (remedy(Sent, Some((2, 11)), "", |_| ()), "set role"),
            (remedy(Received, Some((2, 2)), "", |_| ()), "with AS 64601"),
            (remedy(Received, Some((6, 1)), "", |_| ()), "raise its limit"),
            (
                remedy(Received, Some((6, 9)), &format!("{reset}Administrative Shutdown: x"), |_| ()),
                "undrain",
            ),
        ] {
            assert!(remedy.contains(expected), "{expected}: {remedy}");
        }
    }

    #[test]
    fn errors_come_before_warnings() {
        let mut node = Well::new();
        node.fib = FibStatusJson { refused: 1, shadowed: 2, ..FibStatusJson::default() };
        node.config.ok = false;
        assert_eq!(node.codes(&[]), ["documents", "routes-refused", "routes-shadowed"]);
    }

    #[test]
    fn documents_that_are_not_read_yet_are_not_said_to_have_errors() {
        let problem = documents(&ConfigStatusJson::default(), false).unwrap();
        assert_eq!(problem.text, "the documents are not read yet");
    }

    #[test]
    fn all_is_not_well_before_the_documents_are_in_force() {
        let config = ConfigStatusJson { ok: true, ..ConfigStatusJson::default() };
        let problem = documents(&config, false).unwrap();
        assert_eq!((problem.severity, &*problem.code), (Severity::Error, "documents"));
        assert!(documents(&config, true).is_none());
    }

    #[test]
    fn a_route_that_only_the_own_as_speaks_against_names_the_remedy() {
        let problem = rejected("tor-a", Rejection::OwnAs, 3, "10.1.0.0/26".parse().unwrap());
        assert_eq!(problem.severity, Severity::Warning);
        assert!(
            problem.remedy.contains("numAllowedLocalASNumbers") && problem.remedy.contains("localASNumber")
        );
    }

    #[test]
    fn a_route_with_a_set_names_the_remedy() {
        let problem = rejected("tor-a", Rejection::AsSet, 1, "10.1.0.0/26".parse().unwrap());
        assert_eq!((problem.severity, &*problem.code), (Severity::Warning, "as-set"));
        assert!(problem.text.contains("10.1.0.0/26 of tor-a is") && problem.remedy.contains("allowASSets"));
    }

    #[test]
    fn a_block_that_another_node_announces_is_an_error() {
        let prefix = "10.1.0.0/26".parse().unwrap();
        let rejection = Rejection::DuplicateOrigin;
        let well =
            Well { rejected: [(("mesh:n2".to_owned(), rejection), (1, prefix))].into(), ..Well::new() };
        assert_eq!(well.codes(&[]), ["duplicate-origin"]);
        assert_eq!(rejected("mesh:n2", rejection, 1, prefix).severity, Severity::Error);
    }

    #[test]
    fn strangers_are_bounded_and_forgotten() {
        let mut strangers = Strangers::default();
        for n in 0..2 * STRANGERS_MAX as u32 {
            let time = Timestamp::from_second(i64::from(n)).unwrap();
            strangers.saw(IpAddr::V4(n.into()), time);
        }
        let now = Timestamp::from_second(130).unwrap();
        assert_eq!(strangers.problems(now).count(), STRANGERS_MAX);
        strangers.forget(|address| *address == IpAddr::from([0, 0, 0, 127]));
        assert_eq!(strangers.problems(now).count(), STRANGERS_MAX - 1);
        assert_eq!(strangers.problems(Timestamp::from_second(10_000).unwrap()).count(), 0);
    }
}
