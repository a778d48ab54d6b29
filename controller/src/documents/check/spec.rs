//! The faults of one object: values that are well-formed, but not together or not for their purpose.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration as StdDuration;

use ipnet::IpNet;
use weft_bgp::types::Family;
use weft_bgp::wire::notification::Notification;

use crate::api::{
    AddPathSpec, AllowedUse, BGPConfigurationSpec, BGPFilterRule, BGPFilterSpec, BGPPeerSpec,
    BLACKHOLE_CIDRS_MAX, Cidr, Duration, FILTER_RULES_MAX, GracefulRestartSpec, IPPoolSpec, Invalid,
    LISTEN_LIMIT_MAX, MatchOperator, MaxPrefixesAction, MaxPrefixesSpec, PasswordSource, PeerAs, SEND_MAX,
    SecretKeyRef, SourceAddress, Topology,
};
use crate::documents::decode::{NAME_REMEDY, fit_name};

/// How many destinations may be left out of NAT.
const NAT_EXCLUDED_MAX: usize = 256;

/// How many hops away a peer may be that is to be near.
const TTL_SECURITY_MAX: u8 = 254;

/// How long a session may stay down for too many prefixes and then begin by itself.
const RESTART_AFTER_MAX: StdDuration = StdDuration::from_secs(24 * 3600);

/// How many ranges of a pool may be reserved.
const RESERVED_MAX: usize = 256;

/// How long a node may announce what it is about to withdraw.
const DRAIN_MAX: StdDuration = StdDuration::from_secs(3600);

/// How long a peer may wait for the next dial.
const CONNECT_RETRY_MAX: StdDuration = StdDuration::from_secs(3600);

/// How long a peer may take nothing.
const SEND_HOLD_MAX: StdDuration = StdDuration::from_secs(24 * 3600);

/// How long an address may rest.
const COOLDOWN_MAX: StdDuration = StdDuration::from_secs(24 * 3600);

/// Faults, each with the path of its field.
pub(super) type Faults = Vec<(String, Invalid)>;

/// The metric of own-block unreachables; learned routes must be better.
const UNREACHABLE_METRIC: u32 = 4_278_198_272;

pub(super) fn fault(faults: &mut Faults, field: &str, message: impl Into<String>, remedy: &str) {
    faults.push((format!("spec.{field}"), Invalid::new(message, remedy)));
}

pub(super) fn configuration(name: &str, spec: &BGPConfigurationSpec) -> Faults {
    let mut faults = Faults::new();
    if name != "default" && name.strip_prefix("node.").is_none_or(str::is_empty) {
        let invalid = Invalid::new(
            format!("a BGPConfiguration named \"{name}\" holds for no node"),
            "name it default, or node.NAME for the Node NAME",
        );
        faults.push(("metadata.name".into(), invalid));
    }
    timers(&mut faults, spec.hold_time, spec.keepalive_time);
    send_hold_time(&mut faults, spec.hold_time, spec.send_hold_time);
    graceful_restart(&mut faults, spec.graceful_restart);
    super::bmp::stations(&mut faults, spec.bmp.as_deref().unwrap_or_default());
    password(&mut faults, "nodeMeshPassword", spec.node_mesh_password.as_ref());
    super::tcp_ao::configuration(&mut faults, name, spec);
    max_prefixes(&mut faults, "nodeMeshMaxPrefixes", spec.node_mesh_max_prefixes);
    if spec.drain_time.is_some_and(|time| time.0 > DRAIN_MAX) {
        fault(&mut faults, "drainTime", "the time is longer than 1h", "write 0s to 1h");
    }
    if spec.max_paths.is_some_and(|n| n.get() > 256) {
        fault(&mut faults, "maxPaths", "maxPaths is above 256", "write 1 to 256");
    }
    if spec.route_metric.is_some_and(|metric| metric == 0 || metric >= UNREACHABLE_METRIC) {
        let remedy = "write 1 to 4278198271: own blocks are unreachable routes behind that";
        fault(&mut faults, "routeMetric", "the metric is out of range", remedy);
    }
    if spec.install_routes == Some(false) && spec.route_metric.is_some() {
        let remedy = "leave routeMetric out, or write installRoutes: true";
        fault(&mut faults, "routeMetric", "routeMetric does nothing beside installRoutes: false", remedy);
    }
    if let Some(mtu) = spec.mtu.filter(|mtu| !(1280..=65535).contains(mtu)) {
        let remedy = "write 1280 (the least of IPv6, RFC 8200) to 65535";
        fault(&mut faults, "mtu", format!("{mtu} is not an MTU"), remedy);
    }
    nat_outgoing_exclude(&mut faults, spec.nat_outgoing_exclude.as_deref().unwrap_or_default());
    if name != "default" && spec.pod_cidr_source.is_some() {
        let remedy = "write it in the BGPConfiguration default";
        fault(&mut faults, "podCIDRSource", "podCIDRSource is for all nodes alike", remedy);
    }
    if name != "default" && spec.node_mesh_password.is_some() {
        let remedy = "write it in the BGPConfiguration default";
        let message = "nodeMeshPassword is for all nodes alike: both ends of a session need it";
        fault(&mut faults, "nodeMeshPassword", message, remedy);
    }
    super::services::configuration(&mut faults, spec);
    super::mrt::configuration(&mut faults, spec.mrt.as_ref());
    super::resilient::configuration(&mut faults, spec);
    super::policy::configuration(&mut faults, name, spec);
    faults
}

fn nat_outgoing_exclude(faults: &mut Faults, excluded: &[Cidr]) {
    if excluded.len() > NAT_EXCLUDED_MAX {
        let message = format!("natOutgoingExclude has {} prefixes", excluded.len());
        let remedy = "write 256 at most; put prefixes together that lie side by side";
        fault(faults, "natOutgoingExclude", message, remedy);
    }
    for (index, cidr) in excluded.iter().enumerate().filter(|(_, cidr)| cidr.net().prefix_len() == 0) {
        let message = format!("{} leaves nothing for natOutgoing", cidr.net());
        let remedy = "take natOutgoing out of the IPPools instead";
        fault(faults, &format!("natOutgoingExclude[{index}]"), message, remedy);
    }
}

pub(super) fn peer(spec: &BGPPeerSpec) -> Faults {
    let mut faults = Faults::new();
    timers(&mut faults, spec.hold_time, spec.keepalive_time);
    send_hold_time(&mut faults, spec.hold_time, spec.send_hold_time);
    connect_retry_time(&mut faults, spec);
    graceful_restart(&mut faults, spec.graceful_restart);
    if spec.graceful_restart.is_some_and(is_kept_by_nobody) {
        let message = "longLivedTime does nothing beside enabled: false";
        fault(&mut faults, "gracefulRestart.longLivedTime", message, "write enabled: true, or leave it out");
    }
    password(&mut faults, "password", spec.password.as_ref());
    super::tcp_ao::peer(&mut faults, spec);
    for (index, filter) in spec.filters.iter().enumerate() {
        if spec.filters.iter().take(index).any(|other| other == filter) {
            let message = format!("the BGPFilter {filter} is there already: what it decides is decided");
            fault(&mut faults, &format!("filters[{index}]"), message, "name each once");
        }
    }
    let ways = [
        ("peerIP", spec.peer_ip.is_some()),
        ("peerSelector", spec.peer_selector.is_some()),
        ("interface", spec.interface.is_some()),
        ("listenRange", spec.listen_range.is_some()),
    ];
    let given: Vec<&str> = ways.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
    match given.as_slice() {
        [] => {
            let message =
                "the peer is not named: none of peerIP, peerSelector, interface and listenRange is given";
            let remedy = "give peerIP for an address, peerSelector for nodes, interface for the router at its other end, or listenRange for \
                          whoever connects from there";
            faults.push(("spec".into(), Invalid::new(message, remedy)));
        }
        ["peerSelector"] => peer_of_nodes(&mut faults, spec),
        [way] => {
            if spec.as_number.is_none() {
                let remedy = "add it: a number, \"X.Y\", internal or external";
                fault(&mut faults, "asNumber", "asNumber is missing", remedy);
            }
            match *way {
                "interface" => peer_on_link(&mut faults, spec),
                "listenRange" => peers_of_range(&mut faults, spec),
                _ => {}
            }
        }
        [first, second, ..] => {
            fault(&mut faults, second, format!("{first} and {second} are both given"), "keep one of the two");
        }
    }
    if spec.listen_range.is_none() && spec.listen_limit.is_some() {
        let remedy = "add listenRange, or leave it out: another peer is one";
        fault(&mut faults, "listenLimit", "listenLimit is given without listenRange", remedy);
    }
    if let (Some(peer), Some(SourceAddress::Address(source))) = (spec.peer_ip, spec.source_address) {
        if peer.ip.is_ipv4() != source.is_ipv4() {
            let message = format!("{source} and the peerIP {} are of different families", peer.ip);
            fault(&mut faults, "sourceAddress", message, "give an address of the peer's family");
        }
        if peer.ip == source {
            fault(
                &mut faults,
                "sourceAddress",
                format!("{source} is the peer's address"),
                "give an own address",
            );
        }
    }
    if let Some(hops) = spec.ttl_security {
        if spec.ebgp_multihop {
            let message = "ttlSecurity and ebgpMultihop are both given";
            let remedy = "keep ttlSecurity with the number of hops to the peer, or ebgpMultihop for one at any distance";
            fault(&mut faults, "ttlSecurity", message, remedy);
        } else if hops.get() > TTL_SECURITY_MAX {
            let message = format!("{hops} hops cannot be told from no limit (RFC 5082)");
            fault(&mut faults, "ttlSecurity", message, "write 1 (on the link) to 254, or leave it out");
        } else if spec.interface.is_some() && hops.get() > 1 {
            let remedy = "write 1, or leave it out";
            fault(&mut faults, "ttlSecurity", "the peer on an interface's link is one hop away", remedy);
        }
    }
    blackhole_cidrs(&mut faults, spec);
    max_prefixes(&mut faults, "maxPrefixes", spec.max_prefixes);
    add_path(&mut faults, spec.add_path);
    if spec.route_reflector_client && spec.as_number == Some(PeerAs::External) {
        fault(
            &mut faults,
            "routeReflectorClient",
            "an eBGP peer is no route reflector client: it is told what others announce by export filters",
            "write asNumber: internal, or leave routeReflectorClient out",
        );
    }
    for (field, given) in [("asOverride", spec.as_override), ("removePrivateAS", spec.remove_private_as)] {
        if given && (spec.as_number == Some(PeerAs::Internal) || spec.route_reflector_client) {
            let message = format!("{field} is given for an iBGP peer, which is told AS paths as they are");
            fault(&mut faults, field, message, "leave it out, or give the AS number of an eBGP peer");
        }
    }
    if spec.role.is_some() && (spec.peer_selector.is_some() || spec.as_number == Some(PeerAs::Internal)) {
        let message = "a role is between two ASes, and this peer is a node or of our own AS";
        fault(
            &mut faults,
            "role",
            message,
            "leave it out, or give peerIP, interface or listenRange with the AS of another",
        );
    }
    if spec.role_strict && spec.role.is_none() {
        let remedy = "add role: provider, customer, peer, rs or rs-client, which our AS is to the peer's";
        fault(&mut faults, "roleStrict", "roleStrict is given without role", remedy);
    }
    shutdown_message(&mut faults, spec);
    if spec.families.as_ref().is_some_and(std::collections::BTreeSet::is_empty) {
        let remedy = "list ipv4-unicast, ipv6-unicast or both, or leave it out for both";
        fault(&mut faults, "families", "no family is listed", remedy);
    }
    faults
}

fn blackhole_cidrs(faults: &mut Faults, spec: &BGPPeerSpec) {
    let cidrs = &spec.blackhole_cidrs;
    if cidrs.len() > BLACKHOLE_CIDRS_MAX {
        let message = format!("blackholeCIDRs has {} prefixes", cidrs.len());
        let remedy =
            format!("write {BLACKHOLE_CIDRS_MAX} at most; put prefixes together that lie side by side");
        fault(faults, "blackholeCIDRs", message, &remedy);
    }
    for (index, cidr) in cidrs.iter().enumerate().filter(|(_, cidr)| cidr.net().prefix_len() == 0) {
        let message = format!("{} lets the peer have any packets dropped", cidr.net());
        let remedy = "give the prefixes that belong to the peer's network";
        fault(faults, &format!("blackholeCIDRs[{index}]"), message, remedy);
    }
    if !cidrs.is_empty() && spec.peer_selector.is_some() {
        let remedy = "leave it out: nodes are believed their blocks and nothing else";
        fault(faults, "blackholeCIDRs", "blackholeCIDRs is given with peerSelector", remedy);
    }
}

fn peer_of_nodes(faults: &mut Faults, spec: &BGPPeerSpec) {
    if spec.as_number.is_some() {
        let remedy = "leave it out: each node's AS is that of its BGPConfiguration";
        fault(faults, "asNumber", "asNumber is given with peerSelector", remedy);
    }
    if spec.passive == Some(true) {
        let remedy = "leave it out: nobody would dial, as both ends are made from this object";
        fault(faults, "passive", "passive is given with peerSelector", remedy);
    }
    if matches!(spec.source_address, Some(SourceAddress::Address(_) | SourceAddress::Kernel)) {
        let remedy = "leave it out: sessions between nodes are between node addresses";
        fault(faults, "sourceAddress", "sourceAddress is given with peerSelector", remedy);
    }
}

fn peers_of_range(faults: &mut Faults, spec: &BGPPeerSpec) {
    if let Some(IpNet::V6(range)) = spec.listen_range.map(|range| range.net())
        && range.prefix_len() >= 10
        && range.addr().is_unicast_link_local()
    {
        let message =
            format!("{range} is of link-local addresses, which say nothing of who it is without the link");
        let remedy = "give interface instead: whoever connects on its link is the peer";
        fault(faults, "listenRange", message, remedy);
    }
    if let Some(range) =
        spec.listen_range.map(|range| range.net()).filter(|range| range.addr().is_multicast())
    {
        let message = format!("{range} is of multicast addresses, which nobody connects from");
        fault(faults, "listenRange", message, "give the prefix of the peers' own addresses");
    }
    if let Some(limit) = spec.listen_limit.filter(|limit| limit.get() > LISTEN_LIMIT_MAX) {
        let remedy = format!("write 1 to {LISTEN_LIMIT_MAX}");
        fault(faults, "listenLimit", format!("{limit} peers are more than a range may have"), &remedy);
    }
    if spec.passive == Some(false) {
        let remedy = "leave it out: who is not known before it connects cannot be dialled";
        fault(faults, "passive", "passive: false is given with listenRange", remedy);
    }
    if spec.source_address.is_some() {
        let remedy = "leave it out: our end is the address that the peer connects to";
        fault(faults, "sourceAddress", "sourceAddress is given with listenRange", remedy);
    }
}

fn peer_on_link(faults: &mut Faults, spec: &BGPPeerSpec) {
    if spec.ebgp_multihop {
        let remedy = "leave it out: next hops are on the interface's link";
        fault(faults, "ebgpMultihop", "ebgpMultihop is given with interface", remedy);
    }
    if spec.source_address.is_some() {
        let remedy = "leave it out: our end is the interface's link-local address";
        fault(faults, "sourceAddress", "sourceAddress is given with interface", remedy);
    }
}

/// OPEN carries the hold time in 16 bits of seconds, of which 1 and 2 are forbidden (RFC 4271 section 4.2).
fn timers(faults: &mut Faults, hold: Option<Duration>, keepalive: Option<Duration>) {
    if let Some(hold) = hold {
        let remedy = "write 0s (never expires) or whole seconds from 3s to 65535s";
        match hold.0.as_secs() {
            _ if hold.0.subsec_nanos() > 0 => {
                fault(faults, "holdTime", format!("{hold} is not a number of whole seconds"), remedy);
            }
            1 | 2 => {
                fault(faults, "holdTime", format!("a hold time of {hold} is forbidden (RFC 4271)"), remedy);
            }
            seconds if seconds > 65535 => {
                fault(faults, "holdTime", format!("{hold} is longer than OPEN can say"), remedy);
            }
            _ => {}
        }
    }
    let Some(keepalive) = keepalive else { return };
    if keepalive.0 < StdDuration::from_secs(1) {
        let message =
            format!("a KEEPALIVE each {keepalive} is more than one a second (RFC 4271 section 4.4)");
        fault(faults, "keepaliveTime", message, "write 1s or longer");
    } else if let Some(hold) = hold {
        keepalive_within(faults, keepalive, hold);
    }
}

/// Says so if no KEEPALIVE would come before the hold time is over.
pub(super) fn keepalive_within(faults: &mut Faults, keepalive: Duration, hold: Duration) {
    if keepalive >= hold {
        let message = format!("the keepaliveTime {keepalive} is not shorter than the holdTime {hold}");
        fault(faults, "keepaliveTime", message, "write a third of the holdTime or less, or leave it out");
    }
}

fn connect_retry_time(faults: &mut Faults, spec: &BGPPeerSpec) {
    let Some(time) = spec.connect_retry_time else { return };
    if !(StdDuration::from_secs(1)..=CONNECT_RETRY_MAX).contains(&time.0) {
        let message = format!("{time} is no connect retry time");
        fault(faults, "connectRetryTime", message, "write 1s to 1h; 5s unless given");
    }
    let never_dialled =
        [("passive: true", spec.passive == Some(true)), ("listenRange", spec.listen_range.is_some())];
    for (what, _) in never_dialled.into_iter().filter(|(_, given)| *given) {
        let message = format!("connectRetryTime does nothing beside {what}: nobody is dialled");
        fault(faults, "connectRetryTime", message, "leave it out");
    }
}

fn send_hold_time(faults: &mut Faults, hold: Option<Duration>, send: Option<Duration>) {
    let Some(send) = send.filter(|send| !send.0.is_zero()) else { return };
    if !(StdDuration::from_secs(1)..=SEND_HOLD_MAX).contains(&send.0) {
        let message = format!("{send} is no send hold time");
        fault(faults, "sendHoldTime", message, "write 0s (never expires) or 1s to 24h; RFC 9687 suggests 8m");
    } else if let Some(hold) = hold {
        send_beyond(faults, send, hold);
    }
}

/// Says so if a peer that takes nothing would be given up before one of which nothing is heard.
pub(super) fn send_beyond(faults: &mut Faults, send: Duration, hold: Duration) {
    if !send.0.is_zero() && send < hold {
        let message = format!("the sendHoldTime {send} is shorter than the holdTime {hold}");
        fault(faults, "sendHoldTime", message, "write twice the holdTime or more, or leave it out");
    }
}

fn graceful_restart(faults: &mut Faults, spec: Option<GracefulRestartSpec>) {
    if let Some(time) = spec.and_then(|s| s.long_lived_time)
        && (time.0.subsec_nanos() > 0 || time.0.as_secs() > 0x00ff_ffff)
    {
        let message = format!("{time} is no long-lived stale time: it has 24 bits of seconds (RFC 9494)");
        let remedy = "write 0s (off) or whole seconds up to 16777215s";
        fault(faults, "gracefulRestart.longLivedTime", message, remedy);
    }
    let Some(time) = spec.and_then(|s| s.restart_time) else { return };
    if time.0.subsec_nanos() > 0 || !(1..=4095).contains(&time.0.as_secs()) {
        let message = format!("{time} is no restart time: it has 12 bits of seconds (RFC 4724)");
        fault(faults, "gracefulRestart.restartTime", message, "write whole seconds from 1s to 4095s");
    }
}

/// Only of a BGPPeer: what a BGPConfiguration has beside `enabled: false` is for the BGPPeers that are enabled.
fn is_kept_by_nobody(spec: GracefulRestartSpec) -> bool {
    spec.enabled == Some(false) && spec.long_lived_time.is_some_and(|time| !time.0.is_zero())
}

fn max_prefixes(faults: &mut Faults, field: &str, spec: Option<MaxPrefixesSpec>) {
    let Some(spec) = spec else { return };
    if let Some(percent) = spec.warning_threshold.filter(|percent| !(1..=100).contains(percent)) {
        let message = format!("{percent} is no part of the limit in percent");
        fault(faults, &format!("{field}.warningThreshold"), message, "write 1 to 100");
    }
    let path = &format!("{field}.restartAfter");
    match (spec.action.unwrap_or_default(), spec.restart_after) {
        (MaxPrefixesAction::Restart, None) => {
            fault(faults, path, "restartAfter is missing", "add it: 1s to 24h, as in \"5m\"");
        }
        (MaxPrefixesAction::Restart, Some(after)) => {
            if after.0 < StdDuration::from_secs(1) || after.0 > RESTART_AFTER_MAX {
                fault(faults, path, format!("{after} is no time to stay down"), "write 1s to 24h");
            }
        }
        (MaxPrefixesAction::Warn | MaxPrefixesAction::Stop, Some(_)) => {
            let remedy = "write action: Restart, or leave restartAfter out";
            fault(faults, path, "restartAfter is given without action: Restart", remedy);
        }
        (MaxPrefixesAction::Warn | MaxPrefixesAction::Stop, None) => {}
    }
}

fn add_path(faults: &mut Faults, spec: Option<AddPathSpec>) {
    let Some(AddPathSpec { receive, send, send_max }) = spec else { return };
    match (send, send_max) {
        (None, Some(_)) => {
            let remedy = "add send: Multipath or All, or leave sendMax out";
            fault(faults, "addPath.sendMax", "sendMax is given without send", remedy);
        }
        (None, None) if !receive => {
            let remedy = "write receive: true, send: Multipath or send: All, or leave addPath out";
            fault(faults, "addPath", "addPath asks for neither direction", remedy);
        }
        (Some(_), Some(max)) if !(2..=SEND_MAX).contains(&max) => {
            let message = format!("{max} is no number of paths to tell");
            let remedy = "write 2 to 64, or leave addPath.send out for the best alone";
            fault(faults, "addPath.sendMax", message, remedy);
        }
        _ => {}
    }
}

/// Whether the Secret is there is not asked here: that is between objects.
fn password(faults: &mut Faults, field: &str, source: Option<&PasswordSource>) {
    if let Some(PasswordSource { secret_key_ref: reference }) = source {
        secret_key_ref(faults, field, reference);
    }
}

fn shutdown_message(faults: &mut Faults, spec: &BGPPeerSpec) {
    let Some(text) = &spec.shutdown_message else { return };
    if !spec.shutdown {
        let message = "shutdownMessage is given without shutdown: true, and the peer is never told it";
        fault(faults, "shutdownMessage", message, "add shutdown: true, or leave it out");
    }
    if !(1..=Notification::TEXT_MAX).contains(&text.len()) {
        let message = format!("a text of {} octets is no shutdown communication (RFC 9003)", text.len());
        fault(faults, "shutdownMessage", message, "write 1 to 255 octets of UTF-8, or leave it out");
    }
    if text.chars().any(char::is_control) {
        let remedy = "write it on one line";
        fault(faults, "shutdownMessage", "the text has a line break or another control character", remedy);
    }
}

/// What is wrong with the `secretKeyRef` of a field.
pub(super) fn secret_key_ref(faults: &mut Faults, field: &str, SecretKeyRef { name, key }: &SecretKeyRef) {
    if !fit_name(name) {
        let message = format!("\"{name}\" is not the name of a Secret");
        fault(faults, &format!("{field}.secretKeyRef.name"), message, NAME_REMEDY);
    }
    let fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if key.is_empty() || key.len() > 253 || !key.bytes().all(fit) {
        let message = format!("\"{key}\" is not a key of a Secret");
        let remedy = "write letters, digits, hyphens, underscores and dots, 253 at most";
        fault(faults, &format!("{field}.secretKeyRef.key"), message, remedy);
    }
}

pub(super) fn filter(spec: &BGPFilterSpec) -> Faults {
    let mut faults = Faults::new();
    for (list, rules, family) in super::policy::lists(spec) {
        if rules.len() > FILTER_RULES_MAX {
            let message = format!("{list} has {} rules", rules.len());
            let remedy = "write 1024 at most; a prefix with matchOperator In stands for all inside it";
            fault(&mut faults, list, message, remedy);
        }
        for (index, rule) in rules.iter().enumerate() {
            filter_rule(&mut faults, &format!("{list}[{index}]"), rule, family);
            super::policy::rule(&mut faults, list, index, rule, family);
        }
    }
    faults
}

fn filter_rule(faults: &mut Faults, path: &str, rule: &BGPFilterRule, family: Family) {
    let field = |name: &str| format!("{path}.{name}");
    let net = rule.cidr.map(|cidr| cidr.net());
    match (net, rule.match_operator) {
        (Some(net), _) if Family::of(&net) != family => {
            let (is, list) = match net {
                IpNet::V4(_) => ("IPv4", "importV4 or exportV4"),
                IpNet::V6(_) => ("IPv6", "importV6 or exportV6"),
            };
            let remedy = format!("move the rule to {list}");
            return fault(faults, &field("cidr"), format!("{net} is {is}"), &remedy);
        }
        (Some(_), None) => {
            let remedy = "add Equal, NotEqual, In or NotIn";
            fault(faults, &field("matchOperator"), "cidr is given without matchOperator", remedy);
        }
        (None, Some(_)) => {
            fault(
                faults,
                &field("cidr"),
                "matchOperator is given without cidr",
                "add the cidr to compare with",
            );
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    let Some(bounds) = rule.prefix_length else { return };
    let path = field("prefixLength");
    let Some(net) = net else {
        return fault(
            faults,
            &path,
            "prefixLength is given without cidr",
            "add cidr and matchOperator In or NotIn",
        );
    };
    if matches!(rule.match_operator, Some(MatchOperator::Equal | MatchOperator::NotEqual)) {
        let remedy = "use In or NotIn, or leave prefixLength out";
        return fault(
            faults,
            &path,
            "prefixLength is given with a prefix that is compared as a whole",
            remedy,
        );
    }
    let (least, most) = (net.prefix_len(), net.max_prefix_len());
    let (min, max) = (bounds.min.unwrap_or(least), bounds.max.unwrap_or(most));
    if min > max || min < least || max > most {
        let message =
            format!("no prefix inside {net} is {min} to {max} bits long, or not all of these lengths are");
        fault(faults, &path, message, &format!("write {least} <= min <= max <= {most}"));
    }
}

pub(super) fn pool(spec: &IPPoolSpec) -> Faults {
    let mut faults = Faults::new();
    let net = spec.cidr.net();
    let unfit = match net.addr() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_unspecified(),
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified()
        }
    };
    if unfit {
        fault(
            &mut faults,
            "cidr",
            format!("{net} is not for pods or Services: no packet with such an address is routed"),
            "take a private or a global range",
        );
    }
    match spec.allowed_uses.as_deref() {
        None | Some([AllowedUse::Workload]) => blocks_of(&mut faults, spec),
        Some([AllowedUse::LoadBalancer]) => without_blocks(&mut faults, spec),
        Some(uses) => {
            let message = format!("allowedUses has {} entries", uses.len());
            let remedy = "name one of Workload and LoadBalancer, and make a pool for each: pods and Services do not share ranges";
            fault(&mut faults, "allowedUses", message, remedy);
        }
    }
    reserved(&mut faults, net, &spec.reserved);
    if let Some(cooldown) = spec.cooldown.filter(|c| c.0.subsec_nanos() > 0 || c.0 > COOLDOWN_MAX) {
        let message = format!("{cooldown} is no time for an address to rest");
        fault(&mut faults, "cooldown", message, "write whole seconds from 0s to 24h");
    }
    faults
}

/// The faults of what a pool for pods says of its blocks.
fn blocks_of(faults: &mut Faults, spec: &IPPoolSpec) {
    let net = spec.cidr.net();
    let range = match net {
        IpNet::V4(_) => 20..=32,
        IpNet::V6(_) => 116..=128,
    };
    let block_len = spec.block_len();
    let (least, most) = (range.start(), range.end());
    if !range.contains(&block_len) {
        let message = format!("the blockSize {block_len} is out of range");
        fault(faults, "blockSize", message, &format!("write {least} to {most} for this family"));
    } else if block_len < net.prefix_len() {
        let field = if spec.block_size.is_some() { "blockSize" } else { "cidr" };
        let message = format!("a block of {block_len} bits does not fit into {net}");
        fault(
            faults,
            field,
            message,
            &format!("widen cidr, or write a blockSize of {} to {most}", net.prefix_len()),
        );
    }
    if let Some(topology) = &spec.topology {
        topology_of(faults, topology, net.prefix_len()..=block_len);
    }
}

/// A pool for Services has no blocks, and nothing that is said of blocks or of what pods send.
fn without_blocks(faults: &mut Faults, spec: &IPPoolSpec) {
    let given = [
        ("blockSize", spec.block_size.is_some()),
        ("nodeSelector", spec.node_selector.is_some()),
        ("topology", spec.topology.is_some()),
        ("natOutgoing", spec.nat_outgoing),
        ("disableBGPExport", spec.disable_bgp_export),
    ];
    for (field, _) in given.into_iter().filter(|(_, given)| *given) {
        let message = format!("{field} is given in a pool for LoadBalancer, which has no blocks and no pods");
        fault(faults, field, message, "leave it out, or make it a pool for Workload");
    }
}

fn topology_of(faults: &mut Faults, topology: &Topology, lengths: RangeInclusive<u8>) {
    if topology.node_label.is_empty() {
        fault(
            faults,
            "topology.nodeLabel",
            "no label is named",
            "write one, such as topology.kubernetes.io/rack",
        );
    }
    if !lengths.contains(&topology.prefix_length) && !lengths.is_empty() {
        let message = format!(
            "a prefix of {} bits does not lie between the pool and its blocks",
            topology.prefix_length
        );
        let remedy = format!("write {} to {}", lengths.start(), lengths.end());
        fault(faults, "topology.prefixLength", message, &remedy);
    }
}

fn reserved(faults: &mut Faults, pool: IpNet, ranges: &[Cidr]) {
    if ranges.len() > RESERVED_MAX {
        let message = format!("reserved has {} ranges", ranges.len());
        fault(faults, "reserved", message, "write 256 at most; put ranges together that lie side by side");
    }
    for (index, range) in ranges.iter().enumerate().filter(|(_, range)| !pool.contains(&range.net())) {
        let message = format!("{} does not lie in the pool's cidr {pool}", range.net());
        fault(faults, &format!("reserved[{index}]"), message, "give a part of the cidr, or leave it out");
    }
}
