//! Everything that is counted, in the OpenMetrics text format.
//!
//! There is no second set of books: each scrape is drawn from the same snapshot that `weftctl` shows. Labels are peers,
//! families, blocks and fixed words, never prefixes or pods, so that the number of series is bounded by the documents.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use weft_bgp::bfd::Discards;
use weft_bgp::session::State;
use weft_bgp::status::{MessageCounters, SpeakerCounters};
use weft_routing::{Counters, Resolution};

use crate::api::StationJson;
use crate::api::clear::SoftClear;
use crate::api::json::{AuthenticationJson, DrainPhase, ListenRangeJson, PeerJson, Severity, StatusJson};

/// The types of [`MessageCounters`], in its order.
const MESSAGE_TYPES: [&str; 5] = ["open", "update", "notification", "keepalive", "route-refresh"];

/// What one scrape is drawn from.
#[derive(Clone, Debug)]
pub(super) struct Scrape {
    /// The node.
    pub(super) status: StatusJson,
    /// Its peers and their messages.
    pub(super) peers: Vec<(PeerJson, MessageCounters)>,
    /// Whether it has converged since the start.
    pub(super) ready: bool,
    /// BFD packets that were discarded; none: no peer has BFD.
    pub(super) bfd_discards: Option<Discards>,
    /// What the speaker counts of no single peer.
    pub(super) speaker: SpeakerCounters,
    /// The monitoring stations.
    pub(super) stations: Vec<StationJson>,
    /// What the kernel's side counts.
    pub(super) kernel: Counters,
    /// How BGP's next hops are reached.
    pub(super) next_hops: Vec<Resolution>,
    /// How many nexthop objects of legs, and of groups of them, the kernel has of ours.
    pub(super) nexthops: (usize, usize),
    /// How many pods have routes.
    pub(super) pods: usize,
    /// What became of pods' addresses.
    pub(super) addresses: Addresses,
    /// What the loop counted.
    pub(super) counts: Counts,
    /// Router advertisements; none: no peer is known by its interface.
    pub(super) neighbours: Option<weft_routing::ndisc::Counters>,
    /// Writes to the API server that were made, and that failed.
    pub(super) reported: (u64, u64),
}

/// What the daemon's loop counts, since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Reads of the folder that were accepted.
    pub(super) reloads_accepted: u64,
    /// Reads of the folder that were rejected.
    pub(super) reloads_rejected: u64,
    /// How often a peer began to announce a family's prefixes that are somebody else's.
    pub(super) alarms: u64,
    /// Aggregates that are announced at present.
    pub(super) aggregates: u64,
    /// How often `weftctl clear` was asked for: hard, soft in, soft out.
    pub(super) clears: [u64; 3],
}

impl Counts {
    /// Counts a clear.
    pub(super) fn cleared(&mut self, soft: Option<SoftClear>) {
        let [hard, soft_in, soft_out] = &mut self.clears;
        let count = match soft {
            None => hard,
            Some(SoftClear::In) => soft_in,
            Some(SoftClear::Out) => soft_out,
        };
        *count = count.saturating_add(1);
    }
}

/// What becomes of pods' addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Taken, and found nowhere at the last look.
    pub(super) leaked: u64,
    /// Freed because they were nowhere, since the start.
    pub(super) freed: u64,
}

/// Renders a scrape.
pub(super) fn render(scrape: Scrape) -> String {
    let mut registry = Registry::with_prefix("weft");
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    // Writing to a String cannot fail, and nothing in here does otherwise.
    let _ = encode(&mut text, &registry);
    text
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_node(&mut encoder)?;
        self.encode_kernel(&mut encoder)?;
        self.encode_addresses(&mut encoder)?;
        self.encode_sessions(&mut encoder)?;
        self.encode_messages(&mut encoder)?;
        self.encode_bfd(&mut encoder)?;
        self.encode_bmp(&mut encoder)
    }
}

impl Scrape {
    fn encode_node(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (status, counts) = (&self.status, &self.counts);
        let version = env!("CARGO_PKG_VERSION");
        gauges(encoder, "build_info", "The version that runs", [([("version", version)], 1)])?;
        gauge(encoder, "ready", "1 once converged since the start", u64::from(self.ready))?;
        gauge(
            encoder,
            "drain_phase",
            "How far the node is drained: 0 not at all, 1 the last choice, 2 withdrawn, 3 its sessions are ended",
            match status.drain.as_ref().map(|drain| drain.phase) {
                None => 0,
                Some(DrainPhase::LowPreference) => 1,
                Some(DrainPhase::Withdrawn) => 2,
                Some(DrainPhase::Drained) => 3,
            },
        )?;
        gauge(
            encoder,
            "config_ok",
            "1 if the documents last read are in force",
            u64::from(status.config.ok),
        )?;
        counters(
            encoder,
            "config_reloads",
            "Reads of the documents",
            [
                ([("result", "accepted")], counts.reloads_accepted),
                ([("result", "rejected")], counts.reloads_rejected),
            ],
        )?;
        counters(
            encoder,
            "api_writes",
            "Writes to the Kubernetes API",
            [([("result", "done")], self.reported.0), ([("result", "failed")], self.reported.1)],
        )?;
        let problems =
            |wanted: Severity| status.problems.iter().filter(|p| p.severity == wanted).count() as u64;
        gauges(
            encoder,
            "problems",
            "What weftctl status lists",
            [
                ([("severity", "error")], problems(Severity::Error)),
                ([("severity", "warning")], problems(Severity::Warning)),
            ],
        )
    }

    fn encode_kernel(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let fib = &self.status.fib;
        let states = [
            ("wanted", fib.wanted),
            ("installed", fib.installed),
            ("refused", fib.refused),
            ("shadowed", fib.shadowed),
        ];
        let states = states.map(|(state, count)| ([("state", state)], count as u64));
        gauges(encoder, "fib_routes", "Routes of Weft's in the kernel", states)?;
        let reached =
            |wanted: fn(&Resolution) -> bool| self.next_hops.iter().filter(|r| wanted(r)).count() as u64;
        gauges(
            encoder,
            "next_hops",
            "BGP next hops in use, and how they are reached",
            [
                ([("state", "on-link")], reached(|r| matches!(r, Resolution::OnLink))),
                ([("state", "gateway")], reached(|r| matches!(r, Resolution::Gateway { .. }))),
                ([("state", "recursive")], reached(|r| matches!(r, Resolution::Recursive { .. }))),
                ([("state", "too-deep")], reached(|r| matches!(r, Resolution::TooDeep { .. }))),
                ([("state", "unresolved")], reached(|r| matches!(r, Resolution::Unresolved))),
            ],
        )?;
        gauge(
            encoder,
            "fib_installs_learned_routes",
            "1 if learned routes go into the kernel, 0 if they are kept out",
            u64::from(!fib.learned_kept_out),
        )?;
        let help = "Routes of Weft's over which packets are dropped, as a peer has them (RFC 7999)";
        gauge(encoder, "fib_blackholes", help, fib.blackholes as u64)?;
        let (legs, groups) = self.nexthops;
        let kinds = [([("kind", "leg")], legs as u64), ([("kind", "group")], groups as u64)];
        gauges(encoder, "fib_nexthops", "Nexthop objects of Weft's in the kernel", kinds)?;
        let help = "Groups of them that are resilient: flows stay on their next hop while others come and go";
        gauge(encoder, "fib_resilient_groups", help, fib.resilient_groups as u64)?;
        counter(encoder, "fib_repairs", "Routes put right after another program changed them", fib.repaired)?;
        counter(encoder, "fib_resyncs", "Times the kernel's routes were read whole", self.kernel.resyncs)?;
        counter(
            encoder,
            "fib_overruns",
            "Times notifications of the kernel's were lost",
            self.kernel.overruns,
        )?;
        if let Some(spoofed) = self.status.spoofed {
            let families = [([("family", "ipv4")], spoofed.ipv4), ([("family", "ipv6")], spoofed.ipv6)];
            counters(encoder, "spoofed_packets_dropped", "Packets of pods with forged sources", families)?;
        }
        self.encode_services(encoder)?;
        self.encode_mrt(encoder)
    }

    fn encode_mrt(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(mrt) = &self.status.mrt else { return Ok(()) };
        let records = [([("result", "written")], mrt.records), ([("result", "dropped")], mrt.dropped)];
        counters(encoder, "mrt_records", "Messages and changes of state for MRT files", records)?;
        let tables = [([("result", "written")], mrt.tables), ([("result", "failed")], mrt.tables_failed)];
        counters(encoder, "mrt_tables", "Tables for MRT files", tables)?;
        gauge(encoder, "mrt_files", "MRT files there are", mrt.files)?;
        gauge(encoder, "mrt_bytes", "Their size", mrt.size)
    }

    fn encode_services(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(services) = &self.status.services else { return Ok(()) };
        let states = [
            ("announced", services.announced),
            ("settling", services.settling),
            ("withheld", services.withheld),
        ];
        let states = states.map(|(state, count)| ([("state", state)], count as u64));
        gauges(encoder, "service_prefixes", "Addresses and ranges of Services", states)?;
        let Some(rejected) = services.rejected else { return Ok(()) };
        let families = [([("family", "ipv4")], rejected.ipv4), ([("family", "ipv6")], rejected.ipv6)];
        counters(encoder, "service_packets_rejected", "Packets to Services that nobody answered", families)
    }

    fn encode_addresses(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        gauge(encoder, "pods", "Pods with routes on this node", self.pods as u64)?;
        let blocks: Vec<_> = self.status.ipam.blocks.iter().map(|b| (b.cidr.to_string(), b)).collect();
        let by_state = blocks.iter().flat_map(|(cidr, block)| {
            let states = [
                ("taken", Some(block.taken)),
                ("resting", Some(block.resting)),
                ("reserved", block.reserved),
                ("free", block.free),
            ];
            states
                .into_iter()
                .filter_map(|(state, count)| Some(([("block", cidr.as_str()), ("state", state)], count?)))
        });
        gauges(
            encoder,
            "ipam_addresses",
            "Addresses by block; reserved and free are left out where they are beyond counting",
            by_state,
        )?;
        let Addresses { leaked, freed } = self.addresses;
        gauge(encoder, "ipam_leaked", "Addresses taken and found nowhere at the last look", leaked)?;
        counter(encoder, "ipam_freed", "Addresses freed because they were nowhere", freed)
    }

    fn encode_sessions(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (peers, counts) = (&self.status.peers, &self.counts);
        gauge(encoder, "bgp_peers_wanted", "Peers configured and not shut down", peers.wanted as u64)?;
        gauge(encoder, "bgp_peers_established", "Peers whose session is Established", peers.up as u64)?;
        let clients = || self.peers.iter().filter(|(peer, _)| peer.route_reflector_client);
        let up = clients().filter(|(peer, _)| peer.state == State::Established).count();
        let help = "Route reflector clients configured";
        gauge(encoder, "bgp_route_reflector_clients", help, clients().count() as u64)?;
        let help = "Route reflector clients whose session is Established";
        gauge(encoder, "bgp_route_reflector_clients_established", help, up as u64)?;
        gauge(encoder, "bgp_aggregates", "Aggregates announced, as a route lies inside", counts.aggregates)?;
        let states = self.peers.iter().map(|(peer, _)| (labels(peer), fsm_number(peer.state)));
        gauges(encoder, "bgp_peer_state", "1 Idle to 6 Established, as bgpPeerState of RFC 4273", states)?;
        let signed = self.peers.iter().filter_map(|(peer, _)| Some((labels(peer), peer.authentication?)));
        let signed = signed.map(|(peer, how)| (peer, u64::from(how != AuthenticationJson::Unavailable)));
        let help = "Peers with a password or TCP-AO keys: 1, or 0 where they are not to be had and the session stays down";
        gauges(encoder, "bgp_peer_authenticated", help, signed)?;
        let ao =
            || self.peers.iter().filter_map(|(peer, _)| Some((labels(peer), peer.detail.tcp_ao.as_ref()?)));
        let sends = ao().filter_map(|(peer, keys)| Some((peer, keys.sends_with?.into())));
        gauges(encoder, "bgp_peer_tcp_ao_send_id", "The ID of the TCP-AO key that we sign with", sends)?;
        let asks = ao().filter_map(|(peer, keys)| Some((peer, keys.asks_for?.into())));
        let help = "The ID of the TCP-AO key that we ask the peer to sign with";
        gauges(encoder, "bgp_peer_tcp_ao_receive_id", help, asks)?;
        let bad = ao().filter_map(|(peer, keys)| Some((peer, keys.bad_segments?)));
        let help = "Segments of the connection that were not signed as they should be, and dropped";
        gauges(encoder, "bgp_peer_tcp_ao_bad_segments", help, bad)?;
        let near = self.peers.iter().filter_map(|(peer, _)| Some((labels(peer), peer.ttl_security?.into())));
        gauges(
            encoder,
            "bgp_peer_ttl_security_hops",
            "How far away a peer may be, where the TTL is checked",
            near,
        )?;
        let limited = || self.peers.iter().filter_map(|(peer, _)| Some((labels(peer), peer.max_prefixes?)));
        let limits = limited().map(|(peer, max)| (peer, u64::from(max.limit)));
        gauges(encoder, "bgp_peer_max_prefixes", "How many prefixes of a family a peer may tell", limits)?;
        let exceeded = limited().map(|(peer, max)| (peer, u64::from(max.exceeded)));
        let help = "1 where there are more, or the session is kept down as there were";
        gauges(encoder, "bgp_peer_max_prefixes_exceeded", help, exceeded)?;
        let roles = self.peers.iter().filter_map(|(peer, _)| {
            let ([name, address], role) = (labels(peer), peer.role.as_ref()?);
            Some(([name, address, ("role", role.local.as_str())], u64::from(role.remote.is_some())))
        });
        gauges(
            encoder,
            "bgp_peer_role",
            "Our role (RFC 9234); 1: the peer has said the one that belongs to it",
            roles,
        )?;
        counter(encoder, "bgp_best_path_changes", "Changes of best paths", self.speaker.best_path_changes)?;
        let [hard, soft_in, soft_out] = counts.clears;
        let clears = [("hard", hard), ("soft-in", soft_in), ("soft-out", soft_out)];
        let clears = clears.map(|(kind, count)| ([("kind", kind)], count));
        counters(encoder, "bgp_clears", "How often weftctl clear was asked for", clears)?;
        let flaps = self.peers.iter().map(|(peer, messages)| (labels(peer), messages.flaps));
        counters(encoder, "bgp_session_flaps", "Sessions that left Established", flaps)?;
        let stuck =
            self.peers.iter().map(|(peer, messages)| (labels(peer), messages.send_hold_timer_expired));
        let help = "Sessions ended as the peer took nothing of what it was sent (RFC 9687)";
        counters(encoder, "bgp_send_hold_timer_expired", help, stuck)?;
        let refused = self.peers.iter().map(|(peer, messages)| (labels(peer), messages.connections_refused));
        counters(encoder, "bgp_peer_connections_refused", "A peer's connections closed at once", refused)?;
        for (name, help, count) in [
            (
                "bgp_routes_received",
                "Prefixes in the Adj-RIB-In",
                (|f| f.received) as fn(&crate::api::json::FamilyJson) -> u64,
            ),
            ("bgp_routes_accepted", "Of those, eligible", |f| f.accepted),
            ("bgp_routes_advertised", "Prefixes in the Adj-RIB-Out", |f| f.advertised),
            ("bgp_routes_stale", "Prefixes kept while the peer restarts", |f| f.stale),
            ("bgp_routes_long_lived_stale", "Of those, long-lived stale (RFC 9494)", |f| f.long_lived_stale),
            ("bgp_routes_with_as_set", "Routes rejected for an AS_SET (RFC 9774)", |f| f.as_set_routes),
            ("bgp_paths_refused", "Paths refused in the session, beyond 64 of a prefix", |f| f.refused_paths),
        ] {
            let families: Vec<_> = self
                .peers
                .iter()
                .flat_map(|(p, _)| {
                    p.per_family.iter().map(move |(f, counts)| (p, f.to_string(), count(counts)))
                })
                .collect();
            let series = families.iter().map(|(peer, family, count)| {
                ([("name", peer.name.as_str()), ("peer", &peer.peer), ("family", family)], *count)
            });
            gauges(encoder, name, help, series)?;
        }
        self.encode_rejected(encoder)?;
        if let Some(found) = self.neighbours {
            let results = [("sent", found.sent), ("received", found.received), ("ignored", found.ignored)];
            let results = results.map(|(result, count)| ([("result", result)], count));
            counters(encoder, "router_advertisements", "On the links of peers known by interface", results)?;
        }
        self.encode_ranges(encoder)?;
        let refused = [
            ([("reason", "unknown-peer")], self.speaker.unknown_peer),
            ([("reason", "too-many")], self.speaker.too_many),
        ];
        counters(encoder, "bgp_connections_refused", "Incoming connections closed at once", refused)?;
        counter(
            encoder,
            "bgp_alarms",
            "How often a peer began to announce a family's prefixes that are somebody else's",
            counts.alarms,
        )
    }

    fn encode_rejected(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let families: Vec<_> = self
            .peers
            .iter()
            .flat_map(|(peer, _)| {
                peer.per_family.iter().map(move |(f, counts)| (peer, f.to_string(), counts))
            })
            .collect();
        let series = families.iter().flat_map(|(peer, family, counts)| {
            let [name, address] = labels(peer);
            counts.rejected.iter().map(move |(code, count)| {
                ([name, address, ("family", family.as_str()), ("reason", code.as_str())], *count)
            })
        });
        let help = "Prefixes in the Adj-RIB-In that take no part in the decision";
        gauges(encoder, "bgp_routes_rejected", help, series)
    }

    fn encode_ranges(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ranges: Vec<_> = self.status.listen_ranges.iter().map(|r| (r.range.to_string(), r)).collect();
        let each = |count: fn(&ListenRangeJson) -> u64| {
            ranges
                .iter()
                .map(move |(range, r)| ([("name", r.name.as_str()), ("range", range.as_str())], count(r)))
        };
        let help = "Dynamic peers of a range";
        gauges(encoder, "bgp_listen_range_peers", help, each(|range| range.peers as u64))?;
        let help = "How many peers a range may have";
        gauges(encoder, "bgp_listen_range_limit", help, each(|range| range.limit.into()))?;
        let help = "Connections from within a range closed at once";
        counters(encoder, "bgp_listen_range_connections_refused", help, each(|range| range.refused))
    }

    fn encode_messages(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let by_type = |peer, direction, counts: &[u64; 5]| {
            let [name, address] = labels(peer);
            MESSAGE_TYPES
                .into_iter()
                .zip(*counts)
                .map(move |(kind, count)| ([name, address, ("direction", direction), ("type", kind)], count))
        };
        let all = self.peers.iter().flat_map(|(peer, messages)| {
            by_type(peer, "received", &messages.received).chain(by_type(peer, "sent", &messages.sent))
        });
        counters(encoder, "bgp_messages", "BGP messages", all)?;
        let withdrawn =
            self.peers.iter().map(|(peer, messages)| (labels(peer), messages.treated_as_withdraw));
        counters(encoder, "bgp_updates_treated_as_withdraw", "Malformed UPDATEs (RFC 7606)", withdrawn)?;
        let discarded =
            self.peers.iter().map(|(peer, messages)| (labels(peer), messages.attributes_discarded));
        counters(encoder, "bgp_attributes_discarded", "Malformed attributes (RFC 7606)", discarded)
    }
}

impl Scrape {
    fn encode_bfd(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let sessions = || self.peers.iter().filter_map(|(peer, _)| Some((labels(peer), peer.bfd.as_ref()?)));
        let states = sessions().map(|(labels, bfd)| (labels, bfd_state_number(&bfd.state)));
        gauges(encoder, "bfd_session_state", "0 AdminDown to 3 Up, as RFC 5880 numbers them", states)?;
        let failures = sessions().map(|(labels, bfd)| (labels, bfd.failures));
        counters(encoder, "bfd_session_failures", "Times that the path failed while BFD was Up", failures)?;
        let packets = sessions().flat_map(|([name, peer], bfd)| {
            [("sent", bfd.sent), ("received", bfd.received)]
                .map(|(direction, count)| ([name, peer, ("direction", direction)], count))
        });
        counters(encoder, "bfd_packets", "BFD packets", packets)?;
        let Some(discards) = self.bfd_discards else { return Ok(()) };
        let reasons = [
            ([("reason", "malformed")], discards.malformed),
            ([("reason", "ttl")], discards.ttl),
            ([("reason", "unknown")], discards.unknown),
            ([("reason", "authenticated")], discards.authenticated),
        ];
        counters(encoder, "bfd_packets_discarded", "BFD packets of no use (RFC 5880 section 6.8.6)", reasons)
    }
}

impl Scrape {
    fn encode_bmp(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let stations: Vec<_> =
            self.stations.iter().map(|station| (station.station.to_string(), station)).collect();
        let each = |count: fn(&StationJson) -> u64| {
            stations.iter().map(move |(address, station)| ([("station", address.as_str())], count(station)))
        };
        let connected = each(|station| u64::from(station.connected));
        gauges(encoder, "bmp_station_connected", "1 where the monitoring station is connected", connected)?;
        let help = "Changes that wait for the monitoring station to read";
        gauges(encoder, "bmp_changes_waiting", help, each(|station| station.waiting))?;
        counters(encoder, "bmp_messages", "BMP messages sent (RFC 7854)", each(|station| station.messages))?;
        counters(encoder, "bmp_octets", "Octets of BMP messages sent", each(|station| station.octets))?;
        let help = "Connections to the monitoring station";
        counters(encoder, "bmp_connects", help, each(|station| station.connects))?;
        let help = "Dials to the monitoring station that failed, and connections that were lost";
        counters(encoder, "bmp_failures", help, each(|station| station.failures))
    }
}

fn bfd_state_number(state: &str) -> u64 {
    match state {
        "AdminDown" => 0,
        "Init" => 2,
        "Up" => 3,
        _ => 1,
    }
}

fn labels(peer: &PeerJson) -> [(&str, &str); 2] {
    [("name", &peer.name), ("peer", &peer.peer)]
}

fn fsm_number(state: State) -> u64 {
    match state {
        State::Idle => 1,
        State::Connect => 2,
        State::Active => 3,
        State::OpenSent => 4,
        State::OpenConfirm => 5,
        State::Established => 6,
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauges<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = ([(&'a str, &'a str); N], u64)>,
) -> fmt::Result {
    family(encoder, name, help, series.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value))))
}

fn counters<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = ([(&'a str, &'a str); N], u64)>,
) -> fmt::Result {
    family(encoder, name, help, series.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value))))
}

/// A metric with labels; without any series it is left out.
fn family<'a, const N: usize, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl Iterator<Item = ([(&'a str, &'a str); N], M)>,
) -> fmt::Result {
    let mut series = series.peekable();
    let Some((_, first)) = series.peek() else { return Ok(()) };
    let mut metric = encoder.encode_descriptor(name, help, None, first.metric_type())?;
    for (labels, value) in series {
        value.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weft_bgp::types::Family;

    use super::*;
    use crate::api::ipam::{IpamBlockJson, IpamBlockState};
    use crate::api::json::{
        BfdJson, ConfigStatusJson, DrainJson, FamilyJson, FibStatusJson, IpamStatusJson, MaxPrefixesJson,
        MrtJson, PeerCountJson, Problem, SpoofedJson,
    };
    use crate::api::peer_detail::{PeerDetailJson, TcpAoJson};
    use crate::api::{RejectedJson, ServicesStatusJson};

    fn scrape() -> Scrape {
        let family = FamilyJson {
            received: 4,
            accepted: 3,
            advertised: 2,
            stale: 1,
            long_lived_stale: 0,
            refused_paths: 30,
            as_set_routes: 31,
            rejected: [("as-set".into(), 31), ("route-leak".into(), 32)].into(),
        };
        let peer = PeerJson {
            name: "tor \"a\"".into(),
            peer: "10.0.0.1".into(),
            listen_range: None,
            neighbour: None,
            remote_as: Some(65000),
            local_as: 64601,
            state: State::Established,
            since: None,
            families: vec![Family::Ipv4Unicast],
            received: 4,
            accepted: 3,
            advertised: 2,
            per_family: BTreeMap::from([(Family::Ipv4Unicast, family)]),
            role: Some(crate::api::json::RoleJson { local: "peer".into(), remote: None }),
            capabilities: None,
            timers: None,
            bfd: Some(BfdJson {
                state: "Up".into(),
                since: None,
                diagnostic: "No Diagnostic".into(),
                remote_state: "Up".into(),
                remote_diagnostic: "No Diagnostic".into(),
                multihop: false,
                transmit_interval_ms: Some(300),
                detection_time_ms: Some(900),
                sent: 27,
                received: 28,
                failures: 29,
            }),
            graceful_restart: None,
            authentication: Some(AuthenticationJson::TcpMd5),
            ttl_security: Some(1),
            max_prefixes: Some(MaxPrefixesJson { limit: 1000, warning: 750, exceeded: false }),
            last_error: None,
            detail: PeerDetailJson {
                tcp_ao: Some(TcpAoJson {
                    keys: Vec::new(),
                    sends_with: Some(1),
                    asks_for: Some(2),
                    bad_segments: Some(3),
                }),
                ..<_>::default()
            },
            route_reflector_client: true,
        };
        let block = IpamBlockJson {
            cidr: "10.244.1.0/26".parse().unwrap(),
            pool: None,
            state: IpamBlockState::Open,
            size: Some(64),
            taken: 3,
            resting: 2,
            reserved: Some(4),
            free: Some(55),
            announced: true,
        };
        let over = "10.2.0.0/24".parse().unwrap();
        Scrape {
            status: StatusJson {
                node: "n1".into(),
                ok: false,
                problems: vec![Problem::error("a", "b", "c")],
                addresses: Vec::new(),
                peers: PeerCountJson { up: 1, wanted: 2 },
                listen_ranges: vec![ListenRangeJson {
                    name: "rack".into(),
                    range: "10.0.0.0/24".parse().unwrap(),
                    peers: 2,
                    established: 1,
                    limit: 100,
                    refused: 27,
                }],
                config: ConfigStatusJson { ok: true, errors: Vec::new() },
                fib: FibStatusJson {
                    wanted: 5,
                    installed: 4,
                    refused: 1,
                    shadowed: 0,
                    blackholes: 34,
                    resilient_groups: 48,
                    repaired: 7,
                    learned_kept_out: false,
                },
                ipam: IpamStatusJson { blocks: vec![block] },
                spoofed: Some(SpoofedJson { ipv4: 15, ipv6: 16 }),
                services: Some(ServicesStatusJson {
                    announced: 19,
                    settling: 20,
                    withheld: 21,
                    rejected: Some(RejectedJson { ipv4: 22, ipv6: 23 }),
                }),
                drain: Some(DrainJson {
                    phase: DrainPhase::Withdrawn,
                    since: jiff::Timestamp::UNIX_EPOCH,
                    until: None,
                    reason: "weftctl drain".into(),
                }),
                mrt: Some(MrtJson {
                    directory: "/var/lib/weft/mrt".into(),
                    records: 40,
                    dropped: 41,
                    tables: 42,
                    tables_failed: 43,
                    files: 44,
                    size: 45,
                    updates_file: None,
                    table_file: None,
                }),
            },
            peers: vec![(
                peer,
                MessageCounters { received: [1, 2, 3, 4, 5], flaps: 6, ..MessageCounters::default() },
            )],
            ready: true,
            pods: 3,
            addresses: Addresses { leaked: 17, freed: 18 },
            neighbours: Some(weft_routing::ndisc::Counters { sent: 24, received: 25, ignored: 26 }),
            reported: (5, 1),
            counts: Counts {
                reloads_accepted: 8,
                reloads_rejected: 9,
                alarms: 10,
                aggregates: 11,
                clears: [12, 13, 14],
            },
            bfd_discards: Some(Discards { malformed: 30, ttl: 31, unknown: 32, authenticated: 33 }),
            stations: vec![StationJson {
                station: "192.0.2.9:11019".parse().unwrap(),
                connected: true,
                since: jiff::Timestamp::UNIX_EPOCH,
                monitor: vec![crate::api::MonitoredRib::LocRib],
                statistics_interval: Some(60),
                messages: 34,
                octets: 35,
                connects: 36,
                failures: 37,
                waiting: 38,
                last_error: None,
            }],
            speaker: SpeakerCounters { unknown_peer: 11, too_many: 12, best_path_changes: 15 },
            kernel: Counters { resyncs: 13, overruns: 14, ..Counters::default() },
            next_hops: [
                vec![Resolution::OnLink; 39],
                vec![Resolution::Gateway { metric: 0 }; 40],
                vec![Resolution::Recursive { over, metric: 0, direct: false }; 41],
                vec![Resolution::TooDeep { over }; 42],
                vec![Resolution::Unresolved; 43],
            ]
            .concat(),
            nexthops: (46, 47),
        }
    }

    #[test]
    fn a_scrape_tells_everything() {
        let text = render(scrape());
        // The version would make the snapshot change with every release.
        insta::assert_snapshot!("metrics", text.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }

    #[test]
    fn every_metric_stands_in_the_docs() {
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/weftctl.md");
        let docs = std::fs::read_to_string(docs).unwrap();
        let text = render(scrape());
        let names = text.lines().filter(|line| !line.starts_with('#'));
        let missing: Vec<_> = names
            .filter_map(|line| line.split(['{', ' ']).next())
            .filter(|name| !["`", "{"].iter().any(|end| docs.contains(&format!("`{name}{end}"))))
            .collect();
        assert!(missing.is_empty(), "not in docs/weftctl.md: {missing:?}");
    }

    #[test]
    fn every_name_begins_with_weft_and_no_series_stands_twice() {
        let text = render(scrape());
        let series: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .collect();
        let mut names: Vec<_> = series.iter().map(|(name, _)| name).collect();
        assert!(names.iter().all(|name| name.starts_with("weft_")), "{names:?}");
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn a_node_without_peers_has_metrics_too() {
        let mut scrape = scrape();
        scrape.peers.clear();
        let text = render(scrape);
        assert!(text.contains("weft_bgp_peers_wanted 2") && text.ends_with("# EOF\n"), "{text}");
    }
}
