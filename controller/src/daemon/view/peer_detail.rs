//! One peer for whoever looks into it.

use std::time::Duration;

use weft_bgp::config::{self, AddPath, PathChoice, PeerConfig, Timers};
use weft_bgp::protection::ao::Key;
use weft_bgp::protection::{Authentication, Signature};
use weft_bgp::session::Timer;
use weft_bgp::status::{Dialogue, MessageCounters, PeerStatus, SaidNotification};
use weft_bgp::transport::AoInUse;
use weft_bgp::wire::capability::Capability;
use weft_bgp::wire::header::HEADER_LENGTH;
use weft_bgp::wire::open::Open;

use crate::api::peer_detail::{
    CapabilityJson, ConfiguredTimersJson, ConnectionJson, MessageCountsJson, MessagesJson, NotificationJson,
    NotificationsJson, OpenJson, OpensJson, PeerDetailJson, SettingsJson, TcpAoJson, TcpAoKeyJson,
};
use crate::api::{AddPathSend, AddPathSpec, BGPPeerSpec, NextHopMode};
use crate::daemon::clock::Moment;
use crate::daemon::events::hexadecimal;

/// What is known of a peer beyond how it is.
pub(super) fn detail(
    status: &PeerStatus,
    spec: Option<&BGPPeerSpec>,
    ao_keys: Option<&AoInUse>,
    now: &Moment,
) -> PeerDetailJson {
    let said = &status.said;
    let dialogue = said.dialogue.as_ref();
    let notified = |last: &Option<SaidNotification>| last.as_ref().map(|last| notification(last, now));
    PeerDetailJson {
        last_established: status.established_at.map(|at| now.timestamp_of(at)),
        flaps: status.counters.flaps,
        connection: dialogue.map(|&Dialogue { local, remote, .. }| ConnectionJson { local, remote }),
        opens: OpensJson {
            sent: dialogue.and_then(|dialogue| open(&dialogue.open_sent)),
            received: dialogue.and_then(|dialogue| open(&dialogue.open_received)),
        },
        settings: Some(settings(&status.config, spec)),
        configured_timers: Some(configured(&status.config.timers)),
        timer_expiries: status
            .timers
            .iter()
            .map(|(timer, at)| (name(*timer).to_owned(), now.timestamp_of(*at)))
            .collect(),
        tcp_ao: tcp_ao(&status.config.authentication, ao_keys),
        messages: messages(&status.counters),
        notifications: NotificationsJson {
            sent: notified(&said.notification_sent),
            received: notified(&said.notification_received),
        },
    }
}

fn tcp_ao(authentication: &Authentication, in_use: Option<&AoInUse>) -> Option<TcpAoJson> {
    let Some(Signature::Ao(keys)) = authentication.signature() else { return None };
    let key = |key: &Key| TcpAoKeyJson { send_id: key.send_id, receive_id: key.receive_id };
    Some(TcpAoJson {
        keys: keys.iter().map(key).collect(),
        sends_with: in_use.map(|in_use| in_use.current),
        asks_for: in_use.map(|in_use| in_use.rnext),
        bad_segments: in_use.map(|in_use| in_use.bad),
    })
}

/// An OPEN as it went over the wire; none: there was none, or one that cannot be read.
fn open(message: &[u8]) -> Option<OpenJson> {
    let open = Open::decode(message.get(HEADER_LENGTH..)?).ok()?;
    let capability = |capability: &Capability| CapabilityJson {
        code: capability.code(),
        name: capability.name().map(str::to_owned),
        value: capability.value(),
    };
    Some(OpenJson {
        asn: open.asn().0,
        hold_time: open.hold_time,
        identifier: open.bgp_identifier,
        capabilities: open.capabilities.iter().map(capability).collect(),
    })
}

fn settings(config: &PeerConfig, spec: Option<&BGPPeerSpec>) -> SettingsJson {
    SettingsJson {
        filters: spec.map(|spec| spec.filters.clone()).unwrap_or_default(),
        next_hop_mode: match config.next_hop_mode {
            config::NextHopMode::Auto => NextHopMode::Auto,
            config::NextHopMode::Own => NextHopMode::Own,
            config::NextHopMode::Keep => NextHopMode::Keep,
        },
        source_address: config.source_address,
        // Sessions between nodes have it unasked.
        ebgp_multihop: spec.is_some_and(|spec| spec.ebgp_multihop),
        num_allowed_local_as_numbers: config.allowed_own_as,
        allow_as_sets: config.allow_as_sets,
        as_override: config.as_override,
        remove_private_as: config.remove_private_as,
        role_strict: config.role_strict,
        add_path: add_path(config.add_path),
        blackhole_cidrs: spec.map(|spec| spec.blackhole_cidrs.clone()).unwrap_or_default(),
        passive: config.passive,
        shutdown: config.shutdown.clone(),
    }
}

fn add_path(offered: AddPath) -> Option<AddPathSpec> {
    let send = offered.send.map(|send| match send.paths {
        PathChoice::Multipath => AddPathSend::Multipath,
        PathChoice::All => AddPathSend::All,
    });
    let send_max = offered.send.map(|send| send.limit);
    (offered.receive || send.is_some()).then_some(AddPathSpec { receive: offered.receive, send, send_max })
}

fn configured(timers: &Timers) -> ConfiguredTimersJson {
    ConfiguredTimersJson {
        hold_time: timers.hold_time.as_secs(),
        keepalive_time: timers.keepalive_time.as_ref().map(Duration::as_secs),
        send_hold_time: timers.send_hold_time.as_ref().map(Duration::as_secs),
        connect_retry_time: timers.connect_retry.as_secs(),
    }
}

fn name(timer: Timer) -> &'static str {
    match timer {
        Timer::ConnectRetry => "connect-retry",
        Timer::Hold => "hold",
        Timer::Keepalive => "keepalive",
        Timer::DelayOpen => "delay-open",
        Timer::IdleHold => "idle-hold",
    }
}

fn messages(counters: &MessageCounters) -> MessagesJson {
    let counts = |[open, update, notification, keepalive, route_refresh]: [u64; 5]| MessageCountsJson {
        open,
        update,
        notification,
        keepalive,
        route_refresh,
    };
    MessagesJson {
        sent: counts(counters.sent),
        received: counts(counters.received),
        treated_as_withdraw: counters.treated_as_withdraw,
        attributes_discarded: counters.attributes_discarded,
        connections_refused: counters.connections_refused,
    }
}

fn notification(last: &SaidNotification, now: &Moment) -> NotificationJson {
    let notification = &last.notification;
    NotificationJson {
        time: now.timestamp_of(last.at),
        code: notification.code.code,
        subcode: notification.code.subcode,
        name: notification.code.to_string(),
        text: notification.text(),
        meaning: notification.data_in_words(),
        data: hexadecimal(&notification.data).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use weft_bgp::types::Asn;
    use weft_bgp::wire::Message;
    use weft_bgp::wire::error::ErrorCode;
    use weft_bgp::wire::notification::Notification;

    use super::*;

    #[test]
    fn an_open_is_told_as_it_went_over_the_wire() {
        let said = Open {
            my_as: Asn::TRANS.two_octets(),
            hold_time: 30,
            bgp_identifier: [10, 0, 0, 1].into(),
            capabilities: vec![Capability::FourOctetAs(Asn(4_200_000_001)), Capability::RouteRefresh],
        };
        let json = serde_json::to_value(open(&Message::Open(said).encode())).unwrap();
        let told = serde_json::json!({
            "as": 4_200_000_001_u32, "holdTime": 30, "identifier": "10.0.0.1",
            "capabilities": [
                {"code": 65, "name": "four-octet-as", "value": "4200000001"},
                {"code": 2, "name": "route-refresh", "value": ""},
            ],
        });
        assert_eq!(json, told);
        assert_eq!((open(&[]), open(&[255; 25])), (None, None));
    }

    #[test]
    fn a_notification_is_told_with_its_bytes_and_what_they_say() {
        let now = Moment::now();
        let told = |notification| notification_json(notification, &now);
        let shutdown = Notification::cease(ErrorCode::ADMINISTRATIVE_SHUTDOWN.subcode, "bye");
        let json = told(shutdown.clone());
        assert_eq!((json.code, json.subcode, json.name.as_str()), (6, 2, "Cease/Administrative Shutdown"));
        assert_eq!((json.text.as_deref(), json.meaning, json.data.as_str()), (Some("bye"), None, "03627965"));
        let json = told(shutdown.into_hard_reset());
        assert_eq!(json.meaning.as_deref(), Some("Cease/Administrative Shutdown: bye"));
        assert_eq!((json.text, json.data.as_str()), (None, "060203627965"));
    }

    fn notification_json(notification: Notification, now: &Moment) -> NotificationJson {
        super::notification(&SaidNotification { at: now.instant, notification }, now)
    }
}
