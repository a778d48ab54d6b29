//! Answers as text: tables for lists, lines for a single thing.

use std::fmt::{Display, Write};
use std::net::IpAddr;

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use weft_bgp::policy::{Community, is_discard};

use crate::api::ipam::IpamJson;
use crate::api::json::{
    AddPathJson, AddressJson, AsPathElement, AuthenticationJson, BfdJson, CapabilitiesJson, DocumentError,
    DrainJson, DrainPhase, ErrorDirection, EventJson, FibJson, FibNextHopJson, LastErrorJson,
    ListenRangeJson, MrtJson, OriginJson, PathJson, PeerJson, Problem, RouteJson, Severity, StatusJson,
    TimersJson,
};
use crate::api::{ServicePrefixJson, StationJson};

/// What stands where there is nothing to say.
const NONE: &str = "-";

/// A table without lines: a header, columns two blanks apart, nothing wrapped.
pub(super) struct Columns {
    table: Table,
    wide: bool,
}

impl Columns {
    /// A table with these columns; with `wide` also those of the second list.
    pub(super) fn new(narrow: &[&str], extra: &[&str], wide: bool) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        let extra = if wide { extra } else { &[] };
        table.set_header(narrow.iter().chain(extra).copied());
        Self { table, wide }
    }

    pub(super) fn row(&mut self, narrow: Vec<String>, extra: Vec<String>) {
        let extra = if self.wide { extra } else { Vec::new() };
        self.table.add_row(narrow.into_iter().chain(extra));
    }

    /// The text; `empty` instead of a table without rows.
    pub(super) fn finish(self, empty: &str) -> String {
        if self.table.is_empty() {
            return format!("{empty}\n");
        }
        // Each cell is padded with a blank on either side; the outermost ones are of no use.
        self.table.lines().fold(String::new(), |mut text, line| {
            text.push_str(line.strip_prefix(' ').unwrap_or(&line).trim_end());
            text.push('\n');
            text
        })
    }
}

pub(super) fn or_none(value: Option<impl Display>) -> String {
    value.map_or_else(|| NONE.to_owned(), |v| v.to_string())
}

pub(super) fn list<T: Display>(values: impl IntoIterator<Item = T>, separator: &str) -> String {
    let texts: Vec<_> = values.into_iter().map(|v| v.to_string()).collect();
    if texts.is_empty() { NONE.to_owned() } else { texts.join(separator) }
}

/// `3d4h`, `5h12m`, `7m3s`, `42s`: the two largest units.
pub(super) fn age(since: Option<Timestamp>, now: Timestamp) -> String {
    let Some(since) = since else { return NONE.to_owned() };
    let seconds = now.as_second().saturating_sub(since.as_second()).max(0);
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m{s}s"),
        (0, h, m, _) => format!("{h}h{m}m"),
        (d, h, ..) => format!("{d}d{h}h"),
    }
}

/// The blocks, and the addresses that are taken.
#[must_use]
pub fn ipam(ipam: &IpamJson, now: Timestamp, wide: bool) -> String {
    let header = ["BLOCK", "POOL", "STATE", "SIZE", "TAKEN", "RESTING", "RESERVED", "FREE", "ANNOUNCED"];
    let mut blocks = Columns::new(&header, &[], wide);
    for block in &ipam.blocks {
        let row = [
            block.cidr.to_string(),
            or_none(block.pool.as_ref()),
            block.state.to_string(),
            or_none(block.size),
            block.taken.to_string(),
            block.resting.to_string(),
            or_none(block.reserved),
            or_none(block.free),
            (if block.announced { "yes" } else { "no" }).to_owned(),
        ];
        blocks.row(row.into(), Vec::new());
    }
    let header = ["ADDRESS", "NAMESPACE", "POD", "CONTAINER", "INTERFACE", "SINCE"];
    let mut addresses = Columns::new(&header, &["STATE", "NETWORK", "LINK", "NETNS"], wide);
    for taken in &ipam.addresses {
        let holder = &taken.holder;
        let pod = holder.pod.as_ref();
        let row = [
            taken.address.to_string(),
            or_none(pod.map(|pod| &pod.namespace)),
            or_none(pod.map(|pod| &pod.name)),
            // Runtimes' ids are of 64 digits, the first of which they use themselves where people read.
            if wide { holder.container.clone() } else { holder.container.chars().take(13).collect() },
            holder.interface.clone(),
            age(holder.since, now),
        ];
        let extra =
            [taken.state.to_string(), holder.network.clone(), holder.host_link.clone(), holder.netns.clone()];
        addresses.row(row.into(), extra.into());
    }
    format!("{}\n{}", blocks.finish("No blocks."), addresses.finish("No addresses are taken."))
}

/// How the node is, problems first.
#[must_use]
pub fn status(status: &StatusJson, wide: bool) -> String {
    let mut text = String::new();
    let verdict = match (status.ok, status.problems.is_empty()) {
        (true, true) => "ok",
        (true, false) => "ok, with warnings",
        (false, _) => "NOT ok",
    };
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10}{value}");
    };
    line("Node", format!("{}: {verdict}", status.node));
    if let Some(drain) = &status.drain {
        line("Drain", drained(drain));
    }
    for AddressJson { address, interface, reason } in &status.addresses {
        line("Address", format!("{address} on {interface}: {reason}"));
    }
    line("Peers", format!("{} of {} up", status.peers.up, status.peers.wanted));
    for ListenRangeJson { name, range, peers, established, limit, refused } in &status.listen_ranges {
        let refused = if *refused == 0 { String::new() } else { format!(", {refused} connections refused") };
        line("Range", format!("{name}, {range}: {established} up, {peers} peers of {limit}{refused}"));
    }
    let fib = &status.fib;
    line(
        "Routes",
        format!(
            "{} of {} in the kernel, {} refused, {} shadowed, {} repaired{}{}{}",
            fib.installed,
            fib.wanted,
            fib.refused,
            fib.shadowed,
            fib.repaired,
            if fib.blackholes == 0 { String::new() } else { format!(", {} blackholes", fib.blackholes) },
            match fib.resilient_groups {
                0 => String::new(),
                groups => format!(", {groups} resilient groups of next hops"),
            },
            if fib.learned_kept_out { "; learned ones are kept out (installRoutes: false)" } else { "" },
        ),
    );
    for block in &status.ipam.blocks {
        let size = block.size.map_or_else(String::new, |size| format!(" of {size}"));
        line("Block", format!("{}: {}{size} addresses taken", block.cidr, block.taken));
    }
    if let Some(spoofed) = status.spoofed {
        line("Spoofed", format!("{} IPv4 and {} IPv6 packets dropped", spoofed.ipv4, spoofed.ipv6));
    }
    if let Some(services) = &status.services {
        let rejected = services.rejected.map_or_else(String::new, |rejected| {
            format!(", {} IPv4 and {} IPv6 packets rejected", rejected.ipv4, rejected.ipv6)
        });
        line(
            "Services",
            format!(
                "{} prefixes announced, {} settling, {} withheld{rejected}",
                services.announced, services.settling, services.withheld
            ),
        );
    }
    if let Some(mrt) = &status.mrt {
        line("MRT", mrt_files(mrt));
    }
    let errors = &status.config.errors;
    let documents = match (status.config.ok, errors.len()) {
        (true, _) => "ok".to_owned(),
        (false, 0) => "not read yet".to_owned(),
        (false, n) => {
            let count = if n == 1 { "1 error".to_owned() } else { format!("{n} errors") };
            match status.config.is_by_object() {
                true => format!("{count}; each object stays as it was last accepted"),
                false => format!("not in force, {count}"),
            }
        }
    };
    line("Documents", documents);
    for error in errors {
        let _ = writeln!(text, "  {error}");
    }
    if !status.problems.is_empty() {
        text.push_str("\nProblems\n");
    }
    for problem in &status.problems {
        write_problem(&mut text, problem, wide);
    }
    text
}

fn mrt_files(mrt: &MrtJson) -> String {
    let MrtJson { directory, records, dropped, tables, tables_failed, files, size, .. } = mrt;
    format!(
        "{records} records and {tables} tables written, {dropped} and {tables_failed} lost; {files} files of {} MiB in {directory}",
        size.div_ceil(1 << 20)
    )
}

/// How far a node is drained, in a sentence.
pub(super) fn drained(drain: &DrainJson) -> String {
    let (word, what) = match drain.phase {
        DrainPhase::LowPreference => ("DRAINING", "peers are told that others are better"),
        DrainPhase::Withdrawn => ("DRAINING", "everything is withdrawn"),
        DrainPhase::Drained => ("DRAINED", "peers are told nothing, and the sessions stay down"),
    };
    let until = drain.until.map_or_else(String::new, |until| format!(" until {until:.0}"));
    format!("{word} because of {}: {what}, since {:.0}{until}", drain.reason, drain.since)
}

fn write_problem(text: &mut String, problem: &Problem, wide: bool) {
    let severity = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let code = if wide { format!(" [{}]", problem.code) } else { String::new() };
    let _ = writeln!(text, "  {severity}{code}: {}\n    remedy: {}", problem.text, problem.remedy);
}

/// The peers, one a line.
#[must_use]
pub fn peers(peers: &[PeerJson], now: Timestamp, wide: bool) -> String {
    let reflects = peers.iter().any(|peer| peer.route_reflector_client);
    let mut header =
        vec!["NAME", "PEER", "REMOTE AS", "STATE", "SINCE", "RECEIVED", "ACCEPTED", "ADVERTISED"];
    header.extend(["CLIENT"].iter().filter(|_| reflects));
    let has_bfd = peers.iter().any(|peer| peer.bfd.is_some());
    header.extend(["BFD"].iter().filter(|_| has_bfd));
    let dynamic = peers.iter().any(|peer| peer.listen_range.is_some());
    header.extend(["RANGE"].iter().filter(|_| dynamic));
    let mut columns = Columns::new(&header, &["LOCAL AS", "FAMILIES", "RESTART", "LAST ERROR"], wide);
    for peer in peers {
        let client = if peer.route_reflector_client { "yes" } else { "no" };
        columns.row(
            [
                peer.name.clone(),
                peer.peer.clone(),
                or_none(peer.remote_as),
                peer.state.to_string(),
                age(peer.since, now),
                peer.received.to_string(),
                peer.accepted.to_string(),
                peer.advertised.to_string(),
            ]
            .into_iter()
            .chain(reflects.then(|| client.to_owned()))
            .chain(has_bfd.then(|| or_none(peer.bfd.as_ref().map(|bfd| &bfd.state))))
            .chain(dynamic.then(|| or_none(peer.listen_range)))
            .collect(),
            vec![
                peer.local_as.to_string(),
                list(&peer.families, ","),
                graceful_restart(peer),
                peer.last_error.as_ref().map_or_else(|| NONE.to_owned(), |e| e.text.clone()),
            ],
        );
    }
    columns.finish("No peers.")
}

fn graceful_restart(peer: &PeerJson) -> String {
    let Some(restart) = &peer.graceful_restart else { return NONE.to_owned() };
    if restart.restarting {
        format!("peer restarts, {} routes kept", restart.stale_routes)
    } else {
        format!("{:?}", restart.role).to_lowercase()
    }
}

/// One peer, a property a line.
#[must_use]
pub fn peer(peer: &PeerJson, now: Timestamp) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<18}{value}");
    };
    line("Name", peer.name.clone());
    line("Peer", peer.peer.clone());
    if let Some(range) = peer.listen_range {
        line("Listen range", format!("{range}: a dynamic peer"));
    }
    if peer.neighbour.is_some() {
        line("Neighbour", or_none(peer.neighbour));
    }
    line("Remote AS", or_none(peer.remote_as));
    line("Local AS", peer.local_as.to_string());
    line("State", format!("{} for {}", peer.state, age(peer.since, now)));
    if let Some(role) = &peer.role {
        let remote = role.remote.as_deref().unwrap_or("says nothing");
        line("Role", format!("{}, the peer {remote}", role.local));
    }
    line("Agreed", peer.capabilities.as_ref().map_or_else(|| NONE.to_owned(), agreed));
    line(
        "Timers",
        peer.timers.map_or_else(
            || NONE.to_owned(),
            |timers| {
                let TimersJson { hold_time, keepalive_time, send_hold_time } = timers;
                format!("hold {hold_time}s, keepalive {keepalive_time}s, send hold {send_hold_time}s")
            },
        ),
    );
    line("Reflector client", (if peer.route_reflector_client { "yes" } else { "no" }).to_owned());
    line("Families", list(&peer.families, ", "));
    for (family, count) in &peer.per_family {
        let stale = match (count.stale, count.long_lived_stale) {
            (0, _) => String::new(),
            (stale, 0) => format!(", {stale} stale"),
            (stale, _) => format!(", {stale} long-lived stale"),
        };
        let refused = match count.refused_paths {
            0 => String::new(),
            refused => format!(", {refused} paths refused"),
        };
        let rejected = match count.rejected.is_empty() {
            true => String::new(),
            false => {
                let each = count.rejected.iter().map(|(code, routes)| format!("{routes} {code}"));
                format!(", rejected: {}", list(each, ", "))
            }
        };
        line(
            &format!("  {family}"),
            format!(
                "{} received, {} accepted, {} advertised{stale}{refused}{rejected}",
                count.received, count.accepted, count.advertised
            ),
        );
    }
    line("BFD", peer.bfd.as_ref().map_or_else(|| NONE.to_owned(), |session| bfd(session, now)));
    let notification = peer.graceful_restart.as_ref().is_some_and(|restart| restart.notification);
    let notification = if notification { ", NOTIFICATIONs too" } else { "" };
    let long_lived = peer.graceful_restart.as_ref().and_then(|restart| restart.long_lived_time);
    let long_lived = long_lived.map_or_else(String::new, |time| format!(", long-lived {time}s"));
    line("Graceful restart", format!("{}{notification}{long_lived}", graceful_restart(peer)));
    if let Some(authentication) = peer.authentication {
        line("Authentication", authentication_of(authentication).to_owned());
    }
    if let Some(hops) = peer.ttl_security {
        line("TTL security", format!("{hops} hops at most"));
    }
    if let Some(max) = peer.max_prefixes {
        let exceeded = if max.exceeded { ", exceeded" } else { "" };
        line("Maximum prefixes", format!("{} of a family{exceeded}", max.limit));
    }
    line("Last error", peer.last_error.as_ref().map_or_else(|| NONE.to_owned(), |e| last_error(e, now)));
    text.push_str(&super::peer_detail::lines(&peer.detail, now));
    text
}

fn authentication_of(authentication: AuthenticationJson) -> &'static str {
    match authentication {
        AuthenticationJson::TcpMd5 => "TCP-MD5",
        AuthenticationJson::TcpAo => "TCP-AO",
        AuthenticationJson::Unavailable => "unavailable, so that the session stays down",
    }
}

/// The capabilities that both ends have.
fn agreed(capabilities: &CapabilitiesJson) -> String {
    let all = [
        ("four-octet AS", capabilities.four_octet_as),
        ("extended next hop", capabilities.extended_next_hop),
        ("route refresh", capabilities.route_refresh),
        ("enhanced route refresh", capabilities.enhanced_route_refresh),
        ("extended messages", capabilities.extended_messages),
    ];
    let AddPathJson { receive, send } = &capabilities.add_path;
    let several = [("receive", receive), ("send", send)];
    let several = several.into_iter().filter(|(_, families)| !families.is_empty());
    let several = several.map(|(what, families)| format!("ADD-PATH {what} ({})", list(families, ", ")));
    let names = all.into_iter().filter(|(_, agreed)| *agreed).map(|(name, _)| name.to_owned());
    list(names.chain(several), ", ")
}

fn bfd(session: &BfdJson, now: Timestamp) -> String {
    let mut text = format!("{} for {}", session.state, age(session.since, now));
    if session.diagnostic != "No Diagnostic" {
        let _ = write!(text, " ({})", session.diagnostic);
    }
    let _ = write!(text, ", {}", if session.multihop { "multihop" } else { "single hop" });
    match session.detection_time_ms {
        Some(detection) => {
            let _ =
                write!(text, ", the peer is {} and may be silent for {detection} ms", session.remote_state);
        }
        None => text.push_str(", the peer is not heard"),
    }
    if let Some(interval) = session.transmit_interval_ms {
        let _ = write!(text, ", a packet each {interval} ms");
    }
    let _ = write!(text, "; {} failures", session.failures);
    text
}

fn last_error(error: &LastErrorJson, now: Timestamp) -> String {
    let direction = match error.direction {
        ErrorDirection::Sent => "sent",
        ErrorDirection::Received => "received",
        ErrorDirection::Local => "local",
    };
    let code = match (error.code, error.subcode) {
        (Some(code), Some(subcode)) => format!(" {code}/{subcode}"),
        (Some(code), None) => format!(" {code}"),
        (None, _) => String::new(),
    };
    format!("{direction}{code} {} ago: {}", age(Some(error.time), now), error.text)
}

/// Routes, one path a line; `>` marks the best.
///
/// `whole` shows paths that lost with their reasons as sentences: for one prefix rather than a table of them.
#[must_use]
pub fn routes(routes: &[RouteJson], whole: bool, wide: bool) -> String {
    let paths = || routes.iter().flat_map(|route| &route.paths);
    let reflected = paths().any(|path| path.originator_id.is_some() || !path.cluster_list.is_empty());
    let mut header = vec!["", "PREFIX", "NEXT HOP", "PEER", "AS PATH", "ORIGIN", "KERNEL", "REASON"];
    header.extend(["ORIGINATOR", "CLUSTERS"].iter().filter(|_| reflected));
    let several = paths().any(|path| path.path_id.is_some());
    header.extend(["PATH ID"].iter().filter(|_| several));
    let mut columns = Columns::new(&header, &["LOCAL PREF", "MED", "COMMUNITIES"], wide);
    for route in routes {
        for (index, path) in route.paths.iter().enumerate() {
            let first = index == 0;
            // What this node originates is no learned route, and none of that kind is wanted.
            let kernel = match (route.in_kernel, path.peer.is_none()) {
                (true, _) => "yes",
                (false, true) => NONE,
                (false, false) => "no",
            };
            let by = [or_none(path.originator_id), list(&path.cluster_list, " ")];
            columns.row(
                [
                    mark(path).to_owned(),
                    if first { route.prefix.to_string() } else { String::new() },
                    list(path.next_hops.iter().map(route_next_hop), ",")
                        + &path.next_hop_over.map(over).unwrap_or_default(),
                    path.peer.clone().unwrap_or_else(|| "local".to_owned()),
                    as_path(&path.as_path),
                    origin(path.origin).to_owned(),
                    if first { kernel.to_owned() } else { String::new() },
                    if whole || wide { path.reason.to_string() } else { path.reason.code.to_string() },
                ]
                .into_iter()
                .chain(by.into_iter().filter(|_| reflected))
                .chain(several.then(|| or_none(path.path_id)))
                .collect(),
                vec![or_none(path.local_pref), or_none(path.med), list(communities(path), " ")],
            );
        }
    }
    columns.finish("No routes.")
}

fn route_next_hop(next_hop: &IpAddr) -> String {
    if is_discard(*next_hop) { "blackhole".to_owned() } else { next_hop.to_string() }
}

/// Communities as documents write them.
fn communities(path: &PathJson) -> impl Iterator<Item = String> {
    let plain = path.communities.iter().map(|text| {
        text.parse::<Community>().map_or_else(|_| text.clone(), |community| community.to_string())
    });
    let extended = path.ext_communities.iter().map(|digits| match u64::from_str_radix(digits, 16) {
        Ok(octets) => Community::Extended(octets.to_be_bytes()).to_string(),
        Err(_) => digits.clone(),
    });
    plain.chain(extended)
}

fn mark(path: &PathJson) -> &'static str {
    match (path.best, path.valid) {
        (true, _) => ">",
        (false, true) => "*",
        (false, false) => "!",
    }
}

fn origin(origin: OriginJson) -> &'static str {
    match origin {
        OriginJson::Igp => "igp",
        OriginJson::Egp => "egp",
        OriginJson::Incomplete => "incomplete",
    }
}

fn as_path(path: &[AsPathElement]) -> String {
    let elements = path.iter().map(|element| match element {
        AsPathElement::Number(asn) => asn.to_string(),
        AsPathElement::Set(asns) => format!("{{{}}}", list(asns, " ")),
    });
    list(elements, " ")
}

/// The prefixes of Services, one a line.
#[must_use]
pub fn services(services: &[ServicePrefixJson], wide: bool) -> String {
    let mut columns = Columns::new(&["PREFIX", "ANNOUNCED", "POLICY", "SERVICES", "REASON"], &[], wide);
    for prefix in services {
        let reason = if wide { prefix.reason.to_string() } else { prefix.reason.code.to_string() };
        let row = [
            prefix.prefix.to_string(),
            (if prefix.announced { "yes" } else { "no" }).to_owned(),
            or_none(prefix.policy),
            list(&prefix.services, ","),
            reason,
        ];
        columns.row(row.into(), Vec::new());
    }
    columns.finish("No service ranges.")
}

/// The monitoring stations, one a line.
#[must_use]
pub fn bmp(stations: &[StationJson], now: Timestamp, wide: bool) -> String {
    let header = ["STATION", "CONNECTED", "SINCE", "MESSAGES", "WAITING", "LAST ERROR"];
    let mut columns = Columns::new(&header, &["MONITOR", "OCTETS", "CONNECTS", "FAILURES"], wide);
    for station in stations {
        columns.row(
            vec![
                station.station.to_string(),
                (if station.connected { "yes" } else { "no" }).to_owned(),
                age(Some(station.since), now),
                station.messages.to_string(),
                station.waiting.to_string(),
                or_none(station.last_error.as_ref().map(|error| &error.text)),
            ],
            vec![
                list(&station.monitor, ","),
                station.octets.to_string(),
                station.connects.to_string(),
                station.failures.to_string(),
            ],
        );
    }
    columns.finish("No monitoring stations.")
}

/// The kernel's routes, one a line.
#[must_use]
pub fn fib(routes: &[FibJson], wide: bool) -> String {
    let mut columns = Columns::new(&["PREFIX", "NEXT HOPS", "PROTOCOL", "STATE"], &["METRIC"], wide);
    for route in routes {
        let protocol = match route.protocol {
            176 => "weft".to_owned(),
            177 => "weft-pods".to_owned(),
            other => other.to_string(),
        };
        let next_hops = if route.blackhole {
            "blackhole".to_owned()
        } else if route.next_hops.is_empty() {
            "unreachable".to_owned()
        } else {
            list(route.next_hops.iter().map(|n| next_hop(n, route.next_hops.len() > 1)), ", ")
        };
        let next_hops = if route.resilient { next_hops + "; resilient" } else { next_hops };
        let next_hops =
            if route.over.is_empty() { next_hops } else { next_hops + &over(list(&route.over, ",")) };
        columns.row(
            vec![route.prefix.to_string(), next_hops, protocol, route.state.clone()],
            vec![route.metric.to_string()],
        );
    }
    columns.finish("No routes.")
}

/// By which of BGP's routes a next hop is reached.
fn over(prefixes: impl std::fmt::Display) -> String {
    format!(" over {prefixes}")
}

fn next_hop(next_hop: &FibNextHopJson, weighted: bool) -> String {
    let mut words = Vec::new();
    words.extend(next_hop.via.map(|via| format!("via {via}")));
    words.extend(next_hop.dev.as_ref().map(|dev| format!("dev {dev}")));
    if weighted {
        words.push(format!("weight {}", next_hop.weight));
    }
    words.join(" ")
}

/// Events, one a line, oldest first.
#[must_use]
pub fn events(events: &[EventJson], wide: bool) -> String {
    events.iter().fold(String::new(), |mut text, event| {
        let peer = event.peer.as_ref().map_or_else(String::new, |peer| format!("{peer} "));
        let _ = writeln!(text, "{:.3} {peer}{}: {}", event.time, event.kind, event.text);
        if let (true, Some(bytes)) = (wide, &event.bytes) {
            let _ = writeln!(text, "    bytes: {bytes}");
        }
        text
    })
}

/// Errors in documents, one a line.
#[must_use]
pub fn errors(errors: &[DocumentError]) -> String {
    let mut text = errors.iter().fold(String::new(), |mut text, error| {
        let _ = writeln!(text, "{error}");
        text
    });
    match errors.len() {
        0 => text.push_str("All documents are good.\n"),
        1 => text.push_str("1 error.\n"),
        n => text.push_str(&format!("{n} errors.\n")),
    }
    text
}
