//! A thousand connections of garbage on port 179 of a weftd that has work to do.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_integration::daemon::weft::Peer;
use weft_integration::daemon::{Family, Neighbor, RouterConfig, Software, router};
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::link::{End, Link};
use weft_integration::netns::Namespace;
use weft_integration::node::{self, Node};
use weft_integration::wait::{now, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);
const CONNECTIONS: usize = 1000;
const NODE_ASN: u16 = 64601;
const TROUBLE_ASN: u16 = 65066;

/// What an attacker sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Garbage {
    RandomBytes,
    TruncatedOpen,
    BadVersion,
    WrongAs,
    HoldTimeOfOne,
    GoodOpenThenRandomBytes,
    Nothing,
}

impl Garbage {
    const ALL: [Self; 7] = [
        Self::RandomBytes,
        Self::TruncatedOpen,
        Self::BadVersion,
        Self::WrongAs,
        Self::HoldTimeOfOne,
        Self::GoodOpenThenRandomBytes,
        Self::Nothing,
    ];

    fn bytes(self, random: &mut Random) -> Vec<u8> {
        match self {
            Self::RandomBytes => random.bytes(200),
            Self::TruncatedOpen => {
                let whole = open(4, TROUBLE_ASN, 90);
                let length = 1 + random.below(whole.len() - 1);
                whole[..length].to_vec()
            }
            Self::BadVersion => open(9, TROUBLE_ASN, 90),
            Self::WrongAs => open(4, 1, 90),
            Self::HoldTimeOfOne => open(4, TROUBLE_ASN, 1),
            Self::GoodOpenThenRandomBytes => [open(4, TROUBLE_ASN, 90), random.bytes(500)].concat(),
            Self::Nothing => Vec::new(),
        }
    }

    /// The NOTIFICATION that answers it, where it is certain (RFC 4271 section 6.2).
    fn answer(self) -> Option<[u8; 2]> {
        match self {
            Self::BadVersion => Some([2, 1]),
            Self::WrongAs => Some([2, 2]),
            Self::HoldTimeOfOne => Some([2, 6]),
            _ => None,
        }
    }
}

/// An OPEN without optional parameters.
fn open(version: u8, asn: u16, hold_time: u16) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend([0, 29, 1, version]);
    message.extend(asn.to_be_bytes());
    message.extend(hold_time.to_be_bytes());
    message.extend([10, 66, 66, 66, 0]);
    message
}

/// xorshift64: the same garbage in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap_or(u64::MAX)).unwrap_or_default()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// Sends some garbage; the code and subcode of the NOTIFICATION that comes back, if one does.
fn throw(from: &Namespace, at: SocketAddr, garbage: Garbage, random: &mut Random) -> Result<Option<[u8; 2]>> {
    let mut stream = from.run(|| TcpStream::connect_timeout(&at, Duration::from_secs(5)))??;
    // The other end may close before all is sent.
    let _ = stream.write_all(&garbage.bytes(random));
    if garbage.answer().is_none() {
        return Ok(None);
    }
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut answer = Vec::new();
    match stream.take(4096).read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => {
            return Err(error).with_context(|| format!("{garbage:?}: neither an answer nor an end"));
        }
    }
    Ok(notification(&answer))
}

/// The first NOTIFICATION in a run of messages.
fn notification(mut bytes: &[u8]) -> Option<[u8; 2]> {
    while bytes.len() >= 19 {
        let length = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
        if bytes[18] == 3 {
            return Some([*bytes.get(19)?, *bytes.get(20)?]);
        }
        bytes = bytes.get(length.max(19)..)?;
    }
    None
}

/// A node with an established session to BIRD and two strangers on cables of their own: one that is configured as a peer, one that
/// nobody knows.
struct Siege {
    node: Node,
    router: Box<dyn weft_integration::daemon::Router>,
    friend: Namespace,
    trouble: Namespace,
    stranger: Namespace,
}

fn address(cable: u8, end: u8) -> IpAddr {
    IpAddr::from([10, 1, cable, end])
}

fn siege(lab: &Lab) -> Result<Siege> {
    let mut node = Node::new(lab, "node", node::loopback(&[Family::V4], 1), node::blocks(&[Family::V4], 1))?;
    node.namespace.ip(&format!("addr add {} dev lo", node.addresses[0]))?;
    let machines = [lab.machine("tor")?, lab.machine("trouble")?, lab.machine("stranger")?];
    for (number, machine) in machines.iter().enumerate() {
        let cable = u8::try_from(number)?;
        let link = Link::new(End::new(&node.namespace, machine.label()), End::new(machine, "node"))?;
        link.near.add_addresses(&[format!("{}/31", address(cable, 0)).parse()?])?;
        link.far.add_addresses(&[format!("{}/31", address(cable, 1)).parse()?])?;
    }
    let mut config = RouterConfig::new("tor", 65001, [10, 0, 0, 255].into());
    config.originate = node::blocks(&[Family::V4], 99).into_iter().collect();
    config.neighbors = vec![Neighbor {
        name: "node".to_owned(),
        address: address(0, 0),
        asn: NODE_ASN.into(),
        local: address(0, 1),
        families: vec![Family::V4],
    }];
    let folder = node.weft.manifests();
    let documents: Vec<Value> = vec![
        documents::node("node", &[], &node.blocks, &node.addresses),
        documents::pod_pool(Family::V4),
        documents::bgp_configuration(
            &json!({"asNumber": NODE_ASN, "nodeToNodeMeshEnabled": false, "holdTime": "9s"}),
        ),
        documents::bgp_peer("tor", "node", json!({"peerIP": address(0, 1), "asNumber": 65001})),
        documents::bgp_peer(
            "trouble",
            "node",
            json!({"peerIP": address(1, 1), "asNumber": TROUBLE_ASN, "passive": true}),
        ),
    ];
    documents::write(&folder, "all.yaml", &documents)?;
    let [friend, trouble, stranger] = machines;
    let mut router = router(lab, &friend, Software::Bird, config)?;
    router.start()?;
    node.weft.start()?;
    Ok(Siege { node, router, friend, trouble, stranger })
}

impl Siege {
    fn friend_is_well(&self) -> Result<Peer> {
        let peer = self.node.weft.established(address(0, 1))?;
        self.node.weft.forwards(node::block(Family::V4, 99))?;
        self.router.ensure_established(address(0, 0))?;
        Ok(peer)
    }
}

#[test]
fn a_thousand_connections_of_garbage_disturb_nobody() -> Result<()> {
    Lab::test(|lab| {
        let mut siege = siege(lab)?;
        let before = wait_until("the session with the friend", PATIENCE, || siege.friend_is_well())?;
        let mut random = Random(0x5eed);
        let start = now();
        bad_opens_are_answered(&siege, &mut random)?;
        for number in 0..CONNECTIONS {
            let garbage = Garbage::ALL[number % Garbage::ALL.len()];
            // From a peer that could have a session, from one that has one, from nobody.
            let (from, cable) = match number % 3 {
                0 => (&siege.trouble, 1),
                1 => (&siege.friend, 0),
                _ => (&siege.stranger, 2),
            };
            throw(from, SocketAddr::new(address(cable, 0), 179), garbage, &mut random)?;
        }
        let took = start.elapsed();
        siege.node.weft.ensure_running()?;
        // Longer than the hold time from the start of the siege: KEEPALIVEs went on meanwhile.
        wait_until("a hold time to pass", PATIENCE, || {
            ensure!(start.elapsed() > Duration::from_secs(10), "{took:?}");
            siege.friend_is_well().map(drop)
        })?;
        let after = siege.friend_is_well()?;
        ensure!(after.since == before.since, "the session flapped: {before:?}, then {after:?}");
        shows(&siege)
    })
}

/// Each wrong field of an OPEN has its own NOTIFICATION. After each, the peer is in Idle for a while, longer each time.
fn bad_opens_are_answered(siege: &Siege, random: &mut Random) -> Result<()> {
    for garbage in [Garbage::BadVersion, Garbage::WrongAs, Garbage::HoldTimeOfOne] {
        wait_until(format!("the NOTIFICATION that answers {garbage:?}"), PATIENCE, || {
            let answer = throw(&siege.trouble, SocketAddr::new(address(1, 0), 179), garbage, random)?;
            ensure!(answer == garbage.answer(), "{answer:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// The siege is to be seen by weftctl and in the metrics.
fn shows(siege: &Siege) -> Result<()> {
    let weft = &siege.node.weft;
    let trouble = weft.peer(address(1, 1))?;
    ensure!(trouble.last_error.is_some(), "{trouble:?}");
    let (_, metrics) = weft.http("/metrics")?;
    let value = |name: &str, label: &str| -> Result<u64> {
        let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
        Ok(lines.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum())
    };
    let unknown = value("weft_bgp_connections_refused_total", "unknown-peer")?;
    ensure!(
        unknown >= u64::try_from(CONNECTIONS / 3)?,
        "{unknown} connections of strangers were counted\n{metrics}"
    );
    let sent = metrics.lines().find(|line| {
        line.starts_with("weft_bgp_messages_total")
            && ["name=\"trouble\"", "direction=\"sent\"", "type=\"notification\""]
                .iter()
                .all(|label| line.contains(label))
    });
    let sent: u64 = sent
        .and_then(|line| line.split_whitespace().last()?.parse().ok())
        .with_context(|| metrics.clone())?;
    ensure!(sent > 0, "no NOTIFICATION was counted\n{metrics}");
    let events = weft.weftctl("-o json events")?.success()?.stdout;
    ensure!(events.contains(&address(1, 1).to_string()), "no event names the attacker: {events}");
    Ok(())
}

/// After all that, the same address can have a session.
#[test]
fn a_peer_that_sent_garbage_is_welcome_when_it_behaves() -> Result<()> {
    Lab::test(|lab| {
        let siege = siege(lab)?;
        wait_until("the session with the friend", PATIENCE, || siege.friend_is_well())?;
        let mut random = Random(0xbad);
        for garbage in Garbage::ALL {
            throw(&siege.trouble, SocketAddr::new(address(1, 0), 179), garbage, &mut random)?;
        }
        let mut config = RouterConfig::new("reformed", TROUBLE_ASN.into(), [10, 0, 0, 254].into());
        config.neighbors = vec![Neighbor {
            name: "node".to_owned(),
            address: address(1, 0),
            asn: NODE_ASN.into(),
            local: address(1, 1),
            families: vec![Family::V4],
        }];
        let mut reformed = router(lab, &siege.trouble, Software::Bird, config)?;
        reformed.start()?;
        wait_until("a session with it", Duration::from_secs(90), || {
            siege.node.weft.established(address(1, 1))?;
            reformed.best(siege.node.blocks[0]).map(drop)
        })
    })
}
