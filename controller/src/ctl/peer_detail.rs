//! The part of a peer's page that is for whoever looks into it.

use std::fmt::Write;

use jiff::Timestamp;

use super::tables::{age, or_none};
use crate::api::peer_detail::{
    MessageCountsJson, NotificationJson, OpenJson, PeerDetailJson, SettingsJson, TcpAoJson,
};
use crate::api::{AddPathSend, AddPathSpec, NextHopMode};

/// Connection, timers, what was said, and how much.
pub(super) fn lines(detail: &PeerDetailJson, now: Timestamp) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{}", format!("{name:<18}{value}").trim_end());
    };
    line("Last established", detail.last_established.map_or_else(|| "never".to_owned(), |at| ago(at, now)));
    line("Flaps", detail.flaps.to_string());
    if let Some(keys) = &detail.tcp_ao {
        line("TCP-AO keys", tcp_ao(keys));
    }
    let connection = detail.connection.map(|c| format!("{} to {}", c.local, c.remote));
    line("Connection", or_none(connection));
    if let Some(set) = &detail.settings {
        line("Settings", settings(set));
    }
    if let Some(timers) = detail.configured_timers {
        let time =
            |seconds: Option<u64>| seconds.map_or_else(|| "by default".to_owned(), |s| format!("{s}s"));
        line(
            "Configured timers",
            format!(
                "hold {}s, keepalive {}, send hold {}, connect retry {}s",
                timers.hold_time,
                time(timers.keepalive_time),
                time(timers.send_hold_time),
                timers.connect_retry_time
            ),
        );
    }
    let left = detail.timer_expiries.iter().map(|(name, at)| format!("{name} {}", age(Some(now), *at)));
    line("Time left", super::tables::list(left, ", "));
    for (name, open) in [("OPEN sent", &detail.opens.sent), ("OPEN received", &detail.opens.received)] {
        line(name, open.as_ref().map_or_else(|| or_none(None::<u8>), said));
        for capability in open.iter().flat_map(|open| &open.capabilities) {
            let name = capability.name.clone().unwrap_or_else(|| format!("code {}", capability.code));
            line("", format!("{name} {}", capability.value).trim_end().to_owned());
        }
    }
    let messages = &detail.messages;
    line("Messages sent", counts(messages.sent));
    line("Messages received", counts(messages.received));
    line(
        "Malformed",
        format!(
            "{} UPDATEs taken for withdrawals, {} attributes discarded",
            messages.treated_as_withdraw, messages.attributes_discarded
        ),
    );
    line("Refused", format!("{} connections", messages.connections_refused));
    let notifications = &detail.notifications;
    line("Last NOTIFICATION", String::new());
    for (name, last) in [("  sent", &notifications.sent), ("  received", &notifications.received)] {
        line(name, or_none(last.as_ref().map(|last| notification(last, now))));
        if let Some(last) = last.as_ref().filter(|last| !last.data.is_empty()) {
            line("", format!("data {}", last.data));
        }
    }
    text
}

/// `filters from-tor, only-ours; next hop Self; numAllowedLocalASNumbers 1; asOverride; passive`: the next hop's is always there, the rest where it is
/// not what it is unless given.
fn settings(set: &SettingsJson) -> String {
    let mut words = Vec::new();
    if !set.filters.is_empty() {
        words.push(format!("filters {}", super::tables::list(&set.filters, ", ")));
    }
    words.push(format!(
        "next hop {}",
        match set.next_hop_mode {
            NextHopMode::Auto => "Auto",
            NextHopMode::Own => "Self",
            NextHopMode::Keep => "Keep",
        }
    ));
    words.extend(set.source_address.map(|address| format!("sourceAddress {address}")));
    if set.num_allowed_local_as_numbers > 0 {
        words.push(format!("numAllowedLocalASNumbers {}", set.num_allowed_local_as_numbers));
    }
    words.extend(set.add_path.map(add_path));
    if !set.blackhole_cidrs.is_empty() {
        let prefixes = set.blackhole_cidrs.iter().map(|cidr| cidr.net());
        words.push(format!("blackholeCIDRs {}", super::tables::list(prefixes, ", ")));
    }
    let switches = [
        ("ebgpMultihop", set.ebgp_multihop),
        ("allowASSets", set.allow_as_sets),
        ("asOverride", set.as_override),
        ("removePrivateAS", set.remove_private_as),
        ("roleStrict", set.role_strict),
        ("passive", set.passive),
    ];
    words.extend(switches.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.to_owned()));
    words.extend(set.shutdown.as_ref().map(|why| format!("shut down: {why}")));
    super::tables::list(words, "; ")
}

/// `addPath receive, send All, sendMax 8`.
fn add_path(AddPathSpec { receive, send, send_max }: AddPathSpec) -> String {
    let paths = |send| match send {
        AddPathSend::Multipath => "send Multipath".to_owned(),
        AddPathSend::All => "send All".to_owned(),
    };
    let words = receive.then(|| "receive".to_owned()).into_iter().chain(send.map(paths));
    let words = words.chain(send_max.map(|max| format!("sendMax {max}")));
    format!("addPath {}", super::tables::list(words, ", "))
}

/// `2/2, 1/1 (sent/received); signs with 2, asks for 2; 0 bad segments`.
fn tcp_ao(TcpAoJson { keys, sends_with, asks_for, bad_segments }: &TcpAoJson) -> String {
    let ids = keys.iter().map(|key| format!("{}/{}", key.send_id, key.receive_id));
    let mut text = format!("{} (sent/received)", super::tables::list(ids, ", "));
    if let (Some(sends), Some(asks), Some(bad)) = (sends_with, asks_for, bad_segments) {
        let _ = write!(text, "; signs with {sends}, asks for {asks}; {bad} bad segments");
    }
    text
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", age(Some(at), now))
}

fn said(open: &OpenJson) -> String {
    format!("AS {}, hold time {}s, identifier {}", open.asn, open.hold_time, open.identifier)
}

fn counts(counts: MessageCountsJson) -> String {
    let MessageCountsJson { open, update, notification, keepalive, route_refresh } = counts;
    format!(
        "{open} OPEN, {update} UPDATE, {notification} NOTIFICATION, {keepalive} KEEPALIVE, {route_refresh} ROUTE-REFRESH"
    )
}

fn notification(last: &NotificationJson, now: Timestamp) -> String {
    let said = [&last.text, &last.meaning].into_iter().flatten();
    let said: String = said.map(|text| format!(": {text}")).collect();
    format!("{}/{} {} {}{said}", last.code, last.subcode, ago(last.time, now), last.name)
}
