use super::*;
use crate::arena::prefixes::PackedKey;
use crate::rib::samples;
use crate::types::PeerType;
use crate::wire::attributes::PathAttributes;
use std::net::Ipv4Addr;

const QUICK: PeerId = PeerId(1);
const STUCK: PeerId = PeerId(2);

fn session() -> Arc<Session> {
    Arc::new(samples::session(PeerType::External))
}

fn attributes(med: u32) -> Arc<PathAttributes> {
    // The peers of the tests are not its next hop.
    let next_hop = Ipv4Addr::new(10, 0, 0, 3).into();
    Arc::new(PathAttributes { med: Some(med), next_hop, ..samples::attributes() })
}

/// The /32 of this number, with this MED or withdrawn, learned from this peer or our own.
type Change = (u32, Option<u32>, Option<PeerId>);

fn change(number: u32, med: Option<u32>) -> Change {
    (number, med, None)
}

fn changes(all: impl IntoIterator<Item = Change>) -> EgressInput {
    let mut changes = Changes::default();
    for (number, med, from) in all {
        let prefix = ipnet::Ipv4Net::new(Ipv4Addr::from(number), 32).unwrap().into();
        let key = PackedKey::of(&PathKey { prefix, path_id: 0 });
        match med {
            Some(med) => changes.announce(key, &attributes(med), from),
            None => changes.withdraw(key),
        }
    }
    EgressInput::Changes(changes)
}

/// Two peers, one of which reads nothing after its first piece.
struct Bench {
    egress: Egress,
    now: Instant,
}

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "some instant; nothing depends on it")]
    fn new() -> Self {
        let mut bench = Self { egress: Egress::with_credit(1), now: Instant::now() };
        for peer in [QUICK, STUCK] {
            bench.input(EgressInput::Join { peer, session: session() });
        }
        bench
    }

    fn input(&mut self, input: EgressInput) {
        self.egress.handle(self.now, input);
        while let Some(EgressOutput::Write { peer, bytes, .. }) = self.egress.poll() {
            if peer == QUICK {
                self.egress.handle(self.now, EgressInput::Written { peer, bytes: bytes.len() });
            }
        }
    }

    fn changes(&mut self, all: Vec<Change>) {
        self.input(changes(all));
    }
}

#[test]
fn churn_under_a_stuck_peer_is_bounded_by_the_table() {
    let mut bench = Bench::new();
    bench.changes((0..100).map(|i| change(i, Some(0))).collect());
    for med in 1..500 {
        bench.changes((0..100).map(|i| change(i, Some(med))).collect());
    }
    let (slots, entries) = bench.egress.table.size();
    assert_eq!(slots, 100);
    assert!(entries <= 2048, "{entries} entries of the journal for 100 prefixes");
}

#[test]
fn prefixes_a_stuck_peer_never_heard_of_leave_with_their_withdraw() {
    let mut bench = Bench::new();
    for number in 0..20_000 {
        bench.changes(vec![change(number, Some(0))]);
        bench.changes(vec![change(number, None)]);
    }
    let (slots, entries) = bench.egress.table.size();
    assert!(slots <= 2048 && entries <= 2048, "{slots} slots, {entries} entries for no prefix at all");
    bench.input(EgressInput::Leave(STUCK));
    assert_eq!(bench.egress.table.size(), (0, 0));
}

#[test]
fn without_peers_nothing_is_journaled() {
    let mut bench = Bench::new();
    bench.input(EgressInput::Leave(QUICK));
    bench.input(EgressInput::Leave(STUCK));
    bench.changes(vec![change(1, Some(0)), change(2, Some(0)), change(1, None)]);
    assert_eq!(bench.egress.table.size(), (1, 0));
    bench.changes(vec![change(2, None)]);
    assert_eq!(bench.egress.table.size(), (0, 0));
}

#[test]
fn inputs_of_unknown_peers_do_nothing() {
    let mut bench = Bench::new();
    let ghost = PeerId(9);
    bench.input(EgressInput::Leave(ghost));
    bench.input(EgressInput::Written { peer: ghost, bytes: 9 });
    bench.input(EgressInput::Refresh { peer: ghost, family: Family::Ipv4Unicast });
    bench.input(EgressInput::Move { peer: ghost, to: GroupId(9) });
    assert_eq!(bench.egress.advertised(ghost, Family::Ipv4Unicast), 0);
}

/// Clients of a route reflector, each of which is told all but its own routes: what many are told is encoded once.
#[test]
fn what_came_from_the_group_itself_is_encoded_once_too() {
    let (clients, each) = (20_u32, 30_u32);
    let mut bench = Bench::new();
    [QUICK, STUCK].into_iter().for_each(|peer| bench.input(EgressInput::Leave(peer)));
    bench.egress = Egress::new();
    let route = |client: u32, i: u32| (client * each + i, Some(client), Some(PeerId(client)));
    // By turns, as a table is after all have told theirs at once.
    bench.changes((0..each).flat_map(|i| (0..clients).map(move |client| route(client, i))).collect());
    for peer in 0..clients {
        bench.egress.handle(bench.now, EgressInput::Join { peer: PeerId(peer), session: session() });
    }
    pack::ENCODED.set(0);
    let outputs: Vec<EgressOutput> = std::iter::from_fn(|| bench.egress.poll()).collect();
    assert_eq!(pack::ENCODED.get(), (clients * each) as usize, "each prefix once");
    for peer in 0..clients {
        let own =
            |output: &&EgressOutput| matches!(output, EgressOutput::Write { peer: to, .. } if to.0 == peer);
        let told = bench.egress.advertised(PeerId(peer), Family::Ipv4Unicast);
        assert_eq!(told, ((clients - 1) * each) as usize, "all but its own");
        let messages: u64 = outputs
            .iter()
            .filter(own)
            .map(|output| match output {
                EgressOutput::Write { messages, .. } => *messages,
                EgressOutput::Moved { .. } => 0,
            })
            .sum();
        // One of each other client's, and End-of-RIB of both families.
        assert_eq!(messages, u64::from(clients - 1) + 2);
    }
}

#[test]
fn a_route_takes_as_much_memory_as_the_docs_say() {
    crate::sizes::assert_told(&[
        ("Slot", size_of::<adj_out::Slot>()),
        ("Stored", size_of::<crate::wire::update::Stored>()),
    ]);
}
